//! Lists the paths that this process is still making: temporary files, and trees that are being unpacked.
//!
//! A command that is told to end (Ctrl-C) removes them with [`remove_all`] and exits. Only SIGKILL and a power loss leave
//! such paths behind: files called `.tmp-PID-N`, and directories called `.contd-unpack-PID-N`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most tries to remove a directory: threads may still be writing into it, and each try removes more.
const MAX_TRIES: u32 = 100;

static ALL: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Marks a path as unfinished while this value lives.
#[derive(Debug)]
pub struct Unfinished(PathBuf);

impl Unfinished {
    /// Registers the path that `make` makes and returns; [`remove_all`] comes before both or after both.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn make<T>(make: impl FnOnce() -> io::Result<(PathBuf, T)>) -> io::Result<(Self, T)> {
        let mut all = all();
        let (path, made) = make()?;
        all.insert(path.clone());
        Ok((Self(path), made))
    }

    /// Returns the path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Runs the steps that finish the path; [`remove_all`] waits for them.
    pub(crate) fn finish<T>(self, finish: impl FnOnce() -> T) -> T {
        let mut all = all();
        let done = finish();
        all.remove(&self.0);
        drop(all);
        done
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        all().remove(&self.0);
    }
}

fn all() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes all unfinished paths of this process. Call it right before the process exits: afterwards threads that begin or
/// finish a path block for ever.
///
/// Returns the paths that could not be removed, with the error of each.
pub fn remove_all() -> Vec<(PathBuf, io::Error)> {
    let all = all();
    let left = all.iter().filter_map(|path| Some((path.clone(), remove(path).err()?))).collect();
    // The lock is kept for ever, so that no thread finishes a path that was just removed.
    std::mem::forget(all);
    left
}

/// Removes a file, or a directory with all its entries; a missing one is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        let removed = match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && tries < MAX_TRIES => tries += 1,
            removed => return removed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_known_for_as_long_as_it_is_unfinished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tree");
        fs::create_dir_all(path.join("a/b")).unwrap();
        // An end in between would remove nothing, and leave what is made after it.
        let does_it_wait = || matches!(ALL.try_lock(), Err(std::sync::TryLockError::WouldBlock));
        let (unfinished, do_all_wait) = Unfinished::make(|| Ok((path.clone(), does_it_wait()))).unwrap();
        assert!(do_all_wait);
        assert!(all().contains(&path));
        drop(unfinished);
        assert!(!all().contains(&path));
        remove(&path).unwrap();
        assert!(!path.exists());
        remove(&path).unwrap();
    }
}
