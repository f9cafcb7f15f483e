//! The one ioctl of this crate, for which nix has no safe wrapper.

use std::os::fd::{AsFd, AsRawFd};

use nix::libc::c_int;

// linux/nsfs.h: #define NSIO 0xb7, NS_GET_NSTYPE = _IO(NSIO, 0x3).
nix::ioctl_none_bad!(ns_get_nstype, nix::request_code_none!(0xb7, 3));

/// Returns the `CLONE_NEW*` flag of the kind of namespace behind a descriptor on nsfs.
pub(crate) fn namespace_kind(fd: impl AsFd) -> nix::Result<c_int> {
    let fd = fd.as_fd();
    // SAFETY: NS_GET_NSTYPE takes no argument and writes no memory of ours; `fd` is open for the whole call because the
    // borrow lives that long. On a descriptor of another file system the kernel answers ENOTTY, or runs that file's own
    // ioctl 0xb703; the only caller has checked by fstatfs that it lies on nsfs.
    unsafe { ns_get_nstype(fd.as_raw_fd()) }
}
