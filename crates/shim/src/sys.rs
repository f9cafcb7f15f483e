//! The kernel calls that need `unsafe`, each behind a safe signature.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use contd_lease::ProcessExit;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal};

/// The state of all children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Children {
    /// There are none.
    None,
    /// There are, and all of them live.
    Alive,
    /// This one has ended in this way and waits to be reaped.
    Ended(i32, ProcessExit),
}

/// Sends SIGKILL to a child that was not reaped: until then its pid is certainly its own.
pub(crate) fn kill_child(pid: i32) -> io::Result<()> {
    Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL)?)
}

/// As [`kill_child`], and waits for its end.
pub(crate) fn end_child(pid: i32) -> io::Result<()> {
    kill_child(pid)?;
    let id = libc::id_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    wait(libc::P_PID, id, libc::WEXITED).map(|_| ())
}

/// Takes the status of a child that has ended and lets the kernel forget it; `None` while it lives.
///
/// Fails with `ECHILD` when the process is not our child.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<ProcessExit>> {
    let id = libc::id_t::try_from(pidfd.as_raw_fd()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(wait(libc::P_PIDFD, id, libc::WEXITED | libc::WNOHANG)?.map(|(_, status)| status))
}

/// Tells whether a process is our child, dead or alive; reaps nothing.
pub(crate) fn is_child(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    let id = libc::id_t::try_from(pidfd.as_raw_fd()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    match wait(libc::P_PIDFD, id, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Looks for a child that has ended; reaps nothing.
pub(crate) fn peek() -> io::Result<Children> {
    match wait(libc::P_ALL, 0, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) {
        Ok(Some((pid, status))) => Ok(Children::Ended(pid, status)),
        Ok(None) => Ok(Children::Alive),
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(Children::None),
        Err(error) => Err(error),
    }
}

/// Lets the kernel forget a child that [`peek`] has found: until now its pid could not be given to another.
pub(crate) fn reap_pid(pid: i32) -> io::Result<()> {
    let id = libc::id_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    wait(libc::P_PID, id, libc::WEXITED | libc::WNOHANG).map(|_| ())
}

/// The signals that were caught and not taken yet, a bit for each number.
static CAUGHT: AtomicU64 = AtomicU64::new(0);

fn bit(signal: libc::c_int) -> u64 {
    u32::try_from(signal).ok().and_then(|number| 1u64.checked_shl(number)).unwrap_or_default()
}

/// Has these signals be noted and do nothing more. They are not ignored: an ignored one stays so across an exec.
pub(crate) fn catch(signals: &[Signal]) -> io::Result<()> {
    extern "C" fn note(signal: libc::c_int) {
        CAUGHT.fetch_or(bit(signal), Ordering::Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in signals {
        // SAFETY: a handler must be async-signal-safe, and this one changes one atomic number. No handler of somebody else is
        // replaced: this program installs no other, and of the standard library's (SIGPIPE, SIGSEGV, SIGBUS) only that
        // for SIGPIPE can be in the list, which is "ignore", and writes report EPIPE just the same with ours.
        unsafe { nix::sys::signal::sigaction(*signal, &action) }?;
    }
    Ok(())
}

/// Tells whether a signal was caught since this was asked last.
pub(crate) fn take_caught(signal: Signal) -> bool {
    let bit = bit(signal as libc::c_int);
    CAUGHT.fetch_and(!bit, Ordering::Relaxed) & bit != 0
}

fn wait(kind: libc::idtype_t, id: libc::id_t, options: libc::c_int) -> io::Result<Option<(i32, ProcessExit)>> {
    loop {
        // SAFETY: siginfo_t is plain old data for which all zeros is a valid value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: waitid writes one siginfo_t to the pointer, which is that of a live local of this type; the other
        // arguments are integers.
        let result = unsafe { libc::waitid(kind, id, &raw mut info, options) };
        if result < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        // SAFETY: waitid succeeded, so the union holds the SIGCHLD fields, or is still all zeros when nothing had ended.
        let pid = unsafe { info.si_pid() };
        if pid == 0 {
            return Ok(None);
        }
        // SAFETY: as above; si_status belongs to the same SIGCHLD fields.
        let status = unsafe { info.si_status() };
        let status = match info.si_code {
            // The kernel passes on the low eight bits only.
            libc::CLD_EXITED => ProcessExit::Code(u8::try_from(status & 0xff).unwrap_or(u8::MAX)),
            _ => ProcessExit::Signal(status),
        };
        return Ok(Some((pid, status)));
    }
}
