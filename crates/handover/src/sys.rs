//! The two places where a descriptor is only a number.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Owns a descriptor that `recvmsg` has just put into our table.
pub(crate) fn own_received(number: RawFd) -> OwnedFd {
    // SAFETY: from_raw_fd needs an open descriptor with no other owner. The kernel has just made this one for the
    // ancillary data of our recvmsg; nix hands its number out once, and the caller takes each number once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Owns a descriptor that the service manager has put into our table before we were executed.
pub(crate) fn own_passed(number: RawFd) -> OwnedFd {
    // SAFETY: from_raw_fd needs an open descriptor with no other owner. LISTEN_PID names this very process, so the manager
    // has opened it for us; sd-notify has just reached it by fcntl, so it is open; `received` hands out each number once
    // per process, which its own flag guarantees.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Duplicates a descriptor of the process behind the pidfd; close-on-exec, as the kernel always makes it.
pub(crate) fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: RawFd) -> io::Result<OwnedFd> {
    let flags: libc::c_uint = 0;
    // SAFETY: pidfd_getfd(int, int, unsigned int) takes three integers and touches no memory of ours; the pidfd is
    // borrowed for the whole call.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, flags) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(result).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number, so we are its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
