//! Signals by number, as `kill -l` names them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A signal number that Linux knows: 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Signal(u8);

/// Why a text or number is not a signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("signal {given:?}: neither a number from 1 to 64 nor a name like TERM or SIGTERM")]
pub struct SignalError {
    /// What was given.
    pub given: String,
}

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

impl Signal {
    /// Ends a process at once; cannot be caught.
    pub const KILL: Self = Self(9);
    /// Asks a process to end.
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

impl FromStr for Signal {
    type Err = SignalError;
    fn from_str(text: &str) -> Result<Self, SignalError> {
        if let Ok(number) = text.parse::<u8>() {
            return Self::new(number);
        }
        let upper = text.to_ascii_uppercase();
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        let known = NAMES.iter().find(|(name, _)| *name == bare);
        known.map(|&(_, number)| Self(number)).ok_or_else(|| SignalError { given: text.to_owned() })
    }
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
        match NAMES.iter().find(|&&(_, number)| number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_mean_the_same() {
        for text in ["15", "TERM", "SIGTERM", "sigterm"] {
            assert_eq!(text.parse::<Signal>().expect(text), Signal::TERM);
        }
        assert_eq!(Signal::KILL.to_string(), "SIGKILL");
        assert_eq!(Signal::new(34).expect("real-time").to_string(), "34");
    }

    #[test]
    fn zero_and_nonsense_are_refused() {
        for bad in ["0", "65", "", "SIG", "FOO", "-1"] {
            assert!(bad.parse::<Signal>().is_err(), "{bad:?} was accepted");
        }
    }
}
