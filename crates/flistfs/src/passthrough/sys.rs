//! The two calls that lend a file to the kernel and take it back.

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

/// `struct fuse_backing_map` of `linux/fuse.h`.
#[repr(C)]
struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

/// The letter of the device's calls.
const MAGIC: u8 = 229;

nix::ioctl_write_ptr!(backing_open, MAGIC, 1, BackingMap);
nix::ioctl_write_ptr!(backing_close, MAGIC, 2, u32);

/// Lends a file to the kernel; it keeps the open file until the id is closed or the file system is gone.
pub(super) fn lend(device: &File, file: &File) -> Result<u32, Errno> {
    let map = BackingMap { fd: file.as_raw_fd(), flags: 0, padding: 0 };
    // SAFETY: the kernel reads 16 bytes behind the pointer, which is what `map` has with the layout that the kernel
    // defines; `map` and both descriptors live until the call returns, and it keeps no pointer.
    let id = unsafe { backing_open(device.as_raw_fd(), &raw const map) }?;
    u32::try_from(id).map_err(|_negative| Errno::EINVAL)
}

/// Takes a lent file back. Handles that are served from it keep it for themselves.
pub(super) fn take_back(device: &File, id: u32) -> Result<(), Errno> {
    // SAFETY: the kernel reads 4 bytes behind the pointer, and `id` lives until the call returns.
    unsafe { backing_close(device.as_raw_fd(), &raw const id) }.map(drop)
}
