//! The tree of a flist in memory: read once, validated, and immutable afterwards.
//!
//! ```text
//! x.fl ──database: plain tables only, typed columns, limits, a deadline──> rows ──tree: one O(n) pass──> Flist
//! ```
//!
//! A [`Flist`] is always a valid tree: its users never meet a malformed row. Inode numbers are those of the file,
//! so they stay the same when a server restarts. The file is not read again after [`Flist::open`].

pub mod database;
mod error;
mod rows;
mod tree;

use std::path::Path;

pub(crate) use database::is_database;
pub use error::{Malformed, MetadataError};
pub use rows::{InodeRow, Rows};

use crate::block::BLOCK_SIZE;
use crate::hash::BlockRef;
use tree::{Node, Tree};

/// The inode number of the root in every flist.
pub const ROOT_INO: u64 = 1;

/// The most inodes of a flist: 470 MiB of memory at the peak of reading, half of it afterwards; the largest known tree has
/// 20,000.
pub const MAX_INODES: usize = 2_000_000;

/// The most blocks of a flist: 256 MiB of memory, 2 TiB of content.
pub const MAX_BLOCKS: usize = 4_000_000;

/// The most routes of a flist. There are only 256 first bytes, and each may be replicated a few times.
pub const MAX_ROUTES: usize = 1024;

/// The most tags of a flist.
pub const MAX_TAGS: usize = 1024;

/// The most bytes of all names together, and of all link targets together: 64 for each of [`MAX_INODES`]; the largest known
/// tree has 0.4 MB. Without this limit, a flist of 1 GiB would take as much memory.
pub const MAX_TEXT_BYTES: usize = 64 * MAX_INODES;

/// The most bytes of all tags together, and of all routes together: a tag of an image's environment has a few KiB.
pub const MAX_HEAD_BYTES: usize = 1 << 20;

/// The longest name of an entry (`NAME_MAX`).
pub const MAX_NAME_BYTES: usize = 255;

/// The longest target of a symbolic link (`PATH_MAX` without its NUL).
pub const MAX_TARGET_BYTES: usize = 4095;

/// A range of block ids and the store that has them.
#[derive(Clone, PartialEq, Eq)]
pub struct Route {
    /// The first value of `id[0]` in the range.
    pub start: u8,
    /// The last value of `id[0]` in the range.
    pub end: u8,
    /// The URL of the store. It may hold credentials: never print it; errors of this crate do not.
    pub url: String,
}

impl Route {
    /// Parses `[xx-yy=]URL`, with the first and last value of `id[0]` in hex; without a range the route covers every block.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let ranged = text.split_once('=').and_then(|(range, url)| {
            let (start, end) = range.split_once('-')?;
            let is_byte = |hex: &str| hex.len() == 2 && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
            let byte = |hex: &str| is_byte(hex).then(|| u8::from_str_radix(hex, 16).ok()).flatten();
            let (start, end) = (byte(start)?, byte(end)?);
            (start <= end).then(|| Self { start, end, url: url.to_owned() })
        });
        ranged.unwrap_or_else(|| Self { start: 0, end: u8::MAX, url: text.to_owned() })
    }

    /// Returns the URL without secrets: no user, password or query.
    #[must_use]
    pub fn shown_url(&self) -> String {
        crate::url::redact(&self.url)
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x}-{:02x}={}", self.start, self.end, self.shown_url())
    }
}

/// The kind of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file: has blocks.
    File,
    /// A directory: has children.
    Directory,
    /// A symbolic link: has a target.
    Symlink,
    /// A character device: has an `rdev`.
    CharDevice,
    /// A block device: has an `rdev`.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A unix socket.
    Socket,
}

impl FileKind {
    /// Returns the bits of this type in a `st_mode`.
    pub(crate) fn type_bits(self) -> u32 {
        match self {
            Self::File => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Symlink => 0o120_000,
            Self::CharDevice => 0o020_000,
            Self::BlockDevice => 0o060_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
        }
    }
}

/// A validated flist in memory. Can be shared between threads behind an `Arc`.
#[derive(Debug)]
pub struct Flist {
    tree: Tree,
    tags: Vec<(String, String)>,
    routes: Vec<Route>,
}

impl Flist {
    /// Reads a `.fl` file, validates it and closes it again. Never writes to it or beside it.
    ///
    /// Takes about 25 ms for 20,000 inodes and never more than 30 s.
    ///
    /// # Errors
    /// No such file, not a database, another schema, or not a tree: the first fault found.
    pub fn open(path: &Path) -> Result<Self, MetadataError> {
        Self::from_rows(path, database::read(path)?)
    }

