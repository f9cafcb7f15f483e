//! The mount API by descriptors (Linux 5.2; `mount_setattr` 5.12).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{check, new_fd};

const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const OPEN_TREE_CLONE: libc::c_uint = 1;

/// An empty path: the call is about the descriptor itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Empty;

/// Makes a detached copy of the mount at a path, with all mounts below it if recursive.
pub(crate) fn open_tree(dir: BorrowedFd<'_>, path: &CStr, is_recursive: bool) -> io::Result<OwnedFd> {
    let recursive = if is_recursive { libc::AT_RECURSIVE } else { 0 };
    let empty = if path.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    let flags = OPEN_TREE_CLONE | u32::try_from(libc::O_CLOEXEC | recursive | empty).map_err(io::Error::other)?;
    // SAFETY: open_tree reads a NUL-terminated path and writes nothing; the descriptor lives as long as the borrow.
    new_fd(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) })
}

/// Attaches a detached mount at the file that `target` (`O_PATH`) names.
pub(crate) fn move_mount(mount: BorrowedFd<'_>, _: Empty, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    let (from, to, empty) = (mount.as_raw_fd(), target.as_raw_fd(), c"".as_ptr());
    // SAFETY: move_mount reads two NUL-terminated (empty) paths and writes nothing; the descriptors are borrowed.
    let result = unsafe { libc::syscall(libc::SYS_move_mount, from, empty, to, empty, flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens a configuration of a file system type.
pub(crate) fn fs_open(fs_type: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: fsopen reads a NUL-terminated name and writes nothing.
    new_fd(unsafe { libc::syscall(libc::SYS_fsopen, fs_type.as_ptr(), FSOPEN_CLOEXEC) })
}

/// Sets a parameter: a flag without a value, or a string with one.
pub(crate) fn fs_configure(fs: BorrowedFd<'_>, key: &CStr, value: Option<&CStr>) -> io::Result<()> {
    let (command, value) = match value {
        Some(value) => (FSCONFIG_SET_STRING, value.as_ptr()),
        None => (FSCONFIG_SET_FLAG, std::ptr::null()),
    };
    let aux: libc::c_int = 0;
    // SAFETY: fsconfig reads NUL-terminated strings (the value may be null for a flag) and writes nothing.
    let result = unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), command, key.as_ptr(), value, aux) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Creates the superblock.
pub(crate) fn fs_create(fs: BorrowedFd<'_>) -> io::Result<()> {
    let none = std::ptr::null::<libc::c_char>();
    let aux: libc::c_int = 0;
    // SAFETY: for this command fsconfig wants null for both strings and 0, and reads no memory.
    let result = unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, aux) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes a detached mount of a superblock, with `MOUNT_ATTR_*`.
pub(crate) fn fs_mount(fs: BorrowedFd<'_>, attributes: u64) -> io::Result<OwnedFd> {
    let attributes = u32::try_from(attributes).map_err(io::Error::other)?;
    // SAFETY: fsmount takes integers only; the descriptor is borrowed.
    new_fd(unsafe { libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) })
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
    let flags = flag | if is_recursive { libc::MS_REC } else { 0 };
    let none = std::ptr::null();
    // SAFETY: for a change of propagation mount(2) reads the NUL-terminated target only; the other pointers may be null.
    check(unsafe { libc::mount(none, c"/".as_ptr(), none, flags, std::ptr::null()) }).map(drop)
}

/// Makes the working directory the root; the old root then covers it.
pub(crate) fn pivot_to_cwd() -> io::Result<()> {
    // SAFETY: pivot_root reads two NUL-terminated paths.
    let result = unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Detaches the mount at the working directory with all mounts below it.
pub(crate) fn unmount_cwd() -> io::Result<()> {
    // SAFETY: umount2 reads one NUL-terminated path.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }).map(drop)
}
