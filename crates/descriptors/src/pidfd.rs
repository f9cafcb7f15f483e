//! Processes by descriptor: what is signalled by one is certainly the process that it was opened for.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Opens the descriptor of the process that has this pid now (close-on-exec). A thread's number is `EINVAL`.
///
/// # Errors
/// The kernel's error; `ESRCH` when there is none, also for numbers that no process can have.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    let none = || io::Error::from_raw_os_error(libc::ESRCH);
    let pid = Pid::from_raw(pid).filter(|_| pid > 0).ok_or_else(none)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal as `kill(2)` would, real-time signals included; 0 only asks.
///
/// # Errors
/// The kernel's error; `ESRCH` when the process has ended.
#[expect(unsafe_code, reason = "rustix has no safe name for real-time signals")]
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let flags: libc::c_uint = 0;
    let no_info = std::ptr::null::<libc::siginfo_t>();
    let fd = pidfd.as_fd();
    // SAFETY: pidfd_send_signal(int, int, siginfo_t *, unsigned int): the descriptor is borrowed for the whole call, and
    // a null siginfo is allowed: the kernel then fills one in as for kill(2). No memory of ours is touched.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, no_info, flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
