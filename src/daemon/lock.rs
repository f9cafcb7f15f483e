//! One daemon per run directory: an exclusive lock on `<run_dir>/contd.lock`, held until the process ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Why the lock could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
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

/// The lock; dropping it, or the death of the process, frees it.
#[derive(Debug)]
pub(crate) struct DaemonLock {
    _file: File,
}

impl DaemonLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`LockError::Held`] at once when another daemon has it.
    pub(crate) fn take(run_dir: &Path) -> Result<Self, LockError> {
        let path = run_dir.join("contd.lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(|source| LockError::Open { path: path.clone(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held { run_dir: run_dir.to_path_buf() }),
            Err(TryLockError::Error(source)) => Err(LockError::Open { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().expect("temp");
        let first = DaemonLock::take(dir.path()).expect("free");
        assert!(matches!(DaemonLock::take(dir.path()), Err(LockError::Held { .. })));
        drop(first);
        DaemonLock::take(dir.path()).expect("free again");
    }
}
