//! The verbs of a node, all answered by [`crate::Supervisor`].
//!
//! Every reply is a `Result<_, ApiError>`: message, causes, hint and kind are ready to travel. A request for a container
//! that is still being re-attached waits for it, up to [`RECOVERY_WAIT`]; [`InspectContainer`] and the lists never wait.

use std::os::fd::OwnedFd;
use std::time::Duration;

use actix::Message;
pub use contd_protocol::api::{LogItem, NamespaceSummary, Plan, Target};
use contd_rootfs::FetchProgress;
use contd_types::{
    ApiError, Caller, Changes, ContainerEvent, ContainerId, ContainerInfo, ContainerSpec, ContainerStats,
    ContainerSummary, ExecId, ExecInfo, ExecSpec, Exit, NamespaceId, Pid, ProcessInfo, Signal, StateName, WindowSize,
};
use tokio::sync::{mpsc, oneshot};

use crate::config::Settings;

/// How long a request waits for a container that is being re-attached: an attach takes milliseconds, a dead shim some
/// seconds, and a caller shall hear of it before its own patience ends.
pub const RECOVERY_WAIT: Duration = Duration::from_secs(10);

/// Makes and starts a container; the reply comes once it runs and that is on disk. A failure leaves nothing.
#[derive(Debug, Message)]
#[rtype(result = "Result<ContainerId, ApiError>")]
pub struct RunContainer {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The container to run.
    pub spec: ContainerSpec,
    /// The caller, if its rights are limited: then its rules are asked, now and at each start.
    pub caller: Option<Caller>,
    /// A repeated run with the same key and spec joins the first and gets its answer.
    pub idempotency_key: Option<String>,
    /// Where progress goes; a full channel loses the piece, it never slows the run.
    pub progress: Option<mpsc::Sender<FetchProgress>>,
    /// An attached caller: the auto-removal waits until the sender is dropped or used.
    pub hold: Option<oneshot::Receiver<()>>,
}

impl RunContainer {
    /// Runs a container for the owner of the node: with no caller to judge, no key, nobody attached.
    #[must_use]
    pub fn new(namespace: NamespaceId, spec: ContainerSpec) -> Self {
        Self { namespace, spec, caller: None, idempotency_key: None, progress: None, hold: None }
    }
}

/// Makes a container and does not start it; the reply comes once all but its processes is there and that is on disk. A
/// failure leaves nothing.
#[derive(Debug, Message)]
#[rtype(result = "Result<ContainerId, ApiError>")]
pub struct CreateContainer {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The container to run later.
    pub spec: ContainerSpec,
    /// The caller, if its rights are limited: then its rules are asked, now and at each start.
    pub caller: Option<Caller>,
    /// As for [`RunContainer`].
    pub idempotency_key: Option<String>,
    /// As for [`RunContainer`].
    pub progress: Option<mpsc::Sender<FetchProgress>>,
}

/// Changes a container's settings: its restart policy whatever it is doing, limits while it runs or has ended. Limits are in force at
/// once, and none below what is in use: all of them are changed, or nothing.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), ApiError>")]
pub struct UpdateContainer {
    /// Which.
    pub target: Target,
    /// The settings from now on.
    pub changes: Changes,
}

/// Has the shim of a running container replaced by the program that a new one would be.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), ApiError>")]
pub struct UpgradeShim {
    /// Which.
    pub target: Target,
}

/// Tells what [`RunContainer`] would do, and leaves nothing behind.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Plan, ApiError>")]
pub struct DryRunContainer {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The container to run.
    pub spec: ContainerSpec,
    /// The caller, if its rights are limited: then its rules are asked, now and at each start.
    pub caller: Option<Caller>,
}

/// Starts a container that was created, or a stopped or failed one again, on its old root. Fine when it runs.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), ApiError>")]
pub struct StartContainer {
    /// Which.
    pub target: Target,
}

/// Ends a container: its stop signal, then SIGKILL after the time-out. Fine when it has ended.
///
/// A container that is still being made is rolled back; its exit is then `unknown`, with that reason.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(ContainerId, Exit), ApiError>")]
pub struct StopContainer {
    /// Which.
    pub target: Target,
    /// Instead of the container's own time-out.
    pub timeout: Option<Duration>,
}

/// Sends a signal to a container's init.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), ApiError>")]
pub struct KillContainer {
    /// Which.
    pub target: Target,
    /// The signal.
    pub signal: Signal,
}

