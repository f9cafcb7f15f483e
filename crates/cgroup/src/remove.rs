//! Removes a cgroup after waiting until it is empty; v2 announces that, v1 is polled.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::cgroup::Cgroup;
use crate::clock;
use crate::error::CgroupError;
use crate::members;

/// The polling interval on v1, which does not announce that a cgroup is empty.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// The most levels of cgroups that a container may have made below its own.
const MAX_DEPTH: usize = 32;

impl Cgroup {
    /// Removes all directories of the cgroup if it is empty, without waiting; `false` when a process is in it.
    ///
    /// # Errors
    /// [`CgroupError::File`].
    pub fn try_remove(&self) -> Result<bool, CgroupError> {
        let mut is_gone = true;
        for dir in &self.dirs {
            is_gone &= remove_tree(&dir.path, 0)?;
        }
        Ok(is_gone)
    }

    /// Waits until the cgroup is empty and removes it.
    ///
    /// # Errors
    /// [`CgroupError::NotEmpty`] when it is not empty after `waited`.
    pub fn remove(&self, waited: Duration) -> Result<(), CgroupError> {
        let deadline = clock::monotonic() + waited;
        if let Some(dir) = self.dirs.iter().find(|dir| dir.is_v2) {
            members::await_event(&dir.path.join("cgroup.events"), "populated 0", deadline)?;
        }
        while !self.try_remove()? {
            if clock::monotonic() >= deadline {
                let path = self.membership_dir().map(Path::to_owned).unwrap_or_default();
                return Err(CgroupError::NotEmpty { path, waited });
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

/// Removes a directory with those below it; `false` when a process is in one of them.
fn remove_tree(dir: &Path, depth: usize) -> Result<bool, CgroupError> {
    match fs::remove_dir(dir) {
        Ok(()) => return Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) && depth < MAX_DEPTH => {}
        Err(source) => return Err(CgroupError::file("remove", dir, source)),
    }
    let mut is_gone = true;
    for below in subdirectories(dir)? {
        is_gone &= remove_tree(&below, depth + 1)?;
    }
    if !is_gone {
        return Ok(false);
    }
    match fs::remove_dir(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(false),
        Err(source) => Err(CgroupError::file("remove", dir, source)),
    }
}

pub(crate) fn subdirectories(dir: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let failed = |source| CgroupError::file("list", dir, source);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
