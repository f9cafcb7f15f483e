//! Walks a directory and collects its entries in any order; [`Tree`](super::tree::Tree) sorts them.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::PackError;
use super::tree::{DiskFile, Entry, EntryKind, FileContent};

/// Walks the tree below `root`, which is canonical. Leaves out the paths in `skip` (the output).
pub(super) fn walk(root: &Path, skip: &[&Path]) -> Result<Vec<Entry>, PackError> {
    let metadata = look_at(root)?;
    if !metadata.is_dir() {
        return Err(PackError::NotADirectory { path: root.to_owned() });
    }
    let mut found = vec![entry(root, Vec::new(), &metadata)?];
    let mut directories = vec![(root.to_owned(), Vec::new())];
    while let Some((directory, path_of_directory)) = directories.pop() {
        for disk_path in entries(&directory)? {
            if skip.contains(&disk_path.as_path()) {
                continue;
            }
            let metadata = look_at(&disk_path)?;
            let name = disk_path.file_name().unwrap_or_default().as_bytes();
            let path = if path_of_directory.is_empty() {
                name.to_vec()
            } else {
                [path_of_directory.as_slice(), name].join(&b'/')
            };
            found.push(entry(&disk_path, path.clone(), &metadata)?);
            if metadata.is_dir() {
                directories.push((disk_path, path));
            }
        }
    }
    Ok(found)
}

fn look_at(path: &Path) -> Result<Metadata, PackError> {
    fs::symlink_metadata(path).map_err(|source| PackError::Walk { path: path.to_owned(), source })
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, PackError> {
    let entries = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>());
    entries.map_err(|source| PackError::Walk { path: directory.to_owned(), source })
}

fn entry(disk_path: &Path, path: Vec<u8>, metadata: &Metadata) -> Result<Entry, PackError> {
    let file_type = metadata.file_type();
    let kind = if file_type.is_file() {
        EntryKind::File(FileContent::Disk(DiskFile::new(disk_path.to_owned(), metadata)))
    } else if file_type.is_dir() {
        EntryKind::Directory { size: metadata.size() }
    } else if file_type.is_symlink() {
        let target =
            fs::read_link(disk_path).map_err(|source| PackError::Walk { path: disk_path.to_owned(), source })?;
        EntryKind::Symlink { target: target.into_os_string().into_vec() }
    } else if file_type.is_char_device() {
        EntryKind::CharDevice { rdev: metadata.rdev() }
    } else if file_type.is_block_device() {
        EntryKind::BlockDevice { rdev: metadata.rdev() }
    } else if file_type.is_fifo() {
        EntryKind::Fifo
    } else {
        EntryKind::Socket
    };
    Ok(Entry {
        path,
        kind,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: metadata.mtime(),
        ctime: metadata.ctime(),
    })
}
