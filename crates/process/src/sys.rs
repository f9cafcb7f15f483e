//! The calls that need `unsafe`, each behind a safe signature.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{ForkResult, Pid};

/// The first descriptor that is not a standard stream.
const FIRST: u32 = 3;

/// Which side of a fork this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The process that was there before, with the pid of the new one.
    Parent(Pid),
    /// The new one.
    Child,
}

/// Forks.
///
/// # Errors
/// No process can be made; `EINVAL` when this process has more than one thread.
pub fn fork() -> io::Result<Fork> {
    // No effect, and an error unless there is one thread (unshare(2)).
    unshare(CloneFlags::CLONE_THREAD)?;
    // SAFETY: fork's one danger is a lock (of the allocator, of stdio) that another thread holds for ever in the child. There
    // is no other thread, as the kernel has just said, and this one is here.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Fork::Parent(child)),
        ForkResult::Child => Ok(Fork::Child),
    }
}

/// Ends this forked process without running what its parent has registered for its own end.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: _exit takes an integer, touches no memory and does not return. Destructors do not run, which is meant: the
    // objects in this memory are copies of the parent's, which destroys its own.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Closes every descriptor from 3 on but these. Only legal where no other owner of one is used afterwards: before a process
/// has opened any, or in a forked one that ends by [`exit_now`] or `exec`.
///
/// # Errors
/// The kernel's.
pub fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    kept.sort_unstable();
    let mut first = FIRST;
    for fd in kept {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX)
}

/// Takes a descriptor that this program was executed with, and closes all others from 3 on. Only legal before this process
/// has opened any.
///
/// # Errors
/// `EBADF` when there is no such descriptor, `EINVAL` for a standard stream.
pub fn take_passed(number: i32) -> io::Result<OwnedFd> {
    if u32::try_from(number).is_ok_and(|number| number < FIRST) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: fcntl with F_SETFD takes integers and touches no memory; it fails when there is no such descriptor.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, as fcntl has just told, and nothing in this new program owns it yet.
    let passed = unsafe { OwnedFd::from_raw_fd(number) };
    close_all_but(&[passed.as_fd()])?;
    Ok(passed)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    let flags: libc::c_uint = 0;
    // SAFETY: close_range takes three integers and touches no memory. Descriptors that some object of this process owns
    // are closed under it; both callers are legal only where no such object is used or dropped again.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
