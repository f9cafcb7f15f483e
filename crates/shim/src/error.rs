//! Why the shim refuses or fails a call.

use std::io;
use std::path::PathBuf;

use contd_durable::DurableError;
use contd_lease::ProcessError;
use contd_protocol::shim::MAX_EXECS;
use contd_types::{ContainerId, ErrorKind, ExecId, Explain, Shortage};

use crate::init::InitError;
use crate::process::ProcessLost;
use crate::pump::PumpError;
use crate::runtime::{RuntimeError, Verb};

/// Why a call was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    /// Where the container is, this cannot be done.
    #[error("{call} container {id}: it is {state}")]
    Forbidden { call: &'static str, id: ContainerId, state: &'static str, hint: &'static str },
    /// The runtime is busy with another call.
    #[error("{call} container {id}: the runtime is still at work on its {verb}")]
    Busy { call: &'static str, id: ContainerId, verb: Verb },
    /// The runtime failed; it says all.
    #[error(transparent)]
    Runtime(RuntimeError),
    /// Its output could not be prepared.
    #[error("prepare the output of container {id}")]
    Output { id: ContainerId, source: PumpError },
    /// Its input could not be prepared, or closed.
    #[error("prepare the input of container {id}")]
    Input { id: ContainerId, source: io::Error },
    /// Its terminal cannot be used.
    #[error("use the terminal of container {id}")]
    Terminal { id: ContainerId, source: io::Error },
    /// It was made, but cannot be looked after; it was killed.
    #[error("look after container {id}")]
    Adopt { id: ContainerId, source: InitError },
    /// The record that a successor needs could not be written; the container was killed.
    #[error("write down {}", path.display())]
    Record { path: PathBuf, source: DurableError },
    /// The record of a predecessor cannot be read.
    #[error("read {}", path.display())]
    ReadRecord { path: PathBuf, source: io::Error },
    /// The other program cannot be executed; this one goes on.
    #[error("hand over container {id} to {}", binary.display())]
    HandOver { id: ContainerId, binary: PathBuf, source: io::Error },
    /// The signal could not be sent.
    #[error("signal container {id}")]
    Signal { id: ContainerId, source: ProcessError },
    /// The signal could not be sent to all of its processes.
    #[error("signal all processes of container {id}")]
    SignalAll { id: ContainerId, source: contd_cgroup::CgroupError },
    /// As many processes are executed in it as may be.
    #[error("execute a process in container {id}: {MAX_EXECS} run in it already")]
    TooManyExecs { id: ContainerId },
    /// No such process was executed, or it ended long ago.
    #[error("find executed process {exec} of container {id}")]
    NoSuchExec { id: ContainerId, exec: ExecId },
    /// Somebody has its terminal.
    #[error("execute process {exec} in container {id}: it runs already, and its terminal was given away")]
    TerminalGiven { id: ContainerId, exec: ExecId },
    /// It was made, but cannot be looked after.
    #[error("look after a process in container {id}")]
    AdoptExec { id: ContainerId, source: ProcessLost },
    /// Processes of the container do not end.
    #[error("delete container {id}: some of its processes do not end")]
    Undying { id: ContainerId },
}

impl Explain for TaskError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Runtime(source) => source.kind(),
            _ if Shortage::behind(self).is_some() => ErrorKind::OutOfResources,
            Self::Forbidden { .. } | Self::TerminalGiven { .. } => ErrorKind::Conflict,
            Self::TooManyExecs { .. } => ErrorKind::Busy,
            Self::NoSuchExec { .. } => ErrorKind::NotFound,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::Undying { .. } => ErrorKind::Timeout,
            Self::Output { .. }
            | Self::Input { .. }
            | Self::Terminal { .. }
            | Self::Adopt { .. }
            | Self::AdoptExec { .. }
            | Self::Record { .. }
            | Self::ReadRecord { .. }
            | Self::HandOver { .. }
            | Self::Signal { .. }
            | Self::SignalAll { .. } => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        if !matches!(self, Self::Runtime(_))
            && let Some(shortage) = Shortage::behind(self)
        {
            return Some(shortage.hint().to_owned());
        }
        let hint = match self {
            Self::Forbidden { hint, .. } => hint,
            Self::Busy { .. } => "repeat in a moment",
            Self::TooManyExecs { .. } => "wait until one of them has ended, or end it",
            Self::NoSuchExec { .. } => {
                "`contd inspect` lists the processes that run; of those that have ended only the last are remembered"
            }
            Self::TerminalGiven { .. } => "execute another process",
            Self::AdoptExec { .. } => "repeat it; see the shim's log",
            Self::Runtime(source) => return source.hint(),
            Self::Output { .. } => "the log's directory must exist, and the disk must have room",
            Self::Input { .. } => "the run directory must be a writable tmpfs of this user",
            Self::Terminal { .. } => "repeat in a moment; see the shim's log",
            Self::Adopt { .. } => "delete the container and create it again",
            Self::Record { source, .. } => source.hint(),
            Self::ReadRecord { .. } => "the run directory must be a readable tmpfs of this user",
            Self::HandOver { .. } => "give the absolute path of a contd-shim that can be executed",
            Self::Signal { source, .. } => source.hint(),
            Self::SignalAll { .. } => "see the shim's log; cgroups must be mounted",
            Self::Undying { .. } => "see what they wait for in /proc/<pid>/stack, then repeat",
        };
        Some(hint.to_owned())
    }
}
