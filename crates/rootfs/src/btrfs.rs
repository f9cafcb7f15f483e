//! Layers on btrfs: a subvolume each, limited by its qgroup where the quotas of the file system are on. Nobody switches them on
//! from here: they cost every container of the node, and the others of that file system.
//!
//! A subvolume has a `st_dev` of its own and numbers its inodes from 256 on. An overlay takes all subvolumes of a file system for one, so a layer
//! over a directory of the same btrfs would have files that seem to be one (same device, same inode): such a layer stays a
//! plain directory, and is not limited.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, fstatfs};

use crate::sys::btrfs as sys;

/// The inode of the directory of a subvolume.
const SUBVOLUME_INODE: u64 = 256;
/// Items of the quotas, and what they begin with (`linux/btrfs_tree.h`).
const STATUS_ITEM: u32 = 240;
const LIMIT_ITEM: u32 = 244;
const QUOTAS_ON: u64 = 1;
const LIMIT_REFERENCED: u64 = 1;

/// Tells whether a file lies on btrfs.
pub(crate) fn is_on(open: &File) -> io::Result<bool> {
    Ok(fstatfs(open)?.filesystem_type() == BTRFS_SUPER_MAGIC)
}

/// Tells whether both lie on the same btrfs.
pub(crate) fn is_same(one: &File, other: &File) -> io::Result<bool> {
    Ok(is_on(one)? && is_on(other)? && sys::file_system_of(one)? == sys::file_system_of(other)?)
}

/// Returns the number of a subvolume; `None` for a plain directory, and for other file systems.
pub(crate) fn subvolume(dir: &File) -> io::Result<Option<u64>> {
    if dir.metadata()?.ino() != SUBVOLUME_INODE || !is_on(dir)? {
        return Ok(None);
    }
    sys::subvolume_of(dir).map(Some)
}

/// Makes a subvolume of this name, unless there is something of that name.
pub(crate) fn make_subvolume(parent: &File, name: &CStr) -> io::Result<()> {
    match sys::create_subvolume(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Removes a subvolume with all that is in it; `false` for what is none, and when there are others in it.
pub(crate) fn destroy(parent: impl AsFd, name: &CStr) -> io::Result<bool> {
    match sys::destroy_subvolume(parent, name) {
        Ok(()) => Ok(true),
        Err(error) => match errno(&error) {
            Some(Errno::EINVAL | Errno::ENOTEMPTY) => Ok(false),
            Some(Errno::ENOENT) => Ok(true),
            _ => Err(error),
        },
    }
}

/// Tells whether the quotas of a btrfs are on.
pub(crate) fn has_quotas(open: &File) -> io::Result<bool> {
    let status = sys::quota_item::<3>(open, STATUS_ITEM, 0)?;
    Ok(status.is_some_and(|[_version, _generation, flags]| flags & QUOTAS_ON != 0))
}

/// Limits a layer, or takes its limit away (`None`); `false` when nothing can limit it: it is no subvolume, or the quotas are off.
pub(crate) fn limit(dir: &File, bytes: Option<u64>) -> io::Result<bool> {
    if subvolume(dir)?.is_none() {
        return Ok(false);
    }
    match sys::limit_subvolume(dir, bytes) {
        Ok(()) => Ok(true),
        // The last is one whose qgroup somebody removed.
        Err(error) if matches!(errno(&error), Some(Errno::ENOTCONN | Errno::EINVAL | Errno::ENOENT)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Tells whether a layer has a limit.
pub(crate) fn is_limited(dir: &File) -> io::Result<bool> {
    let Some(qgroup) = subvolume(dir)? else { return Ok(false) };
    let limit = sys::quota_item::<1>(dir, LIMIT_ITEM, qgroup)?;
    Ok(limit.is_some_and(|[flags]| flags & LIMIT_REFERENCED != 0))
}

/// Removes the qgroup of a subvolume that is gone, with its limit; `false` as long as the kernel counts for it what it has not freed
/// yet. `open` is any file of the file system.
pub(crate) fn forget(open: &File, qgroup: u64) -> io::Result<bool> {
    match sys::remove_qgroup(open, qgroup) {
        Ok(()) => Ok(true),
        Err(error) => match errno(&error) {
            Some(Errno::EBUSY) => Ok(false),
            // The kernel did it (Linux 6.11), or there are no quotas.
            Some(Errno::ENOENT | Errno::ENOTCONN | Errno::EINVAL) => Ok(true),
            _ => Err(error),
        },
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}
