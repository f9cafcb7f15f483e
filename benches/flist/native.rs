//! The native forms that a flist is compared with: the same tree on ext4 and as an EROFS image.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, statfs};

use crate::run_dir::RunDir;
use crate::tools::run;
use crate::tree::Tree;

/// Space for the metadata of an ext4 image, beyond the tree's bytes.
const EXT4_ROOM_MIB: u64 = 256;

/// The tree on ext4.
pub(crate) struct Ext4 {
    pub(crate) root: PathBuf,
    /// How the tree was put on ext4.
    pub(crate) how: &'static str,
    is_mounted: bool,
}

impl Ext4 {
    /// Uses the tree itself if it is on ext4: without a loop device, ext4 is at its fastest.
    pub(crate) fn of(run_dir: &RunDir, tree: &Tree) -> Self {
        if statfs(&tree.root).expect("statfs").filesystem_type() == EXT4_SUPER_MAGIC {
            return Self { root: tree.root.clone(), how: "the machine's own", is_mounted: false };
        }
        let (image, root) = (run_dir.path("tree.ext4"), run_dir.dir("ext4"));
        let mib = (tree.bytes >> 20) + EXT4_ROOM_MIB + tree.entries as u64 / 100;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-d"]).arg(&tree.root).arg(&image).arg(format!("{mib}M")));
        run(Command::new("mount").args(["-o", "loop,ro"]).arg(&image).arg(&root));
        Self { root, how: "an image on a loop device", is_mounted: true }
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        if self.is_mounted {
            unmount(&self.root);
        }
    }
}

/// The tree as an EROFS image.
pub(crate) struct Erofs {
    pub(crate) root: PathBuf,
    pub(crate) how: &'static str,
    image: PathBuf,
}

impl Erofs {
    /// Makes and mounts the image; `None` without `mkfs.erofs` or the file system.
    pub(crate) fn of(run_dir: &RunDir, tree: &Tree) -> Option<Self> {
        if Command::new("mkfs.erofs").arg("-V").output().is_err() {
            eprintln!("mkfs.erofs is not installed: no comparison with it (apt-get install erofs-utils)");
            return None;
        }
        let (image, root) = (run_dir.path("tree.erofs"), run_dir.dir("erofs"));
        run(Command::new("mkfs.erofs").arg("--quiet").arg(&image).arg(&tree.root));
        let mut erofs = Self { root, how: "file-backed", image };
        match erofs.try_mount() {
            Ok(()) => {}
            // Before Linux 6.12 EROFS mounts only block devices.
            Err(Errno::ENOTBLK) => {
                run(Command::new("mount").args(["-o", "loop,ro", "-t", "erofs"]).arg(&erofs.image).arg(&erofs.root));
                erofs.how = "on a loop device";
            }
            Err(errno) => {
                eprintln!("EROFS cannot be mounted here ({errno}): no comparison with it");
                return None;
            }
        }
        Some(erofs)
    }

    /// Mounts the image again, if that needs no loop device.
    pub(crate) fn mount(&self) {
        self.try_mount().expect("mount EROFS");
    }

    /// Tells whether [`Self::mount`] can be called.
    pub(crate) fn is_file_backed(&self) -> bool {
        self.how == "file-backed"
    }

    pub(crate) fn unmount(&self) {
        unmount(&self.root);
    }

    fn try_mount(&self) -> Result<(), Errno> {
        mount(Some(&self.image), &self.root, Some("erofs"), MsFlags::MS_RDONLY, None::<&str>)
    }
}

impl Drop for Erofs {
    fn drop(&mut self) {
        unmount(&self.root);
    }
}

fn unmount(point: &Path) {
    // A loop device that `mount` made is removed with its mount.
    let _gone = umount2(point, MntFlags::UMOUNT_NOFOLLOW);
}
