//! Signals by number, with the names of `kill -l`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A signal number that Linux knows: 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Signal(u8);

/// A text or number is not a signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("signal {given:?}: neither a number from 1 to 64 nor a name like TERM, SIGTERM, RTMIN+3 or RTMAX-1")]
pub struct SignalError {
    /// The given text or number.
    pub given: String,
}

/// The first real-time signal for programs: glibc and musl reserve the two before it.
const FIRST_REAL_TIME: u8 = 34;
const LAST_REAL_TIME: u8 = 64;
/// The last real-time signal that `kill -l` names after the first one; later ones are named after the last.
const LAST_AFTER_FIRST: u8 = 49;

/// Names and numbers of the x86-64 and arm64 Linux ABI (signal(7)).
const NAMES: [(&str, u8); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// Alternative names.
const ALIASES: [(&str, u8); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];

impl Signal {
    /// SIGKILL: ends a process at once; cannot be caught.
    pub const KILL: Self = Self(9);
    /// SIGTERM: asks a process to end.
    pub const TERM: Self = Self(15);

    /// Makes a signal from its number.
    ///
    /// # Errors
    /// [`SignalError`] outside 1 to 64.
    pub fn new(number: u8) -> Result<Self, SignalError> {
        if (1..=64).contains(&number) { Ok(Self(number)) } else { Err(SignalError { given: number.to_string() }) }
    }

    /// Returns the number.
    pub fn number(self) -> i32 {
        i32::from(self.0)
    }
}

/// Parses numbers, and names with or without `SIG` in either case, as docker, podman and kill(1) do.
impl FromStr for Signal {
    type Err = SignalError;
    fn from_str(text: &str) -> Result<Self, SignalError> {
        if let Some(number) = digits(text) {
            return Self::new(number);
        }
        let upper = text.to_ascii_uppercase();
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        let known = NAMES.iter().chain(&ALIASES).find(|(name, _)| *name == bare).map(|&(_, number)| number);
        known.or_else(|| real_time(bare)).map(Self).ok_or_else(|| SignalError { given: text.to_owned() })
    }
}

/// Parses `RTMIN`, `RTMIN+n`, `RTMAX` and `RTMAX-n`.
fn real_time(bare: &str) -> Option<u8> {
    if let Some(above) = bare.strip_prefix("RTMIN") {
        let above = if above.is_empty() { 0 } else { digits(above.strip_prefix('+')?)? };
        return FIRST_REAL_TIME.checked_add(above).filter(|number| *number <= LAST_REAL_TIME);
    }
    let below = bare.strip_prefix("RTMAX")?;
    let below = if below.is_empty() { 0 } else { digits(below.strip_prefix('-')?)? };
    LAST_REAL_TIME.checked_sub(below).filter(|number| *number >= FIRST_REAL_TIME)
}

/// Parses a number that consists of digits only.
fn digits(text: &str) -> Option<u8> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

impl TryFrom<u8> for Signal {
    type Error = SignalError;
    fn try_from(number: u8) -> Result<Self, SignalError> {
        Self::new(number)
    }
}

impl From<Signal> for u8 {
    fn from(signal: Signal) -> u8 {
        signal.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (NAMES.iter().find(|&&(_, number)| number == self.0), self.0) {
            (Some((name, _)), _) => write!(f, "SIG{name}"),
            (None, FIRST_REAL_TIME) => f.write_str("SIGRTMIN"),
            (None, LAST_REAL_TIME) => f.write_str("SIGRTMAX"),
            (None, number) if number < FIRST_REAL_TIME => write!(f, "{number}"),
            (None, number) if number <= LAST_AFTER_FIRST => write!(f, "SIGRTMIN+{}", number - FIRST_REAL_TIME),
            (None, number) => write!(f, "SIGRTMAX-{}", LAST_REAL_TIME.saturating_sub(number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_signal_means_the_same() {
        for (number, texts) in [
            (15, &["15", "TERM", "SIGTERM", "sigterm", "term", "SigTerm", "015"][..]),
            (34, &["34", "RTMIN", "SIGRTMIN", "rtmin+0", "RTMAX-30"]),
            (37, &["37", "RTMIN+3", "SIGRTMIN+3", "sigrtmin+3", "RTMAX-27", "SIGRTMAX-27"]),
            (63, &["63", "SIGRTMAX-1", "rtmax-1", "RTMIN+29"]),
            (64, &["64", "RTMAX", "SIGRTMAX", "RTMIN+30"]),
            (6, &["ABRT", "IOT", "SIGIOT"]),
            (17, &["CHLD", "CLD"]),
            (29, &["IO", "POLL"]),
            (31, &["SYS", "UNUSED"]),
            (32, &["32"]),
        ] {
            for text in texts {
                assert_eq!(text.parse::<Signal>().map(u8::from), Ok(number), "{text}");
            }
        }
    }

    #[test]
    fn what_is_shown_is_understood_again() {
        for number in 1..=64 {
            let signal = Signal::new(number).expect("in range");
            assert_eq!(signal.to_string().parse(), Ok(signal), "{signal}");
        }
        let shown = |number| Signal::new(number).expect("in range").to_string();
        assert_eq!(
            [9, 34, 37, 49, 50, 63, 64].map(shown),
            ["SIGKILL", "SIGRTMIN", "SIGRTMIN+3", "SIGRTMIN+15", "SIGRTMAX-14", "SIGRTMAX-1", "SIGRTMAX"]
        );
        assert_eq!(shown(32), "32");
    }

    #[test]
    fn zero_and_nonsense_are_refused() {
        for bad in [
            "0",
            "65",
            "256",
            "",
            "SIG",
            "FOO",
            "-1",
            "+15",
            "15 ",
            "RTMIN+",
            "RTMIN-1",
            "RTMIN+31",
            "RTMIN+255",
            "RTMIN+ 3",
            "RTMINx",
            "RTMIN++3",
            "RTMAX+1",
            "RTMAX-31",
            "RTMAX-",
            "SIGSIGTERM",
            "SIG15",
        ] {
            assert!(bad.parse::<Signal>().is_err(), "{bad:?} was accepted");
        }
    }
}
