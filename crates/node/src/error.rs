//! Why a node could not be opened, with a hint for each.

use std::io;
use std::path::PathBuf;

use contd_lease::ProcessError;
use contd_store::{JournalError, StoreError};
use contd_types::{ErrorKind, Explain, Shortage, SpecError};

use crate::config::ConfigError;
use crate::lock::LockError;
use crate::programs::ProgramError;

/// The reason why a node cannot be opened. No process was started, and a node that runs already is not affected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A key of the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A default limit of the configuration.
    #[error(transparent)]
    Limit(#[from] SpecError),
    /// A program.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// One of the four directories of the configuration.
    #[error("make the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory inside them.
    #[error("make the directory {}", path.display())]
    Private {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another node has these directories.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The records of containers.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal of events.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The boot id of the kernel.
    #[error(transparent)]
    Boot(#[from] ProcessError),
}

impl Explain for OpenError {
    fn kind(&self) -> ErrorKind {
        if Shortage::behind(self).is_some() {
            return ErrorKind::OutOfResources;
        }
        match self {
            Self::Config(_) | Self::Limit(_) => ErrorKind::InvalidArgument,
            Self::Program(_) => ErrorKind::NotFound,
            Self::Directory { .. } | Self::Private { .. } => ErrorKind::PermissionDenied,
            Self::Lock(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Journal(error) => error.kind(),
            Self::Boot(_) => ErrorKind::Unsupported,
        }
    }

    fn hint(&self) -> Option<String> {
        if let Some(shortage) = Shortage::behind(self) {
            return Some(shortage.hint().to_owned());
        }
        let hint = match self {
            Self::Config(error) => error.hint(),
            Self::Limit(error) => return Some(error.hint().to_owned()),
            Self::Program(error) => return Some(error.hint()),
            Self::Directory { .. } => "run contd as root, or choose other directories",
            Self::Private { .. } => "check the rights of the directory above",
            Self::Lock(error) => error.hint(),
            Self::Store(error) => return error.hint(),
            Self::Journal(_) => "remove the journal: it is a log, not the state",
            Self::Boot(_) => "mount /proc: contd cannot work without it",
        };
        Some(hint.to_owned())
    }
}
