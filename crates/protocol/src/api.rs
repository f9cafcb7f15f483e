//! The messages between callers and the daemon on the API socket.
//!
//! After the hello, a caller sends [`Call`]s, each with an id of its choice that is not in use on this connection. Many
//! may be under way. The daemon sends any number of [`Item`]s for those that stream, then exactly one [`Reply`].
//!
//! Flow control: a call may have [`INITIAL_CREDIT`] items unread; each [`Credit`] allows so many more. The daemon keeps
//! the rest (log items stay in the log file) until then. [`Cancel`] ends a call early; its reply still comes.

use std::time::Duration;

use contd_types::{
    Changes, ContainerEvent, ContainerId, ContainerInfo, ContainerRef, ContainerSpec, ContainerStats, ContainerSummary,
    ExecId, ExecInfo, ExecSpec, Exit, NamespaceId, Pid, ProcessInfo, RestartPolicy, Signal, Timestamp, WindowSize,
};
use serde::{Deserialize, Serialize};

mod text;
mod v2;

pub use text::{TEXT_VERSION, Text};

use crate::MAX_API_BODY_BYTES;
use crate::hello::VersionRange;
use crate::session::{self, Protocol, Violation};
pub use crate::session::{Cancel, Credit};

/// The versions of this module.
pub const VERSIONS: VersionRange = VersionRange { min: 2, max: TEXT_VERSION };
/// Items that the daemon may send on a call before the first [`Credit`].
pub const INITIAL_CREDIT: u32 = 64;
/// The most bytes of output in one [`Item::Log`].
pub const MAX_LOG_ITEM_BYTES: usize = 32 * 1024;
/// The most calls under way on one connection; more are answered `Busy`.
pub const MAX_CALLS_PER_CONNECTION: usize = 256;
/// The most entries in one page of a list.
pub const MAX_LIST_PAGE: u32 = 256;
/// The longest idempotency key, in bytes.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 64;

/// The protocol of this module.
#[derive(Debug)]
pub enum ApiSocket {}

impl Protocol for ApiSocket {
    type Request = Request;
    type Item = Item;
    type Response = Response;
    const VERSIONS: VersionRange = VERSIONS;
    const MAX_BODY_BYTES: usize = MAX_API_BODY_BYTES;
    const MAX_CALLS: usize = MAX_CALLS_PER_CONNECTION;
    const CREDIT: u32 = INITIAL_CREDIT;
    /// A whole log item with its head.
    const READ_BYTES: usize = MAX_LOG_ITEM_BYTES + 4096;

    fn descriptors_of_request(request: &Request) -> usize {
        match request {
            Request::Exec(exec) if exec.has_descriptors => 3,
            _ => 0,
        }
    }

    fn descriptors_of_response(response: &Response) -> usize {
        match response {
            Response::Executes { has_terminal, .. } => 1 + usize::from(*has_terminal),
            Response::Attached { has_input, .. } => usize::from(*has_input),
            _ => 0,
        }
    }

    fn check_item(item: &Item) -> Result<(), Violation> {
        match item {
            Item::Log(log) if log.content.len() > MAX_LOG_ITEM_BYTES => {
                Err(Violation::LargeItem { bytes: log.content.len() })
            }
            _ => Ok(()),
        }
    }
}

/// A request with its id.
pub type Call = session::Call<Request>;
/// The last answer to a call.
pub type Reply = session::Reply<Response>;
/// One piece of a call's stream.
pub type StreamItem = session::StreamItem<Item>;

/// A container, as a caller means it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// Its namespace.
    pub namespace: NamespaceId,
    /// Its name, id, or the beginning of its id.
    pub container: ContainerRef,
}

