//! How a container ended, and how that is known. No exit is ever invented.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::signal::Signal;
use crate::time::Timestamp;

/// The end of a container's init process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Code, signal, or the reason why neither is known.
    pub cause: ExitCause,
    /// The time when the end was noticed.
    pub at: Timestamp,
    /// How many processes of the container the kernel's OOM killer ended, read after the exit.
    pub oom_kills: u64,
    /// How the cause is known.
    pub source: ExitSource,
    /// Whether both output pipes were read to their end before the exit was announced.
    pub is_drained: bool,
}

/// The cause of a process's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitCause {
    /// The process returned this code.
    Code(u8),
    /// This signal ended it.
    Signal(Signal),
    /// The node restarted while the process ran.
    Reboot,
    /// The process has ended, but the cause was lost; the text says why.
    Unknown(String),
}

impl ExitCause {
    /// Takes the number of a signal as the kernel reports it, by this source; one that is no signal's is told.
    pub fn from_signal(number: i32, source: ExitSource) -> (Self, ExitSource) {
        match u8::try_from(number).ok().and_then(|number| Signal::new(number).ok()) {
            Some(signal) => (Self::Signal(signal), source),
            None => (Self::Unknown(format!("the kernel reports signal {number}")), ExitSource::Unknown),
        }
    }
}

/// How an [`ExitCause`] is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitSource {
    /// The parent (the shim) reaped it.
    Reaped,
    /// The kernel told a holder of the pidfd (`PIDFD_GET_INFO`).
    Pidfd,
    /// The boot id changed.
    BootId,
    /// The cause is not known.
    Unknown,
}

/// The exit code of an unknown cause, as in CRI.
pub const UNKNOWN_EXIT_CODE: u8 = 255;

impl Exit {
    /// Returns the code a shell would show: the process's own, 128 + signal, or [`UNKNOWN_EXIT_CODE`].
    pub fn shell_code(&self) -> u8 {
        match &self.cause {
            ExitCause::Code(code) => *code,
            ExitCause::Signal(signal) => u8::from(*signal).saturating_add(128),
            ExitCause::Reboot | ExitCause::Unknown(_) => UNKNOWN_EXIT_CODE,
        }
    }

    /// Tells whether the container ended with code 0.
    pub fn is_success(&self) -> bool {
        self.cause == ExitCause::Code(0)
    }

    /// Tells whether output is missing although the end was seen: the log accepted no more, or another process held the
    /// pipes open when the time for reading them was over.
    pub fn has_lost_output(&self) -> bool {
        !self.is_drained && matches!(self.cause, ExitCause::Code(_) | ExitCause::Signal(_))
    }

    /// Makes the exit of a container that ran when the node went down.
    pub fn by_reboot(at: Timestamp) -> Self {
        Self { cause: ExitCause::Reboot, at, oom_kills: 0, source: ExitSource::BootId, is_drained: false }
    }

    /// Makes an exit of unknown cause, with the reason.
    pub fn unknown(reason: impl Into<String>, at: Timestamp) -> Self {
        let cause = ExitCause::Unknown(reason.into());
        Self { cause, at, oom_kills: 0, source: ExitSource::Unknown, is_drained: false }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            ExitCause::Code(code) => write!(f, "code {code}")?,
            ExitCause::Signal(signal) => write!(f, "signal {signal}")?,
            ExitCause::Reboot => f.write_str("ended by a reboot")?,
            ExitCause::Unknown(reason) => write!(f, "unknown: {reason}")?,
        }
        if self.oom_kills > 0 { write!(f, ", {} killed for lack of memory", self.oom_kills) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(cause: ExitCause) -> Exit {
        Exit { cause, at: Timestamp(0), oom_kills: 0, source: ExitSource::Reaped, is_drained: true }
    }

    #[test]
    fn the_shell_code_follows_the_convention_of_shells() {
        assert_eq!(exit(ExitCause::Code(42)).shell_code(), 42);
        assert_eq!(exit(ExitCause::Signal(Signal::KILL)).shell_code(), 137);
        assert_eq!(Exit::unknown("shim lost", Timestamp(0)).shell_code(), 255);
    }

    #[test]
    fn output_is_lost_when_the_end_was_seen_and_its_output_not() {
        let lost = Exit { is_drained: false, ..exit(ExitCause::Code(0)) };
        assert!(lost.has_lost_output() && !exit(ExitCause::Code(0)).has_lost_output());
        // The end was not seen, so it is not known whether output is missing.
        assert!(!Exit::by_reboot(Timestamp(0)).has_lost_output());
        assert!(!Exit::unknown("shim lost", Timestamp(0)).has_lost_output());
    }

    #[test]
    fn only_code_zero_is_a_success() {
        assert!(exit(ExitCause::Code(0)).is_success());
        assert!(!exit(ExitCause::Code(1)).is_success());
        assert!(!Exit::by_reboot(Timestamp(0)).is_success());
    }
}
