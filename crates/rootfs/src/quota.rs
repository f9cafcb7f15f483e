//! The size of a layer on disk, limited by a project quota: each layer is a project of its own. On btrfs by the qgroup of its
//! subvolume.
//!
//! ext4 (features `quota` and `project`, mounted with `prjquota`) and XFS (mounted with `prjquota`) enforce such limits; whether
//! a file system does is asked of the kernel. The overlay writes without `CAP_SYS_RESOURCE`, so the limit holds for root, too.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;

use crate::btrfs;
use crate::sys::{self, DiskQuota, XFLAG_PROJINHERIT};

/// Limits of projects are enforced (`FS_QUOTA_PDQ_ENFD`).
const PROJECTS_ENFORCED: u16 = 1 << 5;
const QUOTA_VERSION: i8 = 1;
const FLAG_PROJECT: i8 = 2;
/// Soft and hard limits of blocks and inodes.
const ALL_LIMITS: u16 = 0b1111;
const BLOCK_BYTES: u64 = 512;

/// No limit.
pub(crate) const UNLIMITED: u64 = 0;

/// Where the numbers of our projects begin: far from those that people choose, and from docker's.
const FIRST_PROJECT: u32 = 0xC000_0000;
const PROJECT_BITS: u32 = 0x1FFF_FFFF;
/// How many numbers are tried: one, but for inodes that are the same in their lower bits.
const MAX_TRIES: u32 = 10_000;

/// Gives projects to layers. Two layers never get the same number, so one at a time; it is a matter of microseconds.
#[derive(Debug, Default)]
pub(crate) struct Quotas(Mutex<()>);

impl Quotas {
    /// Limits what may lie in a directory, or makes it a project without limits; `false` when its file system cannot do that.
    /// A directory that has a project keeps it, with these limits. On btrfs inodes are limited by the bytes they take.
    pub(crate) fn limit(&self, dir: &Path, bytes: u64, inodes: u64) -> io::Result<bool> {
        let open = File::open(dir)?;
        if btrfs::is_on(&open)? {
            return btrfs::limit(&open, Some(bytes).filter(|bytes| *bytes != UNLIMITED));
        }
        if !is_enforced(&open)? {
            return Ok(false);
        }
        let mut xattr = sys::xattr_of(&open)?;
        let _one_at_a_time = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !is_ours(xattr.projid);
        if is_new {
            xattr.projid = free_project(&open)?;
        }
        let blocks = bytes.div_ceil(BLOCK_BYTES);
        sys::set_quota(&open, &limits(xattr.projid, blocks, inodes))?;
        if is_new {
            xattr.xflags |= XFLAG_PROJINHERIT;
            sys::set_xattr(&open, &xattr)?;
        }
        Ok(true)
    }
}

/// Tells whether a file system enforces limits of layers.
pub(crate) fn is_supported(dir: &Path) -> io::Result<bool> {
    let open = File::open(dir)?;
    if btrfs::is_on(&open)? { btrfs::has_quotas(&open) } else { is_enforced(&open) }
}

/// Tells whether a layer has a limit.
pub(crate) fn is_limited(dir: &File) -> io::Result<bool> {
    if btrfs::is_on(dir)? { btrfs::is_limited(dir) } else { Ok(project_of(dir).is_some() && is_enforced(dir)?) }
}

/// Returns the project of a layer, if it has one of ours.
pub(crate) fn project_of(dir: &File) -> Option<u32> {
    // A file system without projects has none.
    sys::xattr_of(dir).ok().map(|xattr| xattr.projid).filter(|project| is_ours(*project))
}

/// Takes the limits of a project away, so that its number can be used again. `open` is any file of the file system.
pub(crate) fn forget(open: &File, project: u32) -> io::Result<()> {
    sys::set_quota(open, &limits(project, UNLIMITED, UNLIMITED))
}

fn is_enforced(open: &File) -> io::Result<bool> {
    match sys::quota_stat(open) {
        Ok(stat) => Ok(stat.flags & PROJECTS_ENFORCED != 0),
        // It has no quotas, or this kernel cannot be asked.
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ESRCH | Errno::ENOTTY | Errno::ENODEV) => {
                Ok(false)
            }
            _ => Err(error),
        },
    }
}

fn is_ours(project: u32) -> bool {
    project & !PROJECT_BITS == FIRST_PROJECT
}

/// Finds a number that nobody uses, beginning with that of the inode: another for each layer of a file system.
fn free_project(open: &File) -> io::Result<u32> {
    let inode = open.metadata()?.ino();
    let first = u32::try_from(inode & u64::from(PROJECT_BITS)).unwrap_or(0);
    for step in 0..MAX_TRIES {
        let project = FIRST_PROJECT | (first.wrapping_add(step) & PROJECT_BITS);
        // A layer is at least one inode itself. What is left of a limit does not matter.
        match sys::quota_of(open, project) {
            Ok(quota) if quota.icount == 0 && quota.bcount == 0 => return Ok(project),
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOENT | Errno::ESRCH)) => {
                return Ok(project);
            }
            Err(error) => return Err(error),
        }
    }
    Err(Errno::EDQUOT.into())
}

fn limits(project: u32, blocks: u64, inodes: u64) -> DiskQuota {
    DiskQuota {
        version: QUOTA_VERSION,
        flags: FLAG_PROJECT,
        fieldmask: ALL_LIMITS,
        id: project,
        blk_hardlimit: blocks,
        blk_softlimit: blocks,
        ino_hardlimit: inodes,
        ino_softlimit: inodes,
        ..DiskQuota::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_quotas_is_told_and_left_alone() {
        // tmpfs has none for projects.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        assert!(!is_supported(dir.path()).unwrap());
        assert!(!Quotas::default().limit(dir.path(), 1 << 20, 100).unwrap());
        assert_eq!(project_of(&File::open(dir.path()).unwrap()), None);
    }

    #[test]
    fn numbers_of_projects_are_far_from_those_of_people() {
        assert!(is_ours(FIRST_PROJECT) && is_ours(FIRST_PROJECT | PROJECT_BITS));
        assert!(!is_ours(0) && !is_ours(1000) && !is_ours(u32::MAX) && !is_ours(1 << 20));
    }
}
