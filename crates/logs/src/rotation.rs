//! Rotation: when a log is rotated, and how its older files are named. `name.log.1` is the youngest of them.

use std::io;
use std::os::fd::OwnedFd;

use contd_failpoint::Failpoint;

use crate::error::LogError;
use crate::files::{Access, LogFiles, rename_to_free};

/// The most files a log can have; far above what anyone keeps.
pub(crate) const MAX_FILES: u32 = 1000;

/// The limits that decide when a log is rotated and how many files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// The size in bytes that a file should not exceed. A line that is still being written may double it.
    pub max_bytes: u64,
    /// The most files of a log, the written one included; at least 1, at most 1000.
    pub max_files: u32,
}

impl Rotation {
    /// Returns limits under which a log never rotates.
    pub fn never() -> Self {
        Self { max_bytes: u64::MAX, max_files: 1 }
    }
}

/// Renames each file to the next age, so that the log's own name is free. May be repeated after a failure in the
/// middle. A foreign file at one of the names is an error; no file was moved then.
pub(crate) fn shift(files: &LogFiles, dir: &OwnedFd, max_files: u32) -> Result<(), LogError> {
    let failed = |source| LogError::Rotate { path: files.path(), source };
    let oldest = max_files.clamp(1, MAX_FILES) - 1;
    // Shift only up to the first free name: a failed attempt may have left one, and the files behind it need not move.
    let mut free = None;
    for age in 1..=oldest {
        if files.find_own(dir, &files.aged(age), Access::Read)?.is_none() {
            free = Some(age);
            break;
        }
    }
    let last = match free {
        Some(age) => age,
        None => {
            let name = files.aged(oldest);
            if let Some(file) = files.find_own(dir, &name, Access::Read)? {
                files.unlink(dir, &name, &file).map_err(failed)?;
            }
            oldest
        }
    };
    for age in (1..=last).rev() {
        match rename_to_free((dir, &files.aged(age - 1)), (dir, &files.aged(age))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => contd_failpoint::hit(Failpoint::RotationRenamed),
        }
    }
    Ok(())
}