/// The requests. Append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Tells who answers. → [`Response::Version`]
    Version,
    /// Makes and starts a container. Streams [`Item::Progress`]; → [`Response::Created`] once it runs. With
    /// `is_attached`, streams [`Item::Started`], [`Item::Log`] from the first byte on, and → [`Response::Exited`].
    Run(Box<RunRequest>),
    /// Starts a stopped or failed container again. → [`Response::Done`]
    Start {
        /// Which.
        target: Target,
    },
    /// Ends a container: its stop signal, then SIGKILL after the time-out. → [`Response::Exited`]
    Stop {
        /// Which.
        target: Target,
        /// Instead of the container's own time-out.
        timeout: Option<Duration>,
    },
    /// Sends a signal to a container's init. → [`Response::Done`]
    Kill {
        /// Which.
        target: Target,
        /// The signal.
        signal: Signal,
    },
    /// Removes a container and all that belongs to it. Without `force` it must have ended. → [`Response::Done`]
    Delete {
        /// Which.
        target: Target,
        /// Ends it first.
        force: bool,
        /// How long it may take to end, with `force`; instead of the container's own time-out.
        timeout: Option<Duration>,
    },
    /// Tells all about a container. → [`Response::Info`]
    Inspect {
        /// Which.
        target: Target,
    },
    /// Lists containers by id. → [`Response::Page`]
    List {
        /// Of one namespace, or of all.
        namespace: Option<NamespaceId>,
        /// Goes on behind this id.
        after: Option<ContainerId>,
        /// At most so many, and at most [`MAX_LIST_PAGE`].
        limit: u32,
    },
    /// Lists the namespaces. → [`Response::Namespaces`]
    ListNamespaces,
    /// Waits until a container has ended. → [`Response::Exited`]
    Wait {
        /// Which.
        target: Target,
    },
    /// Reads a container's output. Streams [`Item::Log`]. → [`Response::Done`] at the end: of the log, or with
    /// `is_following`, once the container has ended and all was sent.
    Logs {
        /// Which.
        target: Target,
        /// Goes on with what is written later.
        is_following: bool,
        /// Begins so many lines before the end; `None` at the beginning.
        tail: Option<u64>,
    },
    /// Tells what `Run` would do, and does nothing. → [`Response::Plan`]
    DryRun(Box<RunRequest>),
    /// Streams [`Item::Event`] from a sequence number on, without end. → [`Response::Done`] after a cancel.
    Events {
        /// The first wanted; `None` is the next one to happen.
        from: Option<u64>,
        /// Of one namespace, or of all.
        namespace: Option<NamespaceId>,
    },
    /// Makes a container and does not start it: its root, bundle and log are there then. Streams [`Item::Progress`];
    /// → [`Response::Created`]
    Create(Box<RunRequest>),
    /// Changes what can be changed of a container at any time. → [`Response::Done`] once it is on disk
    Update {
        /// Which.
        target: Target,
        /// The restart policy from now on.
        restart: Option<RestartPolicy>,
    },
    /// Has the shim of a running container replaced by the program that the daemon would start now; the container does
    /// not notice. → [`Response::Done`]
    UpgradeShim {
        /// Which.
        target: Target,
    },
    /// Ends all containers of all namespaces because the node goes down, side by side, each by its own stop signal and time-out;
    /// nothing is started any more until there is another daemon, which treats them as after a reboot. Root only.
    /// → [`Response::ShutDown`]
    ShutDown {
        /// No container is given longer before SIGKILL.
        longest: Duration,
    },
    /// Lists the servers of mounted flists. → [`Response::FlistServers`]
    FlistServers,
    /// Tells what the cache of fetched flists and blocks holds. → [`Response::Cache`]
    CacheUsage,
    /// Executes one more process in a container, which must run and not be paused. → [`Response::Executes`]
    Exec(Box<ExecRequest>),
    /// Waits until an executed process has ended; legal as long as its container has not been started anew.
    /// → [`Response::Exited`]
    WaitExec {
        /// The container.
        target: Target,
        /// Which of its processes.
        exec: ExecId,
    },
    /// Sends a signal to an executed process alone; done as well when it has ended. → [`Response::Done`]
    KillExec {
        /// The container.
        target: Target,
        /// Which of its processes.
        exec: ExecId,
        /// The signal.
        signal: Signal,
    },
    /// Lists the executed processes of a container that have not ended; none when it does not run. → [`Response::Execs`]
    ListExecs {
        /// The container.
        target: Target,
    },
    /// Executes a process whose input and output travel in frames, for callers that cannot take descriptors. Streams
    /// [`Item::Executes`], then [`Item::Log`]; → [`Response::Exited`] once it has ended and all was sent. The daemon holds the other
    /// ends: they close when it dies, when the connection ends, or at a cancel, which is [`Response::Done`]. `has_descriptors` is `false`.
    ExecStream(Box<ExecRequest>),
    /// Writes to the standard input of a process of [`Self::ExecStream`], or types into its terminal. → [`Response::Done`] once the
    /// process's pipe has all of it: send the next piece then
    ExecInput {
        /// The container.
        target: Target,
        /// Which of its processes.
        exec: ExecId,
        /// At most [`MAX_LOG_ITEM_BYTES`] bytes.
        content: Vec<u8>,
        /// Closes it behind them; of a terminal, types ctrl-d.
        is_last: bool,
    },
    /// Changes the size of the terminal of a process of [`Self::ExecStream`]. → [`Response::Done`]
    ResizeExec {
        /// The container.
        target: Target,
        /// Which of its processes.
        exec: ExecId,
        /// The new size.
        size: WindowSize,
    },
    /// Ends a container that runs and starts it again; starts one that does not. → [`Response::Done`] once it runs
    Restart {
        /// Which.
        target: Target,
        /// Instead of the container's own time-out.
        timeout: Option<Duration>,
    },
    /// Has all processes of a running container stand still. → [`Response::Done`], also when they do
    Pause {
        /// Which.
        target: Target,
    },
    /// Has all processes of a paused container go on. → [`Response::Done`], also when they do
    Unpause {
        /// Which.
        target: Target,
    },
    /// Reads what a running container uses. → [`Response::Stats`] with one
    Stats {
        /// Which.
        target: Target,
    },
    /// Reads what running containers use, by id. → [`Response::Stats`]
    ListStats {
        /// Of one namespace, or of all.
        namespace: Option<NamespaceId>,
        /// Goes on behind this id.
        after: Option<ContainerId>,
    },
    /// Lists the processes of a running container. → [`Response::Processes`]
    Processes {
        /// Which.
        target: Target,
    },
    /// [`Self::Run`], [`Self::Create`] or [`Self::DryRun`] from [`TEXT_VERSION`] on; see [`Self::for_version`].
    Make(Box<MakeRequest>),
    /// Opens the standard input of a container that runs or is paused. What it says is in its log: [`Self::Logs`]. →
    /// [`Response::Attached`]
    Attach {
        /// Which.
        target: Target,
    },
    /// Closes the standard input of a container that runs or is paused: its process reads the end once all who are attached have let
    /// go. Nothing for one with a terminal. → [`Response::Done`]
    CloseInput {
        /// Which.
        target: Target,
    },
    /// Changes the size of the terminal of a container that runs or is paused. → [`Response::Done`]
    Resize {
        /// Which.
        target: Target,
        /// The new size.
        size: WindowSize,
    },
    /// Changes settings of a container: limits of one that runs, is paused or has ended, which are in force at once if it runs; of others as
    /// [`Self::Update`]. None of them below what is in use; all or nothing. → [`Response::Done`] once it is on disk
    Change {
        /// Which.
        target: Target,
        /// [`Changes`] as JSON. A field that the daemon does not know is refused.
        changes: Text<Changes>,
    },
}

