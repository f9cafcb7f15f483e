//! Protects objects in use by a shared lock (`flock`) on the object's own file, which ends with the descriptor even if the
//! process is killed. Eviction takes the same lock exclusively and without waiting, and skips locked objects.
//!
//! The last use is the file's access time, which the cache sets itself. It does not rely on the kernel, which may not update
//! it (`noatime`, `relatime`, passthrough reads).

use std::fs::{File, FileTimes, Metadata, OpenOptions, TryLockError};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::checked::NOTE_USE_EVERY;
use crate::clock;

/// Neither follow a symbolic link in place of the object nor wait for a pipe.
const FLAGS: i32 = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;

/// The most tries for a lock that is held exclusively, and the pause between them.
const MAX_TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);

/// An object of the cache that is not evicted while this lives. Dereferences to its open file.
#[derive(Debug)]
pub struct HeldObject(File);

impl HeldObject {
    /// Opens an object and protects it from eviction. `NotFound` also if it was just evicted.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        lock_shared(&file)?;
        let metadata = file.metadata()?;
        if metadata.nlink() == 0 || !metadata.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let held = Self(file);
        held.note_use();
        Ok(held)
    }

    /// Notes a use now. Dropping does so, too.
    pub fn note_use(&self) {
        note_use(&self.0);
    }
}

impl Deref for HeldObject {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for HeldObject {
    fn drop(&mut self) {
        self.note_use();
        // Unlock explicitly: a child process that is being started has a copy of the descriptor until its exec.
        let _closed_anyway = self.0.unlock();
    }
}

/// Takes the shared lock. Eviction holds an object for microseconds; one that was stopped meanwhile must not block us.
fn lock_shared(file: &File) -> io::Result<()> {
    for _ in 0..MAX_TRIES {
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => return Ok(()),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Opens an object for reading.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(FLAGS).open(path)
}

/// Notes a use of a file now. After a failure the file only looks older.
pub(crate) fn note_use(file: &File) {
    let _looks_older = file.set_times(FileTimes::new().set_accessed(clock::wall()));
}

/// Notes a use, if the last one was noted some time ago.
pub(crate) fn note_use_if_due(file: &File, metadata: &Metadata) {
    let age = metadata.accessed().ok().and_then(|noted| clock::wall().duration_since(noted).ok());
    // An access time in the future is ignored.
    if age.is_none_or(|age| age >= NOTE_USE_EVERY) {
        note_use(file);
    }
}

/// Locks an object for removal. `None` if it is held.
pub(super) fn lock_for_removal(path: &Path) -> io::Result<Option<File>> {
    let file = open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
