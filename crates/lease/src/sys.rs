//! The two pidfd calls, by number: nix has no wrapper for them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Opens a pidfd (close-on-exec, as the kernel always makes it).
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    let flags: libc::c_uint = 0;
    // SAFETY: pidfd_open(pid_t, unsigned int) takes two integers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(result).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number, so we are its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal as `kill(2)` would, to the process behind the pidfd.
pub(crate) fn pidfd_send_signal(fd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let flags: libc::c_uint = 0;
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: pidfd_send_signal(int, int, siginfo_t *, unsigned int): the descriptor is borrowed for the whole call, and
    // a null siginfo is allowed: the kernel then fills one in as for kill(2). No memory of ours is touched.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, no_info, flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
