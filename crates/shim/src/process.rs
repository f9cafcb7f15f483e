//! A process of the container that is ours to tell the end of: its init, or one that was executed in it. Known by its pidfd only.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use contd_lease::{ExitInfo, ProcessError, ProcessExit, ProcessIdentity};
use contd_types::{ExitCause, ExitSource, Pid, Signal};
use nix::poll::PollFlags;

use crate::holder;
use crate::reaper;
use crate::sys;

/// How long the process that inherits a dead predecessor's children may take to reap one: init does so at once.
const REAPED_WITHIN: Duration = Duration::from_secs(2);

/// How long until the next look at one that is dead and not reaped: the holder needs a moment to note its end.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The pid in `/proc/self/fdinfo` of a process that was reaped.
const REAPED: i32 = -1;

/// Why a process could not be taken on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessLost {
    /// No pidfd.
    #[error("open a pidfd of process {pid}")]
    Open {
        /// The pid that was told.
        pid: i32,
        /// Why.
        source: io::Error,
    },
    /// The one that a predecessor wrote down cannot be looked for.
    #[error("look for process {pid}")]
    Find {
        /// The pid that was written down.
        pid: i32,
        /// Why.
        source: ProcessError,
    },
    /// It is somebody else's.
    #[error("take on process {pid}: it is not our child")]
    NotOurs {
        /// The pid that was told.
        pid: i32,
    },
}

/// How a process has ended, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// For certain.
    Known(ProcessExit, ExitSource),
    /// It has, but nobody says how.
    Unknown(String),
}

impl End {
    /// Returns the same in the words of an exit.
    pub(crate) fn cause(&self) -> (ExitCause, ExitSource) {
        match self {
            Self::Known(ProcessExit::Code(code), source) => (ExitCause::Code(*code), *source),
            Self::Known(ProcessExit::Signal(number), source) => ExitCause::from_signal(*number, *source),
            Self::Unknown(reason) => (ExitCause::Unknown(reason.clone()), ExitSource::Unknown),
        }
    }
}

/// A process, alive or not yet reaped.
#[derive(Debug)]
pub(crate) struct Process {
    identity: ProcessIdentity,
    pidfd: OwnedFd,
    tie: Tie,
}

/// Its relation to us.
#[derive(Debug)]
enum Tie {
    /// Our child: its status is ours to take.
    Child,
    /// The child of a predecessor that died: another process reaps it, and the kernel or the holder tells us how it ended.
    Adopted {
        /// The run directory of the node, in which the holder notes ends.
        run_dir: PathBuf,
        /// Set while it is dead and not known how it ended.
        dead: Option<Dead>,
    },
}

/// The wait for somebody to tell how a process has ended.
#[derive(Debug, Clone, Copy)]
struct Dead {
    since: Instant,
    /// When to look again.
    next_look: Instant,
}

impl Process {
    /// Takes on the process with this pid, which must be our child: until we reap it, its pid is certainly its own.
    pub(crate) fn adopt(pid: i32) -> Result<Self, ProcessLost> {
        let (identity, pidfd) = reaper::pidfd_of(pid).map_err(|source| ProcessLost::Open { pid, source })?;
        if !sys::is_child(pidfd.as_fd()).map_err(|source| ProcessLost::Open { pid, source })? {
            return Err(ProcessLost::NotOurs { pid });
        }
        Ok(Self { identity, pidfd, tie: Tie::Child })
    }

    /// Takes on what a predecessor has written down, by the pidfd that somebody has kept or else by its pid and start
    /// time; `None` when nobody can know any more what became of it, unless the holder has noted it.
    pub(crate) fn take_over(
        identity: ProcessIdentity,
        kept: Option<OwnedFd>,
        run_dir: &Path,
    ) -> Result<Option<Self>, ProcessLost> {
        let pid = identity.pid;
        let open = || contd_lease::pidfd(&identity).map_err(|source| ProcessLost::Find { pid, source });
        let Some(pidfd) = (match kept.filter(|fd| is_of(fd, pid)) {
            Some(kept) => Some(kept),
            None => open()?,
        }) else {
            return Ok(None);
        };
        let is_child = sys::is_child(pidfd.as_fd()).map_err(|source| ProcessLost::Open { pid, source })?;
        let adopted = || Tie::Adopted { run_dir: run_dir.to_owned(), dead: None };
        let tie = if is_child { Tie::Child } else { adopted() };
        Ok(Some(Self { identity, pidfd, tie }))
    }

    /// Returns its pid.
    pub(crate) fn pid(&self) -> Pid {
        Pid(self.identity.pid)
    }

    /// Returns its pidfd.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Tells which process it is.
    pub(crate) fn identity(&self) -> ProcessIdentity {
        self.identity
    }

    /// Returns the descriptor to wait on for its end, and for what: one that is dead and not reaped is readable all the
    /// time.
    pub(crate) fn fd(&self) -> (BorrowedFd<'_>, PollFlags) {
        let flags = match self.tie {
            Tie::Adopted { dead: Some(_), .. } => PollFlags::empty(),
            Tie::Child | Tie::Adopted { dead: None, .. } => PollFlags::POLLIN,
        };
        (self.pidfd.as_fd(), flags)
    }

