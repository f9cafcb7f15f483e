//! What is being made and would be left behind if the process were ended now: temporary files, a tree that is unpacked.
//!
//! A command that is told to end (Ctrl-C) removes all of it with [`remove_all`] and exits. Only SIGKILL and a power loss
//! leave something: files called `.tmp-PID-N`, and directories called `.contd-unpack-PID-N`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Threads may still be writing into a directory while it is removed; each try finds less.
const MAX_TRIES: u32 = 100;

static ALL: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A path that is not finished, for as long as this lives.
#[derive(Debug)]
pub struct Unfinished(PathBuf);

impl Unfinished {
    /// Notes a path that was just made.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        all().insert(path.to_owned());
        Self(path.to_owned())
    }

    /// Finishes it by steps that must not be left half done: [`remove_all`] waits for them.
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

/// Removes everything that this process has begun and not finished. To be called right before the process exits: from
/// then on nothing can be begun or finished, and threads that try to wait for ever.
///
/// Gives what could not be removed.
pub fn remove_all() -> Vec<(PathBuf, io::Error)> {
    let all = all();
    let left = all.iter().filter_map(|path| Some((path.clone(), remove(path).err()?))).collect();
    // Never unlocked again: what is finished now would be half removed.
    std::mem::forget(all);
    left
}

/// Removes a file, or a directory with all that is in it.
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
        let unfinished = Unfinished::new(&path);
        assert!(all().contains(&path));
        drop(unfinished);
        assert!(!all().contains(&path));
        remove(&path).unwrap();
        assert!(!path.exists());
        remove(&path).unwrap();
    }
}
