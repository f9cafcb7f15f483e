//! The rows of a flist as a reader found them: their types and ranges are checked, whether they are a tree is not yet.

use super::Route;
use crate::hash::BlockRef;

/// One row of `inode`, its types and ranges checked, its meaning not yet.
#[derive(Debug, Default)]
pub struct InodeRow {
    /// Its number, from 1.
    pub ino: u64,
    /// The number of its directory; 0 for the root.
    pub parent: u64,
    /// Its name; empty for the root.
    pub name: Vec<u8>,
    /// Bytes of its content, or of its target.
    pub size: u64,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The whole `st_mode`.
    pub mode: u32,
    /// The device number as glibc's `dev_t`; 0 for all that is not a device.
    pub rdev: u64,
    /// Last change of the inode, in seconds since 1970.
    pub ctime: i64,
    /// Last change of the content, in seconds since 1970.
    pub mtime: i64,
}

/// All rows of a flist.
#[derive(Debug)]
pub struct Rows {
    /// In any order; the root has number 1.
    pub inodes: Vec<InodeRow>,
    /// Targets of symbolic links, by number of the link.
    pub links: Vec<(u64, Vec<u8>)>,
    /// Blocks by number of their file; those of one file in the order of its content.
    pub blocks: Vec<(u64, BlockRef)>,
    /// Keys and values, sorted.
    pub tags: Vec<(String, String)>,
    /// Where the blocks are, in the order in which stores are asked.
    pub routes: Vec<Route>,
}
