//! `PIDFD_GET_INFO`, which no crate has.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct pidfd_info` of linux/pidfd.h, first version (64 bytes); only what is asked for here has a name.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct PidfdInfo {
    /// The requested fields, then the answered ones.
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