/// Ends a container that runs, as [`StopContainer`] does, and starts it again; starts one that does not run.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), ApiError>")]
pub struct RestartContainer {
    /// Which.
    pub target: Target,
    /// Instead of the container's own time-out.
    pub timeout: Option<Duration>,
}

/// Has all processes of a container stand still, or go on. Fine when they do.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), ApiError>")]
pub struct PauseContainer {
    /// Which.
    pub target: Target,
    /// `false` has them go on.
    pub is_paused: bool,
}

/// Opens the standard input of a container that runs or is paused. What it says is in its log: follow that by [`FollowLog`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Attachment, ApiError>")]
pub struct AttachContainer {
    /// Which.
    pub target: Target,
}

/// The input of a container.
#[derive(Debug)]
pub struct Attachment {
    /// Its id.
    pub container: ContainerId,
    /// Whether it has a terminal.
    pub has_terminal: bool,
    /// A writing end of its standard input, of which there may be many; it does not block. `None` when its input is not open, not any
    /// more, or nobody reads it. Closing it is not the end of the input: [`CloseInput`].
    pub input: Option<OwnedFd>,
}

/// Closes the standard input of a container: its process reads the end once all who have opened it have let go. Nothing for one with
/// a terminal.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), ApiError>")]
pub struct CloseInput {
    /// Which.
    pub target: Target,
}

/// Changes the size of a container's terminal.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), ApiError>")]
pub struct ResizeContainer {
    /// Which.
    pub target: Target,
    /// The new size.
    pub size: WindowSize,
}

/// Executes one more process in a container that runs, with the container's restrictions. It ends with the container.
///
/// After an `Unavailable` it is not known whether it runs: [`ListExecs`] tells.
#[derive(Debug, Message)]
#[rtype(result = "Result<ExecutedProcess, ApiError>")]
pub struct ExecContainer {
    /// Which.
    pub target: Target,
    /// The process.
    pub exec: ExecSpec,
    /// Its descriptors 0, 1 and 2; `None` is `/dev/null` for each. Not for one with a terminal, which has its own.
    pub stdio: Option<[OwnedFd; 3]>,
}

/// A process that was executed. It needs neither the daemon nor its shim to go on.
#[derive(Debug)]
pub struct ExecutedProcess {
    /// Its container.
    pub container: ContainerId,
    /// Names it in further requests.
    pub exec: ExecId,
    /// Its process id on the host.
    pub pid: Pid,
    /// A pidfd: readable when it has ended, and from Linux 6.15 on it tells how.
    pub pidfd: OwnedFd,
    /// The master of its terminal, if it has one: when the last descriptor of it is closed, the process gets SIGHUP.
    pub terminal: Option<OwnedFd>,
}

/// Waits until an executed process has ended, and tells how. The last few hundred of a container are remembered.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Exit, ApiError>")]
pub struct WaitExec {
    /// The container.
    pub target: Target,
    /// Which of its processes.
    pub exec: ExecId,
}

/// Sends a signal to an executed process alone.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), ApiError>")]
pub struct KillExec {
    /// The container.
    pub target: Target,
    /// Which of its processes.
    pub exec: ExecId,
    /// The signal.
    pub signal: Signal,
}

/// Lists the executed processes of a container that have not ended.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<ExecInfo>, ApiError>")]
pub struct ListExecs {
    /// The container.
    pub target: Target,
}

/// Removes a container and all that belongs to it. May be repeated until it succeeds.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), ApiError>")]
pub struct DeleteContainer {
    /// Which.
    pub target: Target,
    /// Ends it first; without, a container that has not ended is a `Conflict`.
    pub force: bool,
    /// How long it may take to end, with `force`; instead of the container's own time-out.
    pub timeout: Option<Duration>,
}

/// Tells all about a container, from memory.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<ContainerInfo, ApiError>")]
pub struct InspectContainer {
    /// Which.
    pub target: Target,
}

/// Waits until a container has ended. Give the ask no deadline but the caller's own.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(ContainerId, Exit), ApiError>")]
pub struct WaitContainer {
    /// Which.
    pub target: Target,
}

/// Waits until a container that has ended and is removed by itself is gone, or its removal meets resistance and its name is
/// free: some seconds at the most. Returns at once for any other container.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), ApiError>")]
pub struct AwaitRemoval {
    /// Which.
    pub target: Target,
}

/// Finds containers of the same name, or id, in other namespaces, from memory; nothing where its own namespace has it.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<(NamespaceId, StateName)>, ApiError>")]
pub struct FindElsewhere {
    /// Which was not found.
    pub target: Target,
}

