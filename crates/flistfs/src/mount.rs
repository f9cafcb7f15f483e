//! The mount itself: made directly, found in the mount table, and unmounted only when somebody asks.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use contd_mountinfo::Mount as Line;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::wire::MAX_READ_AHEAD_BYTES;

/// The source in the mount table.
pub const SOURCE: &str = "contd-flistfs";
/// The type in the mount table.
pub const FSTYPE: &str = "fuse.contd";

const DEVICE: &str = "/dev/fuse";

/// A failure around a mount.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no FUSE.
    #[error("open {DEVICE}")]
    Device {
        /// Why.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("mount at {}", path.display())]
    Mount {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Mount events would leak to other namespaces.
    #[error("make the mount at {} private", path.display())]
    Private {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The mount table could not be read.
    #[error("read {}", contd_mountinfo::PATH)]
    Table {
        /// Why.
        source: io::Error,
    },
    /// The mount is not in the table although it was just made.
    #[error("find the mount at {} in the mount table", path.display())]
    NotFound {
        /// Where.
        path: PathBuf,
    },
    /// Something uses the mount.
    #[error("unmount {}: {used_by}", path.display())]
    InUse {
        /// Where.
        path: PathBuf,
        /// By what.
        used_by: String,
    },
    /// The kernel refused to unmount.
    #[error("unmount {}", path.display())]
    Unmount {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A mount that this process has made. Dropping it leaves it mounted.
#[derive(Debug, Clone)]
pub struct Mount {
    path: PathBuf,
    /// The kernel's id of it: the path alone could meanwhile lead to somebody else's.
    id: u64,
    /// `major:minor` of the file system.
    device: String,
}

/// Mounts an empty FUSE file system and returns the device that serves it.
///
/// # Errors
/// [`MountError::Device`] or [`MountError::Mount`]; nothing is mounted then.
pub fn attach(path: &Path) -> Result<File, MountError> {
    let device =
        OpenOptions::new().read(true).write(true).open(DEVICE).map_err(|source| MountError::Device { source })?;
    let options =
        format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", device.as_raw_fd());
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(SOURCE), path, Some(FSTYPE), flags, Some(options.as_str()))
        .map_err(|errno| MountError::Mount { path: path.to_owned(), source: errno.into() })?;
    Ok(device)
}

/// Takes back an [`attach`] whose session never came up.
pub fn abandon(path: &Path) {
    // If that fails as well, the dead mount is found and removed by whoever looks at the lease next.
    let _best_effort = umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
}

impl Mount {
    /// Finds the mount just made, keeps its events to itself and lets the kernel read far ahead.
    ///
    /// # Errors
    /// [`MountError`]; it is still mounted then.
    pub fn adopt(path: &Path) -> Result<Self, MountError> {
        let private = MsFlags::MS_PRIVATE;
        mount(None::<&str>, path, None::<&str>, private, None::<&str>)
            .map_err(|errno| MountError::Private { path: path.to_owned(), source: errno.into() })?;
        let lines = table()?;
        let not_found = || MountError::NotFound { path: path.to_owned() };
        let line = lines.iter().rev().find(|line| line.point == path && line.fs_type == FSTYPE);
        let line = line.ok_or_else(not_found)?;
        let mount = Self { path: path.to_owned(), id: line.id, device: line.device.clone() };
        // Only speed depends on it, and /sys may be read-only in a container.
        let _best_effort = std::fs::write(
            format!("/sys/class/bdi/{}/read_ahead_kb", mount.device),
            (MAX_READ_AHEAD_BYTES / 1024).to_string(),
        );
        Ok(mount)
    }

    /// Names one that is no longer in the table, though the kernel still has it.
    pub fn unmounted(path: PathBuf) -> Self {
        Self { path, id: 0, device: String::new() }
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts it, without force; fine when it is already unmounted.
    ///
    /// # Errors
    /// [`MountError::InUse`] when something uses it, otherwise [`MountError::Table`] or [`MountError::Unmount`].
    pub fn detach(&self) -> Result<(), MountError> {
        let lines = table()?;
        if let Some(used_by) = self.users(&lines) {
            return Err(MountError::InUse { path: self.path.clone(), used_by });
        }
        if !lines.iter().any(|line| line.id == self.id) {
            return Ok(());
        }
        match umount2(&self.path, MntFlags::UMOUNT_NOFOLLOW) {
            // EINVAL: somebody was faster.
            Ok(()) | Err(Errno::EINVAL) => Ok(()),
            Err(Errno::EBUSY) => {
                let used_by = "a process has a file or its working directory there".to_owned();
                Err(MountError::InUse { path: self.path.clone(), used_by })
            }
            Err(errno) => Err(MountError::Unmount { path: self.path.clone(), source: errno.into() }),
        }
    }

    /// Names another mount that would go on using the file system: an overlay with it as a lower keeps no reference
    /// that `umount2` would see.
    fn users(&self, lines: &[Line]) -> Option<String> {
        let path = self.path.as_os_str().as_bytes();
        lines.iter().find_map(|line| {
            let is_bind = line.device == self.device && line.id != self.id;
            let is_overlay = line.fs_type == "overlay" && names_path(&line.super_options, path);
            (is_bind || is_overlay).then(|| format!("it is part of the mount at {}", line.point.display()))
        })
    }
}

/// Tells whether the options hold the path as a whole one: not as the beginning of a longer name.
fn names_path(options: &[u8], path: &[u8]) -> bool {
    options.windows(path.len().max(1)).enumerate().any(|(at, window)| {
        let next = options.get(at + path.len());
        window == path && next.is_none_or(|byte| matches!(byte, b':' | b',' | b'/'))
    })
}

fn table() -> Result<Vec<Line>, MountError> {
    contd_mountinfo::read().map_err(|source| MountError::Table { source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_names_a_lower_only_as_a_whole_path() {
        assert!(names_path(b"ro,lowerdir=/f/mnt,upperdir=/u", b"/f/mnt"));
        assert!(names_path(b"ro,lowerdir=/x:/f/mnt", b"/f/mnt"));
        assert!(!names_path(b"ro,lowerdir=/f/mnt2", b"/f/mnt"));
        assert!(!names_path(b"", b"/f/mnt"));
    }
}
