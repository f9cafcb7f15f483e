//! The border between the actors and the file systems, as a trait. All calls block: callers use a blocking pool.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contd_flist::ImageDefaults;
use contd_types::{ApiError, ContainerId, ErrorKind, Explain, NamespaceId, Shortage};

use crate::grant::{Grant, Sources};

/// What a container's root shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrepareRootfs {
    /// The tenant.
    pub namespace: NamespaceId,
    /// The container.
    pub id: ContainerId,
    /// A path or URL of a `.fl` file, or `dir:/path`.
    pub flist: String,
    /// Whether there is no writable layer at all.
    pub is_read_only: bool,
    /// The size of the writable layer in bytes, when it is a tmpfs.
    pub size_bytes: u64,
    /// The caller's own directory for the writable layer.
    pub upper_dir: Option<PathBuf>,
    /// Whether setuid programs and device nodes of the flist work (elevated containers only).
    pub is_trusted: bool,
    /// Set for a caller with limited rights: what it may have of all this, and of the sources of its binds.
    pub grant: Option<Arc<Grant>>,
}

/// A root that is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedRootfs {
    /// Where it is mounted.
    pub root: PathBuf,
    /// The hash of the flist; `None` for a plain directory.
    pub flist_hash: Option<String>,
    /// How the image that the flist was made of is run; all is empty for other flists, and for a root of
    /// [`RootfsProvider::recover`].
    pub image: ImageDefaults,
    /// Where the sources of its binds are attached, for a caller with limited rights; for others they are where they are.
    pub sources: Sources,
}

/// How far the fetching of a flist is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchProgress {
    /// What is being done, for people.
    pub what: String,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in all, where that is known.
    pub total_bytes: Option<u64>,
}

/// A root that an earlier daemon prepared and that is still mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredRootfs {
    /// The tenant.
    pub namespace: NamespaceId,
    /// The container.
    pub id: ContainerId,
    /// The root.
    pub rootfs: PreparedRootfs,
}

/// A root whose flist nobody serves any more: what is not in the page cache gives I/O errors there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRootfs {
    /// The tenant.
    pub namespace: NamespaceId,
    /// The container.
    pub id: ContainerId,
    /// The hash of the flist.
    pub flist_hash: String,
    /// Why.
    pub why: ApiError,
}

/// Prepares and releases roots. Each call may be repeated.
pub trait RootfsProvider: Send + Sync + std::fmt::Debug {
    /// Makes the root; a root that is already there for this container is returned as it is.
    ///
    /// # Errors
    /// [`RootfsError`]; whatever was half-made is undone before it returns.
    fn prepare(
        &self,
        request: &PrepareRootfs,
        progress: &(dyn Fn(FetchProgress) + Send + Sync),
    ) -> Result<PreparedRootfs, RootfsError>;

    /// Unmounts and removes the root of a container; the flist's server goes with its last user. Fine when there is none.
    ///
    /// Waits for nobody: what a process of the host, or a copy of the mount table, still uses is detached, and goes when they
    /// go. A mount point that is covered is left to [`Self::tidy`].
    ///
    /// # Errors
    /// [`RootfsError`] of the step that failed; what could be removed is removed.
    fn release(&self, namespace: &NamespaceId, id: &ContainerId) -> Result<(), RootfsError>;

    /// Lists the roots that an earlier daemon of this boot prepared, and clears away what an earlier boot left.
    ///
    /// # Errors
    /// [`RootfsError`] when the directories cannot be read.
    fn recover(&self) -> Result<Vec<RecoveredRootfs>, RootfsError>;

    /// Goes on with what releases had to leave. Quick when there is nothing; asked every few seconds.
    ///
    /// # Errors
    /// [`RootfsError`] when the directories cannot be read.
    fn tidy(&self) -> Result<(), RootfsError>;

    /// Lists the roots that have lost their flist's server, as long as they are there. Quick; asked every few seconds.
    ///
    /// # Errors
    /// [`RootfsError`] when the directories cannot be read.
    fn lost(&self) -> Result<Vec<LostRootfs>, RootfsError>;
}

