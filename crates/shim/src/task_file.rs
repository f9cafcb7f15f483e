//! `task.json`: what this shim is to make.

use std::io;
use std::path::{Path, PathBuf};

use contd_durable::{Fs, RealFs};
use contd_protocol::shim::{TASK_SPEC_VERSION, TaskSpec, files};
use serde::Deserialize;

/// A task is a few paths.
const MAX_TASK_BYTES: u64 = 64 * 1024;

/// Why the task is not understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskFileError {
    /// The file could not be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a task.
    #[error("decode {}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It is a task of another version.
    #[error("read {}: version {found}, this shim knows {TASK_SPEC_VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in it.
        found: u32,
    },
}

#[derive(Deserialize)]
struct OnlyVersion {
    version: u32,
}

/// Reads the task of a lease directory.
pub(crate) fn read(dir: &Path) -> Result<TaskSpec, TaskFileError> {
    let path = dir.join(files::TASK);
    let bytes = match RealFs.read(&path, MAX_TASK_BYTES) {
        Ok(bytes) => bytes,
        Err(source) => return Err(TaskFileError::Read { path, source }),
    };
    // The version first: what else another one has may not decode at all.
    match serde_json::from_slice::<OnlyVersion>(&bytes) {
        Ok(OnlyVersion { version }) if version == TASK_SPEC_VERSION => {}
        Ok(OnlyVersion { version: found }) => return Err(TaskFileError::Version { path, found }),
        Err(source) => return Err(TaskFileError::Decode { path, source }),
    }
    serde_json::from_slice(&bytes).map_err(|source| TaskFileError::Decode { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_named_even_when_nothing_else_decodes() {
        let dir = tempfile::tempdir().expect("scratch");
        std::fs::write(dir.path().join(files::TASK), br#"{"version":2,"future":true}"#).expect("prepare");
        assert!(matches!(read(dir.path()), Err(TaskFileError::Version { found: 2, .. })));
    }
}
