//! To one namespace's actor: from the supervisor, and from its containers.

use actix::Message;
use contd_rootfs::FetchProgress;
use contd_types::{Caller, ContainerId, ContainerSpec};
use tokio::sync::{mpsc, oneshot};

use crate::error::NamespaceError;

/// How far a container is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Root, bundle and log; no process.
    Prepared,
    /// It runs.
    Running,
}

/// Admits, records and makes a container.
#[derive(Debug, Message)]
#[rtype(result = "Result<ContainerId, NamespaceError>")]
pub(crate) struct Run {
    pub(crate) spec: ContainerSpec,
    pub(crate) caller: Option<Caller>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) progress: Option<mpsc::Sender<FetchProgress>>,
    pub(crate) hold: Option<oneshot::Receiver<()>>,
    pub(crate) goal: Goal,
}

/// From a container's actor.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub(crate) struct ContainerNews {
    pub(crate) id: ContainerId,
    pub(crate) news: News,
}

/// News of a container for its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// The container is gone, and its name is free.
    Gone,
    /// It is to go, something resists, and nobody waits for that: its name is free.
    Lingers,
}

/// From a container's actor: it ended without being told to.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub(crate) struct ContainerActorEnded {
    pub(crate) id: ContainerId,
    /// Which of the container's actors, counted by rebuilds.
    pub(crate) generation: u32,
    pub(crate) has_panicked: bool,
}