/// The verb that is done with the spec of a [`MakeRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MakeKind {
    /// [`Request::Run`].
    Run,
    /// [`Request::Create`].
    Create,
    /// [`Request::DryRun`].
    DryRun,
}

/// A [`RunRequest`] whose spec is a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeRequest {
    /// The verb.
    pub kind: MakeKind,
    /// The namespace.
    pub namespace: NamespaceId,
    /// The container: [`ContainerSpec`] as JSON. A field that the daemon does not know is refused.
    pub spec: Text<ContainerSpec>,
    /// As in [`RunRequest`].
    pub idempotency_key: Option<String>,
    /// As in [`RunRequest`].
    pub is_attached: bool,
}

impl Request {
    /// Returns the container that a request is about; `None` for those that make one, or are about none or several.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Start { target }
            | Self::Stop { target, .. }
            | Self::Kill { target, .. }
            | Self::Delete { target, .. }
            | Self::Inspect { target }
            | Self::Update { target, .. }
            | Self::Change { target, .. }
            | Self::UpgradeShim { target }
            | Self::Wait { target }
            | Self::WaitExec { target, .. }
            | Self::KillExec { target, .. }
            | Self::ListExecs { target }
            | Self::ExecInput { target, .. }
            | Self::ResizeExec { target, .. }
            | Self::Restart { target, .. }
            | Self::Pause { target }
            | Self::Unpause { target }
            | Self::Stats { target }
            | Self::Attach { target }
            | Self::CloseInput { target }
            | Self::Resize { target, .. }
            | Self::Processes { target }
            | Self::Logs { target, .. } => Some(target),
            Self::Exec(exec) | Self::ExecStream(exec) => Some(&exec.target),
            Self::Run(_)
            | Self::Create(_)
            | Self::DryRun(_)
            | Self::Make(_)
            | Self::Version
            | Self::List { .. }
            | Self::ListStats { .. }
            | Self::ListNamespaces
            | Self::ShutDown { .. }
            | Self::Events { .. }
            | Self::FlistServers
            | Self::CacheUsage => None,
        }
    }
}

