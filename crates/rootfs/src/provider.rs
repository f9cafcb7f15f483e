//! The boundary between the actors and the file systems, as a trait. All calls block: callers use a blocking pool.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use contd_flist::ImageDefaults;
use contd_types::{
    ApiError, ContainerId, ContainerName, ErrorKind, Explain, LayerKind, NamespaceId, RequestId, Shortage,
};

use crate::grant::{Grant, Sources};

/// The request for a container's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrepareRootfs {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The container.
    pub id: ContainerId,
    /// A path or URL of a `.fl` file, or `dir:/path`.
    pub flist: String,
    /// Whether there is no writable layer at all.
    pub is_read_only: bool,
    /// Where its writable layer lies, unless the caller gives a directory.
    pub layer: LayerKind,
    /// Whether the caller asked for that one: otherwise memory serves where a layer on disk cannot be (a root that the state
    /// directory lies in).
    pub is_layer_required: bool,
    /// The size of the writable layer in bytes.
    pub size_bytes: u64,
    /// Whether the caller asked for that size: it is refused where it cannot be enforced.
    pub is_size_required: bool,
    /// The caller's own directory for the writable layer.
    pub upper_dir: Option<PathBuf>,
    /// Whether setuid programs and device nodes of the flist work (elevated containers only).
    pub is_trusted: bool,
    /// Set for a caller with limited rights: what it may have of all this, and of the sources of its binds.
    pub grant: Option<Arc<Grant>>,
    /// The operation that it is for; a flist server that it starts has the id in its log.
    pub operation: Option<RequestId>,
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
    /// Its writable layer; `None` without one, for a directory of the caller's, and for a root of [`RootfsProvider::recover`].
    pub layer: Option<PreparedLayer>,
    /// Where the sources of its binds are attached, for a caller with limited rights; for others they are where they are.
    pub sources: Sources,
}

/// A writable layer as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreparedLayer {
    /// Where it lies.
    pub kind: LayerKind,
    /// Its size; `None` where nothing limits it.
    pub limit_bytes: Option<u64>,
}

/// How far the fetching of a flist is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchProgress {
    /// The step, for people.
    pub what: String,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in all, where that is known.
    pub total_bytes: Option<u64>,
}

/// A root that an earlier daemon prepared and that is still mounted, or whose layer on disk is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredRootfs {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The container.
    pub id: ContainerId,
    /// The root.
    pub rootfs: PreparedRootfs,
}

