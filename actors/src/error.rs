//! Why a container could not be made, changed, ended or removed.

use std::sync::Arc;
use std::time::Duration;

use contd_bundle::BundleError;
use contd_bundle::netns::NetnsError;
use contd_logs::LogError;
use contd_meters::MeterError;
use contd_rootfs::RootfsError;
use contd_shim_client::ShimError;
pub(crate) use contd_types::one_line;
use contd_types::{
    ApiError, ContainerId, ContainerName, ErrorKind, Explain, IllegalTransition, NamespaceId, StateName, Step,
};

use crate::admission::NoPlace;
use crate::call::CallError;
use crate::pool::JobLost;
use crate::records::RecordError;
use crate::startup::StartupError;

/// Why one step, or the undoing of one, failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error(transparent)]
    Rootfs(RootfsError),
    #[error(transparent)]
    Netns(NetnsError),
    #[error(transparent)]
    Startup(StartupError),
    #[error(transparent)]
    Bundle(Box<BundleError>),
    #[error(transparent)]
    Log(LogJobError),
    #[error(transparent)]
    Shim(Arc<ShimError>),
    #[error(transparent)]
    Record(Arc<RecordError>),
    #[error(transparent)]
    Call(CallError),
    #[error(transparent)]
    Job(JobLost),
    #[error(transparent)]
    Limits(MeterError),
    #[error(transparent)]
    Illegal(IllegalTransition),
    /// No rule allows what its caller asked for.
    #[error(transparent)]
    Denied(ApiError),
    /// A step took longer than its deadline.
    #[error("{what}: not done within {waited:?}")]
    Deadline { what: &'static str, waited: Duration },
    /// An earlier call about the same thing has not returned.
    #[error("reach the {what}: an earlier call about it hangs")]
    Blocked { what: &'static str },
    /// A stop or a deletion came first, or the node goes down.
    #[error("it was told to end while it was being made")]
    Cancelled,
    /// A task of the step panicked.
    #[error("{what}: the task panicked")]
    Panicked { what: &'static str },
}

impl StepError {
    /// Wraps what a shim said.
    pub(crate) fn shim(source: ShimError) -> Self {
        Self::Shim(Arc::new(source))
    }

    /// Tells whether it is a shim that lives and does not answer.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::Shim(source) if matches!(**source, ShimError::Silent { .. }))
    }

    /// Tells whether it is no failure, but an intent of the caller.
    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled)
    }
}

impl Explain for StepError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Rootfs(source) => source.kind(),
            Self::Netns(source) => source.kind(),
            Self::Startup(source) => source.kind(),
            Self::Bundle(source) => source.kind(),
            Self::Log(source) => source.kind(),
            Self::Shim(source) => source.kind(),
            Self::Record(source) => source.kind(),
            Self::Call(source) => source.kind(),
            Self::Denied(source) => source.kind,
            Self::Illegal(_) | Self::Cancelled => ErrorKind::Conflict,
            Self::Job(source) => source.kind(),
            Self::Limits(source) => source.kind(),
            Self::Panicked { .. } => ErrorKind::Internal,
            Self::Deadline { .. } | Self::Blocked { .. } => ErrorKind::Timeout,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Rootfs(source) => source.hint(),
            Self::Netns(source) => source.hint(),
            Self::Startup(source) => source.hint(),
            Self::Bundle(source) => source.hint(),
            Self::Log(source) => source.hint(),
            Self::Shim(source) => source.hint(),
            Self::Record(source) => source.hint(),
            Self::Call(source) => source.hint(),
            Self::Denied(source) => source.hint.clone(),
            Self::Illegal(_) => Some("inspect the container, then repeat what is still wanted".to_owned()),
            Self::Cancelled => Some("run it again if it is still wanted".to_owned()),
            Self::Deadline { .. } | Self::Blocked { .. } => {
                Some("retry; if it stays slow, look at the node's disk and network".to_owned())
            }
            Self::Job(source) => source.hint(),
            Self::Limits(source) => source.hint(),
            Self::Panicked { .. } => Some("this is a bug: report the daemon's log".to_owned()),
        }
    }
}

/// Why a log could not be made, read or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogJobError {
    #[error("make the log of the container")]
    Make { source: LogError },
    #[error("remove the log of the container")]
    Remove { source: LogError },
    #[error(transparent)]
    Read(LogError),
    #[error(transparent)]
    Job(JobLost),
}

impl Explain for LogJobError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Make { source } | Self::Remove { source } | Self::Read(source) => source.kind(),
            Self::Job(source) => source.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Make { source } | Self::Remove { source } | Self::Read(source) => source.hint(),
            Self::Job(source) => source.hint(),
        }
    }
}

