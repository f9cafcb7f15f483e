//! Objects in use: a shared lock (`flock`) on the object's own file, which ends with the descriptor, whatever happens to
//! the process. Who evicts takes the same lock alone and without waiting, or leaves the object.
//!
//! The last use is the file's time of access, set by us: the kernel's own keeping of it (`noatime`, `relatime`, reads
//! past the server by passthrough) neither helps nor harms.

use std::fs::{File, FileTimes, Metadata, OpenOptions, TryLockError};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::checked::NOTE_USE_EVERY;
use crate::clock;

/// A link in its place must not lead elsewhere, a pipe not make us wait.
const FLAGS: i32 = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;

/// How often a lock that somebody has alone is tried, and the pause between.
const MAX_TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);

/// An object of the cache that is not evicted while this lives. Reading is by the file it derefs to.
#[derive(Debug)]
pub struct HeldObject(File);

impl HeldObject {
    /// Opens an object and keeps it from being evicted. `NotFound` also if it was evicted in this very moment.
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

    /// Notes that it is used now. Its end does so, too.
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
        // By name, not only by closing: a process that is just being started has a copy until its exec.
        let _closed_anyway = self.0.unlock();
    }
}

/// Whoever evicts holds an object for microseconds; one that was stopped meanwhile must not stop us.
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

/// Opens an object to read.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(FLAGS).open(path)
}

/// Notes that a file is used now. A failure makes it look older than it is, no more.
pub(crate) fn note_use(file: &File) {
    let _looks_older = file.set_times(FileTimes::new().set_accessed(clock::wall()));
}

/// The same, if the last use was noted some time ago.
pub(crate) fn note_use_if_due(file: &File, metadata: &Metadata) {
    let age = metadata.accessed().ok().and_then(|noted| clock::wall().duration_since(noted).ok());
    // One of the future says nothing.
    if age.is_none_or(|age| age >= NOTE_USE_EVERY) {
        note_use(file);
    }
}

/// Takes an object for removal. `None` if somebody holds it.
pub(super) fn take(path: &Path) -> io::Result<Option<File>> {
    let file = open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