/// A root whose flist nobody serves any more: what is not in the page cache gives I/O errors there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRootfs {
    /// The namespace.
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

    /// Frees the memory of a layer whose container's run has ended: what is in it is gone. The root is not mounted then until
    /// it is prepared again. Nothing for other layers, and when there is none.
    ///
    /// # Errors
    /// [`RootfsError`] of the step that failed.
    fn free_memory(&self, namespace: &NamespaceId, id: &ContainerId) -> Result<(), RootfsError>;

    /// Takes all roots down, and with them the flist servers, since the node goes down and no container lives. Layers on disk stay;
    /// a root that is prepared again is as it was.
    ///
    /// # Errors
    /// [`RootfsError`] when the directories cannot be read; a root that resists stays, and is told in the log.
    fn take_down(&self) -> Result<(), RootfsError>;

    /// Lists the roots that an earlier daemon prepared, and clears away what an earlier boot left, but for layers on disk.
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
        /// The given text.
        flist: String,
        /// Why, with kind and hint.
        source: ApiError,
    },
    /// `dir:` names something that is not a directory.
    #[error("root directory {}", path.display())]
    Directory {
        /// The given path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A path of a caller with limited rights cannot be opened where a rule allows it.
    #[error(transparent)]
    Source(contd_access::OpenError),
    /// It was opened, and cannot be attached.
    #[error(transparent)]
    Attach(contd_access::AttachError),
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
    /// A process that has come to take over a server's work is still reading its flist, and cannot be ended before it has
    /// written itself down. It ends by itself then.
    #[error("a process that was about to serve flist {flist:?} has not ended within {waited:?}")]
    Successor {
        /// The flist.
        flist: String,
        /// How long was waited.
        waited: Duration,
    },
    /// A directory could not be made or removed.
    #[error("{what} {}", path.display())]
    Disk {
        /// The operation.
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
    /// The size was asked for, and nothing can enforce it.
    #[error("limit the writable layer in {}: {reason}", path.display())]
    NoLimit {
        /// Where the layer would be.
        path: PathBuf,
        /// Why nothing can.
        reason: NoLimitReason,
    },
    /// The state directory cannot hold the writable layer of an overlay.
    #[error("put a writable layer in {}: its file system cannot be the upper one of an overlay", path.display())]
    NoUpper {
        /// The container's directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another container has the directory.
    #[error("use {} as a directory of the container: container {} of namespace {namespace} {how}", path.display(), named(name.as_ref(), id))]
    UpperInUse {
        /// The directory.
        path: Box<Path>,
        /// The other's namespace.
        namespace: NamespaceId,
        /// The other.
        id: ContainerId,
        /// Its name, where that is known.
        name: Option<ContainerName>,
        /// How it has it.
        how: &'static str,
    },
    /// An overlay that is none of ours has the directory.
    #[error("use {} as the writable layer: another overlay, none of a container of ours, has it", path.display())]
    UpperOfOthers {
        /// The directory.
        path: PathBuf,
    },
    /// The writable layer would lie in the directory that it lies over, or around it.
    #[error("use {} as the writable layer over {}: one lies in the other", path.display(), lower.display())]
    UpperIsLower {
        /// The directory of the layer.
        path: PathBuf,
        /// The root directory.
        lower: PathBuf,
    },
    /// The flist is another one than that over which the layer was made.
    #[error("flist {flist:?} is not the one that the container was made of: its hash is {found} and was {wanted}")]
    FlistChanged {
        /// The flist.
        flist: String,
        /// The hash now.
        found: String,
        /// The hash then.
        wanted: String,
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

/// Why nothing can limit the size of a layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoLimitReason {
    /// The file system cannot limit a directory, or is not told to.
    #[error("its file system has no project quota")]
    FileSystem,
    /// It is btrfs, and nobody switched its quotas on.
    #[error("the quotas of its btrfs are off")]
    BtrfsOff {
        /// The state directory.
        state: PathBuf,
    },
    /// btrfs only limits subvolumes.
    #[error("it is a plain directory of btrfs, no subvolume, since its root lies in the same file system")]
    BtrfsDirectory,
}

impl NoLimitReason {
    fn remedy(&self) -> String {
        match self {
            Self::FileSystem => {
                "put the state directory on ext4 (mkfs -O quota,project) or XFS, mounted with prjquota, or on btrfs with \
                 quotas"
                    .into()
            }
            Self::BtrfsOff { state } => format!("switch them on for the whole file system: btrfs quota enable {}", state.display()),
            Self::BtrfsDirectory => "take the root from a flist, or from another file system".into(),
        }
    }
}

/// Names a container as people know it.
fn named(name: Option<&ContainerName>, id: &ContainerId) -> String {
    name.map_or_else(|| id.short().to_owned(), ToString::to_string)
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
            Self::ServerSilent { .. } | Self::Successor { .. } => ErrorKind::Timeout,
            Self::Source(source) => source.kind(),
            Self::Attach(_) => ErrorKind::Internal,
            Self::Covered { .. } | Self::UpperInUse { .. } | Self::UpperOfOthers { .. } => ErrorKind::Busy,
            Self::NoLimit { .. } | Self::NoUpper { .. } => ErrorKind::Unsupported,
            Self::UpperIsLower { .. } => ErrorKind::InvalidArgument,
            Self::FlistChanged { .. } => ErrorKind::Conflict,
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
            Self::Directory { .. } => Some("name an existing directory by its absolute path: dir:/path".to_owned()),
            Self::Successor { .. } => Some("retry: it ends by itself".to_owned()),
            Self::ServerSilent { .. } => Some("retry; if it stays silent, end the server by its lease".to_owned()),
            Self::Disk { path, .. } => Some(format!("check space and rights of {}", path.display())),
            Self::Mount { .. } => {
                Some("check that the kernel has overlay, tmpfs and FUSE, and that contd is root".into())
            }
            Self::NoLimit { reason, .. } => {
                Some(format!("{}; or take a layer in memory (--layer memory), or leave the size out", reason.remedy()))
            }
            Self::NoUpper { .. } => Some(
                "put the state directory (state_dir) on ext4, XFS, btrfs or tmpfs; or take layers in memory: --layer memory, or \
                 layer = \"memory\" in [defaults]"
                    .into(),
            ),
            Self::UpperInUse { .. } => Some("remove that container first, or give another directory".into()),
            Self::UpperOfOthers { .. } => {
                Some("see which one: grep upperdir= /proc/self/mountinfo; or give another directory".into())
            }
            Self::UpperIsLower { .. } => {
                Some("give a directory beside it; or take a layer in memory: --layer memory".into())
            }
            Self::FlistChanged { .. } => {
                Some("remove the container and run it anew; or put the flist of before back in its place".into())
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
