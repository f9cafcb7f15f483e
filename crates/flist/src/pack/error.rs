//! The errors of packing.

use std::io;
use std::path::PathBuf;

use crate::block::BlockError;
use crate::error::FlistErrorKind;
use crate::route::RouteError;
use crate::store::StoreError;

/// A tree could not be packed. The output does not exist; blocks may have been stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The directory, or something in it, could not be read.
    #[error("pack {}", path.display())]
    Walk {
        /// The path that could not be read.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The path is not a directory.
    #[error("pack {}: not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// A name is not UTF-8; the format stores names as text.
    #[error("pack {}: its name is not UTF-8, which `rfs` cannot read", path.display())]
    NameNotUtf8 {
        /// The entry.
        path: PathBuf,
    },
    /// The entries form no tree, or the format cannot hold one of them.
    #[error("pack {}: {reason}", path.display())]
    Entry {
        /// The entry, from the root of the flist.
        path: PathBuf,
        /// The fault.
        reason: &'static str,
    },
    /// Readers would refuse the tag.
    #[error("write tag {key:?}: {reason}")]
    Tag {
        /// The tag's key.
        key: String,
        /// The fault.
        reason: &'static str,
    },
    /// The tree exceeds a limit of readers.
    #[error("pack the tree: it has more than {limit} {what}")]
    TooMany {
        /// The counted objects.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The file changed while it was packed.
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
        /// The error of the block.
        source: BlockError,
    },
    /// A store cannot be used, or did not accept a block.
    #[error("use the stores to pack to")]
    Store {
        /// The error of the store.
        source: StoreError,
    },
    /// No store covers blocks with this first byte.
    #[error("route the blocks: no store takes ids that start with {first:02x}")]
    Uncovered {
        /// The first byte not covered.
        first: u8,
    },
    /// The store is inside the packed tree.
    #[error("pack to store {}: it is inside the packed directory", store.display())]
    StoreInside {
        /// The folder of the store.
        store: PathBuf,
    },
    /// The output exists already.
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
    /// The route to record is invalid.
    #[error("record the routes of the blocks")]
    Route {
        /// The error of the route.
        source: Box<RouteError>,
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
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// The output could not be written.
    #[error("write flist {}", path.display())]
    Write {
        /// The output, or its folder.
        path: PathBuf,
        /// The error of the operating system.
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
        Self::Route { source: Box::new(source) }
    }
}

impl PackError {
    /// Returns the next step for the user.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Walk { .. } => "check the name and the permissions; packing needs to read everything",
            Self::NotADirectory { .. } => "name the directory that shall become the root",
            Self::NameNotUtf8 { .. } => "rename it, or allow such names (--raw-names) if only contd reads the flist",
            Self::Entry { .. } => "correct the entry: a flist holds only what a file system can hold",
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

    /// Returns the category of the error.
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
