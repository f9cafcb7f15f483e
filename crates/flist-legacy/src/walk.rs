//! Walks the directories of a legacy flist from the root, by key, and assigns inode numbers.
//!
//! The order is that of the packer for `.fl`: the entries of a directory as they are stored, then its first subdirectory with
//! everything below it. A directory is visited once: a second visit means a cycle or two places, and is refused. So the
//! work is bounded by the values of the database, and each value by the budget of its message.

use std::collections::{HashMap, HashSet};

use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension as _, Statement};

use crate::capnp::{List, Message};
use crate::error::{LegacyError, Misfit};
use crate::values::{self, Access, Attributes, Directory, Entry, Kind};
use crate::{ENTRIES, refuse};
use contd_flist::hash::{blake2b_128, hex};
use contd_flist::metadata::database::{Reader, classify};
use contd_flist::metadata::{InodeRow, MAX_BLOCKS, MAX_INODES, Malformed, device_number};
use contd_flist::{BlockRef, MetadataError, ROOT_INO};

/// The longest key: 16 bytes in hex. The column is declared for twice that.
const MAX_KEY_BYTES: usize = 64;

/// The type bits of a `st_mode`.
const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const CHAR_DEVICE: u32 = 0o020_000;
const BLOCK_DEVICE: u32 = 0o060_000;
const FIFO: u32 = 0o010_000;
const SOCKET: u32 = 0o140_000;

/// The rows that a `.fl` of the same tree would have.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) inodes: Vec<InodeRow>,
    pub(super) links: Vec<(u64, Vec<u8>)>,
    pub(super) blocks: Vec<(u64, BlockRef)>,
}

/// Walks the whole tree.
pub(super) fn walk(reader: &Reader<'_>) -> Result<Tree, MetadataError> {
    let sql = "SELECT value FROM main.entries WHERE key = ?1";
    let lookup = reader.connection().prepare(sql).map_err(|source| classify(reader.path(), ENTRIES.0, source))?;
    let mut walk = Walk {
        reader,
        lookup,
        tree: Tree::default(),
        access: HashMap::new(),
        lacks_access: false,
        seen: HashSet::new(),
    };
    let key = hex(&blake2b_128(b"")).into_bytes();
    let root = Place { ino: ROOT_INO, parent_ino: 0, parent: key.clone(), name: Vec::new(), key };
    let value = walk.value(&root.key)?.ok_or_else(|| refuse(reader.path(), LegacyError::NoRoot))?;
    walk.seen.insert(root.key.clone());
    walk.tree.inodes.push(InodeRow::default());
    let mut waiting = walk.directory(&root, &value)?;
    drop(value);
    while let Some(place) = waiting.pop() {
        let Some(value) = walk.value(&place.key)? else {
            let (name, key) = (lossy(&place.name), lossy(&place.key));
            return Err(walk.misfit(&place.parent, Misfit::NoDirectory { name, key }));
        };
        waiting.extend(walk.directory(&place, &value)?);
    }
    Ok(walk.tree)
}

/// A directory to visit.
#[derive(Debug)]
struct Place {
    ino: u64,
    parent_ino: u64,
    /// The key of its parent directory.
    parent: Vec<u8>,
    name: Vec<u8>,
    key: Vec<u8>,
}

struct Walk<'r> {
    reader: &'r Reader<'r>,
    lookup: Statement<'r>,
    tree: Tree,
    /// The access control items read so far; many entries share each of them.
    access: HashMap<Vec<u8>, Access>,
    /// Whether a missing item was logged: a flist that lacks one item may lack a million.
    lacks_access: bool,
    seen: HashSet<Vec<u8>>,
}

