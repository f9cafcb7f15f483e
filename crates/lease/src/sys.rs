//! The pidfd calls, by number: nix has no wrapper for them.

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

/// `struct pidfd_info` of linux/pidfd.h, first version (64 bytes); only what is asked for here has a name.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct PidfdInfo {
    /// What is asked for, then what was answered.
    pub(crate) mask: u64,
    /// Of its v2 cgroup.
    pub(crate) cgroup_id: u64,
    /// Process, group and parent ids, then four pairs of user and group ids.
    pub(crate) ids: [u32; 11],
    /// As `waitpid(2)` has it.
    pub(crate) exit_code: i32,
}

/// `PIDFD_GET_INFO`: `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::Ioctl = nix::request_code_readwrite!(0xFF, 11, size_of::<PidfdInfo>());

/// Asks what the kernel knows about the process behind the pidfd.
pub(crate) fn pidfd_get_info(fd: BorrowedFd<'_>, info: &mut PidfdInfo) -> io::Result<()> {
    // SAFETY: the kernel reads and writes at most as many bytes as the request says, which is the size of the structure
    // that the exclusive reference points to; every bit pattern of its integers is valid.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), PIDFD_GET_INFO, std::ptr::from_mut(info)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
