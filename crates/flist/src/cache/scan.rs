//! Walks a cache and reports one entry after the other; nothing is collected, so a million blocks take no memory.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::atomic::TEMP_PREFIX;

/// The folders of a cache.
pub(super) const BLOCKS: &str = "blocks";
pub(super) const FILES: &str = "files";
pub(crate) const FLISTS: &str = "fl";

/// The suffixes of a fetched flist, and of the note with its origin.
pub(crate) const FLIST_SUFFIX: &str = "fl";
pub(crate) const NAME_SUFFIX: &str = "name";

/// The kind of a cache entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ObjectKind {
    /// A block in plain text.
    Block,
    /// A whole file, assembled for the kernel to read from.
    File,
    /// A fetched flist.
    Flist,
    /// A file under a temporary name, in progress or left by a killed writer.
    Temp,
}

/// One entry. Ordered by last use, the oldest first; equal ones by kind and path, so that the order is total.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// Its last use, in nanoseconds since 1970.
    pub(super) used: i64,
    pub(super) kind: ObjectKind,
    /// The path below the root.
    pub(super) path: PathBuf,
    /// The bytes that it takes on the disk.
    pub(super) bytes: u64,
    pub(super) inode: u64,
}

/// Failures of a walk.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    /// The first failure; a failure in one directory does not stop the walk.
    pub(super) failure: Option<(PathBuf, io::Error)>,
}

/// Passes every entry of a cache to `show`.
pub(super) fn walk(root: &Path, show: &mut dyn FnMut(Entry)) -> Unseen {
    let mut walk = Walk { root, show, unseen: Unseen::default() };
    for (folder, kind) in [(BLOCKS, ObjectKind::Block), (FILES, ObjectKind::File)] {
        for shard in walk.folders(Path::new(folder)) {
            walk.files(&shard, &|_| Some(kind));
        }
    }
    walk.files(Path::new(FLISTS), &|path| match path.extension()?.to_str()? {
        FLIST_SUFFIX => Some(ObjectKind::Flist),
        // A note without its flist, which was removed by hand, counts as temporary.
        NAME_SUFFIX if !root.join(path).with_extension(FLIST_SUFFIX).exists() => Some(ObjectKind::Temp),
        _ => None,
    });
    // In the root only temporary files belong to the cache.
    walk.files(Path::new(""), &|_| None);
    walk.unseen
}

struct Walk<'a> {
    root: &'a Path,
    show: &'a mut dyn FnMut(Entry),
    unseen: Unseen,
}

impl Walk<'_> {
    fn folders(&mut self, folder: &Path) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        self.entries(folder, &mut |entry| {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(folder.join(entry.file_name()));
            }
        });
        folders
    }

    fn files(&mut self, folder: &Path, kind: &dyn Fn(&Path) -> Option<ObjectKind>) {
        let (mut found, root) = (Vec::new(), self.root);
        self.entries(folder, &mut |entry| {
            let path = folder.join(entry.file_name());
            let is_temp = entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMP_PREFIX));
            let Some(kind) = (if is_temp { Some(ObjectKind::Temp) } else { kind(&path) }) else { return };
            // Skip entries that were removed meanwhile, and directories, links and pipes.
            let Some(metadata) = entry.metadata().ok().filter(Metadata::is_file) else { return };
            let (mut bytes, inode) = (charge(&metadata), metadata.ino());
            if kind == ObjectKind::Flist {
                let note = fs::symlink_metadata(root.join(&path).with_extension(NAME_SUFFIX));
                bytes += note.map_or(0, |note| charge(&note));
            }
            found.push(Entry { used: last_use(kind, &metadata), kind, path, bytes, inode });
        });
        found.into_iter().for_each(&mut self.show);
    }

    fn entries(&mut self, folder: &Path, show: &mut dyn FnMut(&fs::DirEntry)) {
        let path = self.root.join(folder);
        let failure = match fs::read_dir(&path) {
            Ok(entries) => entries.filter_map(|entry| entry.inspect(&mut *show).err()).next(),
            Err(error) => Some(error),
        };
        if let Some(error) = failure.filter(|error| error.kind() != io::ErrorKind::NotFound) {
            self.unseen.failure.get_or_insert((path, error));
        }
    }
}

/// Returns the bytes that a file takes on the disk. Some file systems know that late, or compress: then its length counts.
pub(super) fn charge(metadata: &Metadata) -> u64 {
    metadata.len().max(metadata.blocks().saturating_mul(512))
}

/// Returns the last use of an object, in nanoseconds since 1970: its access time, which the cache sets. A temporary file
/// is in use by its writer, so its modification time counts.
pub(super) fn last_use(kind: ObjectKind, metadata: &Metadata) -> i64 {
    let (seconds, nanos) = match kind {
        ObjectKind::Temp => (metadata.mtime(), metadata.mtime_nsec()),
        ObjectKind::Block | ObjectKind::File | ObjectKind::Flist => (metadata.atime(), metadata.atime_nsec()),
    };
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}
