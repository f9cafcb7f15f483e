//! Why a directory could not be packed.

use std::io;
use std::path::PathBuf;

use crate::block::BlockError;
use crate::error::FlistErrorKind;
use crate::route::RouteError;
use crate::store::StoreError;

/// What went wrong while packing. The output file has not appeared; blocks may have.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The directory, or something in it, could not be looked at.
    #[error("pack {}", path.display())]
    Walk {
        /// What could not be read.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The directory is something else.
    #[error("pack {}: not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The format keeps names as text.
    #[error("pack {}: its name is not UTF-8, which `rfs` cannot read", path.display())]
    NameNotUtf8 {
        /// The entry.
        path: PathBuf,
    },
    /// The tree is none, or has an entry that the format cannot hold.
    #[error("pack {}: {reason}", path.display())]
    Entry {
        /// The entry, from the root of the flist.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A tag that a reader would refuse.
    #[error("write tag {key:?}: {reason}")]
    Tag {
        /// Its key.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More than a reader would take.
    #[error("pack the tree: it has more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The most there may be.
        limit: usize,
    },
    /// The file is not what it was when the walk saw it.
    #[error("pack {}: the file changed meanwhile", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A block could not be sealed.
    #[error("seal the content of {}", path.display())]
    Seal {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: BlockError,
    },
    /// A store cannot be used, or did not take a block.
    #[error("use the stores to pack to")]
    Store {
        /// Why not.
        source: StoreError,
    },
    /// Blocks with this first byte would have no place.
    #[error("route the blocks: no store takes ids that start with {first:02x}")]
    Uncovered {
        /// The first byte not covered.
        first: u8,
    },
    /// The store would be packed with the tree.
    #[error("pack to store {}: it is inside the packed directory", store.display())]
    StoreInside {
        /// The folder of the store.
        store: PathBuf,
    },
    /// The output is there already.
    #[error("write flist {}: it exists already", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// The output is a directory, a device, a pipe or a socket.
    #[error("write flist {}: what is there is not a file", path.display())]
    NotAFile {
        /// The output.
        path: PathBuf,
    },
    /// What shall be recorded as the place of the blocks.
    #[error("record where the blocks are")]
    Route {
        /// What is wrong with it.
        source: RouteError,
    },
    /// The output has no file name.
    #[error("write flist {}: it does not end in a file name", path.display())]
    NoOutName {
        /// The path.
        path: PathBuf,
    },
    /// The metadata could not be written.
    #[error("write the tables of flist {}", path.display())]
    Database {
        /// The output.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The output could not be written.
    #[error("write flist {}", path.display())]
    Write {
        /// The output, or its folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A worker ended without a result for one of its files.
    #[error("seal the content of {}: the worker was lost", path.display())]
    WorkerLost {
        /// The file.
        path: PathBuf,
    },
}

impl From<RouteError> for PackError {
    fn from(source: RouteError) -> Self {
        Self::Route { source }
    }
}

impl PackError {
    /// Says what to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Walk { .. } => "check the name and the permissions; packing needs to read everything",
            Self::NotADirectory { .. } => "name the directory that shall become the root",
            Self::NameNotUtf8 { .. } => "rename it, or allow such names (--raw-names) if only contd reads the flist",
            Self::Entry { .. } => "flists hold what a file system holds: mend the entry",
            Self::Tag { .. } => "give each tag once, and long texts in a file of the tree",
            Self::TooMany { .. } => "pack its parts as flists of their own, with fewer and shorter tags",
            Self::Changed { .. } => "pack a tree that nothing writes to",
            Self::Seal { .. } | Self::WorkerLost { .. } => "this is a fault of the packer: report it",
            Self::Store { source } => source.hint(),
            Self::Uncovered { .. } => "name a store without a range, or one for the missing range as xx-yy=URL",
            Self::StoreInside { .. } => "use a store outside of the directory",
            Self::Exists { .. } => "name another file, or replace it: --force",
            Self::NotAFile { .. } => "name another file",
            Self::Route { source } => source.hint(),
            Self::NoOutName { .. } => "name a file for the flist",
            Self::Database { .. } | Self::Write { .. } => {
                "check the permissions and the free space of the output folder"
            }
        }
    }

    /// Says what sort of trouble it is.
    #[must_use]
    pub fn kind(&self) -> FlistErrorKind {
        match self {
            Self::Walk { source, .. } if source.kind() == io::ErrorKind::NotFound => FlistErrorKind::NotFound,
            Self::Walk { .. } | Self::Database { .. } | Self::Write { .. } | Self::WorkerLost { .. } => {
                FlistErrorKind::Io
            }
            Self::Exists { .. } => FlistErrorKind::Exists,
            Self::Store { source } => source.kind(),
            Self::Seal { source, .. } => source.kind(),
            _ => FlistErrorKind::Invalid,
        }
    }
}
