//! Attaches the file behind a descriptor as a mount.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};

use crate::sys;

/// An attempt to attach a mount failed.
#[derive(Debug, thiserror::Error)]
#[error("attach an allowed source at {}: {what}", at.display())]
pub struct AttachError {
    /// The step that failed.
    pub what: &'static str,
    /// The mount point.
    pub at: PathBuf,
    /// The error.
    pub source: io::Error,
}

/// Mounts the file behind `source` at `at`, which is made: a directory, or a file for anything else. Mounts below the
/// source are copied too. The mount is private, and read-only in all its parts on request, before it becomes visible.
///
/// # Errors
/// [`AttachError`]; the mount point may be left.
pub fn attach(source: impl AsFd, at: &Path, is_read_only: bool) -> Result<(), AttachError> {
    let step = |what| move |source| AttachError { what, at: at.to_owned(), source };
    let kind = fstat(&source).map_err(|errno| step("examine the source")(errno.into()))?.st_mode & libc::S_IFMT;
    let made = if kind == libc::S_IFDIR {
        fs::DirBuilder::new().mode(0o700).create(at)
    } else {
        File::options().write(true).create_new(true).mode(0o600).open(at).map(drop)
    };
    made.map_err(step("make the mount point"))?;
    let tree = sys::open_tree(source).map_err(step("copy its mount"))?;
    sys::set_attributes(&tree, is_read_only).map_err(step("make it private"))?;
    let target = open_point(at).map_err(step("open the mount point"))?;
    sys::move_mount(tree, target).map_err(step("move it there"))
}

fn open_point(at: &Path) -> io::Result<OwnedFd> {
    Ok(open(at, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use nix::mount::{MntFlags, umount2};

    use super::*;

    #[test]
    fn what_was_opened_is_attached_whatever_lies_at_its_path_by_then() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (source, at) = (dir.path().join("source"), dir.path().join("at"));
        fs::create_dir(&source).unwrap();
        fs::write(source.join("mine"), "").unwrap();
        let opened = open_point(&source).unwrap();
        // The race: a link is put there between the check and the mount.
        fs::rename(&source, dir.path().join("moved")).unwrap();
        std::os::unix::fs::symlink("/etc", &source).unwrap();
        attach(&opened, &at, true).unwrap();
        assert!(at.join("mine").exists() && !at.join("passwd").exists());
        let refused = fs::write(at.join("new"), "").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
        umount2(&at, MntFlags::MNT_DETACH).unwrap();
        fs::remove_dir(&at).unwrap();
        let file = open_point(&dir.path().join("moved/mine")).unwrap();
        attach(&file, &at, false).unwrap();
        fs::write(&at, "through").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("moved/mine")).unwrap(), "through");
        umount2(&at, MntFlags::MNT_DETACH).unwrap();
    }
}
