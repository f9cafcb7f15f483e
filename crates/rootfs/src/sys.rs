//! The kernel calls of project quotas, which no crate offers: two ioctls and `quotactl_fd` (Linux 5.14). And those of btrfs.

pub(crate) mod btrfs;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;

/// `struct fsxattr` of `linux/fs.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FsXattr {
    pub(crate) xflags: u32,
    extsize: u32,
    nextents: u32,
    /// The project that a file is counted for.
    pub(crate) projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// Entries that are made in a directory belong to its project.
pub(crate) const XFLAG_PROJINHERIT: u32 = 0x200;

/// `struct fs_disk_quota` of `linux/dqblk_xfs.h`. Blocks are of 512 bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DiskQuota {
    pub(crate) version: i8,
    pub(crate) flags: i8,
    pub(crate) fieldmask: u16,
    pub(crate) id: u32,
    pub(crate) blk_hardlimit: u64,
    pub(crate) blk_softlimit: u64,
    pub(crate) ino_hardlimit: u64,
    pub(crate) ino_softlimit: u64,
    pub(crate) bcount: u64,
    pub(crate) icount: u64,
    pub(crate) timers: [i32; 2],
    pub(crate) warns: [u16; 2],
    pub(crate) timers_hi: [i8; 4],
    pub(crate) realtime: [u64; 3],
    pub(crate) rtbtimer: i32,
    pub(crate) rtbwarns: u16,
    pub(crate) pad3: i16,
    pub(crate) pad4: [u8; 8],
}

/// `struct fs_quota_stat` of the same header.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct QuotaStat {
    version: i8,
    pub(crate) flags: u16,
    pad: i8,
    files: [u64; 6],
    rest: [u32; 5],
}

const PROJECT: u32 = 2;
const GET_STAT: u32 = command(5);
const GET_QUOTA: u32 = command(3);
const SET_LIMITS: u32 = command(4);

/// `QCMD(XQM_CMD(number), PRJQUOTA)`.
const fn command(number: u32) -> u32 {
    ((0x5800 | number) << 8) | PROJECT
}

nix::ioctl_read!(fs_get_xattr, b'X', 31, FsXattr);
nix::ioctl_write_ptr!(fs_set_xattr, b'X', 32, FsXattr);

/// Reads the project of a file or directory.
pub(crate) fn xattr_of(open: &File) -> io::Result<FsXattr> {
    let mut xattr = FsXattr::default();
    // SAFETY: the ioctl writes one `struct fsxattr`, which `FsXattr` is, through a pointer to a live one of ours; the
    // descriptor is open for the whole call because `open` is borrowed.
    unsafe { fs_get_xattr(open.as_raw_fd(), &raw mut xattr) }?;
    Ok(xattr)
}

/// Sets it.
pub(crate) fn set_xattr(open: &File, xattr: &FsXattr) -> io::Result<()> {
    // SAFETY: the ioctl reads one `struct fsxattr` through a pointer to a live one of ours; the descriptor is open for the
    // whole call because `open` is borrowed.
    unsafe { fs_set_xattr(open.as_raw_fd(), &raw const *xattr) }?;
    Ok(())
}

/// Tells what quotas the file system of an open file has.
pub(crate) fn quota_stat(open: &File) -> io::Result<QuotaStat> {
    let mut stat = QuotaStat::default();
    quotactl_fd(open, GET_STAT, 0, &mut stat)?;
    Ok(stat)
}

/// Tells what a project uses, and how much it may.
pub(crate) fn quota_of(open: &File, project: u32) -> io::Result<DiskQuota> {
    let mut quota = DiskQuota::default();
    quotactl_fd(open, GET_QUOTA, project, &mut quota)?;
    Ok(quota)
}

/// Sets how much a project may use.
pub(crate) fn set_quota(open: &File, quota: &DiskQuota) -> io::Result<()> {
    let mut quota = *quota;
    quotactl_fd(open, SET_LIMITS, quota.id, &mut quota)
}

/// `T` is the structure that the command reads or writes.
fn quotactl_fd<T>(open: &File, command: u32, id: u32, address: &mut T) -> io::Result<()> {
    // SAFETY: quotactl_fd takes integers and a pointer to the structure that belongs to the command; the callers above pair
    // each command with its structure, which lives and is not otherwise used during the call. `open` keeps the descriptor.
    let result =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, open.as_raw_fd(), command, id, std::ptr::from_mut(address)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_sizes_of_the_kernel() {
        assert_eq!((size_of::<FsXattr>(), size_of::<DiskQuota>(), size_of::<QuotaStat>()), (28, 112, 80));
    }
}