    /// Makes a flist from rows that a reader of another format found in `path`, and validates them like those of a `.fl`.
    ///
    /// # Errors
    /// The rows are not a tree: the first fault found.
    pub fn from_rows(path: &Path, rows: Rows) -> Result<Self, MetadataError> {
        let tree = Tree::build(rows.inodes, rows.links, rows.blocks)
            .map_err(|reason| MetadataError::Malformed { path: path.to_owned(), reason })?;
        Ok(Self { tree, tags: rows.tags, routes: rows.routes })
    }

    /// Reads only the tags of a `.fl` file, without the tree; a file of another format has none.
    ///
    /// # Errors
    /// The file does not exist or is damaged.
    pub fn tags_of(path: &Path) -> Result<Vec<(String, String)>, MetadataError> {
        database::read_tags(path)
    }

    /// Returns the root directory.
    #[must_use]
    pub fn root(&self) -> Inode<'_> {
        Inode { tree: &self.tree, node: self.tree.root() }
    }

    /// Returns the inode with this number, if it is part of the tree.
    #[must_use]
    pub fn inode(&self, ino: u64) -> Option<Inode<'_>> {
        Some(Inode { tree: &self.tree, node: self.tree.node(ino)? })
    }

    /// Returns the entry `name` of the directory `parent`. `.` and `..` are not entries.
    #[must_use]
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Option<Inode<'_>> {
        let children = self.children(parent);
        children.get(children.position(name)?)
    }

    /// Returns the inode at a path from the root, such as `etc/passwd`. Links are not followed, `..` is not supported.
    #[must_use]
    pub fn resolve(&self, path: &[u8]) -> Option<Inode<'_>> {
        path.split(|byte| *byte == b'/')
            .filter(|component| !component.is_empty() && *component != b".")
            .try_fold(self.root(), |at, component| self.lookup(at.ino(), component))
    }

    /// Returns the entries of a directory, sorted by name; other kinds have none.
    #[must_use]
    pub fn children(&self, ino: u64) -> Children<'_> {
        let slots = self.tree.node(ino).map(|node| self.tree.children(node)).unwrap_or_default();
        Children { tree: &self.tree, slots }
    }

    /// Returns the blocks of a file in order: block `n` holds the bytes from `n * 512 KiB`. Other kinds have none.
    #[must_use]
    pub fn blocks(&self, ino: u64) -> &[BlockRef] {
        self.tree.node(ino).map(|node| self.tree.blocks(node)).unwrap_or_default()
    }

    /// Returns the target of a symbolic link: 1 to 4095 bytes without NUL. `None` for other kinds.
    #[must_use]
    pub fn symlink_target(&self, ino: u64) -> Option<&[u8]> {
        self.tree.target(self.tree.node(ino)?)
    }

    /// Returns the tags, sorted by key. `version`, `description` and `author` have a meaning; all others are free.
    #[must_use]
    pub fn tags(&self) -> &[(String, String)] {
        &self.tags
    }

    /// Returns the value of one tag.
    #[must_use]
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Returns the routes in the order of the flist.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Iterates over the inodes of the tree, by rising number.
    pub fn inodes(&self) -> impl Iterator<Item = Inode<'_>> {
        self.tree.nodes().iter().map(|node| Inode { tree: &self.tree, node })
    }

    /// Returns the number of inodes in the tree.
    #[must_use]
    pub fn inode_count(&self) -> usize {
        self.tree.len()
    }

    /// Returns the sum of the sizes of all files, in bytes.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        self.tree.content_bytes()
    }
}

/// One inode of a [`Flist`]: a small copyable view.
#[derive(Clone, Copy)]
pub struct Inode<'a> {
    tree: &'a Tree,
    node: &'a Node,
}

impl<'a> Inode<'a> {
    /// The inode number in the flist, usable as a FUSE node id.
    #[must_use]
    pub fn ino(self) -> u64 {
        self.node.ino
    }

    /// The number of its directory; for the root its own number.
    #[must_use]
    pub fn parent(self) -> u64 {
        self.tree.parent(self.node).ino
    }

