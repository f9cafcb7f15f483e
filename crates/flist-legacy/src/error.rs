//! The errors of reading a legacy flist. They show nothing of `backend` and `router.yaml`, which may hold passwords.

use std::io;

use crate::capnp::CapnpError;
use contd_flist::FlistErrorKind;

/// A part of a legacy flist is invalid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LegacyError {
    /// The archive is not a gzip or not a tar, or was truncated.
    #[error("unpack the archive")]
    Archive {
        /// The error of the decompressor.
        source: io::Error,
    },
    /// The archive unpacks to more than the limit.
    #[error("unpack the archive: it holds more than {limit} bytes")]
    ArchiveTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// One of the two members is too large.
    #[error("unpack {member}: {len} bytes, the limit is {limit}")]
    MemberTooLarge {
        /// The file.
        member: &'static str,
        /// Its length as announced.
        len: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// One of the two members is a directory or a link, or occurs twice.
    #[error("unpack {member}: it is {found}")]
    Member {
        /// The file.
        member: &'static str,
        /// The fault.
        found: &'static str,
    },
    /// The length of the database differs from the one in its header.
    #[error("unpack flistdb.sqlite3: {len} bytes, its header says {announced}")]
    CutShort {
        /// Its length.
        len: u64,
        /// The length in its header.
        announced: u64,
    },
    /// The archive has the form before August 2018, which 0-fs no longer supports either.
    #[error("find flistdb.sqlite3 in the archive: it holds a rocksdb database")]
    RocksDb,
    /// The archive is no flist.
    #[error("find flistdb.sqlite3 in the archive: not found")]
    NoDatabase,
    /// The database has no root directory.
    #[error("find the root directory: not found")]
    NoRoot,
    /// A value of the database is invalid.
    #[error("decode entry {key:?}")]
    Value {
        /// Its key.
        key: String,
        /// The fault.
        #[source]
        reason: Misfit,
    },
    /// The routes in `backend` or `router.yaml` are invalid.
    #[error("read the stores from {part}: {reason}")]
    Stores {
        /// `backend` or `router.yaml`.
        part: &'static str,
        /// The fault, without any of the content.
        reason: &'static str,
    },
}

/// A fault in one value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misfit {
    /// The value is not a Cap'n Proto message of the schema.
    #[error("its encoding is damaged")]
    Encoding {
        /// The fault of the encoding.
        source: CapnpError,
    },
    /// The value of a directory is missing.
    #[error("entry {name:?} is directory {key:?}, which does not exist")]
    NoDirectory {
        /// The entry, lossily.
        name: String,
        /// The key, lossily.
        key: String,
    },
    /// A directory occurs twice: a cycle, or two entries for one directory.
    #[error("entry {name:?} is directory {key:?}, which occurs twice")]
    DirectoryTwice {
        /// The entry, lossily.
        name: String,
        /// The key, lossily.
        key: String,
    },
    /// The parent recorded in a directory is not the one it was found in.
    #[error("its recorded parent is {parent:?}, but it is in another directory")]
    Parent {
        /// The parent recorded, lossily.
        parent: String,
    },
    /// The kind of an entry is not in the schema.
    #[error("an entry is of kind {tag}")]
    Kind {
        /// The tag.
        tag: u16,
    },
    /// The kind of a special file is not in the schema.
    #[error("a special file is of kind {kind}")]
    SpecialKind {
        /// The number.
        kind: u16,
    },
    /// A device has no `major,minor`.
    #[error("a device has no numbers")]
    Device,
    /// Blocks have a size that no packer used.
    #[error("a file has blocks of {units} units of 4 KiB, not of 128")]
    BlockSize {
        /// The size recorded, in units of 4 KiB.
        units: u16,
    },
    /// A hash does not have 16 bytes.
    #[error("a block has a hash of {len} bytes, not of 16")]
    DigestLength {
        /// The length found, in bytes.
        len: usize,
    },
    /// A mode has bits other than permissions.
    #[error("mode {mode:o} has bits that are no permissions")]
    Mode {
        /// The mode.
        mode: u16,
    },
    /// The number of an owner does not fit in 32 bits.
    #[error("owner {id} cannot exist")]
    Owner {
        /// The number.
        id: u64,
    },
}

impl LegacyError {
    /// Returns the next step for the user.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Archive { .. } | Self::CutShort { .. } => {
                "the file was not copied whole, or is no flist: fetch it again"
            }
            Self::ArchiveTooLarge { .. } | Self::MemberTooLarge { .. } => "pack the tree again as one or several .fl",
            Self::RocksDb => "pack the tree again as .fl: the rocksdb form is not supported",
            Self::NoDatabase => "name a .fl, or a legacy .flist with flistdb.sqlite3 in it",
            Self::Member { .. } | Self::NoRoot | Self::Value { .. } => {
                "the flist is damaged or hostile: pack the tree again as .fl"
            }
            Self::Stores { .. } => "correct the stores in router.yaml or backend (docs/flist-legacy.md)",
        }
    }

    /// Returns the category of the error.
    #[must_use]
    pub fn kind(&self) -> FlistErrorKind {
        match self {
            Self::RocksDb | Self::ArchiveTooLarge { .. } | Self::MemberTooLarge { .. } => FlistErrorKind::Unsupported,
            Self::Value { reason: Misfit::BlockSize { .. }, .. } => FlistErrorKind::Unsupported,
            _ => FlistErrorKind::Corrupt,
        }
    }
}