    /// Returns when [`Self::end`] is due even if nothing becomes ready.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.tie {
            Tie::Adopted { dead, .. } => dead.map(|dead| dead.next_look),
            Tie::Child => None,
        }
    }

    /// Tells how it has ended; `None` while it lives, or as long as that may still become known.
    pub(crate) fn end(&mut self, now: Instant) -> io::Result<Option<End>> {
        let Tie::Adopted { run_dir, dead } = &mut self.tie else {
            let status = sys::reap(self.pidfd.as_fd())?;
            return Ok(status.map(|status| End::Known(status, ExitSource::Reaped)));
        };
        let noted = || holder::noted(run_dir, &self.identity).map(|status| End::Known(status, ExitSource::Reaped));
        if let Some(end) = noted() {
            return Ok(Some(end));
        }
        let unknown = |why: &str| Ok(Some(End::Unknown(why.to_owned())));
        let info = contd_lease::exit_info(&self.pidfd).map_err(io::Error::other)?;
        if !matches!(info, ExitInfo::Known(_))
            && contd_lease::wait_dead(&self.pidfd, Duration::ZERO).map_err(io::Error::other)?
            && let Some(status) = status_of_unreaped(&self.identity)
        {
            return Ok(Some(End::Known(status, ExitSource::Pidfd)));
        }
        match info {
            ExitInfo::Known(status) => Ok(Some(End::Known(status, ExitSource::Pidfd))),
            _ if !contd_lease::wait_dead(&self.pidfd, Duration::ZERO).map_err(io::Error::other)? => Ok(None),
            // The holder may have noted and reaped it since the first look.
            ExitInfo::Unsupported if dead.is_none() && !holder::holds(run_dir, self.identity.pid) => {
                let why = "its shim and the holder died, and before Linux 6.15 only the parent is told";
                Ok(noted().or_else(|| Some(End::Unknown(why.to_owned()))))
            }
            ExitInfo::NotYet | ExitInfo::Unsupported if dead.is_some_and(|dead| dead.since + REAPED_WITHIN <= now) => {
                unknown("its shim died, and the process that inherited it does not reap it")
            }
            ExitInfo::NotYet | ExitInfo::Unsupported => {
                let since = dead.map_or(now, |dead| dead.since);
                *dead = Some(Dead { since, next_look: now + LOOK_AGAIN });
                Ok(None)
            }
        }
    }

    /// Tells whether it has ended, reaped or not.
    pub(crate) fn is_dead(&self) -> io::Result<bool> {
        contd_lease::wait_dead(&self.pidfd, Duration::ZERO).map_err(io::Error::other)
    }

    /// Sends a signal to it alone. It is fine when it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        contd_lease::signal(&self.pidfd, signal.number()).map(|_is_alive| ())
    }
}

/// Tells whether a descriptor is a pidfd of this process, or of one that was reaped: whoever kept it had it from there.
pub(crate) fn is_of(fd: &OwnedFd, pid: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap_or_default();
    let named = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i32>().ok());
    named.is_some_and(|named| named == pid || named == REAPED)
}

/// Reads how a process has ended that nobody has reaped yet: its entry in `/proc` is its own until then.
///
/// A reader without the right is shown a 0 there, so that a 0 says nothing.
fn status_of_unreaped(identity: &ProcessIdentity) -> Option<ProcessExit> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", identity.pid)).ok()?;
    status_in(&stat, identity.start_ticks)
}

fn status_in(stat: &str, start_ticks: u64) -> Option<ProcessExit> {
    // Behind the command's name, in parentheses, which may itself hold any; proc(5) counts from 1 and it is the second.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |place: usize| fields.get(place.checked_sub(3)?)?.parse::<u64>().ok();
    let is_it = *fields.first()? == "Z" && number(22)? == start_ticks;
    let status = i32::try_from(number(52)?).ok().filter(|status| is_it && *status != 0)?;
    Some(ProcessExit::from_wait_status(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_process_that_nobody_has_reaped_is_known() {
        let mut child = std::process::Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().expect("start");
        let pid = i32::try_from(child.id()).expect("a pid");
        let identity = ProcessIdentity::of(pid).expect("look").expect("it is ours");
        let pidfd = contd_lease::pidfd(&identity).expect("open").expect("it is not reaped");
        assert!(contd_lease::wait_dead(&pidfd, Duration::from_secs(10)).expect("wait"), "it ends at once");
        assert_eq!(status_of_unreaped(&identity), Some(ProcessExit::Code(7)));
        let other = ProcessIdentity { start_ticks: identity.start_ticks + 1, ..identity };
        assert_eq!(status_of_unreaped(&other), None, "another process of the same pid");
        child.wait().expect("reap");
        assert_eq!(status_of_unreaped(&identity), None);
    }

    #[test]
    fn a_signal_is_told_from_a_code_and_a_nought_says_nothing() {
        let stat = |status: u32| format!("5 (a) b) Z {}9 {}{status}", "0 ".repeat(18), "0 ".repeat(29));
        assert_eq!(status_in(&stat(9), 9), Some(ProcessExit::Signal(9)));
        assert_eq!(status_in(&stat(137), 9), Some(ProcessExit::Signal(9)), "with a core");
        assert_eq!(status_in(&stat(23 << 8), 9), Some(ProcessExit::Code(23)));
        assert_eq!(status_in(&stat(0), 9), None);
    }
}