    /// Its name, 1 to 255 bytes; empty for the root.
    #[must_use]
    pub fn name(self) -> &'a [u8] {
        self.tree.name(self.node)
    }

    /// The path from the root, such as `etc/passwd`; empty for the root.
    #[must_use]
    pub fn path(self) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = self;
        // The tree was validated: every chain of parents ends at the root.
        while at.ino() != ROOT_INO {
            names.push(at.name());
            at = Inode { tree: self.tree, node: self.tree.parent(at.node) };
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The kind of the inode.
    #[must_use]
    pub fn kind(self) -> FileKind {
        self.node.kind
    }

    /// The complete `st_mode`: type bits and 07777.
    #[must_use]
    pub fn mode(self) -> u32 {
        self.node.mode
    }

    /// The owner.
    #[must_use]
    pub fn uid(self) -> u32 {
        self.node.uid
    }

    /// The group.
    #[must_use]
    pub fn gid(self) -> u32 {
        self.node.gid
    }

    /// The device number as glibc's `dev_t`; 0 for other kinds.
    #[must_use]
    pub fn rdev(self) -> u64 {
        self.node.rdev
    }

    /// The device's major number.
    #[must_use]
    pub fn rdev_major(self) -> u32 {
        major_minor(self.node.rdev).0
    }

    /// The device's minor number.
    #[must_use]
    pub fn rdev_minor(self) -> u32 {
        major_minor(self.node.rdev).1
    }

    /// The device number as the kernel (and so FUSE) writes it in 32 bits.
    #[must_use]
    pub fn rdev_kernel(self) -> u32 {
        let (major, minor) = major_minor(self.node.rdev);
        (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
    }

    /// The size in bytes: content of a file, target of a link, as packed for a directory, 0 for other kinds.
    #[must_use]
    pub fn size(self) -> u64 {
        self.node.size
    }

    /// The number of links: for a directory 2 plus the number of subdirectories, otherwise 1 (the format has no hard links).
    #[must_use]
    pub fn nlink(self) -> u32 {
        match self.node.kind {
            FileKind::Directory => self.node.subdirectories.saturating_add(2),
            _ => 1,
        }
    }

    /// Last change of the content, in whole seconds since 1970; may be negative or past 2038.
    #[must_use]
    pub fn mtime(self) -> i64 {
        self.node.mtime
    }

    /// Last change of the inode when it was packed, in whole seconds since 1970.
    #[must_use]
    pub fn ctime(self) -> i64 {
        self.node.ctime
    }
}

impl std::fmt::Debug for Inode<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = String::from_utf8_lossy(self.name());
        f.debug_struct("Inode").field("ino", &self.ino()).field("name", &name).field("kind", &self.kind()).finish()
    }
}

/// The entries of one directory, sorted by name. Positions are stable and can serve as readdir offsets.
#[derive(Clone, Copy)]
pub struct Children<'a> {
    tree: &'a Tree,
    slots: &'a [u32],
}

impl<'a> Children<'a> {
    /// Returns the number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Tells whether the directory is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Returns the entry at a position.
    #[must_use]
    pub fn get(&self, position: usize) -> Option<Inode<'a>> {
        let node = self.tree.node_at(*self.slots.get(position)?)?;
        Some(Inode { tree: self.tree, node })
    }

    /// Returns the position of a name.
    #[must_use]
    pub fn position(&self, name: &[u8]) -> Option<usize> {
        self.slots.binary_search_by(|slot| self.tree.name_at(*slot).cmp(name)).ok()
    }

    /// Iterates over the entries in order.
    pub fn iter(&self) -> impl Iterator<Item = Inode<'a>> + use<'a> {
        let tree = self.tree;
        self.slots.iter().filter_map(move |slot| Some(Inode { tree, node: tree.node_at(*slot)? }))
    }
}

/// Combines major and minor number to glibc's `dev_t`.
#[must_use]
pub fn device_number(major: u32, minor: u32) -> u64 {
    let (major, minor) = (u64::from(major), u64::from(minor));
    ((major & 0xfff) << 8) | ((major & !0xfff) << 32) | (minor & 0xff) | ((minor & !0xff) << 12)
}

/// Splits glibc's `dev_t`. Each result has 32 bits, so the shifts and masks lose no bit that is used.
fn major_minor(rdev: u64) -> (u32, u32) {
    let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(u32::MAX);
    (low(((rdev >> 8) & 0xfff) | ((rdev >> 32) & 0xffff_f000)), low((rdev & 0xff) | ((rdev >> 12) & 0xffff_ff00)))
}

/// Returns the number of blocks of a file of `size` bytes.
pub(crate) fn blocks_for(size: u64) -> u64 {
    size.div_ceil(BLOCK_SIZE as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_before_the_url_is_two_hex_bytes() {
        let route = |start, end, url: &str| Route { start, end, url: url.to_owned() };
        assert_eq!(Route::parse("00-7f=dir:///a"), route(0, 0x7f, "dir:///a"));
        assert_eq!(Route::parse("dir:///a"), route(0, 0xff, "dir:///a"));
        assert_eq!(Route::parse("dir:///a-b=c"), route(0, 0xff, "dir:///a-b=c"));
        for no_range in ["7f-00=dir:///a", "+0-ff=dir:///a", "0-f=dir:///a"] {
            assert_eq!(Route::parse(no_range), route(0, 0xff, no_range));
        }
    }
}
