//! The tree to pack, from any source: a directory on disk, the layers of an image, memory.
//!
//! ```text
//! walk of a directory ─┐
//! layers of an image ──┼─> entries, in any order ──Tree::build: checked, ordered──> seal, database
//! ```

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::PackError;
use crate::metadata::{FileKind, MAX_BLOCKS, MAX_INODES, MAX_NAME_BYTES, MAX_TARGET_BYTES, MAX_TEXT_BYTES, blocks_for};

/// The permission bits of `st_mode`; [`EntryKind`] holds the type.
const PERMISSION_BITS: u32 = 0o7777;

/// One entry of the tree.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The path from the root: `b"etc/passwd"`. Empty for the root itself, which is required.
    pub path: Vec<u8>,
    /// The kind, with the content.
    pub kind: EntryKind,
    /// Permissions with setuid, setgid and sticky: 07777.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Last change of the content, in whole seconds since 1970.
    pub mtime: i64,
    /// Last change of the inode, in whole seconds since 1970. Sources without one use [`Entry::mtime`].
    pub ctime: i64,
}

/// The kind of an entry.
#[derive(Debug, Clone)]
pub enum EntryKind {
    /// A regular file. Each hard link is a separate file; equal blocks are stored once.
    File(FileContent),
    /// A directory; `size` is the one of `stat`, or 4096 if the directory is not on disk.
    Directory {
        /// Bytes.
        size: u64,
    },
    /// A symbolic link to 1 to 4095 bytes without NUL.
    Symlink {
        /// The target.
        target: Vec<u8>,
    },
    /// A character device, numbered as glibc's `dev_t`.
    CharDevice {
        /// The device.
        rdev: u64,
    },
    /// A block device, numbered as glibc's `dev_t`.
    BlockDevice {
        /// The device.
        rdev: u64,
    },
    /// A named pipe.
    Fifo,
    /// A unix socket.
    Socket,
}

/// The content of a file. Several threads read it, block by block.
#[derive(Debug, Clone)]
pub enum FileContent {
    /// A whole file on disk, opened when it is read.
    Disk(DiskFile),
    /// A part of an open file, such as a spool file that holds the content of many.
    Part {
        /// The file, which must not change.
        file: Arc<File>,
        /// The offset of the content.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
}

/// A file on disk with its metadata at the time of the walk; packing fails if they change later.
#[derive(Debug, Clone)]
pub struct DiskFile {
    pub(super) path: PathBuf,
    pub(super) len: u64,
    mtime: (i64, i64),
}

impl DiskFile {
    /// Remembers length and time of the file from `metadata`, which `lstat` returned.
    #[must_use]
    pub fn new(path: PathBuf, metadata: &Metadata) -> Self {
        Self { path, len: metadata.len(), mtime: (metadata.mtime(), metadata.mtime_nsec()) }
    }

    /// Tells whether length and modification time are those of the walk.
    pub(super) fn is_unchanged(&self, now: &Metadata) -> bool {
        now.is_file() && now.len() == self.len && (now.mtime(), now.mtime_nsec()) == self.mtime
    }
}

impl FileContent {
    /// Returns the number of bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Disk(file) => file.len,
            Self::Part { len, .. } => *len,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Tells whether the content is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Entry {
    /// Returns the complete `st_mode`.
    pub(super) fn st_mode(&self) -> u32 {
        self.kind.file_kind().type_bits() | self.mode
    }

    /// Returns the size as `stat` gives it.
    pub(super) fn size(&self) -> u64 {
        match &self.kind {
            EntryKind::File(content) => content.len(),
            EntryKind::Directory { size } => *size,
            EntryKind::Symlink { target } => target.len() as u64,
            _ => 0,
        }
    }

    pub(super) fn rdev(&self) -> u64 {
        match self.kind {
            EntryKind::CharDevice { rdev } | EntryKind::BlockDevice { rdev } => rdev,
            _ => 0,
        }
    }

    /// Returns the content of a file; `None` for other kinds.
    pub(super) fn content(&self) -> Option<&FileContent> {
        match &self.kind {
            EntryKind::File(content) => Some(content),
            _ => None,
        }
    }

    /// Returns the path for messages: for a file on disk its real path, for other entries the path in the flist.
    pub(super) fn shown_path(&self) -> PathBuf {
        match &self.kind {
            EntryKind::File(FileContent::Disk(file)) => file.path.clone(),
            _ => shown(&self.path),
        }
    }

    /// Splits the path into the directory and the last component.
    fn split(&self) -> (&[u8], &[u8]) {
        match self.path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => {
                let (folder, name) = self.path.split_at(slash);
                (folder, name.get(1..).unwrap_or_default())
            }
            None => (&[], &self.path),
        }
    }

    /// Returns the name as the table stores it: `/` for the root.
    pub(super) fn name(&self) -> &[u8] {
        if self.path.is_empty() { b"/" } else { self.split().1 }
    }

