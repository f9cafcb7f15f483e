//! When a log is rotated, and how its older files are named: `name.log.1` is the youngest of them.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use contd_failpoint::Failpoint;

/// The most files a log can have; far above what anyone keeps.
pub(crate) const MAX_FILES: u32 = 1000;

/// When and how far a log is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// The size in bytes that a file should not exceed. A line that is still being written may take it to twice that.
    pub max_bytes: u64,
    /// How many files there are at most, the written one included; at least 1, at most 1000.
    pub max_files: u32,
}

impl Rotation {
    /// Makes a rule that never rotates.
    pub fn never() -> Self {
        Self { max_bytes: u64::MAX, max_files: 1 }
    }
}

/// Names the older file of this age; age 0 is the log itself.
pub(crate) fn aged(path: &Path, age: u32) -> PathBuf {
    if age == 0 {
        return path.to_owned();
    }
    let mut name = OsString::from(path);
    name.push(format!(".{age}"));
    PathBuf::from(name)
}

/// Makes each file one older, so that the log's own name is free. May be repeated after a failure in the middle.
pub(crate) fn shift(path: &Path, max_files: u32) -> io::Result<()> {
    let oldest = max_files.clamp(1, MAX_FILES) - 1;
    if oldest == 0 {
        return absent_is_fine(std::fs::remove_file(path));
    }
    // Up to the first free name: after a failed attempt there may be one, and what lies behind it need not move.
    let mut free = oldest;
    for age in 1..=oldest {
        if !aged(path, age).try_exists()? {
            free = age;
            break;
        }
    }
    for age in (1..=free).rev() {
        absent_is_fine(std::fs::rename(aged(path, age - 1), aged(path, age)))?;
        contd_failpoint::hit(Failpoint::RotationRenamed);
    }
    Ok(())
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
