//! Why a flist could not be named or fetched.

use std::io;
use std::path::PathBuf;

use crate::cache::is_full;
use crate::error::FlistErrorKind;
use crate::http::{HttpFailure, is_transient_status};

/// Why a text names no flist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// It cannot be understood.
    #[error("use {source_text:?} as a flist: {reason}")]
    Invalid {
        /// The text, redacted.
        source_text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A scheme that this version does not fetch.
    #[error("use {source_text:?} as a flist: scheme {scheme:?} is not supported")]
    UnsupportedScheme {
        /// The text, redacted.
        source_text: String,
        /// Its scheme.
        scheme: String,
    },
}

impl SourceError {
    /// Says what to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        "name a flist as /path/x.fl, file:///path/x.fl or http(s)://host/x.fl, or a directory as dir:/path"
    }

    /// Says what sort of trouble it is.
    #[must_use]
    pub fn kind(&self) -> FlistErrorKind {
        match self {
            Self::Invalid { .. } => FlistErrorKind::Invalid,
            Self::UnsupportedScheme { .. } => FlistErrorKind::Unsupported,
        }
    }
}

/// What went wrong while a flist was fetched. No variant holds a credential.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// There is none of that name.
    #[error("fetch flist {name}: there is none")]
    NotFound {
        /// The path or redacted URL.
        name: String,
    },
    /// A directory, device, pipe or socket.
    #[error("fetch flist {}: it is {what}, not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// A plain directory is used in place.
    #[error("fetch flist dir:{}: a directory is not fetched", path.display())]
    IsDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The system could not read it.
    #[error("fetch flist {}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The exchange with the server failed.
    #[error("fetch flist {url}")]
    Exchange {
        /// The URL, redacted.
        url: String,
        /// Where it failed.
        source: HttpFailure,
    },
    /// No rule lets the caller have it.
    #[error("fetch flist {url}: no rule of this user allows {what}")]
    NotPermitted {
        /// The URL, redacted.
        url: String,
        /// The URL itself, or where it leads to.
        what: &'static str,
    },
    /// The server answered with a status that is neither success nor absence.
    #[error("fetch flist {url}: status {status}")]
    Status {
        /// The URL, redacted.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// It ended early, or grew meanwhile.
    #[error("fetch flist {name}: {received} bytes came, {announced} were announced")]
    CutShort {
        /// The path or redacted URL.
        name: String,
        /// What came.
        received: u64,
        /// What was announced.
        announced: u64,
    },
    /// Above the cap on flists.
    #[error("fetch flist {name}: more than {limit} bytes")]
    TooLarge {
        /// The path or redacted URL.
        name: String,
        /// The cap.
        limit: u64,
    },
    /// The cache could not be written.
    #[error("keep the flist in {}", path.display())]
    Keep {
        /// The folder of the cache.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl FetchError {
    /// Says what to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "check the name of the flist",
            Self::NotAFile { .. } => "name a .fl file, or use dir:/path for a directory",
            Self::IsDirectory { .. } => "use the directory itself as the root",
            Self::Read { .. } => "check the permissions of the file and of its folders",
            Self::NotPermitted { .. } => {
                "ask the operator for the URL in `flists` of an [[access]] rule, also of what it redirects to"
            }
            Self::Exchange { source: HttpFailure::Forbidden, .. } => {
                "its address is on this machine or a private network: `flists` of an [[access]] rule must name that server"
            }
            Self::Exchange { .. } => "check that the server is up and reachable from this node, then retry",
            Self::Status { .. } => "ask the operator of the server",
            Self::CutShort { .. } => "retry; if it stays so, the file is being written",
            Self::TooLarge { .. } => "split the tree in several flists",
            Self::Keep { .. } => "check the permissions and the free space of the cache directory",
        }
    }

    /// Says what sort of trouble it is.
    #[must_use]
    pub fn kind(&self) -> FlistErrorKind {
        match self {
            Self::NotFound { .. } => FlistErrorKind::NotFound,
            Self::NotAFile { .. } | Self::IsDirectory { .. } => FlistErrorKind::Invalid,
            Self::Read { .. } | Self::Keep { .. } => FlistErrorKind::Io,
            Self::NotPermitted { .. } | Self::Exchange { source: HttpFailure::Forbidden, .. } => FlistErrorKind::Denied,
            Self::Exchange { .. } | Self::Status { .. } | Self::CutShort { .. } => FlistErrorKind::Unreachable,
            Self::TooLarge { .. } => FlistErrorKind::Unsupported,
        }
    }

    /// Tells whether the disk of the cache is full, or what may be had of it.
    pub(super) fn is_full_disk(&self) -> bool {
        matches!(self, Self::Keep { source, .. } if is_full(source))
    }

    /// Tells whether the same server may well answer if it is asked again soon.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Exchange { source, .. } => source.is_transient(),
            Self::Status { status, .. } => is_transient_status(*status),
            Self::CutShort { .. } => true,
            _ => false,
        }
    }
}
