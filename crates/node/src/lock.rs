//! One node per run directory: an exclusive lock on `<run_dir>/contd.lock`, held until its process ends. And one that is
//! about to become it: `<run_dir>/next.lock`, so that of two who come at once neither takes the lock under the other's feet.
//!
//! Each file says who holds it, for a successor: which process, and the number of its listening descriptor. The lock alone
//! is the proof; what stands in the file is believed only while somebody holds the lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use contd_lease::{BootId, ProcessIdentity};
use contd_types::ErrorKind;
use serde::{Deserialize, Serialize};

/// The kind of owner of the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The daemon's.
    Daemon,
    /// That of the next one, which is just coming up or taking over.
    Next,
}

impl Role {
    fn file(self, run_dir: &Path) -> PathBuf {
        run_dir.join(match self {
            Self::Daemon => "contd.lock",
            Self::Next => "next.lock",
        })
    }
}

/// The most bytes of what stands in it.
const MAX_BYTES: usize = 1024;

/// Why the lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file cannot be made.
    #[error("open {}", path.display())]
    Open {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another daemon has it.
    #[error("another contd daemon runs on {}", run_dir.display())]
    Held {
        /// The run directory.
        run_dir: PathBuf,
    },
}

impl LockError {
    /// Classifies the failure for programs.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Held { .. } => ErrorKind::AlreadyExists,
            Self::Open { .. } => ErrorKind::PermissionDenied,
        }
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Held { .. } => "stop that one first, or give this one its own directories; containers run on",
            Self::Open { .. } => "run contd as root, or choose other directories",
        }
    }
}

/// The owner of the lock, as the file names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    boot_id: String,
    /// The process.
    pub process: ProcessIdentity,
    /// The number of its descriptor of the listening API socket, once it has one.
    pub listener: Option<i32>,
}

impl Holder {
    /// Opens a pidfd of exactly this process; `None` when it is gone.
    ///
    /// # Errors
    /// `/proc` cannot be read, or there is no descriptor left.
    pub fn pidfd(&self) -> Result<Option<OwnedFd>, contd_lease::ProcessError> {
        if BootId::current()?.as_str() == self.boot_id { contd_lease::pidfd(&self.process) } else { Ok(None) }
    }
}

/// The lock; dropping it, or the death of the process, frees it.
#[derive(Debug)]
pub struct NodeLock {
    file: File,
}

impl NodeLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`LockError::Held`] at once when another daemon has it.
    pub fn take(run_dir: &Path, role: Role) -> Result<Self, LockError> {
        let lock = Self::lock(run_dir, role)?;
        lock.say(None);
        Ok(lock)
    }

    /// Takes the daemon's lock for somebody who is none and only keeps one away: a daemon that is started meanwhile is
    /// refused, and finds nobody named whom it could end for not answering.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn keep_away(run_dir: &Path) -> Result<Self, LockError> {
        let lock = Self::lock(run_dir, Role::Daemon)?;
        let blank = lock.file.set_len(0);
        blank.map_err(|source| LockError::Open { path: Role::Daemon.file(run_dir), source })?;
        Ok(lock)
    }

    fn lock(run_dir: &Path, role: Role) -> Result<Self, LockError> {
        let path = role.file(run_dir);
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
        let file = file.map_err(|source| LockError::Open { path: path.clone(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held { run_dir: run_dir.to_path_buf() }),
            Err(TryLockError::Error(source)) => Err(LockError::Open { path, source }),
        }
    }

    /// Says in the file who we are and where we listen.
    pub fn say(&self, listener: Option<i32>) {
        let write = || -> Result<(), Box<dyn std::error::Error>> {
            let (boot_id, process) = (BootId::current()?.to_string(), ProcessIdentity::of_self()?);
            let text = serde_json::to_vec(&Holder { boot_id, process, listener })?;
            // Padded in one write: a reader sees the old words or the new ones.
            let mut page = text;
            page.resize(MAX_BYTES, b' ');
            self.file.write_all_at(&page, 0)?;
            Ok(())
        };
        if let Err(error) = write() {
            // A successor can still ask; only if we stand still it does not know whom to end.
            tracing::warn!(error = %error, "the lock file does not say who holds it");
        }
    }
}

/// Reads who holds the lock; `None` when the file does not say.
#[must_use]
pub fn holder(run_dir: &Path, role: Role) -> Option<Holder> {
    let text = std::fs::read(role.file(run_dir)).ok()?;
    serde_json::from_slice(text.get(..MAX_BYTES).unwrap_or(&text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().expect("temp");
        let first = NodeLock::take(dir.path(), Role::Daemon).expect("free");
        assert!(matches!(NodeLock::take(dir.path(), Role::Daemon), Err(LockError::Held { .. })));
        NodeLock::take(dir.path(), Role::Next).expect("the next one's is another lock");
        drop(first);
        NodeLock::take(dir.path(), Role::Daemon).expect("free again");
    }

    #[test]
    fn who_keeps_daemons_away_is_not_named() {
        let dir = tempfile::tempdir().expect("temp");
        drop(NodeLock::take(dir.path(), Role::Daemon).expect("free"));
        let _lock = NodeLock::keep_away(dir.path()).expect("free");
        assert!(matches!(NodeLock::take(dir.path(), Role::Daemon), Err(LockError::Held { .. })));
        assert_eq!(holder(dir.path(), Role::Daemon), None);
    }

    #[test]
    fn the_file_says_who_holds_the_lock_and_where_it_listens() {
        let dir = tempfile::tempdir().expect("temp");
        assert_eq!(holder(dir.path(), Role::Daemon), None);
        let lock = NodeLock::take(dir.path(), Role::Daemon).expect("free");
        lock.say(Some(12));
        lock.say(Some(7));
        let holder = holder(dir.path(), Role::Daemon).expect("it says");
        assert_eq!(holder.listener, Some(7));
        assert_eq!(holder.process, ProcessIdentity::of_self().expect("we"));
        assert!(holder.pidfd().expect("pidfd").is_some());
        std::fs::write(Role::Daemon.file(dir.path()), "").expect("as an older daemon leaves it");
        assert_eq!(super::holder(dir.path(), Role::Daemon), None);
    }
}
