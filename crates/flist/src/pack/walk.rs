//! Looks at every entry of the tree, in a fixed order: a directory's entries sorted by name, then its first subdirectory.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::PackError;
use crate::metadata::ROOT_INO;

/// The type bits of `st_mode`, and those of regular files and links.
const TYPE_BITS: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// One inode to write, as the tables want it. Its number is its position, from 1.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    pub(super) parent: i64,
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    pub(super) rdev: i64,
    pub(super) ctime: i64,
    pub(super) mtime: i64,
    pub(super) mtime_nsec: i64,
    pub(super) target: Option<Vec<u8>>,
}

impl Entry {
    pub(super) fn is_file(&self) -> bool {
        self.mode & TYPE_BITS == REGULAR
    }

    /// Tells whether the file still has the length and time that the walk saw.
    pub(super) fn is_unchanged(&self, now: &Metadata) -> bool {
        now.is_file() && now.len() == self.size && (now.mtime(), now.mtime_nsec()) == (self.mtime, self.mtime_nsec)
    }
}

/// Everything that was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    pub(super) content_bytes: u64,
}

/// Walks the tree below `root`, which is canonical. The paths in `skip` (the output) are left out.
pub(super) fn walk(root: &Path, skip: &[&Path]) -> Result<Found, PackError> {
    let metadata = look_at(root)?;
    if !metadata.is_dir() {
        return Err(PackError::NotADirectory { path: root.to_owned() });
    }
    let mut found = Found { entries: vec![entry(root.to_owned(), 0, "/".to_owned(), &metadata)?], content_bytes: 0 };
    let mut directories = vec![(root.to_owned(), ROOT_INO)];
    while let Some((directory, ino)) = directories.pop() {
        let parent = number(&directory, "inode number", ino)?;
        let mut subdirectories = Vec::new();
        for path in sorted_entries(&directory)? {
            if skip.contains(&path.as_path()) {
                continue;
            }
            let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
            let name = name.ok_or_else(|| PackError::NameNotUtf8 { path: path.clone() })?;
            let metadata = look_at(&path)?;
            let entry = entry(path.clone(), parent, name, &metadata)?;
            if entry.is_file() {
                found.content_bytes += entry.size;
            }
            found.entries.push(entry);
            if metadata.is_dir() {
                subdirectories.push((path, found.entries.len() as u64));
            }
        }
        directories.extend(subdirectories.into_iter().rev());
    }
    Ok(found)
}

fn look_at(path: &Path) -> Result<Metadata, PackError> {
    fs::symlink_metadata(path).map_err(|source| PackError::Walk { path: path.to_owned(), source })
}

fn sorted_entries(directory: &Path) -> Result<Vec<PathBuf>, PackError> {
    let entries = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>());
    let mut entries = entries.map_err(|source| PackError::Walk { path: directory.to_owned(), source })?;
    // By bytes, so that the locale changes nothing.
    entries.sort_unstable_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    Ok(entries)
}

fn entry(path: PathBuf, parent: i64, name: String, metadata: &Metadata) -> Result<Entry, PackError> {
    let target = if metadata.mode() & TYPE_BITS == SYMLINK {
        let target = fs::read_link(&path).map_err(|source| PackError::Walk { path: path.clone(), source })?;
        Some(target.into_os_string().as_bytes().to_vec())
    } else {
        None
    };
    Ok(Entry {
        parent,
        name,
        size: metadata.size(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        mode: metadata.mode(),
        rdev: number(&path, "device number", metadata.rdev())?,
        ctime: metadata.ctime(),
        mtime: metadata.mtime(),
        mtime_nsec: metadata.mtime_nsec(),
        target,
        path,
    })
}

/// Fits a number into SQLite's 63 bits.
pub(super) fn number(path: &Path, what: &'static str, value: u64) -> Result<i64, PackError> {
    i64::try_from(value).map_err(|_too_large| PackError::OutOfRange { path: path.to_owned(), what })
}
