//! The children that nobody waits for: descendants of the container whose parents have ended, and what an aborted
//! runtime leaves. They are ours because we are a subreaper.

use std::io;

use contd_lease::ProcessIdentity;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sys::{self, Children};

/// The most children reaped in one turn of the loop, so that a storm of them cannot starve the rest.
const MAX_REAPED_PER_TURN: usize = 256;

/// The processes that are left after a round of reaping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// No process.
    Nobody,
    /// Somebody lives, or is known and reaped by who knows it.
    Somebody,
    /// Another round is needed.
    MoreToReap,
}

/// Reaps children that have ended and are not known; a known one is reaped by its pidfd, by who waits for its status.
pub(crate) fn reap_orphans(is_known: impl Fn(i32) -> bool) -> io::Result<Left> {
    for _ in 0..MAX_REAPED_PER_TURN {
        match sys::peek()? {
            Children::None => return Ok(Left::Nobody),
            Children::Alive => return Ok(Left::Somebody),
            // It hides those behind it until it is reaped, which its readable pidfd brings about on this turn or the next.
            Children::Ended(pid, _) if is_known(pid) => return Ok(Left::MoreToReap),
            Children::Ended(pid, _) => sys::reap_pid(pid)?,
        }
    }
    Ok(Left::MoreToReap)
}

/// Sends SIGKILL to every living child that is not known.
///
/// By pid, which is safe here and only here: they are our children, we have one thread, and none is reaped in between.
pub(crate) fn kill_orphans(is_known: impl Fn(i32) -> bool) -> io::Result<()> {
    let own = nix::unistd::getpid().as_raw();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if parent_of(pid) == Some(own) && !is_known(pid) {
            match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(())
}

/// Opens a pidfd of a child that was just started; fails when there is no such process.
pub(crate) fn pidfd_of(pid: i32) -> io::Result<(ProcessIdentity, std::os::fd::OwnedFd)> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let identity = ProcessIdentity::of(pid).map_err(io::Error::other)?.ok_or_else(gone)?;
    let pidfd = contd_lease::pidfd(&identity).map_err(io::Error::other)?.ok_or_else(gone)?;
    Ok((identity, pidfd))
}

/// Reads the parent of a process.
pub(crate) fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name stands in parentheses and may itself hold any: the last one counts.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_read_behind_the_name() {
        let own = std::process::id();
        assert_eq!(parent_of(i32::try_from(own).expect("pid")), Some(nix::unistd::getppid().as_raw()),);
        assert_eq!(parent_of(-1), None);
    }
}
