//! The errors of unpacking a flist.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::content::ReadError;
use crate::error::FlistErrorKind;

/// The operation on an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnpackStep {
    /// Creating it.
    Create,
    /// Opening a directory again.
    Open,
    /// Writing its content.
    Write,
    /// Setting its owner.
    Chown,
    /// Setting its mode.
    Chmod,
    /// Setting its times.
    Times,
}

impl fmt::Display for UnpackStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Open => "open",
            Self::Write => "write",
            Self::Chown => "set the owner of",
            Self::Chmod => "set the mode of",
            Self::Times => "set the times of",
        })
    }
}

/// A flist could not be unpacked. Nothing is left behind unless the variant says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The directory could not be made or opened.
    #[error("unpack to {}", dir.display())]
    Prepare {
        /// The directory.
        dir: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The path is not a directory.
    #[error("unpack to {}: not a directory", dir.display())]
    NotADirectory {
        /// The path.
        dir: PathBuf,
    },
    /// The directory is not empty.
    #[error("unpack to {}: it is not empty", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// The content could not be fetched or verified.
    #[error("unpack {}", path.display())]
    Read {
        /// The first file that needs it.
        path: PathBuf,
        /// The error of the read.
        source: ReadError,
    },
    /// An operation on an entry failed.
    #[error("{step} {}", path.display())]
    Entry {
        /// The operation.
        step: UnpackStep,
        /// The entry.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The path is too long for the system.
    #[error("unpack {}…: its path has {len} bytes", path.display())]
    PathTooLong {
        /// The beginning of the path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// After another failure, the partial tree could not be removed: a part of it is still there.
    #[error("remove the partial tree in {} (failed: {cleanup})", dir.display())]
    CleanUp {
        /// The directory.
        dir: PathBuf,
        /// The error of the removal.
        cleanup: io::Error,
        /// The first failure.
        source: Box<Self>,
    },
}

impl UnpackError {
    /// Returns the next step for the user.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Prepare { .. } => "check the path, the permissions and the free space",
            Self::NotADirectory { .. } => "name a directory, or one to be made",
            Self::NotEmpty { .. } => "name an empty or new directory, or allow to unpack over what is there (--force)",
            Self::Read { source, .. } => source.hint(),
            Self::Entry { step: UnpackStep::Chown, source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "only root can give files away: keep them yourself (--no-same-owner)"
            }
            Self::Entry { step: UnpackStep::Create, source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                "only root can make devices"
            }
            Self::Entry { .. } => "check the permissions and the free space of the directory",
            Self::PathTooLong { .. } => "such a tree can be mounted, not unpacked",
            Self::CleanUp { .. } => "remove the directory by hand",
        }
    }

    /// Returns the category of the error.
    #[must_use]
    pub fn kind(&self) -> FlistErrorKind {
        match self {
            Self::NotADirectory { .. } | Self::NotEmpty { .. } => FlistErrorKind::Invalid,
            Self::Read { source, .. } => source.kind(),
            Self::PathTooLong { .. } => FlistErrorKind::Unsupported,
            Self::Prepare { source, .. } if source.kind() == io::ErrorKind::NotFound => FlistErrorKind::NotFound,
            Self::Prepare { .. } | Self::Entry { .. } => FlistErrorKind::Io,
            Self::CleanUp { source, .. } => source.kind(),
        }
    }
}
