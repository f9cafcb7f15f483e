//! Between the container actors and those that serve the whole node: roots, bundles, logs, events.
//!
//! All of them may be asked again when their actor was lost: every effect is repeatable. A release or removal that is
//! behind a hanging call answers [`Undone::Later`] and happens when that returns, or is asked for again.

use std::path::PathBuf;
use std::sync::Arc;

use actix::Message;
use contd_bundle::{BundleKey, Identity};
use contd_logs::{LogFiles, RunStart};
use contd_rootfs::{FetchProgress, ImageDefaults, PrepareRootfs, PreparedRootfs, RecoveredRootfs};
use contd_store::MadeWith;
use contd_types::{ContainerId, ContainerInfo, ContainerSpec, NamespaceId, UserSpec};
use tokio::sync::{mpsc, watch};
use tracing::Span;

use crate::error::StepError;
use crate::locks::{ContainerLocks, Wanted};
use crate::messages::LogStreamReceiver;
use crate::pool::WhenBlocked;
use crate::records::RecordWrite;

/// Whether what was to be undone is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undone {
    /// Yes.
    Now,
    /// Not yet: a call that hangs is in the way. [`WhenBlocked`] says whether it is undone when that returns.
    Later,
}

/// Makes a container's root.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<PreparedRootfs, StepError>")]
pub(crate) struct PrepareRoot {
    pub(crate) locks: Arc<ContainerLocks>,
    pub(crate) wanted: Wanted,
    pub(crate) request: PrepareRootfs,
    pub(crate) progress: Option<mpsc::Sender<FetchProgress>>,
    /// The span of the operation.
    pub(crate) span: Span,
}

/// Releases a container's root.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Undone, StepError>")]
pub(crate) struct ReleaseRoot {
    pub(crate) locks: Arc<ContainerLocks>,
    pub(crate) namespace: NamespaceId,
    pub(crate) id: ContainerId,
    pub(crate) when_blocked: WhenBlocked,
    /// The span of the operation.
    pub(crate) span: Span,
}

/// Frees the memory of a container's layer: its run has ended.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Undone, StepError>")]
pub(crate) struct FreeMemory {
    pub(crate) locks: Arc<ContainerLocks>,
    pub(crate) namespace: NamespaceId,
    pub(crate) id: ContainerId,
}

/// Takes all roots down: the node goes down, and no container lives.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), StepError>")]
pub(crate) struct TakeDownRoots;

/// Lists the roots that were there when the node started.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<RecoveredRootfs>, StepError>")]
pub(crate) struct ListRecoveredRoots;

/// The input of a bundle.
#[derive(Debug, Clone)]
pub(crate) struct BundleSpec {
    pub(crate) namespace: NamespaceId,
    pub(crate) id: ContainerId,
    /// As it was asked for; the flist and the defaults complete it.
    pub(crate) spec: Arc<ContainerSpec>,
    pub(crate) defaults: contd_bundle::Defaults,
    pub(crate) root: PathBuf,
    pub(crate) image: ImageDefaults,
}

/// Writes a container's bundle, or replaces it; the answer is what the flist added to the spec.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Option<MadeWith>, StepError>")]
pub(crate) struct WriteBundle {
    pub(crate) locks: Arc<ContainerLocks>,
    pub(crate) wanted: Wanted,
    pub(crate) bundle: BundleSpec,
}

/// Returns the configuration that a bundle would hold.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<String, StepError>")]
pub(crate) struct PreviewBundle {
    pub(crate) wanted: Wanted,
    pub(crate) bundle: BundleSpec,
}

/// Looks a user up in the files of a root, or of a container that runs.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Identity, StepError>")]
pub(crate) struct LookUpUser {
    pub(crate) namespace: NamespaceId,
    pub(crate) root: PathBuf,
    pub(crate) user: UserSpec,
}

/// Removes a container's bundle.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Undone, StepError>")]
pub(crate) struct RemoveBundle {
    pub(crate) locks: Arc<ContainerLocks>,
    pub(crate) namespace: NamespaceId,
    pub(crate) id: ContainerId,
    pub(crate) when_blocked: WhenBlocked,
}

/// Lists the containers that have a bundle.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<BundleKey>, StepError>")]
pub(crate) struct ListBundles;

/// Makes sure that a container's log file is there, for its shim to write, and says where that will begin. In the same thread,
/// before that, the intent to make the container is written: nothing of it may be there without its record.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<RunStart, StepError>")]
pub(crate) struct OpenLog {
    pub(crate) locks: Arc<ContainerLocks>,
    pub(crate) wanted: Wanted,
    pub(crate) namespace: NamespaceId,
    pub(crate) intent: RecordWrite,
    pub(crate) files: LogFiles,
    /// The first run: what another container of this name left is removed.
    pub(crate) is_new: bool,
}

/// Removes a container's log files, or puts them to those of removed containers.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Undone, StepError>")]
pub(crate) struct RemoveLog {
    pub(crate) locks: Arc<ContainerLocks>,
    pub(crate) namespace: NamespaceId,
    pub(crate) files: LogFiles,
    pub(crate) when_blocked: WhenBlocked,
}

/// Finds the log of a container that was removed, by its name or the beginning of its id.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Option<LogFiles>, StepError>")]
pub(crate) struct FindRemovedLog {
    pub(crate) namespace: NamespaceId,
    pub(crate) container: String,
}

/// Streams a log.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<LogStreamReceiver, StepError>")]
pub(crate) struct StreamLog {
    pub(crate) namespace: NamespaceId,
    pub(crate) files: LogFiles,
    pub(crate) tail: Option<u64>,
    /// The container, unless it was removed.
    pub(crate) container: Option<watch::Receiver<Arc<ContainerInfo>>>,
    /// Goes on until that container has ended for good.
    pub(crate) is_following: bool,
}
