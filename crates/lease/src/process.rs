//! Which process it is, for certain: pid and start time within one boot; and the pidfd that follows from them.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::sys;

const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// The position of the start time in `/proc/<pid>/stat`, counted from the state that follows the command's name.
const START_TIME_FIELD: usize = 19;

/// A search for a process that failed.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The boot id could not be read.
    #[error("read the boot id from {BOOT_ID_PATH}")]
    BootId {
        /// Why.
        source: io::Error,
    },
    /// `/proc/<pid>/stat` could not be read.
    #[error("read the status of process {pid}")]
    ReadStat {
        /// The process.
        pid: i32,
        /// Why.
        source: io::Error,
    },
    /// `/proc/<pid>/stat` has no start time where it should be.
    #[error("find the start time in the status of process {pid}")]
    ParseStat {
        /// The process.
        pid: i32,
    },
    /// No pidfd could be opened.
    #[error("open a pidfd of process {pid}")]
    Open {
        /// The process.
        pid: i32,
        /// Why.
        source: io::Error,
    },
    /// The signal could not be sent.
    #[error("send signal {signal} by pidfd")]
    Signal {
        /// Its number.
        signal: i32,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not say how it ended.
    #[error("ask how a process ended by pidfd")]
    Exit {
        /// Why.
        source: io::Error,
    },
    /// Waiting on the pidfd failed.
    #[error("wait for the end of a process by pidfd")]
    Wait {
        /// Why.
        source: io::Error,
    },
}

impl ProcessError {
    /// Says what to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::BootId { .. } | Self::ReadStat { .. } | Self::ParseStat { .. } => {
                "/proc must be mounted and readable"
            }
            Self::Open { .. } => "the kernel must be 5.3 or newer, and a descriptor must be free (ulimit -n)",
            Self::Signal { .. } => "run as root or as the owner of that process",
            Self::Wait { .. } | Self::Exit { .. } => "repeat; the process itself is not affected",
        }
    }
}

/// The kernel's random id of this boot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(String);

impl BootId {
    /// Reads the id of the boot we live in.
    ///
    /// # Errors
    /// [`ProcessError::BootId`] without a usable `/proc`.
    pub fn current() -> Result<Self, ProcessError> {
        let text = std::fs::read_to_string(BOOT_ID_PATH).map_err(|source| ProcessError::BootId { source })?;
        Ok(Self(text.trim().to_owned()))
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One process of this boot and no other: a pid comes again, a pid with its start time does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The pid, as the reader's pid namespace has it.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
}

impl ProcessIdentity {
    /// Looks up the process that has this pid now; `None` when there is none.
    ///
    /// # Errors
    /// [`ProcessError::ReadStat`] or [`ProcessError::ParseStat`].
    pub fn of(pid: i32) -> Result<Option<Self>, ProcessError> {
        if pid <= 0 {
            return Ok(None);
        }
        let stat = match std::fs::read(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => {
                return Ok(None);
            }
            Err(source) => return Err(ProcessError::ReadStat { pid, source }),
        };
        let start_ticks = start_ticks(&stat).ok_or(ProcessError::ParseStat { pid })?;
        Ok(Some(Self { pid, start_ticks }))
    }

