//! Decodes the values of a legacy flist: directories, their entries, and access control items.
//!
//! The schema is that of 0-fs (`model.capnp`, `@0xae9223e76351538a`); the numbers below are the positions of the fields in
//! it. Every field is read once, so that the budget of a message suffices.

use crate::capnp::{CapnpError, List, Message, Struct};
use crate::error::Misfit;
use contd_flist::hash::LEGACY_HASH_LEN;
use contd_flist::{BlockId, BlockKey, BlockRef};

/// The only block size of 0-fs and `zflist`: 512 KiB, in units of 4 KiB.
const BLOCK_SIZE_UNITS: u16 = 128;

/// The owner of nearly every file; the id of this name is known without a list of users.
const ROOT_NAME: &[u8] = b"root";

/// The id of a name without a number, as in 0-fs on a node that does not have the user.
const UNKNOWN_ID: u32 = 1000;

/// The bits of a mode that an item may have: the format stores the type elsewhere.
const PERMISSION_BITS: u16 = 0o7777;

/// A directory.
#[derive(Debug)]
pub(super) struct Directory<'m, 'a> {
    pub(super) parent: &'a [u8],
    pub(super) attributes: Attributes<'a>,
    entries: Option<List<'m, 'a>>,
}

/// The fields that directories and their entries share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'a> {
    pub(super) size: u64,
    pub(super) acl: &'a [u8],
    pub(super) mtime: u32,
    pub(super) ctime: u32,
}

/// An entry of a directory.
#[derive(Debug)]
pub(super) struct Entry<'m, 'a> {
    pub(super) name: &'a [u8],
    pub(super) attributes: Attributes<'a>,
    pub(super) kind: Kind<'m, 'a>,
}

/// The kind of an entry.
#[derive(Debug)]
pub(super) enum Kind<'m, 'a> {
    /// The attributes of a directory are in the value under this key.
    Directory {
        key: &'a [u8],
    },
    File {
        blocks: Option<List<'m, 'a>>,
    },
    Link {
        target: &'a [u8],
    },
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
    Socket,
}

/// The owner and the permissions of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Access {
    /// The permissions that 0-fs assumes for a missing item: the least.
    pub(super) const MISSING: Self = Self { mode: 0o400, uid: UNKNOWN_ID, gid: UNKNOWN_ID };

    /// Reads an access control item.
    pub(super) fn read(message: &Message<'_>) -> Result<Self, Misfit> {
        // Stored XORed with the default of -1, so that a missing field reads as -1.
        let id = |root: &Struct<'_, '_>, byte: usize| !root.u64(byte);
        let root = message.root()?;
        let mode = root.u16(0);
        if mode & !PERMISSION_BITS != 0 {
            return Err(Misfit::Mode { mode });
        }
        let (uid, gid) = (owner(id(&root, 8), root.text(0)?)?, owner(id(&root, 16), root.text(1)?)?);
        Ok(Self { mode: u32::from(mode), uid, gid })
    }
}

/// Returns the number of an owner. Older items have none (-1): then the name is `root`, a decimal number, or unknown.
fn owner(id: u64, name: &[u8]) -> Result<u32, Misfit> {
    if id != u64::MAX {
        return u32::try_from(id).map_err(|_out_of_range| Misfit::Owner { id });
    }
    let number = || std::str::from_utf8(name).ok()?.parse().ok();
    Ok(if name == ROOT_NAME { 0 } else { number().unwrap_or(UNKNOWN_ID) })
}

impl<'m, 'a> Directory<'m, 'a> {
    /// Reads a directory.
    pub(super) fn read(message: &'m Message<'a>) -> Result<Self, Misfit> {
        let root = message.root()?;
        let attributes = Attributes { size: root.u64(0), acl: root.text(4)?, mtime: root.u32(8), ctime: root.u32(12) };
        Ok(Self { parent: root.text(3)?, attributes, entries: root.structures(2)? })
    }

    /// Returns the number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.map_or(0, |entries| entries.len())
    }

    /// Iterates over the entries in their order.
    pub(super) fn entries(&self) -> impl Iterator<Item = Result<Entry<'m, 'a>, Misfit>> + use<'m, 'a> {
        self.entries.into_iter().flat_map(|entries| entries.iter()).map(|entry| Entry::of(&entry?))
    }
}

impl<'m, 'a> Entry<'m, 'a> {
    fn of(inode: &Struct<'m, 'a>) -> Result<Self, Misfit> {
        let attributes =
            Attributes { size: inode.u64(0), acl: inode.text(2)?, mtime: inode.u32(12), ctime: inode.u32(16) };
        Ok(Self { name: inode.text(0)?, attributes, kind: Kind::of(inode.u16(8), inode.structure(1)?)? })
    }
}

impl<'m, 'a> Kind<'m, 'a> {
    fn of(tag: u16, of: Option<Struct<'m, 'a>>) -> Result<Self, Misfit> {
        let text = || of.map_or(Ok(&[] as &[u8]), |of| of.text(0));
        match tag {
            0 => Ok(Self::Directory { key: text()? }),
            1 => {
                let units = of.map_or(BLOCK_SIZE_UNITS, |of| of.u16(0));
                let blocks = of.map(|of| of.structures(0)).transpose()?.flatten();
                if units != BLOCK_SIZE_UNITS && blocks.is_some_and(|blocks| blocks.len() > 0) {
                    return Err(Misfit::BlockSize { units });
                }
                Ok(Self::File { blocks })
            }
            2 => Ok(Self::Link { target: text()? }),
            3 => Self::special(of.map_or(0, |of| of.u16(0)), of.map_or(Ok(&[] as &[u8]), |of| of.data(0))?),
            _ => Err(Misfit::Kind { tag }),
        }
    }

    fn special(kind: u16, data: &[u8]) -> Result<Self, Misfit> {
        match kind {
            // `zflist` packed every special file as a socket; 4 is "unknown".
            0 | 4 => Ok(Self::Socket),
            1 => device(data).map(|(major, minor)| Self::BlockDevice { major, minor }),
            2 => device(data).map(|(major, minor)| Self::CharDevice { major, minor }),
            3 => Ok(Self::Fifo),
            _ => Err(Misfit::SpecialKind { kind }),
        }
    }
}

/// Parses `major,minor`.
fn device(data: &[u8]) -> Result<(u32, u32), Misfit> {
    let numbers = std::str::from_utf8(data).ok().and_then(|text| text.trim_end_matches('\0').split_once(','));
    let numbers = numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    numbers.ok_or(Misfit::Device)
}

/// Decodes one block of a file.
pub(super) fn block(block: &Struct<'_, '_>) -> Result<BlockRef, Misfit> {
    let digest =
        |bytes: &[u8]| <[u8; LEGACY_HASH_LEN]>::try_from(bytes).map_err(|_| Misfit::DigestLength { len: bytes.len() });
    Ok(BlockRef { id: BlockId::legacy(digest(block.data(0)?)?), key: BlockKey::legacy(digest(block.data(1)?)?) })
}

impl From<CapnpError> for Misfit {
    fn from(source: CapnpError) -> Self {
        Self::Encoding { source }
    }
}