/// Something of a container that could not be removed.
#[derive(Debug, thiserror::Error)]
#[error("remove the {what} of the container")]
pub(crate) struct Leftover {
    /// The part that is left.
    pub(crate) what: &'static str,
    /// Why.
    pub(crate) source: StepError,
}

/// A container could not be made: the step, why, and what the rollback could not undo.
#[derive(Debug, thiserror::Error)]
#[error("make container {name}: step {step}{}", leftovers_text(leftovers))]
pub(crate) struct MakeError {
    pub(crate) name: ContainerName,
    pub(crate) step: Step,
    pub(crate) source: StepError,
    /// Both errors are kept: this is what the clean-up met.
    pub(crate) leftovers: Vec<Leftover>,
}

impl Explain for MakeError {
    fn kind(&self) -> ErrorKind {
        self.source.kind()
    }

    fn hint(&self) -> Option<String> {
        if self.leftovers.is_empty() {
            return self.source.hint();
        }
        let later = "what the clean-up could not remove is removed by itself later: see contd ps -a";
        Some(self.source.hint().map_or_else(|| later.to_owned(), |hint| format!("{hint}; {later}")))
    }
}

fn leftovers_text(leftovers: &[Leftover]) -> String {
    if leftovers.is_empty() {
        return String::new();
    }
    let texts: Vec<String> = leftovers.iter().map(|one| one_line(one)).collect();
    format!(" (and the clean-up failed: {})", texts.join("; "))
}

/// The hint when nothing is started any more.
const GOING_DOWN_HINT: &str = "somebody has said `contd shutdown`: start the daemon again, or the node";

