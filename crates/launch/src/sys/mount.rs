//! The mount API by descriptors (Linux 5.2; `mount_setattr` 5.12).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::mount::{MntFlags, MsFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

/// An empty path: the call is about the descriptor itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Empty;

/// Makes a detached copy of the mount at a path, with all mounts below it if recursive.
pub(crate) fn open_tree(dir: BorrowedFd<'_>, path: &CStr, is_recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, is_recursive);
    flags.set(OpenTreeFlags::AT_EMPTY_PATH, path.is_empty());
    Ok(rustix::mount::open_tree(dir, path, flags)?)
}

/// Attaches a detached mount at the file that `target` (`O_PATH`) names.
pub(crate) fn move_mount(mount: BorrowedFd<'_>, _: Empty, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, c"", target, c"", flags)?)
}

/// Opens a configuration of a file system type.
pub(crate) fn fs_open(fs_type: &CStr) -> io::Result<OwnedFd> {
    Ok(rustix::mount::fsopen(fs_type, FsOpenFlags::FSOPEN_CLOEXEC)?)
}

/// Sets a parameter: a flag without a value, or a string with one.
pub(crate) fn fs_configure(fs: BorrowedFd<'_>, key: &CStr, value: Option<&CStr>) -> io::Result<()> {
    Ok(match value {
        Some(value) => rustix::mount::fsconfig_set_string(fs, key, value),
        None => rustix::mount::fsconfig_set_flag(fs, key),
    }?)
}

/// Creates the superblock.
pub(crate) fn fs_create(fs: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::mount::fsconfig_create(fs)?)
}

/// Makes a detached mount of a superblock, with `MOUNT_ATTR_*`.
pub(crate) fn fs_mount(fs: BorrowedFd<'_>, attributes: u64) -> io::Result<OwnedFd> {
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).map_err(io::Error::other)?);
    Ok(rustix::mount::fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Changes the attributes (`MOUNT_ATTR_*`) and the propagation (`MS_PRIVATE`, ...; 0 keeps it) of a mount.
pub(crate) fn mount_set(
    mount: BorrowedFd<'_>,
    set: u64,
    clear: u64,
    propagation: u64,
    is_recursive: bool,
) -> io::Result<()> {
    mount_set_at(mount, c"", set, clear, propagation, is_recursive)
}

/// Does the same as [`mount_set`], for the mount whose root a path names.
pub(crate) fn mount_set_at(
    dir: BorrowedFd<'_>,
    path: &CStr,
    set: u64,
    clear: u64,
    propagation: u64,
    is_recursive: bool,
) -> io::Result<()> {
    // SAFETY: mount_attr is plain old data for which all zeros is a valid value.
    let mut attr: libc::mount_attr = unsafe { std::mem::zeroed() };
    attr.attr_set = set;
    attr.attr_clr = clear;
    attr.propagation = propagation;
    let recursive = if is_recursive { libc::AT_RECURSIVE } else { 0 };
    let empty = if path.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    let flags = libc::c_uint::try_from(recursive | empty).map_err(io::Error::other)?;
    let size = std::mem::size_of::<libc::mount_attr>();
    let number = dir.as_raw_fd();
    // SAFETY: mount_setattr reads a NUL-terminated path and `size` bytes of the live local `attr`, and writes nothing.
    let result = unsafe { libc::syscall(libc::SYS_mount_setattr, number, path.as_ptr(), flags, &raw const attr, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets the propagation of the mount at `/` and all mounts below it.
pub(crate) fn set_propagation(flag: u64, is_recursive: bool) -> io::Result<()> {
    let mut flags = MsFlags::from_bits_retain(flag);
    flags.set(MsFlags::MS_REC, is_recursive);
    Ok(nix::mount::mount(None::<&str>, c"/", None::<&str>, flags, None::<&str>)?)
}

/// Makes the working directory the root; the old root then covers it.
pub(crate) fn pivot_to_cwd() -> io::Result<()> {
    Ok(nix::unistd::pivot_root(c".", c".")?)
}

/// Detaches the mount at the working directory with all mounts below it.
pub(crate) fn unmount_cwd() -> io::Result<()> {
    Ok(nix::mount::umount2(c".", MntFlags::MNT_DETACH)?)
}