    fn check(&self) -> Result<(), PackError> {
        let refused = |reason| Err(PackError::Entry { path: shown(&self.path), reason });
        let name = self.name();
        if !self.path.is_empty() {
            if self.path.starts_with(b"/") {
                return refused("a path is told from the root, without a slash before it");
            }
            if name.is_empty() || name == b"." || name == b".." || name.contains(&0) {
                return refused("a name may not be empty, '.' or '..' nor hold a NUL");
            }
            if name.len() > MAX_NAME_BYTES {
                return refused("a name has at most 255 bytes");
            }
        }
        if self.mode & !PERMISSION_BITS != 0 {
            return refused("a mode has the bits 07777");
        }
        match &self.kind {
            EntryKind::Symlink { target } if target.is_empty() || target.len() > MAX_TARGET_BYTES => {
                refused("a link points to 1 to 4095 bytes")
            }
            EntryKind::Symlink { target } if target.contains(&0) => refused("a link cannot point to a NUL"),
            _ => Ok(()),
        }
    }
}

impl EntryKind {
    fn file_kind(&self) -> FileKind {
        match self {
            Self::File(_) => FileKind::File,
            Self::Directory { .. } => FileKind::Directory,
            Self::Symlink { .. } => FileKind::Symlink,
            Self::CharDevice { .. } => FileKind::CharDevice,
            Self::BlockDevice { .. } => FileKind::BlockDevice,
            Self::Fifo => FileKind::Fifo,
            Self::Socket => FileKind::Socket,
        }
    }
}

/// A checked tree in the order in which it is written: the entries of a directory by name, then its first subdirectory.
#[derive(Debug)]
pub struct Tree {
    /// Each entry with the number of its parent. Its own number is its position, from 1. The parent of the root is 0.
    pub(super) entries: Vec<(i64, Entry)>,
    pub(super) content_bytes: u64,
}

impl Tree {
    /// Iterates over the names of the entries.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().map(|(_, entry)| entry.name())
    }

    /// Builds a tree from entries in any order.
    ///
    /// # Errors
    /// The root is missing, a path occurs twice, a path is below something that is missing or no directory, the format
    /// cannot hold a name or link target, or the tree exceeds a limit of readers.
    pub fn build(entries: Vec<Entry>) -> Result<Self, PackError> {
        if entries.len() > MAX_INODES {
            return Err(PackError::TooMany { what: "entries", limit: MAX_INODES });
        }
        let mut children: HashMap<Vec<u8>, Vec<Entry>> = HashMap::new();
        let mut root = None;
        let (mut total, mut content_bytes, mut blocks) = (0_usize, 0_u64, 0_u64);
        let (mut name_bytes, mut target_bytes) = (0_usize, 0_usize);
        for entry in entries {
            entry.check()?;
            total += 1;
            name_bytes += entry.name().len();
            if let EntryKind::Symlink { target } = &entry.kind {
                target_bytes += target.len();
            }
            if let Some(content) = entry.content() {
                content_bytes = content_bytes.saturating_add(content.len());
                blocks = blocks.saturating_add(blocks_for(content.len()));
            }
            if entry.path.is_empty() {
                if root.replace(entry).is_some() {
                    return Err(PackError::Entry { path: shown(b""), reason: "it is there twice" });
                }
            } else {
                children.entry(entry.split().0.to_vec()).or_default().push(entry);
            }
        }
        if name_bytes.max(target_bytes) > MAX_TEXT_BYTES {
            return Err(PackError::TooMany { what: "bytes of names or of link targets", limit: MAX_TEXT_BYTES });
        }
        if blocks > MAX_BLOCKS as u64 {
            return Err(PackError::TooMany { what: "blocks", limit: MAX_BLOCKS });
        }
        let root = root.filter(|root| matches!(root.kind, EntryKind::Directory { .. }));
        let root = root.ok_or_else(|| PackError::Entry { path: shown(b""), reason: "the root is no directory" })?;
        let entries = order(root, &mut children, total)?;
        // A remaining entry is below something that does not exist or is no directory.
        match children.into_values().flatten().map(|entry| entry.path).min() {
            Some(path) => Err(PackError::Entry { path: shown(&path), reason: "it is not in a directory of the tree" }),
            None => Ok(Self { entries, content_bytes }),
        }
    }
}

/// Moves the entries out of `children` in their order, from the root down.
fn order(
    root: Entry,
    children: &mut HashMap<Vec<u8>, Vec<Entry>>,
    total: usize,
) -> Result<Vec<(i64, Entry)>, PackError> {
    let mut ordered = Vec::with_capacity(total);
    ordered.push((0, root));
    let mut directories = vec![(Vec::new(), 1_i64)];
    let mut number = 1_i64;
    while let Some((path, ino)) = directories.pop() {
        let mut inside = children.remove(&path).unwrap_or_default();
        // Sort by bytes, independent of the locale. All have the same directory, so comparing paths compares names.
        inside.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        if let Some((twice, _)) = inside.iter().zip(inside.iter().skip(1)).find(|(a, b)| a.path == b.path) {
            return Err(PackError::Entry { path: shown(&twice.path), reason: "it is there twice" });
        }
        let mut subdirectories = Vec::new();
        for entry in inside {
            number += 1;
            if matches!(entry.kind, EntryKind::Directory { .. }) {
                subdirectories.push((entry.path.clone(), number));
            }
            ordered.push((ino, entry));
        }
        directories.extend(subdirectories.into_iter().rev());
    }
    Ok(ordered)
}

/// Returns a path from the root, for messages.
pub(super) fn shown(path: &[u8]) -> PathBuf {
    Path::new("/").join(std::ffi::OsStr::from_bytes(path))
}