/// The arguments of `Run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRequest {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The container.
    #[serde(with = "v2::spec")]
    pub spec: ContainerSpec,
    /// A repeated `Run` with the same key joins the first and gets its answer.
    pub idempotency_key: Option<String>,
    /// Streams the output and answers with the exit.
    pub is_attached: bool,
}

impl RunRequest {
    /// Runs a container without an idempotency key, and not attached.
    pub fn new(namespace: NamespaceId, spec: ContainerSpec) -> Self {
        Self { namespace, spec, idempotency_key: None, is_attached: false }
    }
}

/// The arguments of `Exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The container.
    pub target: Target,
    /// The process.
    pub spec: ExecSpec,
    /// Whether three descriptors come with the call (`SCM_RIGHTS`, with its first byte): standard input, output and error of the
    /// process. Without them each is `/dev/null`, or the process's own terminal.
    pub has_descriptors: bool,
}

/// The answers. Append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// It was done.
    Done,
    /// The daemon that answers.
    Version(VersionInfo),
    /// The container runs.
    Created {
        /// Its id.
        id: ContainerId,
    },
    /// The container has ended.
    Exited {
        /// Its id.
        id: ContainerId,
        /// How.
        exit: Exit,
    },
    /// All about a container.
    Info(#[serde(with = "v2::info")] Box<ContainerInfo>),
    /// Some containers, by id.
    Page {
        /// These.
        #[serde(with = "v2::summaries")]
        containers: Vec<ContainerSummary>,
        /// Whether more lie behind the last.
        has_more: bool,
    },
    /// The namespaces that have containers.
    Namespaces(Vec<NamespaceSummary>),
    /// The plan of a `Run`.
    Plan(Box<Plan>),
    /// The containers have ended.
    ShutDown {
        /// How many.
        ended: u32,
    },
    /// The servers of mounted flists.
    FlistServers(Vec<FlistServerInfo>),
    /// The content of the cache.
    Cache(Box<CacheInfo>),
    /// The process runs. A pidfd of it comes with this answer, then the master of its terminal if it has one.
    Executes {
        /// Its container.
        id: ContainerId,
        /// Names it in further requests.
        exec: ExecId,
        /// Its process id on the host.
        pid: Pid,
        /// Whether a master comes.
        has_terminal: bool,
    },
    /// The executed processes that have not ended.
    Execs(Vec<ExecInfo>),
    /// The figures of containers.
    Stats {
        /// Those that run.
        stats: Vec<ContainerStats>,
        /// Where the next page goes on; `None` behind the last.
        next: Option<ContainerId>,
    },
    /// The processes of a container, by pid; at most [`MAX_PROCESSES`].
    Processes(Vec<ProcessInfo>),
    /// [`Self::Info`] from [`TEXT_VERSION`] on; see [`Self::for_version`].
    InfoText(Text<ContainerInfo>),
    /// [`Self::Page`] from [`TEXT_VERSION`] on.
    PageText {
        /// These, by id.
        containers: Text<Vec<ContainerSummary>>,
        /// Whether more lie behind the last.
        has_more: bool,
    },
    /// The input of a container. A writing end of it comes with this answer if it is open; it does not block.
    Attached {
        /// The container's id.
        id: ContainerId,
        /// Whether it has a terminal.
        has_terminal: bool,
        /// Whether a writing end comes.
        has_input: bool,
    },
}

/// The daemon that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// The daemon's version.
    pub version: String,
    /// The protocol version of this connection.
    pub protocol: u16,
    /// The daemon's process id.
    pub pid: i32,
    /// When it started.
    pub started_at: Timestamp,
    /// The OCI runtime in use: its name and path.
    pub runtime: String,
}