/// Lists containers in the order of their ids, from memory.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<ContainerPage, ApiError>")]
pub struct ListContainers {
    /// Of one namespace, or of all.
    pub namespace: Option<NamespaceId>,
    /// Goes on behind this id.
    pub after: Option<ContainerId>,
    /// At most so many, and at most `contd_protocol::api::MAX_LIST_PAGE`; 0 is that maximum.
    pub limit: u32,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPage {
    /// These.
    pub containers: Vec<ContainerSummary>,
    /// Whether more lie behind the last.
    pub has_more: bool,
}

/// Reads what a running container uses, since its start.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<ContainerStats, ApiError>")]
pub struct ReadStats {
    /// Which.
    pub target: Target,
}

/// Reads what running containers use, a page of them by id: as many as [`ListContainers`] would list, without those that do not run.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<StatsPage, ApiError>")]
pub struct ListStats {
    /// Of one namespace, or of all.
    pub namespace: Option<NamespaceId>,
    /// Goes on behind this id.
    pub after: Option<ContainerId>,
}

/// One page of [`ListStats`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsPage {
    /// Those that run.
    pub stats: Vec<ContainerStats>,
    /// Where the next page goes on; `None` behind the last.
    pub next: Option<ContainerId>,
}

/// Lists the processes of a running container, by pid.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<ProcessInfo>, ApiError>")]
pub struct ListProcesses {
    /// Which.
    pub target: Target,
}

/// Lists the namespaces that have containers, in order.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<NamespaceSummary>, ApiError>")]
pub struct ListNamespaces;

/// Output of a container, piece by piece; ends when the sender is dropped. Dropping the receiver ends the reading.
pub type LogStreamReceiver = mpsc::Receiver<Result<LogItem, ApiError>>;

/// Reads the output that is there, from the beginning or from so many lines before the end.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<LogStreamReceiver, ApiError>")]
pub struct ReadLog {
    /// Which.
    pub target: Target,
    /// Begins so many lines before the end; `None` at the beginning.
    pub tail: Option<u64>,
}

/// Reads the output and goes on with what is written later, until the container has ended for good and all was sent.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<LogStreamReceiver, ApiError>")]
pub struct FollowLog {
    /// Which.
    pub target: Target,
    /// Begins so many lines before the end; `None` at the beginning.
    pub tail: Option<u64>,
}

/// One piece of the event stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventItem {
    /// Something happened.
    Event {
        /// Its sequence number.
        seq: u64,
        /// The event.
        event: ContainerEvent,
    },
    /// Events that are no longer kept: `from` up to but without `to`. An empty one (`from == to`) says where
    /// the stream stands: at the beginning of one that asked for the next event, else once all was given that had happened.
    Gap {
        /// The first missing.
        from: u64,
        /// The first that follows.
        to: u64,
    },
}

/// Events, in order; ends when the node ends. A slow reader is waited for, then sees a gap.
pub type EventReceiver = mpsc::Receiver<EventItem>;

/// Streams events from a sequence number on.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<EventReceiver, ApiError>")]
pub struct SubscribeEvents {
    /// The first wanted; `None` is the next one to happen.
    pub from: Option<u64>,
    /// Of one namespace, or of all.
    pub namespace: Option<NamespaceId>,
}

/// Tells how the node is, from memory.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<NodeStatusReport, ApiError>")]
pub struct NodeStatus;

/// How the node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatusReport {
    /// Containers with a record.
    pub containers: u32,
    /// Those that run.
    pub running: u32,
    /// Those that are still being re-attached; 0 once the start is over.
    pub recovering: u32,
    /// Runs on the way.
    pub runs_in_flight: u32,
    /// Records that could not be read at the start and were set aside.
    pub records_set_aside: u32,
    /// How often an actor was rebuilt since the start.
    pub actors_rebuilt: u32,
}

/// Takes other settings over, for what begins from now on.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Reconfigure(pub Settings);

/// Ends all containers before the node goes down, side by side, each by its own stop signal and time-out. From the moment it
/// is heard nothing is started any more, by nobody and no policy, as long as this node lives. The next one treats what has run
/// as after a reboot. Answered with how many have ended.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<u32, ApiError>")]
pub struct ShutDownNode {
    /// No container is given longer before SIGKILL.
    pub longest: Duration,
}

/// Ends the actors. Containers keep running. Waits for runs and deletions in flight, up to the configured bound; new
/// requests are refused from now on.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), ApiError>")]
pub struct Shutdown;