/// Why a container did not do what it was asked. Several callers may get the same one.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ContainerError {
    #[error("{verb} container {id}: it is gone")]
    Gone { id: ContainerId, verb: &'static str },
    #[error("{verb} container {id}: it is {state}")]
    Forbidden { id: ContainerId, verb: &'static str, state: StateName },
    #[error("{verb} container {id}: it was started anew meanwhile")]
    StartedAnew { id: ContainerId, verb: &'static str },
    #[error("start container {id}: the node is going down")]
    GoingDown { id: ContainerId },
    #[error("delete container {id}: it is {state} and has not ended")]
    NotEnded { id: ContainerId, state: StateName },
    #[error("{verb} container {id}: it is still being re-attached after {waited:?}")]
    Recovering { id: ContainerId, verb: &'static str, waited: Duration },
    #[error("wait for container {id}: it never ran: {reason}")]
    NeverRan { id: ContainerId, reason: String },
    #[error(transparent)]
    Make(Arc<MakeError>),
    #[error("stop container {id}: it has not ended {waited:?} after SIGKILL: {reason}")]
    NotStopped { id: ContainerId, waited: Duration, reason: String },
    #[error("delete container {id}: it is not gone after {waited:?}: {reason}")]
    Lingers { id: ContainerId, waited: Duration, reason: String, kind: ErrorKind },
    #[error("{verb} container {id}")]
    Step { id: ContainerId, verb: &'static str, source: Arc<StepError> },
    #[error("update container {id}")]
    Spec { id: ContainerId, source: contd_types::SpecError },
    #[error("{verb} container {id}: its actor ended before it answered")]
    ActorLost { id: ContainerId, verb: &'static str },
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Explain for ContainerError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Gone { .. } => ErrorKind::NotFound,
            Self::Forbidden { .. } | Self::NotEnded { .. } | Self::NeverRan { .. } | Self::StartedAnew { .. } => {
                ErrorKind::Conflict
            }
            Self::GoingDown { .. } | Self::Recovering { .. } | Self::ActorLost { .. } => ErrorKind::Unavailable,
            Self::Make(source) => source.kind(),
            Self::Spec { .. } => ErrorKind::InvalidArgument,
            Self::NotStopped { .. } => ErrorKind::Timeout,
            Self::Lingers { kind, .. } => *kind,
            Self::Step { source, .. } => source.kind(),
            Self::Call(source) => source.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Gone { .. } => Some("list what there is: contd ps -a".to_owned()),
            Self::Forbidden { id, .. } => Some(format!("see its state: contd inspect {}", id.short())),
            Self::StartedAnew { .. } => Some("repeat it: nothing was changed for its new run".to_owned()),
            Self::GoingDown { .. } => Some(GOING_DOWN_HINT.to_owned()),
            Self::NotEnded { id, .. } => {
                Some(format!("stop it first, or have rm end it with --force; see what it is: contd inspect {}", id.short()))
            }
            Self::Recovering { .. } => Some("retry; the daemon's log says why its shim does not answer".to_owned()),
            Self::NeverRan { id, .. } => Some(format!("it can be started again, or removed; see what it is: contd inspect {}", id.short())),
            Self::Spec { source, .. } => Some(source.hint().to_owned()),
            Self::Make(source) => source.hint(),
            Self::NotStopped { .. } => {
                Some("a process that SIGKILL does not end waits in the kernel: look at its stack and its disks".into())
            }
            Self::Lingers { .. } => Some(
                "its removal goes on by itself, also after a restart of the daemon, and its name is free; see: contd ps -a"
                    .to_owned(),
            ),
            Self::Step { source, .. } => source.hint(),
            Self::ActorLost { .. } => Some("retry: it is rebuilt from what is on disk".to_owned()),
            Self::Call(source) => source.hint(),
        }
    }
}

impl From<ContainerError> for ApiError {
    fn from(error: ContainerError) -> Self {
        Self::from_error(&error)
    }
}

/// Why a namespace did not take a request, or what its container said.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum NamespaceError {
    #[error("run container {name}: namespace {namespace} has one of this name{}", state_text(*state))]
    NameTaken { namespace: NamespaceId, name: ContainerName, id: ContainerId, state: Option<StateName> },
    #[error(
        "run container {name}: namespace {namespace} has {limit} containers, the most allowed (limits.containers_per_namespace)"
    )]
    Full { namespace: NamespaceId, name: ContainerName, limit: usize },
    #[error("run container {name}: uid {uid} has {limit} containers, the most that its rule allows")]
    CallerFull { name: ContainerName, uid: u32, limit: usize },
    #[error(transparent)]
    Denied(ApiError),
    #[error("run container {name}: {limit} runs are in flight in {place}, the most allowed ({key})")]
    Busy { place: String, name: ContainerName, limit: usize, key: &'static str },
    #[error("run container {name}: its idempotency key belongs to a run with another spec")]
    KeyReused { name: ContainerName, id: ContainerId },
    #[error("run container {name}: an idempotency key has 1 to {limit} bytes")]
    BadKey { name: ContainerName, limit: usize },
    #[error("run container {name}: check its spec")]
    Spec { name: ContainerName, source: contd_types::SpecError },
    #[error("run container {name}: this node has no runtime {runtime:?}")]
    UnknownRuntime { name: ContainerName, runtime: String, known: Vec<String> },
    #[error("run container {name}: the node is going down")]
    GoingDown { name: ContainerName },
    #[error("run container {name}: get random bits for its id")]
    NoRandomness { name: ContainerName, source: getrandom::Error },
    #[error(transparent)]
    Container(#[from] ContainerError),
}

fn state_text(state: Option<StateName>) -> String {
    state.map(|state| format!(", which is {state}")).unwrap_or_default()
}

impl NamespaceError {
    /// Says that there is no place for a run now, and which limit it is.
    pub(crate) fn no_place(none: NoPlace, namespace: &NamespaceId, name: &ContainerName) -> Self {
        let (place, limit, key) = match none {
            NoPlace::Namespace { limit } => (format!("namespace {namespace}"), limit, "limits.runs_per_namespace"),
            NoPlace::Node { limit } => ("the node".to_owned(), limit, "limits.runs"),
        };
        Self::Busy { place, name: name.clone(), limit, key }
    }
}

impl Explain for NamespaceError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NameTaken { .. } => ErrorKind::AlreadyExists,
            Self::Full { .. } | Self::CallerFull { .. } => ErrorKind::OutOfResources,
            Self::Denied(source) => source.kind,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::KeyReused { .. } => ErrorKind::Conflict,
            Self::BadKey { .. } | Self::Spec { .. } | Self::UnknownRuntime { .. } => ErrorKind::InvalidArgument,
            Self::GoingDown { .. } => ErrorKind::Unavailable,
            Self::NoRandomness { .. } => ErrorKind::Internal,
            Self::Container(source) => source.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NameTaken { id, .. } => {
                Some(format!("choose another name, or remove the other; see what it is: contd inspect {}", id.short()))
            }
            Self::Full { .. } => Some("delete containers that have ended, or raise the limit".to_owned()),
            Self::CallerFull { .. } => {
                Some("delete containers that have ended, or ask the operator for a higher max_containers".to_owned())
            }
            Self::Denied(source) => source.hint.clone(),
            Self::Busy { key, .. } => Some(format!("retry in a moment, or raise {key}")),
            Self::KeyReused { .. } => Some("use a new key for a new container".to_owned()),
            Self::BadKey { .. } => Some("use a shorter key, for example a UUID".to_owned()),
            Self::Spec { source, .. } => Some(source.hint().to_owned()),
            Self::UnknownRuntime { known, .. } => Some(format!("it has: {}", known.join(", "))),
            Self::GoingDown { .. } => Some(GOING_DOWN_HINT.to_owned()),
            Self::NoRandomness { .. } => None,
            Self::Container(source) => source.hint(),
        }
    }
}

impl From<NamespaceError> for ApiError {
    fn from(error: NamespaceError) -> Self {
        Self::from_error(&error)
    }
}