/// One namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceSummary {
    /// Its name.
    pub namespace: NamespaceId,
    /// How many containers it has.
    pub containers: u32,
    /// How many of them run.
    pub running: u32,
}

/// The plan of a `Run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The `config.json` that the runtime would get, as JSON text.
    pub config_json: String,
    /// The log file.
    pub log_path: String,
}

/// The most fetched flists in one [`CacheInfo`].
pub const MAX_CACHED_FLISTS: usize = 4096;

/// The most processes in one [`Response::Processes`].
pub const MAX_PROCESSES: usize = 4096;

/// One process that serves a mounted flist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlistServerInfo {
    /// Its name: the first 16 digits of the flist's hash.
    pub server: String,
    /// The state that its lease tells.
    pub state: FlistServerState,
    /// Which version it is.
    pub version: Option<String>,
    /// The process that holds its descriptors.
    pub keeper_pid: Option<i32>,
    /// Whether its flist is mounted.
    pub is_mounted: bool,
    /// Those that use it.
    pub containers: Vec<(NamespaceId, ContainerId)>,
}

/// The state of a flist server, as its lease tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlistServerState {
    /// It serves.
    Serving,
    /// It is gone without having been ended.
    Dead,
    /// It is being started.
    Starting,
    /// There is none.
    Gone,
    /// Its lease cannot be read.
    Unknown,
}

/// The content of a node's cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheInfo {
    /// Where it is.
    pub cache_dir: String,
    /// The most bytes that it may have.
    pub max_bytes: u64,
    /// The bytes of its file system that shall stay free.
    pub min_free_bytes: u64,
    /// The bytes that are free, where that is known.
    pub free_bytes: Option<u64>,
    /// Of the blocks, the whole files, the fetched flists and the temporary files, in this order.
    pub kinds: [CacheKindInfo; 4],
    /// The fetched flists by hash, at most [`MAX_CACHED_FLISTS`].
    pub flists: Vec<CachedFlistInfo>,
    /// Why a part of it could not be looked at.
    pub failure: Option<String>,
}

/// How much the cache has of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheKindInfo {
    /// How many.
    pub count: u64,
    /// The bytes that they take of the disk.
    pub bytes: u64,
    /// The latest use.
    pub last_used: Option<Timestamp>,
    /// The oldest use.
    pub oldest_use: Option<Timestamp>,
}

/// A fetched flist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedFlistInfo {
    /// Its hash.
    pub hash: String,
    /// The bytes that it takes.
    pub bytes: u64,
    /// When it was fetched last.
    pub fetched: Timestamp,
    /// Whether a server has it, where that is known.
    pub is_served: Option<bool>,
    /// Where it came from, without a password.
    pub from: Option<String>,
}

/// A piece of a stream. Append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// How far the fetching of the flist is.
    Progress {
        /// The step under way, for people.
        what: String,
        /// Bytes done.
        done_bytes: u64,
        /// Bytes in all, where that is known.
        total_bytes: Option<u64>,
    },
    /// The container runs.
    Started {
        /// Its id.
        id: ContainerId,
    },
    /// Output, as the container wrote it.
    Log(LogItem),
    /// Something happened.
    Event {
        /// Its sequence number.
        seq: u64,
        /// The event.
        event: ContainerEvent,
    },
    /// Events that are no longer kept: `from` up to but without `to`. An empty one (`from == to`) says where
    /// the stream stands: at the beginning of one that asked for the next event, else once all was given that had happened.
    EventGap {
        /// The first missing.
        from: u64,
        /// The first that follows.
        to: u64,
    },
    /// The process runs.
    Executes {
        /// Its container.
        id: ContainerId,
        /// Names it in further requests.
        exec: ExecId,
        /// Its process id on the host.
        pid: Pid,
    },
    /// The place in the log is found: what is said from now on follows, whatever the caller does next. The first item of
    /// [`Request::Logs`] with `is_following`, from [`TEXT_VERSION`] on.
    Follows,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogItem {
    /// When it was read from the container.
    pub at: Timestamp,
    /// From which of its streams.
    pub stream: LogStream,
    /// The bytes, with the newline where the container wrote one.
    pub content: Vec<u8>,
}

/// The output streams of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LogStream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}