    /// Looks up ourselves.
    ///
    /// # Errors
    /// [`ProcessError::ReadStat`] or [`ProcessError::ParseStat`].
    pub fn of_self() -> Result<Self, ProcessError> {
        let pid = nix::unistd::getpid().as_raw();
        Self::of(pid)?.ok_or_else(|| ProcessError::ReadStat { pid, source: io::ErrorKind::NotFound.into() })
    }
}

/// Finds the start time. The command's name stands in parentheses and may itself hold any, so the last one counts.
fn start_ticks(stat: &[u8]) -> Option<u64> {
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end_of_name + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(START_TIME_FIELD)?.parse().ok()
}

/// Opens a pidfd of exactly this process; `None` when it is gone, also when its pid has a new owner.
///
/// The identity must be of this boot: [`Lease::pidfd`](crate::Lease::pidfd) checks that too. The descriptor may be of a process that
/// has ended but was not yet reaped; [`wait_dead`] tells.
///
/// # Errors
/// [`ProcessError`] when it cannot be known.
pub fn pidfd(identity: &ProcessIdentity) -> Result<Option<OwnedFd>, ProcessError> {
    let pid = identity.pid;
    if pid <= 0 {
        return Ok(None);
    }
    let fd = match contd_descriptors::pidfd::open(pid) {
        Ok(fd) => fd,
        // EINVAL: the number is a thread now, not a process.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)) => return Ok(None),
        Err(source) => return Err(ProcessError::Open { pid, source }),
    };
    // Looked up after the descriptor pins the process: if both are the same now, they stay the same.
    Ok((ProcessIdentity::of(pid)? == Some(*identity)).then_some(fd))
}

/// Sends a signal; `false` when the process has already ended. Signal 0 only asks.
///
/// # Errors
/// [`ProcessError::Signal`] when it may not or cannot be sent.
pub fn signal(pidfd: impl AsFd, signal: i32) -> Result<bool, ProcessError> {
    match contd_descriptors::pidfd::send_signal(pidfd, signal) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        Err(source) => Err(ProcessError::Signal { signal, source }),
    }
}

/// How a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessExit {
    /// It returned this code.
    Code(u8),
    /// This signal ended it.
    Signal(i32),
}

impl ProcessExit {
    /// Reads a status of `waitpid(2)`.
    pub fn from_wait_status(status: i32) -> Self {
        match status & 0x7f {
            // The low byte of the code, as `exit(2)` keeps it.
            0 => Self::Code(u8::try_from((status >> 8) & 0xff).unwrap_or(u8::MAX)),
            signal => Self::Signal(signal),
        }
    }

    /// Returns the status as `waitpid(2)` has it.
    pub fn wait_status(self) -> i32 {
        match self {
            Self::Code(code) => i32::from(code) << 8,
            Self::Signal(signal) => signal,
        }
    }
}

/// The kernel's report on an exit to a process that is not the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitInfo {
    /// It was reaped, and ended so.
    Known(ProcessExit),
    /// It lives, or its parent has not reaped it yet.
    NotYet,
    /// This kernel tells only the parent (before Linux 6.15).
    Unsupported,
}

/// `PIDFD_INFO_EXIT` of linux/pidfd.h.
const INFO_EXIT: u64 = 1 << 3;

/// Asks how the process behind the pidfd has ended, which the kernel keeps for as long as the descriptor is open.
///
/// # Errors
/// [`ProcessError::Exit`] when the kernel refuses to say.
pub fn exit_info(pidfd: impl AsFd) -> Result<ExitInfo, ProcessError> {
    let mut info = sys::PidfdInfo { mask: INFO_EXIT, ..sys::PidfdInfo::default() };
    match sys::pidfd_get_info(pidfd.as_fd(), &mut info) {
        Ok(()) if info.mask & INFO_EXIT != 0 => {}
        // Not reaped yet: there is no exit to tell, or, for one that is just going, nothing else either.
        Ok(()) => return Ok(ExitInfo::NotYet),
        Err(error) => match error.raw_os_error() {
            Some(libc::ESRCH) => return Ok(ExitInfo::NotYet),
            Some(libc::ENOTTY | libc::EINVAL) => return Ok(ExitInfo::Unsupported),
            _ => return Err(ProcessError::Exit { source: error }),
        },
    }
    Ok(ExitInfo::Known(ProcessExit::from_wait_status(info.exit_code)))
}

