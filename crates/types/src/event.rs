//! What happened, in order. State is the truth; events are its log.

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::id::ContainerId;
use crate::lifecycle::{Pid, Step};
use crate::name::{ContainerName, NamespaceId};
use crate::time::Timestamp;

/// One thing that happened to one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerEvent {
    /// Its namespace.
    pub namespace: NamespaceId,
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: ContainerName,
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
}

/// What can happen. Append only: the order is the wire format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// `Run` was accepted and recorded.
    Accepted,
    /// It runs.
    Started {
        /// Its init.
        pid: Pid,
    },
    /// It could not be made.
    Failed {
        /// The step.
        step: Step,
        /// Why.
        reason: String,
    },
    /// It was told to end.
    StopRequested,
    /// It has ended.
    Exited {
        /// How.
        exit: Exit,
    },
    /// The restart policy will start it again.
    BackoffBegun {
        /// Which restart in a row, from 1.
        attempt: u32,
    },
    /// A new daemon has found it again.
    Recovered,
    /// It is gone.
    Deleted,
    /// All but its processes is there; it can be started.
    Created,
    /// Nobody serves its root any more: reads of what is not cached fail.
    RootLost {
        /// Why.
        reason: String,
    },
}
