//! Taking mounts away without waiting for whoever uses them.
//!
//! `umount2(MNT_DETACH)` takes a mount out of our namespace at once; the file system lives on as long as a process has a file
//! or its working directory there, or another mount namespace has a copy. The copies go when the mount point is removed
//! (`detach_mounts` in the kernel, since 3.18). Only a copy in our *own* namespace, as a recursive bind makes it, keeps the
//! mount point: `rmdir` answers EBUSY then, and the empty directory is left for a later sweep.

use std::io;
use std::path::Path;

use contd_durable::{Fs, RealFs};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::provider::RootfsError;
use crate::users::disk;

/// How many mounts may lie on one another on a mount point: one, unless somebody helped by hand.
const MAX_STACKED: u32 = 64;

/// Takes away everything that is mounted at a path; fine when nothing is.
pub(crate) fn detach(path: &Path) -> Result<(), RootfsError> {
    for _ in 0..MAX_STACKED {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(RootfsError::Unmount { path: path.to_owned(), source: errno.into() }),
        }
    }
    Err(RootfsError::Unmount { path: path.to_owned(), source: Errno::EBUSY.into() })
}

/// The result of removing a mount point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MountPoint {
    /// It is gone, and with it the mount in every other namespace.
    Gone,
    /// A copy of the mount in our own namespace covers it.
    Covered,
}

/// Takes away what is mounted at a path, and the path. Fine when there is nothing.
pub(crate) fn remove_mount_point(path: &Path) -> Result<MountPoint, RootfsError> {
    detach(path)?;
    match RealFs.remove_dir(path) {
        Ok(()) => Ok(MountPoint::Gone),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(MountPoint::Gone),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(MountPoint::Covered),
        Err(source) => Err(disk("remove", path, source)),
    }
}
