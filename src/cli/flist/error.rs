//! The errors of the verbs on flists.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use contd_flist::route::RouteError;
use contd_flist::{
    CacheError, FetchError, FlistErrorKind, MetadataError, PackError, SourceError, StoreError, UnpackError,
};
use contd_image::ImportError;
use contd_types::ErrorKind;

/// An operation on a flist that failed. Most variants only wrap an error of the library.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlistError {
    /// Packing a directory.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Importing an image.
    #[error(transparent)]
    Import(Box<ImportError>),
    /// Parsing routes.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// Parsing a flist's path or URL.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Fetching a flist.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Reading a flist.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The cache of blocks.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The stores of a flist.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A part of the cache could not be examined or removed; all other parts were.
    #[error("examine or prune {}", path.display())]
    CachePart {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A part of the cache could not be examined; the rest is shown.
    #[error("look at the cache: {why}")]
    CacheLook {
        /// The part, and the system's error.
        why: String,
    },
    /// Unpacking a flist.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// No directory for a download could be made.
    #[error("make a directory for the download")]
    Scratch {
        /// The system's error.
        source: io::Error,
    },
    /// The file cannot be hashed.
    #[error("hash flist {name}")]
    Hash {
        /// The flist.
        name: String,
        /// The system's error.
        source: io::Error,
    },
    /// The flist has no such entry.
    #[error("list {path} in flist {name}: no such entry")]
    NoEntry {
        /// The entry.
        path: String,
        /// The flist.
        name: String,
    },
}

impl FlistError {
    /// Returns the kind of the error, for the wire and for exit codes.
    pub(crate) fn kind(&self) -> ErrorKind {
        let kind = match self {
            Self::Pack(error) => error.kind(),
            Self::Import(error) => error.kind(),
            Self::Route(error) => error.kind(),
            Self::Source(error) => error.kind(),
            Self::Fetch(error) => error.kind(),
            Self::Metadata(error) => error.kind(),
            Self::Cache(CacheError::Busy { .. }) => return ErrorKind::Busy,
            Self::Cache(error) => error.kind(),
            Self::CachePart { .. } | Self::CacheLook { .. } => FlistErrorKind::Io,
            Self::Store(error) => error.kind(),
            Self::Unpack(error) => error.kind(),
            Self::Scratch { .. } => return ErrorKind::OutOfResources,
            Self::Hash { .. } => FlistErrorKind::Io,
            Self::NoEntry { .. } => FlistErrorKind::NotFound,
        };
        kind.into()
    }

    /// Returns the next step for a person.
    pub(crate) fn hint(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Pack(error) => error.hint(),
            Self::Import(error) => return error.hint(),
            Self::Route(error) => error.hint(),
            Self::Source(error) => error.hint(),
            Self::Fetch(error) => error.hint(),
            Self::Metadata(error) => error.hint(),
            Self::Cache(error) => error.hint(),
            Self::CachePart { .. } | Self::CacheLook { .. } => "run as root; otherwise check the disk",
            Self::Store(error) => error.hint(),
            Self::Unpack(error) => error.hint(),
            Self::Scratch { .. } => "check TMPDIR, or name a cache (--cache)",
            Self::Hash { .. } => "check the disk that holds the flist",
            Self::NoEntry { .. } => "list its files with `contd flist ls -R`",
        })
    }
}
