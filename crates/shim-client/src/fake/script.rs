//! The script of a fake, and its record of calls.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use contd_protocol::shim::ExecProcess;
use contd_types::{ApiError, ContainerId, ExecId, Exit, Pid, Signal, WindowSize};

use crate::{ShimError, deadline};

/// The calls of the fake: first the client's four, then the shim's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// [`crate::ShimClient::spawn`].
    Spawn,
    /// [`crate::ShimClient::attach`].
    Attach,
    /// [`crate::ShimClient::clean_up`].
    CleanUp,
    /// [`crate::ShimClient::end_silent`].
    EndSilent,
    /// [`crate::ShimClient::list`].
    List,
    /// [`crate::Shim::create`].
    Create,
    /// [`crate::Shim::start`].
    Start,
    /// [`crate::Shim::state`].
    State,
    /// [`crate::Shim::kill`].
    Kill,
    /// [`crate::Shim::set_paused`].
    SetPaused,
    /// [`crate::Shim::wait`].
    Wait,
    /// [`crate::Shim::delete`].
    Delete,
    /// [`crate::Shim::hand_over`].
    HandOver,
    /// [`crate::Shim::exec`].
    Exec,
    /// [`crate::Shim::wait_exec`].
    WaitExec,
    /// [`crate::Shim::kill_exec`].
    KillExec,
    /// [`crate::Shim::execs`].
    Execs,
    /// [`crate::Shim::open_input`].
    OpenInput,
    /// [`crate::Shim::close_input`].
    CloseInput,
    /// [`crate::Shim::resize`].
    Resize,
    /// [`crate::Shim::rotate_log`].
    RotateLog,
    /// [`crate::Shim::shutdown`].
    Shutdown,
}

impl Verb {
    /// Returns the word that errors use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spawn => "spawn",
            Self::Attach => "attach",
            Self::CleanUp => "clean up",
            Self::EndSilent => "end silent",
            Self::List => "list",
            Self::Create => "create",
            Self::Start => "start",
            Self::State => "state",
            Self::Kill => "kill",
            Self::SetPaused => "pause or resume",
            Self::Wait => "wait",
            Self::Delete => "delete",
            Self::HandOver => "hand over",
            Self::Exec => "execute a process in",
            Self::WaitExec => "wait for a process in",
            Self::KillExec => "signal a process in",
            Self::Execs => "list the processes in",
            Self::OpenInput => "open the input of",
            Self::CloseInput => "close the input of",
            Self::Resize => "resize the terminal of",
            Self::RotateLog => "rotate the log of",
            Self::Shutdown => "shutdown",
        }
    }

    /// Returns how long it may take, as on a real node; `None` for the one that may take forever.
    pub fn deadline(self) -> Option<Duration> {
        match self {
            Self::Spawn => Some(deadline::SPAWN),
            Self::Attach
            | Self::State
            | Self::List
            | Self::HandOver
            | Self::RotateLog
            | Self::OpenInput
            | Self::CloseInput
            | Self::Resize
            | Self::Execs => Some(deadline::STATE),
            Self::EndSilent => Some(deadline::KILLED),
            Self::CleanUp | Self::Delete => Some(deadline::DELETE),
            Self::Create => Some(deadline::CREATE),
            Self::Start => Some(deadline::START),
            Self::SetPaused => Some(deadline::PAUSE),
            Self::Kill | Self::KillExec => Some(deadline::KILL),
            Self::Exec => Some(deadline::EXEC),
            Self::Wait | Self::WaitExec => None,
            Self::Shutdown => Some(deadline::SHUTDOWN),
        }
    }
}

/// One call, as the fake writes it down when it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShimCall {
    /// [`crate::ShimClient::spawn`].
    Spawn(ContainerId),
    /// [`crate::ShimClient::attach`].
    Attach(ContainerId),
    /// [`crate::ShimClient::clean_up`].
    CleanUp(ContainerId),
    /// [`crate::ShimClient::end_silent`].
    EndSilent(ContainerId),
    /// [`crate::ShimClient::list`].
    List,
    /// [`crate::Shim::create`].
    Create(ContainerId),
    /// [`crate::Shim::start`].
    Start(ContainerId),
    /// [`crate::Shim::state`].
    State(ContainerId),
    /// [`crate::Shim::kill`].
    Kill {
        /// The container.
        id: ContainerId,
        /// The signal.
        signal: Signal,
        /// To all its processes.
        is_for_all: bool,
    },
    /// [`crate::Shim::set_paused`].
    SetPaused {
        /// The container.
        id: ContainerId,
        /// Frozen, or thawed.
        is_paused: bool,
    },
    /// [`crate::Shim::wait`].
    Wait(ContainerId),
    /// [`crate::Shim::delete`].
    Delete {
        /// The container.
        id: ContainerId,
        /// Kill it first.
        force: bool,
    },
    /// [`crate::Shim::hand_over`].
    HandOver(ContainerId),
    /// [`crate::Shim::exec`].
    Exec {
        /// The container.
        id: ContainerId,
        /// Its number.
        exec: ExecId,
        /// The process.
        process: Box<ExecProcess>,
    },
    /// [`crate::Shim::wait_exec`].
    WaitExec {
        /// The container.
        id: ContainerId,
        /// Which process.
        exec: ExecId,
    },
    /// [`crate::Shim::kill_exec`].
    KillExec {
        /// The container.
        id: ContainerId,
        /// Which process.
        exec: ExecId,
        /// The signal.
        signal: Signal,
    },
    /// [`crate::Shim::execs`].
    Execs(ContainerId),
    /// [`crate::Shim::open_input`].
    OpenInput(ContainerId),
    /// [`crate::Shim::close_input`].
    CloseInput(ContainerId),
    /// [`crate::Shim::resize`].
    Resize {
        /// The container.
        id: ContainerId,
        /// The new size.
        size: WindowSize,
    },
    /// [`crate::Shim::rotate_log`].
    RotateLog(ContainerId),
    /// [`crate::Shim::shutdown`].
    Shutdown(ContainerId),
}

