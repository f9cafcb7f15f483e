//! Why a check could not look.

use std::io;
use std::path::{Path, PathBuf};

use contd_cgroup::CgroupError;
use contd_lease::ProcessError;
use contd_rootfs::RootfsError;
use contd_types::{ErrorKind, Explain};

/// An operation that failed, and the reason.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookError {
    /// A file or directory.
    #[error("{verb} {}", path.display())]
    Path {
        /// The operation.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not answer a question about this process or the system.
    #[error("ask the kernel for {what}")]
    Kernel {
        /// The question.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Mounts and flist servers.
    #[error("look at mounts and flist servers")]
    Rootfs(#[from] RootfsError),
    /// Cgroups.
    #[error("look at cgroups")]
    Cgroup(#[from] CgroupError),
    /// Processes.
    #[error("look at processes")]
    Process(#[from] ProcessError),
}

impl LookError {
    pub(crate) fn path(verb: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Path { verb, path: path.into(), source }
    }
}

impl Explain for LookError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Path { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                ErrorKind::PermissionDenied
            }
            Self::Path { .. } | Self::Kernel { .. } | Self::Process(_) | Self::Cgroup(_) => ErrorKind::Unavailable,
            Self::Rootfs(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Path { .. } => Some("run contd doctor as root, and look whether the disk can be read".to_owned()),
            Self::Kernel { .. } => Some("/proc and /sys must be mounted".to_owned()),
            Self::Rootfs(error) => error.hint(),
            Self::Cgroup(error) => Some(error.hint().to_owned()),
            Self::Process(error) => Some(error.hint().to_owned()),
        }
    }
}

/// Reads a text of the kernel's; what is not UTF-8 in it is replaced.
pub(crate) fn read(path: &Path) -> Result<String, LookError> {
    let bytes = std::fs::read(path).map_err(|source| LookError::path("read", path, source))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Lists the entries of a directory by name; none when it is not there, or is no directory.
pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>, LookError> {
    let failed = |source| LookError::path("list", dir, source);
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(source) => return Err(failed(source)),
    };
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    paths.sort();
    Ok(paths)
}
