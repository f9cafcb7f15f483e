//! The ioctls of btrfs for subvolumes and their qgroups, by `linux/btrfs.h`. The crates that have them generate their
//! structures with libclang at build time, or need btrfs-progs' library.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

const MAGIC: u8 = 0x94;
/// `BTRFS_PATH_NAME_MAX`, with the zero at its end.
const NAME_BYTES: usize = 4088;
/// `BTRFS_QGROUP_LIMIT_MAX_RFER`: the limit of what a subvolume refers to.
const LIMIT_REFERENCED: u64 = 1;
/// The value that removes a limit.
const CLEAR: u64 = u64::MAX;
/// `BTRFS_QUOTA_TREE_OBJECTID` of `linux/btrfs_tree.h`.
const QUOTA_TREE: u64 = 8;
const SEARCH_BYTES: usize = 3992;
/// `struct btrfs_ioctl_search_header`, which begins each item that was found.
const HEADER_BYTES: usize = 32;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolumeArgs {
    fd: i64,
    name: [u8; NAME_BYTES],
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct LookupArgs {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

/// `struct btrfs_ioctl_search_args`, with its key.
#[repr(C)]
struct SearchArgs {
    tree: u64,
    min_object: u64,
    max_object: u64,
    min_offset: u64,
    max_offset: u64,
    min_transaction: u64,
    max_transaction: u64,
    min_type: u32,
    max_type: u32,
    items: u32,
    unused: [u32; 9],
    found: [u8; SEARCH_BYTES],
}

/// `struct btrfs_ioctl_fs_info_args`.
#[repr(C)]
struct InfoArgs {
    max_device: u64,
    devices: u64,
    id: [u8; 16],
    rest: [u64; 124],
}

/// `struct btrfs_ioctl_qgroup_create_args`.
#[repr(C)]
struct QgroupArgs {
    create: u64,
    qgroup: u64,
}

/// `struct btrfs_ioctl_qgroup_limit_args`; a qgroup of 0 is that of the descriptor's subvolume.
#[repr(C)]
struct LimitArgs {
    qgroup: u64,
    flags: u64,
    max_referenced: u64,
    rest: [u64; 3],
}

nix::ioctl_write_ptr!(subvol_create, MAGIC, 14, VolumeArgs);
nix::ioctl_write_ptr!(snap_destroy, MAGIC, 15, VolumeArgs);
nix::ioctl_readwrite!(tree_search, MAGIC, 17, SearchArgs);
nix::ioctl_readwrite!(ino_lookup, MAGIC, 18, LookupArgs);
nix::ioctl_read!(fs_info, MAGIC, 31, InfoArgs);
nix::ioctl_write_ptr!(qgroup_create, MAGIC, 42, QgroupArgs);
// The header says that it is read; the kernel only reads from it.
nix::ioctl_read!(qgroup_limit, MAGIC, 43, LimitArgs);

/// Makes a subvolume in a directory.
pub(crate) fn create_subvolume(parent: &File, name: &CStr) -> io::Result<()> {
    let args = volume(name)?;
    // SAFETY: the ioctl reads one `btrfs_ioctl_vol_args`, which `VolumeArgs` is, through a pointer to a live one of ours, whose
    // name ends with a zero; `parent` keeps the descriptor open for the whole call.
    unsafe { subvol_create(parent.as_raw_fd(), &raw const args) }?;
    Ok(())
}

/// Removes the subvolume of this name with all that is in it, but for other subvolumes (`ENOTEMPTY`).
pub(crate) fn destroy_subvolume(parent: impl AsFd, name: &CStr) -> io::Result<()> {
    let args = volume(name)?;
    // SAFETY: as in `create_subvolume`, with the same structure.
    unsafe { snap_destroy(parent.as_fd().as_raw_fd(), &raw const args) }?;
    Ok(())
}

/// Returns the number of the subvolume that an open file lies in, which is that of its qgroup.
pub(crate) fn subvolume_of(open: &File) -> io::Result<u64> {
    /// `BTRFS_FIRST_FREE_OBJECTID`: every subvolume has it.
    const ROOT_DIR: u64 = 256;
    let mut args = LookupArgs { tree: 0, object: ROOT_DIR, name: [0; 4080] };
    // SAFETY: the ioctl reads and writes one `btrfs_ioctl_ino_lookup_args`, which `LookupArgs` is, through a pointer to a live one
    // of ours that nobody else uses; `open` keeps the descriptor open for the whole call.
    unsafe { ino_lookup(open.as_raw_fd(), &raw mut args) }?;
    Ok(args.tree)
}

/// Returns what tells this file system from others.
pub(crate) fn file_system_of(open: &File) -> io::Result<[u8; 16]> {
    let mut args = InfoArgs { max_device: 0, devices: 0, id: [0; 16], rest: [0; 124] };
    // SAFETY: the ioctl writes one `btrfs_ioctl_fs_info_args`, which `InfoArgs` is, through a pointer to a live one of ours that
    // nobody else uses; `open` keeps the descriptor open for the whole call.
    unsafe { fs_info(open.as_raw_fd(), &raw mut args) }?;
    Ok(args.id)
}

/// Limits the subvolume that an open file lies in, or takes its limit away; `ENOTCONN` when there are no quotas.
pub(crate) fn limit_subvolume(open: &File, bytes: Option<u64>) -> io::Result<()> {
    let max_referenced = bytes.unwrap_or(CLEAR);
    let mut args = LimitArgs { qgroup: 0, flags: LIMIT_REFERENCED, max_referenced, rest: [0; 3] };
    // SAFETY: the ioctl reads one `btrfs_ioctl_qgroup_limit_args`, which `LimitArgs` is, through a pointer to a live one of ours
    // that nobody else uses; `open` keeps the descriptor open for the whole call.
    unsafe { qgroup_limit(open.as_raw_fd(), &raw mut args) }?;
    Ok(())
}

/// Removes a qgroup; `open` is any file of the file system.
pub(crate) fn remove_qgroup(open: &File, qgroup: u64) -> io::Result<()> {
    let args = QgroupArgs { create: 0, qgroup };
    // SAFETY: the ioctl reads one `btrfs_ioctl_qgroup_create_args`, which `QgroupArgs` is, through a pointer to a live one of ours;
    // `open` keeps the descriptor open for the whole call.
    unsafe { qgroup_create(open.as_raw_fd(), &raw const args) }?;
    Ok(())
}

/// Finds the item of this type (and of this qgroup, where it is of one) among the quotas, and returns its first `N` numbers; `None` when there
/// is none, or there are no quotas.
pub(crate) fn quota_item<const N: usize>(open: &File, kind: u32, qgroup: u64) -> io::Result<Option<[u64; N]>> {
    let mut args = SearchArgs {
        tree: QUOTA_TREE,
        min_object: 0,
        max_object: 0,
        min_offset: qgroup,
        max_offset: qgroup,
        min_transaction: 0,
        max_transaction: u64::MAX,
        min_type: kind,
        max_type: kind,
        items: 1,
        unused: [0; 9],
        found: [0; SEARCH_BYTES],
    };
    // SAFETY: the ioctl reads and writes one `btrfs_ioctl_search_args`, which `SearchArgs` is, through a pointer to a live one of
    // ours that nobody else uses; `open` keeps the descriptor open for the whole call.
    match unsafe { tree_search(open.as_raw_fd(), &raw mut args) } {
        Ok(_) if args.items > 0 => {}
        Ok(_) | Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    }
    let mut numbers = [0; N];
    let item = args.found.get(HEADER_BYTES..).unwrap_or_default();
    for (number, bytes) in numbers.iter_mut().zip(item.as_chunks().0) {
        *number = u64::from_le_bytes(*bytes);
    }
    Ok(Some(numbers))
}

fn volume(name: &CStr) -> io::Result<VolumeArgs> {
    let mut args = VolumeArgs { fd: 0, name: [0; NAME_BYTES] };
    let bytes = name.to_bytes_with_nul();
    args.name.get_mut(..bytes.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(bytes);
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_sizes_of_the_kernel() {
        assert_eq!((size_of::<VolumeArgs>(), size_of::<LookupArgs>(), size_of::<SearchArgs>()), (4096, 4096, 4096));
        assert_eq!((size_of::<InfoArgs>(), size_of::<QgroupArgs>(), size_of::<LimitArgs>()), (1024, 16, 48));
    }
}
