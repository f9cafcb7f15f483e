//! Why a flist could not be unpacked.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::content::ReadError;
use crate::error::FlistErrorKind;

/// What was being done to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnpackStep {
    /// Making it.
    Create,
    /// Opening a directory again.
    Open,
    /// Writing its content.
    Write,
    /// Giving it its owner.
    Chown,
    /// Giving it its mode.
    Chmod,
    /// Giving it its times.
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

/// What went wrong while unpacking. Nothing is left behind unless the variant says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The directory could not be made or opened.
    #[error("unpack to {}", dir.display())]
    Prepare {
        /// The directory.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The name is that of something else.
    #[error("unpack to {}: not a directory", dir.display())]
    NotADirectory {
        /// The path.
        dir: PathBuf,
    },
    /// Something is in the directory.
    #[error("unpack to {}: it is not empty", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// The content could not be had or verified.
    #[error("unpack {}", path.display())]
    Read {
        /// The first file that needs it.
        path: PathBuf,
        /// Why not.
        source: ReadError,
    },
    /// The system refused something.
    #[error("{step} {}", path.display())]
    Entry {
        /// What was tried.
        step: UnpackStep,
        /// The entry.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system has no way to name it.
    #[error("unpack {}…: its path has {len} bytes", path.display())]
    PathTooLong {
        /// The beginning of the path.
        path: PathBuf,
        /// Its length.
        len: usize,
    },
    /// And then what was made could not be removed: a part of the tree is still there.
    #[error("remove what was unpacked to {} (failed: {cleanup})", dir.display())]
    CleanUp {
        /// The directory.
        dir: PathBuf,
        /// Why it could not be removed.
        cleanup: io::Error,
        /// Why it was to be removed.
        source: Box<Self>,
    },
}

impl UnpackError {
    /// Says what to do next.
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

    /// Says what sort of trouble it is.
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
