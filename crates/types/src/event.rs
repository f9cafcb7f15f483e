//! Events: the ordered log of changes. The state is the truth; events only report it.

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::id::ContainerId;
use crate::lifecycle::{Pid, Step};
use crate::name::{ContainerName, NamespaceId};
use crate::time::Timestamp;

/// A change of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerEvent {
    /// The container's namespace.
    pub namespace: NamespaceId,
    /// The container's id.
    pub id: ContainerId,
    /// The container's name.
    pub name: ContainerName,
    /// The time of the change.
    pub at: Timestamp,
    /// The kind of change.
    pub kind: EventKind,
}

/// The kinds of changes. Append only: the order is the wire format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// `Run` was accepted and recorded.
    Accepted,
    /// The container runs.
    Started {
        /// The pid of its init.
        pid: Pid,
    },
    /// The container could not be made.
    Failed {
        /// The step that failed.
        step: Step,
        /// The reason.
        reason: String,
    },
    /// A stop was requested.
    StopRequested,
    /// The container has ended.
    Exited {
        /// How it ended.
        exit: Exit,
    },
    /// The restart policy will start the container again.
    BackoffBegun {
        /// The number of the coming restart in a row, from 1.
        attempt: u32,
    },
    /// A new daemon has re-attached to the container.
    Recovered,
    /// The container is removed.
    Deleted,
    /// The container is created, without its processes; it can be started.
    Created,
    /// No server serves the container's root any more: reads of data that is not cached fail.
    RootLost {
        /// The reason.
        reason: String,
    },
    /// Rotated files of the container's log were removed, since the logs of the node took more than they may together.
    LogTrimmed {
        /// How many files.
        files: u32,
        /// Their bytes.
        bytes: u64,
    },
    /// All its processes stand still.
    Paused,
    /// They go on.
    Resumed,
}
