//! Prepares a log before its first writer starts, and removes it after the last one.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Dir, Mode, OFlags, openat};

use crate::error::LogError;
use crate::files::{Access, Found, LogFiles};
use crate::rotation::MAX_FILES;

/// The place in the log where the output of a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunStart {
    /// The inode of the log file.
    pub inode: u64,
    /// The offset in that file, in bytes.
    pub offset: u64,
    /// Whether output of the run before was lost; the writer then adds a line that says so.
    pub is_after_loss: bool,
}

/// A file of the log.
#[derive(Debug)]
pub(crate) struct OwnFile {
    pub(crate) name: OsString,
    /// The part of the name that follows the log's own name.
    pub(crate) suffix: String,
    pub(crate) file: File,
    pub(crate) bytes: u64,
}

impl LogFiles {
    /// Makes the log and its directory for the next run, and returns where the run's output will begin. Only legal
    /// while no writer has the log open. `max_files` decides which names rotation will use.
    ///
    /// Files that another container of contd left at these names are passed to `take_away`, but only before the first
    /// run.
    ///
    /// # Errors
    /// [`LogError::Foreign`] when a file that is not of contd has one of the names; nothing was made then.
    pub fn prepare(
        &self,
        is_first_run: bool,
        max_files: u32,
        take_away: impl Fn(&Self) -> Result<(), LogError>,
    ) -> Result<RunStart, LogError> {
        let dir = self.make_dir()?;
        for age in 0..max_files.clamp(1, MAX_FILES) {
            let name = self.aged(age);
            if is_first_run && let Found::OfOwner(owner, _) = self.find(&dir, &name, Access::Read)? {
                take_away(&self.of(&owner))?;
            }
            if let Some(file) = self.find_own(&dir, &name, Access::Read)? {
                self.mark(&name, &file)?;
            }
        }
        let there = self.open_log(&dir)?.metadata();
        let there = there.map_err(|source| LogError::Open { path: self.path(), source })?;
        Ok(RunStart { inode: there.ino(), offset: there.len(), is_after_loss: false })
    }

    /// Sets the mark on a file of this log, unless it has one.
    pub(crate) fn mark(&self, name: &OsStr, file: &File) -> Result<(), LogError> {
        let Some(owner) = self.owner() else { return Ok(()) };
        let failed = |source| LogError::Open { path: self.path_of(name), source };
        if self.marks().get(file).map_err(failed)?.is_some() {
            return Ok(());
        }
        self.marks().set(file, owner).map_err(failed)
    }

    /// Removes the log and its rotated files, as far as they are of this log. Their directory stays: see
    /// [`Self::clear_up`].
    ///
    /// # Errors
    /// [`LogError::Open`] or [`LogError::Remove`]; it may be repeated.
    pub fn remove(&self) -> Result<(), LogError> {
        let Some(dir) = self.open_own_dir()? else { return Ok(()) };
        for own in self.own_files(&dir)? {
            let removed = self.unlink(&dir, &own.name, &own.file);
            removed.map_err(|source| LogError::Remove { path: self.path_of(&own.name), source })?;
        }
        Ok(())
    }

    /// Removes the directory of the log if contd made it and it is empty.
    ///
    /// # Errors
    /// [`LogError::Remove`]; it may be repeated.
    pub fn clear_up(&self) -> Result<(), LogError> {
        match self.remove_dir() {
            // The directory is not of contd, so it stays.
            Err(LogError::Foreign { .. }) => Ok(()),
            done => done,
        }
    }

    /// Opens the directory; `None` also when something else is in its place: it cannot hold files of ours then.
    pub(crate) fn open_own_dir(&self) -> Result<Option<OwnedFd>, LogError> {
        match self.open_dir() {
            Err(LogError::Foreign { .. }) => Ok(None),
            opened => opened,
        }
    }

    /// Lists the files of the log that are ours, however many there are.
    pub(crate) fn own_files(&self, dir: &OwnedFd) -> Result<Vec<OwnFile>, LogError> {
        let mut files = Vec::new();
        for name in names_in(dir).map_err(|source| LogError::Open { path: self.dir_path(), source })? {
            let Some(suffix) = self.suffix_of(&name).map(str::to_owned) else { continue };
            if let Found::Ours(file) = self.find(dir, &name, Access::Read)? {
                let there = file.metadata();
                let bytes = there.map_err(|source| LogError::Open { path: self.path_of(&name), source })?.len();
                files.push(OwnFile { name, suffix, file, bytes });
            }
        }
        Ok(files)
    }
}

/// Lists the names in a directory.
pub(crate) fn names_in(dir: &OwnedFd) -> std::io::Result<Vec<OsString>> {
    use std::os::unix::ffi::OsStringExt;
    // Open the directory again: a duplicate would share its read position with other readers.
    let again = openat(dir, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::new(again)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}
