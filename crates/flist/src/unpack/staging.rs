//! The private directory in which a tree is made, and its move to the final place.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{UnpackError, UnpackOptions, root};
use crate::metadata::{Flist, ROOT_INO};
use crate::unfinished::{self, Unfinished};

/// The mode that only admits the owner.
const PRIVATE_DIRECTORY: u32 = 0o700;

/// The prefix of the directory's name.
const PREFIX: &str = ".contd-unpack-";

/// The most new names tried in a folder full of leftovers.
const MAX_NAME_ATTEMPTS: u32 = 16;

#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
    dir: PathBuf,
    /// Whether `dir` existed before; then this directory is inside it, so that both are on one file system.
    was_there: bool,
    unfinished: Unfinished,
    /// Locked while it is being filled: an unlocked one was left by a killed process.
    _lock: File,
}

impl Staging {
    /// Makes one for `dir`, which must be empty or not exist.
    pub(super) fn make(dir: &Path) -> Result<Self, UnpackError> {
        let failed = |source| UnpackError::Prepare { dir: dir.to_owned(), source };
        let was_there = match fs::metadata(dir) {
            Ok(metadata) if !metadata.is_dir() => return Err(UnpackError::NotADirectory { dir: dir.to_owned() }),
            Ok(_) if !is_empty(dir).map_err(failed)? => {
                return Err(UnpackError::NotEmpty { dir: dir.to_owned() });
            }
            Ok(_) => true,
            // A dangling symbolic link is not replaced.
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
        let (unfinished, path) = make_in(folder).map_err(failed)?;
        let lock = File::open(&path).map_err(failed)?;
        // Some file systems have no locks.
        let _unlocked = lock.try_lock_shared();
        Ok(Self { path, dir: dir.to_owned(), was_there, unfinished, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the tree to its place.
    pub(super) fn publish(self, flist: &Flist, options: &UnpackOptions) -> Result<(), UnpackError> {
        let Self { path, dir, was_there, unfinished, _lock } = self;
        // A process that is told to end waits for these steps: a half-moved tree must not be removed.
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

/// Tells whether a directory is empty, except for leftovers of killed processes, which it removes.
fn is_empty(dir: &Path) -> io::Result<bool> {
    let mut left = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() || !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            return Ok(false);
        }
        left.push(entry.path());
    }
    for path in left {
        if File::open(&path)?.try_lock().is_err() {
            return Ok(false);
        }
        unfinished::remove(&path)?;
    }
    Ok(true)
}

fn make_in(folder: &Path) -> io::Result<(Unfinished, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    for _ in 0..MAX_NAME_ATTEMPTS {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{PREFIX}{}-{number}", process::id()));
        match Unfinished::make(|| Ok((path.clone(), DirBuilder::new().mode(PRIVATE_DIRECTORY).create(&path)?))) {
            Ok((unfinished, ())) => return Ok((unfinished, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Moves the content of a directory to its parent, and removes it.
fn move_up(path: &Path, dir: &Path) -> io::Result<()> {
    // The mode of the root may forbid its owner to move entries out of it.
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE_DIRECTORY))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        fs::rename(entry.path(), dir.join(entry.file_name()))?;
    }
    fs::remove_dir(path)
}
