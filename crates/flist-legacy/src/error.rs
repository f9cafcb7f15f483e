//! Why a legacy flist was refused. Nothing of what `backend` or `router.yaml` say is shown: both may hold passwords.

use std::io;

use crate::capnp::CapnpError;
use contd_flist::FlistErrorKind;

/// What went wrong with the parts of a legacy flist.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LegacyError {
    /// The archive is no gzip or no tar, or was cut short.
    #[error("unpack the archive")]
    Archive {
        /// Where it ended.
        source: io::Error,
    },
    /// The archive unpacks to more than we are ready to read.
    #[error("unpack the archive: it holds more than {limit} bytes")]
    ArchiveTooLarge {
        /// The cap.
        limit: u64,
    },
    /// One of the two files that count is too large.
    #[error("unpack {member}: {len} bytes, the limit is {limit}")]
    MemberTooLarge {
        /// The file.
        member: &'static str,
        /// Its length as announced.
        len: u64,
        /// The cap.
        limit: u64,
    },
    /// One of the two files that count is a directory or a link, or there twice.
    #[error("unpack {member}: it is {found}")]
    Member {
        /// The file.
        member: &'static str,
        /// What is there instead.
        found: &'static str,
    },
    /// The database is shorter or longer than its header says.
    #[error("unpack flistdb.sqlite3: {len} bytes, its header says {announced}")]
    CutShort {
        /// Its length.
        len: u64,
        /// What it should be.
        announced: u64,
    },
    /// The form before August 2018, which 0-fs has dropped too.
    #[error("find flistdb.sqlite3 in the archive: it holds a rocksdb database")]
    RocksDb,
    /// It is an archive, but no flist.
    #[error("find flistdb.sqlite3 in the archive: there is none")]
    NoDatabase,
    /// The database has no root directory.
    #[error("find the root directory: there is none")]
    NoRoot,
    /// A value of the database does not hold what it should.
    #[error("decode entry {key:?}")]
    Value {
        /// Its key.
        key: String,
        /// What is wrong.
        #[source]
        reason: Misfit,
    },
    /// What says where the blocks are cannot be understood.
    #[error("read where the blocks are from {part}: {reason}")]
    Stores {
        /// `backend` or `router.yaml`.
        part: &'static str,
        /// What is wrong with it, without any of its content.
        reason: &'static str,
    },
}

/// What is wrong with one value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misfit {
    /// It is no Cap'n Proto message of the schema.
    #[error("its encoding is damaged")]
    Encoding {
        /// Where.
        source: CapnpError,
    },
    /// A directory that no value describes.
    #[error("entry {name:?} is directory {key:?}, which is not there")]
    NoDirectory {
        /// The entry, lossily.
        name: String,
        /// The key, lossily.
        key: String,
    },
    /// A directory that was met before: a circle, or two names of one directory.
    #[error("entry {name:?} is directory {key:?}, which has a place already")]
    DirectoryTwice {
        /// The entry, lossily.
        name: String,
        /// The key, lossily.
        key: String,
    },
    /// A directory that says it is in another one.
    #[error("it says that it is in directory {parent:?}, and was found elsewhere")]
    Parent {
        /// What it says, lossily.
        parent: String,
    },
    /// A tag that the schema does not know.
    #[error("an entry is of kind {tag}")]
    Kind {
        /// The tag.
        tag: u16,
    },
    /// A special file that the schema does not know.
    #[error("a special file is of kind {kind}")]
    SpecialKind {
        /// The number.
        kind: u16,
    },
    /// A device without `major,minor`.
    #[error("a device has no numbers")]
    Device,
    /// Blocks of another size than any packer made.
    #[error("a file has blocks of {units} units of 4 KiB, not of 128")]
    BlockSize {
        /// What it says.
        units: u16,
    },
    /// A hash of another length than 16.
    #[error("a block has a hash of {len} bytes, not of 16")]
    DigestLength {
        /// What it has.
        len: usize,
    },
    /// A mode with other bits than permissions.
    #[error("mode {mode:o} has bits that are no permissions")]
    Mode {
        /// The mode.
        mode: u16,
    },
    /// An owner whose number has no room in 32 bits.
    #[error("owner {id} cannot exist")]
    Owner {
        /// The number.
        id: u64,
    },
}

impl LegacyError {
    /// Says what to do next.
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
            Self::Stores { .. } => "put right what says where the blocks are (docs/flist-legacy.md)",
        }
    }

    /// Says what sort of trouble it is.
    #[must_use]
    pub fn kind(&self) -> FlistErrorKind {
        match self {
            Self::RocksDb | Self::ArchiveTooLarge { .. } | Self::MemberTooLarge { .. } => FlistErrorKind::Unsupported,
            Self::Value { reason: Misfit::BlockSize { .. }, .. } => FlistErrorKind::Unsupported,
            _ => FlistErrorKind::Corrupt,
        }
    }
}
