//! To one namespace's actor: from the supervisor, and from its containers.

use std::time::Duration;

use actix::Message;
use contd_rootfs::FetchProgress;
use contd_types::{Caller, ContainerId, ContainerSpec, Exit, RestartPolicy, Signal};
use tokio::sync::{mpsc, oneshot};

use crate::error::NamespaceError;
use crate::task::make::Goal;

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

/// Routes a start.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), NamespaceError>")]
pub(crate) struct RouteStart(pub(crate) ContainerId);

/// Routes a stop.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Exit, NamespaceError>")]
pub(crate) struct RouteStop(pub(crate) ContainerId, pub(crate) Option<Duration>);

/// Routes the end of a container with its node.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), NamespaceError>")]
pub(crate) struct RouteGoDown {
    pub(crate) id: ContainerId,
    pub(crate) longest: Duration,
}

/// Routes a signal.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), NamespaceError>")]
pub(crate) struct RouteKill(pub(crate) ContainerId, pub(crate) Signal);

/// Routes a change.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), NamespaceError>")]
pub(crate) struct RouteUpdate(pub(crate) ContainerId, pub(crate) Option<RestartPolicy>);

/// Routes the replacement of a shim.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), NamespaceError>")]
pub(crate) struct RouteUpgradeShim(pub(crate) ContainerId);

/// Routes a deletion.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), NamespaceError>")]
pub(crate) struct RouteDelete {
    pub(crate) id: ContainerId,
    pub(crate) force: bool,
    pub(crate) timeout: Option<Duration>,
}

/// Routes a wait.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Exit, NamespaceError>")]
pub(crate) struct RouteWait(pub(crate) ContainerId);

/// From a container's actor: nothing of it is left, its name is free.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub(crate) struct ContainerGone {
    pub(crate) id: ContainerId,
}

/// From a container's actor: it is to go, something resists, and nobody waits for that: its name is free.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub(crate) struct ContainerLingers {
    pub(crate) id: ContainerId,
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

/// Makes the actor of one container panic.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub(crate) struct PanicContainer(pub(crate) ContainerId);