/// Why a root could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// The text is neither a path, a URL nor `dir:`; the file is missing or damaged; or a store cannot be reached.
    #[error("flist {flist:?}")]
    Flist {
        /// What was given.
        flist: String,
        /// Why, with kind and hint.
        source: ApiError,
    },
    /// `dir:` names something that is not a directory.
    #[error("root directory {}", path.display())]
    Directory {
        /// What was given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What a caller with limited rights names cannot be opened where a rule allows it.
    #[error(transparent)]
    Source(contd_access::OpenError),
    /// It was opened, and cannot be attached.
    #[error(transparent)]
    Attach(contd_access::AttachError),
    /// Another container has the upper directory.
    #[error("use {} for the writable layer: container {} of {} has it", path.display(), other.short(), namespace)]
    UpperTaken {
        /// The caller's directory.
        path: PathBuf,
        /// The other's tenant.
        namespace: NamespaceId,
        /// The other.
        other: ContainerId,
    },
    /// The flist's server did not come up.
    #[error("start the server of flist {flist:?}")]
    Server {
        /// The flist.
        flist: String,
        /// Why.
        source: ApiError,
    },
    /// The server came up and does not answer.
    #[error("server of flist {flist:?} did not answer within {waited:?}")]
    ServerSilent {
        /// The flist.
        flist: String,
        /// How long was waited.
        waited: Duration,
    },
    /// A directory could not be made or removed.
    #[error("{what} {}", path.display())]
    Disk {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A mount failed.
    #[error("mount {what} at {}", path.display())]
    Mount {
        /// Which file system.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A mount point could not be removed: a copy of the mount in our own namespace, as a recursive bind makes it, covers it.
    #[error("remove the mount point {}: a copy of the mount, made by a recursive bind, covers it", path.display())]
    Covered {
        /// Where.
        path: PathBuf,
    },
    /// An unmount failed.
    #[error("unmount {}", path.display())]
    Unmount {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Explain for RootfsError {
    fn kind(&self) -> ErrorKind {
        if Shortage::behind(self).is_some() {
            return ErrorKind::OutOfResources;
        }
        match self {
            Self::Flist { source, .. } | Self::Server { source, .. } => source.kind,
            Self::Directory { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                _ => ErrorKind::InvalidArgument,
            },
            Self::ServerSilent { .. } => ErrorKind::Timeout,
            Self::Source(source) => source.kind(),
            Self::Attach(_) => ErrorKind::Internal,
            Self::UpperTaken { .. } => ErrorKind::Busy,
            Self::Covered { .. } => ErrorKind::Busy,
            Self::Disk { source, .. } | Self::Mount { source, .. } | Self::Unmount { source, .. } => {
                match source.kind() {
                    io::ErrorKind::ResourceBusy => ErrorKind::Busy,
                    _ => ErrorKind::Internal,
                }
            }
        }
    }

    fn hint(&self) -> Option<String> {
        if let Some(shortage) = Shortage::behind(self) {
            return Some(shortage.hint().to_owned());
        }
        match self {
            Self::Flist { source, .. } | Self::Server { source, .. } => source.hint.clone(),
            Self::Source(source) => source.hint(),
            Self::Attach(error) => {
                Some(format!("see what is mounted there: grep {} /proc/self/mountinfo", error.at.display()))
            }
            Self::UpperTaken { .. } => Some("remove that container first, or give each its own directory".to_owned()),
            Self::Directory { .. } => Some("name an existing directory by its absolute path: dir:/path".to_owned()),
            Self::ServerSilent { .. } => Some("retry; if it stays silent, end the server by its lease".to_owned()),
            Self::Disk { path, .. } => Some(format!("check space and rights of {}", path.display())),
            Self::Mount { .. } => {
                Some("check that the kernel has overlay, tmpfs and FUSE, and that contd is root".into())
            }
            Self::Covered { .. } => {
                Some("unmount the copies: grep contd /proc/self/mountinfo; then it goes by itself".into())
            }
            Self::Unmount { path, .. } => Some(format!("see what holds it: grep {} /proc/*/mountinfo", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_runs_out_under_a_root_is_named_with_its_path() {
        for (number, limit) in [(28, "space"), (122, "quota"), (24, "open files"), (23, "fs.file-max"), (12, "memory")]
        {
            let path = || PathBuf::from("/state/a/x");
            let source = || io::Error::from_raw_os_error(number);
            for error in [
                RootfsError::Disk { what: "make", path: path(), source: source() },
                RootfsError::Mount { what: "tmpfs", path: path(), source: source() },
                RootfsError::Directory { path: path(), source: source() },
            ] {
                assert_eq!(error.kind(), ErrorKind::OutOfResources, "{number}");
                assert!(error.hint().is_some_and(|hint| hint.contains(limit)), "{number}: {:?}", error.hint());
                assert!(error.to_string().contains("/state/a/x"));
            }
        }
    }
}
