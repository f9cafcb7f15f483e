//! The errors of naming and fetching a flist.

use std::io;
use std::path::PathBuf;

use crate::cache::is_full;
use crate::error::FlistErrorKind;
use crate::http::{HttpFailure, is_transient_status};

/// A text does not name a flist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The text is malformed.
    #[error("use {source_text:?} as a flist: {reason}")]
    Invalid {
        /// The text, redacted.
        source_text: String,
        /// The fault in it.
        reason: &'static str,
    },
    /// This version does not fetch from the scheme.
    #[error("use {source_text:?} as a flist: scheme {scheme:?} is not supported")]
    UnsupportedScheme {
        /// The text, redacted.
        source_text: String,
        /// Its scheme.
        scheme: String,
    },
}

impl SourceError {
    /// Returns the next step for the user.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        "name a flist as /path/x.fl, file:///path/x.fl or http(s)://host/x.fl, or a directory as dir:/path"
    }

    /// Returns the category of the error.
    #[must_use]
    pub fn kind(&self) -> FlistErrorKind {
        match self {
            Self::Invalid { .. } => FlistErrorKind::Invalid,
            Self::UnsupportedScheme { .. } => FlistErrorKind::Unsupported,
        }
    }
}

/// A flist could not be fetched. No variant holds a credential.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The flist does not exist.
    #[error("fetch flist {name}: not found")]
    NotFound {
        /// The path or redacted URL.
        name: String,
    },
    /// The path is a directory, device, pipe or socket.
    #[error("fetch flist {}: it is {what}, not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// The kind of file.
        what: String,
    },
    /// The source is a plain directory, which is used in place.
    #[error("fetch flist dir:{}: a directory is not fetched", path.display())]
    IsDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The file could not be read.
    #[error("fetch flist {}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The exchange with the server failed.
    #[error("fetch flist {url}")]
    Exchange {
        /// The URL, redacted.
        url: String,
        /// The failed step.
        source: HttpFailure,
    },
    /// No access rule allows the caller to fetch it.
    #[error("fetch flist {url}: no rule of this user allows {what}")]
    NotPermitted {
        /// The URL, redacted.
        url: String,
        /// The URL itself (`it`), or the target of a redirect.
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
    /// The transfer ended early, or the file grew meanwhile.
    #[error("fetch flist {name}: {received} bytes came, {announced} were announced")]
    CutShort {
        /// The path or redacted URL.
        name: String,
        /// The bytes received.
        received: u64,
        /// The bytes announced.
        announced: u64,
    },
    /// The flist exceeds the size limit.
    #[error("fetch flist {name}: more than {limit} bytes")]
    TooLarge {
        /// The path or redacted URL.
        name: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The cache could not be written.
    #[error("keep the flist in {}", path.display())]
    Keep {
        /// The folder of the cache.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl FetchError {
    /// Returns the next step for the user.
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

    /// Returns the category of the error.
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

    /// Tells whether the disk of the cache, or its quota, is full.
    pub(super) fn is_full_disk(&self) -> bool {
        matches!(self, Self::Keep { source, .. } if is_full(source))
    }

    /// Tells whether a retry soon may succeed.
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
