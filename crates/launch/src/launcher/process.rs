//! Forks, and ends a forked process.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Forks; the child gets `None`. Only legal with one thread: a lock held by another thread would stay held in the
/// child.
pub(crate) fn fork() -> io::Result<Option<i32>> {
    // SAFETY: fork's one danger is a lock that another thread holds for ever in the child; `Launcher::fork` is documented
    // to be legal with one thread only, and its callers (contd-shim, contd-launch) never start another.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(Some(child.as_raw())),
        nix::unistd::ForkResult::Child => Ok(None),
    }
}

/// Ends this forked process without running the parent's exit handlers.
pub(crate) fn exit_now(code: u8) -> ! {
    // SAFETY: _exit takes an integer, touches no memory and does not return. Destructors do not run, which is meant:
    // the objects in this memory are copies of the parent's, which destroys its own.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Closes every descriptor from 3 on except these. Only legal in a forked process that uses no other owner of one
/// afterwards.
pub(crate) fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    let flags: libc::c_uint = 0;
    // SAFETY: close_range takes three integers and touches no memory. Descriptors that some object of this process owns
    // are closed under it; `close_all_but` is legal only where no such object is used or dropped again: the process ends
    // by `exit_now` or exec.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