impl Walk<'_> {
    fn misfit(&self, key: &[u8], reason: Misfit) -> MetadataError {
        refuse(self.reader.path(), LegacyError::Value { key: lossy(key), reason })
    }

    /// Reads a value; `None` if the key does not exist.
    fn value(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, MetadataError> {
        self.reader.check_time()?;
        let Some(key) = std::str::from_utf8(key).ok().filter(|key| key.len() <= MAX_KEY_BYTES) else { return Ok(None) };
        let value = self.lookup.query_row([key], |row| {
            Ok(match row.get_ref(0)? {
                ValueRef::Blob(bytes) => Some(bytes.to_vec()),
                _ => None,
            })
        });
        let value = value.optional().map_err(|source| classify(self.reader.path(), ENTRIES.0, source))?;
        let wrong = || Malformed::Value { table: ENTRIES.0, rowid: 0, column: "value", found: "no blob".to_owned() };
        value.map(|bytes| bytes.ok_or_else(|| self.reader.refuse(wrong()))).transpose()
    }

    fn access(&mut self, key: &[u8]) -> Result<Access, MetadataError> {
        if let Some(access) = self.access.get(key) {
            return Ok(*access);
        }
        let access = match self.value(key)? {
            Some(value) => {
                let message = Message::parse(&value).map_err(Misfit::from);
                message.and_then(|message| Access::read(&message)).map_err(|reason| self.misfit(key, reason))?
            }
            None => {
                if !std::mem::replace(&mut self.lacks_access, true) {
                    tracing::warn!(key = %lossy(key), "access control item of legacy flist missing, least rights assumed");
                }
                Access::MISSING
            }
        };
        self.access.insert(key.to_vec(), access);
        Ok(access)
    }

    /// Fills in the row of a directory, adds those of its entries, and returns its subdirectories, the first one last.
    fn directory(&mut self, place: &Place, value: &[u8]) -> Result<Vec<Place>, MetadataError> {
        let misfit = |walk: &Self, reason| walk.misfit(&place.key, reason);
        let message = Message::parse(value).map_err(|source| misfit(self, source.into()))?;
        let directory = Directory::read(&message).map_err(|reason| misfit(self, reason))?;
        // Editing with `zflist` leaves the directory's own key here, and 0-fs ignores the field.
        if ![place.parent.as_slice(), place.key.as_slice(), b""].contains(&directory.parent) {
            return Err(misfit(self, Misfit::Parent { parent: lossy(directory.parent) }));
        }
        let access = self.access(directory.attributes.acl)?;
        let mut row = row(place.ino, place.parent_ino, &place.name, &directory.attributes, access);
        row.mode |= DIRECTORY;
        if let Some(reserved) = usize::try_from(place.ino - ROOT_INO).ok().and_then(|at| self.tree.inodes.get_mut(at)) {
            *reserved = row;
        }
        if self.tree.inodes.len().saturating_add(directory.len()) > MAX_INODES {
            return Err(self.reader.refuse(Malformed::TooManyRows { table: ENTRIES.0, limit: MAX_INODES }));
        }
        let mut subdirectories = Vec::new();
        for entry in directory.entries() {
            let entry = entry.map_err(|reason| misfit(self, reason))?;
            subdirectories.extend(self.entry(place, &entry)?);
        }
        subdirectories.reverse();
        Ok(subdirectories)
    }

    /// Adds the row of an entry. For a directory, reserves the row and returns the place to visit.
    fn entry(&mut self, place: &Place, entry: &Entry<'_, '_>) -> Result<Option<Place>, MetadataError> {
        let ino = self.tree.inodes.len() as u64 + ROOT_INO;
        if let Kind::Directory { key } = entry.kind {
            if !self.seen.insert(key.to_vec()) {
                let (name, key) = (lossy(entry.name), lossy(key));
                return Err(self.misfit(&place.key, Misfit::DirectoryTwice { name, key }));
            }
            self.tree.inodes.push(InodeRow::default());
            let (name, parent, key) = (entry.name.to_vec(), place.key.clone(), key.to_vec());
            return Ok(Some(Place { ino, parent_ino: place.ino, parent, name, key }));
        }
        let access = self.access(entry.attributes.acl)?;
        let mut row = row(ino, place.ino, entry.name, &entry.attributes, access);
        match &entry.kind {
            Kind::Directory { .. } => {}
            Kind::File { blocks } => {
                row.mode |= FILE;
                for block in blocks.iter().flat_map(List::iter) {
                    let block = block.map_err(Misfit::from).and_then(|block| values::block(&block));
                    let block = block.map_err(|reason| self.misfit(&place.key, reason))?;
                    if self.tree.blocks.len() >= MAX_BLOCKS {
                        return Err(self.reader.refuse(Malformed::TooManyRows { table: "blocks", limit: MAX_BLOCKS }));
                    }
                    self.tree.blocks.push((ino, block));
                }
            }
            Kind::Link { target } => {
                row.mode |= LINK;
                self.tree.links.push((ino, target.to_vec()));
            }
            Kind::CharDevice { major, minor } => {
                row.mode |= CHAR_DEVICE;
                row.rdev = device_number(*major, *minor);
            }
            Kind::BlockDevice { major, minor } => {
                row.mode |= BLOCK_DEVICE;
                row.rdev = device_number(*major, *minor);
            }
            Kind::Fifo => row.mode |= FIFO,
            Kind::Socket => row.mode |= SOCKET,
        }
        self.tree.inodes.push(row);
        Ok(None)
    }
}

fn row(ino: u64, parent: u64, name: &[u8], attributes: &Attributes<'_>, access: Access) -> InodeRow {
    let Attributes { size, mtime, ctime, .. } = *attributes;
    let Access { mode, uid, gid } = access;
    let name = name.to_vec();
    InodeRow { ino, parent, name, size, uid, gid, mode, rdev: 0, ctime: i64::from(ctime), mtime: i64::from(mtime) }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..MAX_KEY_BYTES).unwrap_or(bytes)).into_owned()
}

/// Decodes bytes as a directory and as an access control item, and counts the objects, for the fuzzer.
pub(super) fn decode_any(bytes: &[u8]) -> usize {
    let access = Message::parse(bytes).map_err(Misfit::from).and_then(|message| Access::read(&message));
    let Ok(message) = Message::parse(bytes) else { return 0 };
    let Ok(directory) = Directory::read(&message) else { return usize::from(access.is_ok()) };
    let mut met = 1;
    for entry in directory.entries() {
        let Ok(entry) = entry else { break };
        met += 1;
        if let Kind::File { blocks: Some(blocks) } = entry.kind {
            met += blocks.iter().map_while(|block| values::block(&block.ok()?).ok()).count();
        }
    }
    met
}
