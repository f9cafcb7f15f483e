//! The directory in which a tree is made before anybody sees it, and how it comes to its place.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{UnpackError, UnpackOptions, root};
use crate::metadata::{Flist, ROOT_INO};
use crate::unfinished::Unfinished;

/// Only its maker may enter it.
const PRIVATE_DIRECTORY: u32 = 0o700;

/// Tries this many fresh names before it gives up on a folder full of leftovers.
const MAX_NAME_ATTEMPTS: u32 = 16;

#[derive(Debug)]
pub(super) struct Aside {
    path: PathBuf,
    dir: PathBuf,
    /// Whether `dir` was there before; then this lies in it, so that both are of one file system.
    was_there: bool,
    unfinished: Unfinished,
}

impl Aside {
    /// Makes one for `dir`, which must be empty or not there.
    pub(super) fn make(dir: &Path) -> Result<Self, UnpackError> {
        let failed = |source| UnpackError::Prepare { dir: dir.to_owned(), source };
        let was_there = match fs::metadata(dir) {
            Ok(metadata) if !metadata.is_dir() => return Err(UnpackError::NotADirectory { dir: dir.to_owned() }),
            Ok(_) if fs::read_dir(dir).map_err(failed)?.next().is_some() => {
                return Err(UnpackError::NotEmpty { dir: dir.to_owned() });
            }
            Ok(_) => true,
            // A link that leads nowhere is not replaced.
            Err(_) if fs::symlink_metadata(dir).is_ok() => {
                return Err(UnpackError::NotADirectory { dir: dir.to_owned() });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(failed(error)),
        };
        let folder = match dir.parent() {
            _ if was_there => dir,
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let path = make_in(folder).map_err(failed)?;
        let unfinished = Unfinished::new(&path);
        Ok(Self { path, dir: dir.to_owned(), was_there, unfinished })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts what was made in its place.
    pub(super) fn show(self, flist: &Flist, options: &UnpackOptions) -> Result<(), UnpackError> {
        let Self { path, dir, was_there, unfinished } = self;
        // Who is told to end meanwhile ends when this is done: half of it must not be removed.
        unfinished.finish(|| {
            let shown = if was_there { move_up(&path, &dir) } else { fs::rename(&path, &dir) };
            shown.map_err(|source| UnpackError::Prepare { dir: dir.clone(), source })?;
            match flist.inode(ROOT_INO).filter(|_| was_there) {
                None => Ok(()),
                Some(inode) => {
                    let opened =
                        File::open(&dir).map_err(|source| UnpackError::Prepare { dir: dir.clone(), source })?;
                    root::finish_directory(opened.as_fd(), inode, options.same_owner)
                        .map_err(|(step, errno)| UnpackError::Entry { step, path: dir.clone(), source: errno.into() })
                }
            }
        })
    }
}

fn make_in(folder: &Path) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    for _ in 0..MAX_NAME_ATTEMPTS {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!(".contd-unpack-{}-{number}", process::id()));
        match DirBuilder::new().mode(PRIVATE_DIRECTORY).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Moves all that is in a directory into the one that it lies in, and removes it.
fn move_up(path: &Path, dir: &Path) -> io::Result<()> {
    // The mode of the root may keep its own maker from taking things out of it.
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE_DIRECTORY))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        fs::rename(entry.path(), dir.join(entry.file_name()))?;
    }
    fs::remove_dir(path)
}
