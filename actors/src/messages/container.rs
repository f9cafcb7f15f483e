//! To one container's actor: what its node and its users ask of it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use actix::Message;
use contd_shim_client::Executed;
use contd_types::{Changes, ContainerId, ExecId, ExecInfo, ExecSpec, Exit, Signal, WindowSize};
use tokio::sync::oneshot;

use crate::error::ContainerError;

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

/// Ends it and starts it again; starts it if it does not run.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), ContainerError>")]
pub(crate) struct Restart {
    pub(crate) timeout: Option<Duration>,
}

/// Has its processes stand still, or go on.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), ContainerError>")]
pub(crate) struct SetPaused {
    pub(crate) is_paused: bool,
}

/// Changes its settings.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), ContainerError>")]
pub(crate) struct Update {
    pub(crate) changes: Changes,
}

/// Has its shim replaced.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), ContainerError>")]
pub(crate) struct Upgrade;

/// Opens its standard input; `None` when that is not open, or nobody reads it.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Option<OwnedFd>, ContainerError>")]
pub(crate) struct OpenInput;

/// Lets it read the end of its standard input.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), ContainerError>")]
pub(crate) struct CloseInput;

/// Changes the size of its terminal.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), ContainerError>")]
pub(crate) struct Resize {
    pub(crate) size: WindowSize,
}

/// Executes one more process in it.
#[derive(Debug, Message)]
#[rtype(result = "Result<Executed, ContainerError>")]
pub(crate) struct Exec {
    pub(crate) exec: ExecId,
    pub(crate) spec: ExecSpec,
    /// Its descriptors 0, 1 and 2, unless it has a terminal.
    pub(crate) stdio: Option<[OwnedFd; 3]>,
}

/// Waits for the end of an executed process.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Exit, ContainerError>")]
pub(crate) struct WaitExec {
    pub(crate) exec: ExecId,
}

/// Sends a signal to an executed process.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), ContainerError>")]
pub(crate) struct KillExec {
    pub(crate) exec: ExecId,
    pub(crate) signal: Signal,
}

/// Lists the executed processes that have not ended; none when it does not run.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Vec<ExecInfo>, ContainerError>")]
pub(crate) struct ListExecs;

/// Has its shim begin the next file of its log.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), ContainerError>")]
pub(crate) struct RotateLog;

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