impl ShimCall {
    /// Returns what was asked.
    pub fn verb(&self) -> Verb {
        match self {
            Self::Spawn(_) => Verb::Spawn,
            Self::Attach(_) => Verb::Attach,
            Self::CleanUp(_) => Verb::CleanUp,
            Self::EndSilent(_) => Verb::EndSilent,
            Self::List => Verb::List,
            Self::Create(_) => Verb::Create,
            Self::Start(_) => Verb::Start,
            Self::State(_) => Verb::State,
            Self::Kill { .. } => Verb::Kill,
            Self::SetPaused { .. } => Verb::SetPaused,
            Self::Wait(_) => Verb::Wait,
            Self::Delete { .. } => Verb::Delete,
            Self::HandOver(_) => Verb::HandOver,
            Self::Exec { .. } => Verb::Exec,
            Self::WaitExec { .. } => Verb::WaitExec,
            Self::KillExec { .. } => Verb::KillExec,
            Self::Execs(_) => Verb::Execs,
            Self::OpenInput(_) => Verb::OpenInput,
            Self::CloseInput(_) => Verb::CloseInput,
            Self::Resize { .. } => Verb::Resize,
            Self::RotateLog(_) => Verb::RotateLog,
            Self::Shutdown(_) => Verb::Shutdown,
        }
    }

    /// Returns of which container; `None` for [`ShimCall::List`].
    pub fn id(&self) -> Option<&ContainerId> {
        match self {
            Self::List => None,
            Self::Spawn(id)
            | Self::Attach(id)
            | Self::CleanUp(id)
            | Self::EndSilent(id)
            | Self::Create(id)
            | Self::Start(id)
            | Self::State(id)
            | Self::Kill { id, .. }
            | Self::SetPaused { id, .. }
            | Self::Wait(id)
            | Self::Delete { id, .. }
            | Self::HandOver(id)
            | Self::Exec { id, .. }
            | Self::WaitExec { id, .. }
            | Self::KillExec { id, .. }
            | Self::Execs(id)
            | Self::OpenInput(id)
            | Self::CloseInput(id)
            | Self::Resize { id, .. }
            | Self::RotateLog(id)
            | Self::Shutdown(id) => Some(id),
        }
    }
}

/// How a scripted call goes.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It does what it should.
    Ok,
    /// It does nothing and fails.
    Fail(Failure),
    /// It does what it should, and then fails all the same: the answer was lost on the way.
    DoneThenFail(Failure),
    /// It does nothing and never answers: [`ShimError::Silent`] after [`Verb::deadline`], at once [`ShimError::Lost`] when the shim goes.
    Hang,
    /// It takes so long, on tokio's clock, and then does what it should; beyond its deadline it is a [`Outcome::Hang`].
    Delay(Duration),
}

impl Outcome {
    /// Fails with an error of the shim's own, or with what a closure makes.
    pub fn fail(failure: impl Into<Failure>) -> Self {
        Self::Fail(failure.into())
    }

    /// Fails because the connection is lost. The shim itself lives: see [`super::FakeShimClient::lose_shim`].
    pub fn lost() -> Self {
        Self::Fail(Failure::new(|id, verb| ShimError::Lost { id: id.clone(), verb: verb.as_str() }))
    }
}

/// Makes an error anew for each call, since errors with a source cannot be cloned.
#[derive(Clone)]
pub struct Failure(Arc<MakeError>);

type MakeError = dyn Fn(&ContainerId, Verb) -> ShimError + Send + Sync;

impl Failure {
    /// Makes errors with a closure; it is given the container (all zeros for [`Verb::List`]) and the verb.
    pub fn new(make: impl Fn(&ContainerId, Verb) -> ShimError + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    pub(super) fn make(&self, id: &ContainerId, verb: Verb) -> ShimError {
        (self.0)(id, verb)
    }
}

/// [`ShimError::Refused`] with this answer.
impl From<ApiError> for Failure {
    fn from(source: ApiError) -> Self {
        Self::new(move |id, verb| ShimError::Refused { id: id.clone(), verb: verb.as_str(), source: source.clone() })
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Failure(..)")
    }
}

/// The reaction of a container to signals. By default TERM and KILL end it and all others are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// It ends by the signal.
    Die,
    /// It ends with this code.
    ExitWith(u8),
    /// It runs on.
    Ignore,
}

/// The behaviour of a container once it is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// It runs until it is ended.
    RunsOn,
    /// It ends by itself.
    Ends {
        /// So long after its start, on tokio's clock.
        after: Duration,
        /// With this code.
        code: u8,
    },
}

/// An event of a container's init, which only the node itself can know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitEvent {
    /// It was made.
    Began {
        /// Of which container.
        id: ContainerId,
        /// Its pid.
        pid: Pid,
    },
    /// It is no more.
    Ended {
        /// Of which container.
        id: ContainerId,
        /// Its pid.
        pid: Pid,
        /// Through whom.
        by: EndedBy,
        /// How, where a shim saw it.
        exit: Option<Exit>,
    },
}

/// Through whom a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// Through this call of the program under test.
    Verb(Verb),
    /// By itself, or through what the test let happen.
    World,
}