/// Waits until the process has ended (it may still be a zombie), at most so long; returns whether it has.
///
/// # Errors
/// [`ProcessError::Wait`] when the kernel refuses to wait.
#[expect(clippy::disallowed_methods, reason = "a synchronous wait on the kernel, from a program without a runtime")]
pub fn wait_dead(pidfd: impl AsFd, timeout: Duration) -> Result<bool, ProcessError> {
    let begun = Instant::now();
    loop {
        // Rounded up, so that the wait is never shorter than asked for.
        let left = timeout.saturating_sub(begun.elapsed()).as_nanos().div_ceil(1_000_000);
        let wait = PollTimeout::from(u16::try_from(left).unwrap_or(u16::MAX));
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, wait) {
            Ok(0) if begun.elapsed() >= timeout => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(ProcessError::Wait { source: errno.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    const LONG: Duration = Duration::from_secs(10);

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").spawn().expect("sleep is installed")
    }

    fn identity(child: &Child) -> ProcessIdentity {
        let pid = i32::try_from(child.id()).expect("a pid");
        ProcessIdentity::of(pid).expect("readable").expect("alive")
    }

    #[test]
    fn the_start_time_is_found_behind_any_command_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21";
        for name in ["sh", "a b", "a) S 1 2", "(((", ")))", "\u{fffd}"] {
            let stat = format!("12 ({name}) {tail}");
            assert_eq!(start_ticks(stat.as_bytes()), Some(4242), "{name:?}");
        }
        let mut raw = b"12 (\xff\xfe) ".to_vec();
        raw.extend_from_slice(tail.as_bytes());
        assert_eq!(start_ticks(&raw), Some(4242));
        for bad in ["", "12", "12 (sh)", "12 (sh) S 1 2 3", "12 (sh) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x"]
        {
            assert_eq!(start_ticks(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_process_is_found_signalled_and_seen_to_end() {
        let mut child = sleeper();
        let who = identity(&child);
        let fd = pidfd(&who).expect("pidfd").expect("alive");
        assert!(!wait_dead(&fd, Duration::ZERO).expect("wait"));
        assert!(signal(&fd, libc::SIGKILL).expect("signal"));
        assert!(wait_dead(&fd, LONG).expect("wait"), "not dead after {LONG:?}");
        child.wait().expect("reap");
        assert!(!signal(&fd, libc::SIGKILL).expect("signal"), "a signal to a reaped process is no error");
        assert!(pidfd(&who).expect("pidfd").is_none());
        assert_eq!(ProcessIdentity::of(who.pid).expect("look up"), None);
    }

    #[test]
    fn the_true_exit_is_told_to_whoever_holds_the_pidfd_after_the_parent_has_reaped() {
        for (script, expected) in [("exit 23", ProcessExit::Code(23)), ("kill -9 $$", ProcessExit::Signal(9))] {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("read go; {script}")]).stdin(std::process::Stdio::piped());
            let mut child = command.spawn().expect("sh is installed");
            let fd = pidfd(&identity(&child)).expect("pidfd").expect("alive");
            assert_eq!(exit_info(&fd).expect("asked"), ExitInfo::NotYet, "it lives");
            drop(child.stdin.take());
            assert!(wait_dead(&fd, LONG).expect("wait"));
            assert_eq!(exit_info(&fd).expect("asked"), ExitInfo::NotYet, "it is not reaped");
            child.wait().expect("reap");
            assert_eq!(exit_info(&fd).expect("asked"), ExitInfo::Known(expected));
        }
    }

    #[test]
    fn a_pid_with_another_start_time_is_another_process() {
        let mut child = sleeper();
        let who = identity(&child);
        let former = ProcessIdentity { start_ticks: who.start_ticks - 1, ..who };
        assert!(pidfd(&former).expect("pidfd").is_none());
        signal(pidfd(&who).expect("pidfd").expect("alive"), libc::SIGKILL).expect("signal");
        child.wait().expect("reap");
    }

    #[test]
    fn pids_that_no_process_can_have_are_nobody() {
        for pid in [0, -1, i32::MIN, i32::MAX] {
            assert_eq!(ProcessIdentity::of(pid).expect("look up"), None, "{pid}");
            assert!(pidfd(&ProcessIdentity { pid, start_ticks: 1 }).expect("pidfd").is_none(), "{pid}");
        }
    }

    #[test]
    fn we_know_ourselves_and_our_boot() {
        let me = ProcessIdentity::of_self().expect("look up");
        assert!(pidfd(&me).expect("pidfd").is_some());
        let boot = BootId::current().expect("boot id");
        assert_eq!(boot.as_str().len(), 36, "{boot}");
    }
}
