//! What lies in a cache, one entry after the other: nothing is collected here, so a million blocks take no memory.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::atomic::TEMP_PREFIX;

/// The folders of a cache.
pub(super) const BLOCKS: &str = "blocks";
pub(super) const FILES: &str = "files";
pub(crate) const FLISTS: &str = "fl";

/// Ends the name of a fetched flist, and that of the note where it came from.
pub(crate) const FLIST_SUFFIX: &str = "fl";
pub(crate) const NAME_SUFFIX: &str = "name";

/// What an entry of the cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ObjectKind {
    /// A block in plain text.
    Block,
    /// A whole file, put together for the kernel to read from.
    File,
    /// A fetched flist.
    Flist,
    /// A file under a temporary name: its writer is at it, or was ended.
    Temp,
}

/// One entry. Ordered by its last use, the oldest first; equally old ones by kind and path, so that the order is total.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// Its last use, in nanoseconds since 1970.
    pub(super) used: i64,
    pub(super) kind: ObjectKind,
    /// Below the root.
    pub(super) path: PathBuf,
    /// What it takes.
    pub(super) bytes: u64,
    pub(super) inode: u64,
}

/// What a walk could not see.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    /// The first failure; that of one folder does not keep from the others.
    pub(super) failure: Option<(PathBuf, io::Error)>,
}

/// Shows every entry of a cache.
pub(super) fn walk(root: &Path, show: &mut dyn FnMut(Entry)) -> Unseen {
    let mut walk = Walk { root, show, unseen: Unseen::default() };
    for (folder, kind) in [(BLOCKS, ObjectKind::Block), (FILES, ObjectKind::File)] {
        for shard in walk.folders(Path::new(folder)) {
            walk.files(&shard, &|_| Some(kind));
        }
    }
    walk.files(Path::new(FLISTS), &|path| match path.extension()?.to_str()? {
        FLIST_SUFFIX => Some(ObjectKind::Flist),
        // A note without its flist: somebody removed that by hand.
        NAME_SUFFIX if !root.join(path).with_extension(FLIST_SUFFIX).exists() => Some(ObjectKind::Temp),
        _ => None,
    });
    // Only temporary files: the rest there is not of the cache.
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
            // Gone meanwhile, or in the way as a directory, a link or a pipe: no object.
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

/// Says what a file takes of the disk. Some file systems know that late, or compress: then its length counts.
pub(super) fn charge(metadata: &Metadata) -> u64 {
    metadata.len().max(metadata.blocks().saturating_mul(512))
}

/// Says when an object was used last, in nanoseconds since 1970: its time of access, which we set ourselves. What is being
/// written is used by its writer.
pub(super) fn last_use(kind: ObjectKind, metadata: &Metadata) -> i64 {
    let (seconds, nanos) = match kind {
        ObjectKind::Temp => (metadata.mtime(), metadata.mtime_nsec()),
        ObjectKind::Block | ObjectKind::File | ObjectKind::Flist => (metadata.atime(), metadata.atime_nsec()),
    };
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}
