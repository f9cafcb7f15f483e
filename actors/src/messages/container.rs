//! To one container's actor: from its namespace, and from its own tasks.

use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use contd_rootfs::{FetchProgress, PreparedLayer};
use contd_shim_client::{Holdout, Shim, ShimError};
use contd_store::MadeWith;
use contd_types::{ContainerId, Exit, Pid, RestartPolicy, Signal};
use tokio::sync::{mpsc, oneshot};

use crate::error::{ContainerError, Leftover, MakeError, StepError};
use crate::task::make::Goal;
use crate::task::recover::Finding;

/// Makes the container for the first time; the reply comes when the goal is reached, or nothing of it is left.
#[derive(Debug, Message)]
#[rtype(result = "Result<ContainerId, ContainerError>")]
pub(crate) struct BeginRun {
    pub(crate) goal: Goal,
    pub(crate) progress: Option<mpsc::Sender<FetchProgress>>,
    pub(crate) hold: Option<oneshot::Receiver<()>>,
}

/// A repeated run: gets the first one's answer.
#[derive(Debug, Message)]
#[rtype(result = "Result<ContainerId, ContainerError>")]
pub(crate) struct JoinRun {
    pub(crate) hold: Option<oneshot::Receiver<()>>,
}

/// Starts it again.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), ContainerError>")]
pub(crate) struct Start;

/// Ends it.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Exit, ContainerError>")]
pub(crate) struct Stop {
    pub(crate) timeout: Option<Duration>,
}

/// Ends it because the node goes down: what its user wants of it stays as it is.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), ContainerError>")]
pub(crate) struct GoDown {
    /// It is given no longer before SIGKILL.
    pub(crate) longest: Duration,
}

/// Sends it a signal.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), ContainerError>")]
pub(crate) struct Kill {
    pub(crate) signal: Signal,
}

/// Changes its restart policy.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), ContainerError>")]
pub(crate) struct Update {
    pub(crate) restart: Option<RestartPolicy>,
}

/// Has its shim replaced.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), ContainerError>")]
pub(crate) struct Upgrade;

/// Removes it.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), ContainerError>")]
pub(crate) struct Delete {
    pub(crate) force: bool,
    pub(crate) timeout: Option<Duration>,
}

/// Waits for its end.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Exit, ContainerError>")]
pub(crate) struct Wait;

/// Waits until it is no longer being re-attached; answers at once otherwise.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(crate) struct UntilRecovered;

/// From the make task: the runtime has made it; asks whether to go on.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), StepError>")]
pub(crate) struct MadeByRuntime {
    pub(crate) generation: u64,
    pub(crate) pid: Pid,
}

/// From the make task: all but its processes is there, and no more is wanted; asks to have that on disk.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), StepError>")]
pub(crate) struct CommitPrepared {
    pub(crate) generation: u64,
    pub(crate) made: Made,
}

/// What came out of the making, for the record.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    /// What the flist added to the spec.
    pub(crate) with: Option<MadeWith>,
    /// The writable layer.
    pub(crate) layer: Option<PreparedLayer>,
}

/// From the make task: it runs; asks to have that on disk. After an `Err` the task takes it all back.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), StepError>")]
pub(crate) struct CommitRunning {
    pub(crate) generation: u64,
    pub(crate) pid: Pid,
    pub(crate) shim: Arc<dyn Shim>,
    pub(crate) made: Made,
}

/// From the make task: it is over. After an error all is undone but what `leftovers` names, and the record.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct MakeDone {
    pub(crate) generation: u64,
    pub(crate) result: Result<(), MakeError>,
}

/// From the wait on the shim: the container has ended, or the shim has.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct WaitDone {
    pub(crate) generation: u64,
    pub(crate) result: Result<Exit, ShimError>,
}

/// From the settle task: the shim of an ended container is gone.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Settled {
    pub(crate) generation: u64,
    pub(crate) result: Result<(), StepError>,
}

/// From the remove task: which part it is at.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(crate) struct Removing {
    pub(crate) generation: u64,
    pub(crate) part: &'static str,
}

/// From the remove task: all is gone but what is named, and the record.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Removed {
    pub(crate) generation: u64,
    pub(crate) leftovers: Vec<Leftover>,
    /// The processes that do not end, where something is left.
    pub(crate) holdouts: Vec<Holdout>,
}

/// From the recover task: what has become of it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Recovered {
    pub(crate) generation: u64,
    pub(crate) finding: Finding,
}
