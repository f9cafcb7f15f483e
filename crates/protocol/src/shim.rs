//! The messages between the daemon and one container's shim, in the shape of containerd's Task v3 API.
//!
//! The shim is told what to make by its task file ([`TaskSpec`], JSON in its lease directory), which its successor reads
//! as well; the socket carries only verbs. Calls may overlap: a `Wait` stays open while others are answered, and a `Kill`
//! is carried out while a `Create` is still under way.

use std::path::PathBuf;
use std::time::Duration;

use contd_types::{ContainerId, ExecId, ExecInfo, Exit, NamespaceId, Pid, Signal, WindowSize};
use serde::{Deserialize, Serialize};

use crate::MAX_CONTROL_BODY_BYTES;
use crate::hello::VersionRange;
use crate::session::{self, NoItem, Protocol};

/// The versions of this module. What each has added: [`Request::least_version`].
pub const VERSIONS: VersionRange = VersionRange { min: 1, max: 3 };
/// The name and version of contd-shim, in its hello and in the leases of shims and of the holder.
pub const AGENT: &str = concat!("contd-shim/", env!("CARGO_PKG_VERSION"));
/// The most calls under way on one connection to a shim.
pub const MAX_CALLS_PER_CONNECTION: usize = 64;
/// The most connections to one shim: the daemon, its successor, a tool or two.
pub const MAX_CONNECTIONS: usize = 8;

/// The most processes that are executed in one container at once, its own not counted: each costs the shim three descriptors.
pub const MAX_EXECS: usize = 256;
/// How many executed processes that have ended are remembered, for callers who ask late: the oldest go first.
pub const MAX_ENDED_EXECS: usize = 256;

/// The version of [`TaskSpec`] as a file.
pub const TASK_SPEC_VERSION: u32 = 1;

/// The container that a shim makes; never changes during its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// [`TASK_SPEC_VERSION`].
    pub version: u32,
    /// The namespace.
    pub namespace: NamespaceId,
    /// The container; also its id at the runtime.
    pub id: ContainerId,
    /// The directory with `config.json`.
    pub bundle: PathBuf,
    /// Which runtime.
    pub runtime: RuntimeSpec,
    /// The log file; its directory exists.
    pub log_path: PathBuf,
    /// A new log file is begun above this size, in bytes.
    pub log_max_bytes: u64,
    /// How many log files are kept, the current one included.
    pub log_max_files: u32,
    /// Where marks of log files are noted on file systems that have no extended attributes. `None` for a task of an earlier
    /// version: its log bears no mark, and is known by its name.
    #[serde(default)]
    pub log_notes: Option<PathBuf>,
    /// Where the output of this run begins in the log; `None` when that is not known.
    #[serde(default)]
    pub log_start: Option<LogStart>,
    /// How long output may still be read after the exit when a descendant keeps the pipes open.
    pub drain_timeout: Duration,
    /// How long the runtime may take for one operation before it is killed.
    pub runtime_timeout: Duration,
    /// Its input, and its terminal.
    #[serde(default)]
    pub input: TaskInput,
}

/// The input of a container's own process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskInput {
    /// Whether its standard input is open for callers; otherwise it is `/dev/null`, or a terminal that nobody types at.
    pub is_open: bool,
    /// Whether it has a terminal; then so does the process of its bundle.
    pub has_terminal: bool,
}

/// The place in a log where the output of a run begins: what the run before has left there is ended first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStart {
    /// The inode of the file.
    pub inode: u64,
    /// In bytes from its beginning.
    pub offset: u64,
    /// Whether output of the run before was lost, so that a line shall say so.
    pub is_after_loss: bool,
}

/// Which runtime makes the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuntimeSpec {
    /// An OCI runtime's command: `runc`, `crun`, `youki`.
    Oci {
        /// Its absolute path.
        binary: PathBuf,
        /// Its state directory (`--root`).
        root: PathBuf,
    },
    /// Our own launcher.
    Native {
        /// The container's cgroup in each hierarchy, such as `/contd/<id>`.
        cgroup: PathBuf,
        /// The directory of compiled seccomp filters.
        filters: PathBuf,
        /// The absolute path of `contd-seccomp`, which compiles them.
        compiler: PathBuf,
    },
}

/// The version of [`SlotSpec`] as a file.
pub const SLOT_SPEC_VERSION: u32 = 1;

/// A shim that was started before there is a container for it: a warm slot. Its id is the one that its container gets.
///
/// The process that starts it holds its standard input, the leash: one byte says that the task file is there; the end of the
/// file before that ends the slot, and all it has made goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotSpec {
    /// [`SLOT_SPEC_VERSION`].
    pub version: u32,
    /// The container to come.
    pub id: ContainerId,
    /// As in [`RuntimeSpec::Native`].
    pub cgroup: PathBuf,
    /// As in [`RuntimeSpec::Native`].
    pub filters: PathBuf,
    /// As in [`RuntimeSpec::Native`].
    pub compiler: PathBuf,
}

/// The files in a shim's lease directory, beside `lease.json` and `lock`. They are the contract between a shim, its
/// successor and the daemon.
pub mod files {
    /// [`super::TaskSpec`] as JSON; written by the daemon before the shim starts.
    pub const TASK: &str = "task.json";
    /// [`super::SlotSpec`] as JSON, in the directory of a warm slot, before there is a [`TASK`] and also then.
    pub const SLOT: &str = "slot.json";
    /// The shim's socket, 0600.
    pub const SOCKET: &str = "sock";
    /// [`super::InitRecord`] as JSON; written by the shim once the runtime has made the container.
    pub const INIT: &str = "init.json";
    /// [`contd_types::Exit`] as JSON; written by the shim before it tells anyone.
    pub const EXIT: &str = "exit.json";
    /// The executed processes as JSON; written by the shim before one runs, and when one has ended.
    pub const EXECS: &str = "execs.json";
    /// The FIFO of the container's standard input; absent when that is not open, or not any more.
    pub const STDIN: &str = "stdin";
    /// The FIFO of the container's standard output.
    pub const STDOUT: &str = "stdout";
    /// The FIFO of the container's standard error.
    pub const STDERR: &str = "stderr";
    /// Behind the name of a FIFO: the file through which its bytes go to the log.
    pub const SPOOL_SUFFIX: &str = ".spool";
    /// The shim's own log; bounded.
    pub const SHIM_LOG: &str = "shim.log";
    /// The log of the OCI runtime's last operation.
    pub const RUNTIME_LOG: &str = "runtime.log";
}

/// The identity of a container's init, so that a successor of the shim never mistakes another process for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitRecord {
    /// Its process id on the host.
    pub pid: Pid,
    /// Its start time in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub start_ticks: u64,
    /// Whether it was told to run the entrypoint.
    pub is_started: bool,
}

/// The exit code of a shim that does not come up because the node has run out of something (`EX_OSERR`).
pub const EXIT_RUN_OUT: i32 = 71;

/// The protocol of this module.
#[derive(Debug)]
pub enum ShimSocket {}

impl Protocol for ShimSocket {
    type Request = Request;
    type Item = NoItem;
    type Response = Response;
    const VERSIONS: VersionRange = VERSIONS;
    const MAX_BODY_BYTES: usize = MAX_CONTROL_BODY_BYTES;
    const MAX_CALLS: usize = MAX_CALLS_PER_CONNECTION;

    fn descriptors_of_request(request: &Request) -> usize {
        match request {
            Request::Exec { process, .. } if process.terminal.is_none() => 3,
            Request::GiveTerminal => 1,
            _ => 0,
        }
    }

    fn descriptors_of_response(response: &Response) -> usize {
        match response {
            Response::Executes { has_terminal, .. } => 1 + usize::from(*has_terminal),
            Response::Terminal { is_there } => usize::from(*is_there),
            _ => 0,
        }
    }
}

/// A request with its id.
pub type Call = session::Call<Request>;
/// The answer to a call.
pub type Reply = session::Reply<Response>;

/// The requests to a shim. Append only. Each may be asked twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Makes the container; its init waits. → [`Response::Pid`]
    Create,
    /// Lets its init run the entrypoint. → [`Response::Pid`]
    Start,
    /// Tells where it is. → [`Response::State`]
    State,
    /// Sends a signal to its init, or to all its processes. → [`Response::Done`]; done as well when it has ended.
    Kill {
        /// The signal.
        signal: Signal,
        /// To all processes of the container.
        is_for_all: bool,
    },
    /// Waits for its end. → [`Response::Exited`], after its output is in the log.
    Wait,
    /// Freezes it. → [`Response::Done`]
    Pause,
    /// Thaws it. → [`Response::Done`]
    Resume,
    /// Removes what the runtime keeps of it, ended or half-made; kills it first when `force`. → [`Response::Done`]
    Delete {
        /// Kills it first.
        force: bool,
    },
    /// Begins the next file of the log now; nothing when there is output to repeat, or none yet. → [`Response::Done`].
    /// Versions before it had a caller opened the log again by its path.
    RotateLog,
    /// Ends the shim. Refused with `Conflict` while the container lives. → [`Response::Done`]
    Shutdown,
    /// Executes another program in the place of this shim's, which goes on with the container: same process, same lease.
    /// There is no answer when it succeeds: all connections end, and the socket is there again in a moment.
    HandOver {
        /// A `contd-shim`, absolute.
        binary: PathBuf,
    },
    /// Executes a process in the container, which must run. Without a terminal three descriptors come with it: its standard input,
    /// output and error. → [`Response::Executes`]; [`Response::Exited`] when it was asked before and has ended.
    Exec {
        /// Chosen by the caller.
        exec: ExecId,
        /// The process.
        process: Box<ExecProcess>,
    },
    /// Waits for the end of an executed process. → [`Response::Exited`]
    WaitExec {
        /// Which.
        exec: ExecId,
    },
    /// Sends a signal to an executed process alone. → [`Response::Done`]; done as well when it has ended.
    KillExec {
        /// Which.
        exec: ExecId,
        /// The signal.
        signal: Signal,
    },
    /// Lists the executed processes that have not ended. → [`Response::Execs`]
    Execs,
    /// Closes the standard input of the container: its process reads the end once all callers have let go of it. Nothing for one with a
    /// terminal. → [`Response::Done`]
    CloseInput,
    /// Changes the size of the container's terminal. → [`Response::Done`]
    Resize {
        /// The new size.
        size: WindowSize,
    },
    /// Asks for the master of the container's terminal, to keep it open beside the shim. → [`Response::Terminal`]
    Terminal,
    /// Gives the master back to a successor that has none; it comes with the request. → [`Response::Done`]
    GiveTerminal,
}

impl Request {
    /// Returns the first version that has this request: a shim that is older hangs up at it.
    pub fn least_version(&self) -> u16 {
        match self {
            Self::Create
            | Self::Start
            | Self::State
            | Self::Kill { .. }
            | Self::Wait
            | Self::Pause
            | Self::Resume
            | Self::Delete { .. }
            | Self::RotateLog
            | Self::Shutdown
            | Self::HandOver { .. } => 1,
            Self::Exec { .. } | Self::WaitExec { .. } | Self::KillExec { .. } | Self::Execs => 2,
            Self::CloseInput | Self::Resize { .. } | Self::Terminal | Self::GiveTerminal => 3,
        }
    }
}

/// A process to execute; what is absent is as in the bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecProcess {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// More of the environment.
    pub env: Vec<String>,
    /// The working directory.
    pub cwd: Option<String>,
    /// The user.
    pub user: Option<ExecUser>,
    /// A terminal of its own, of this size.
    pub terminal: Option<WindowSize>,
}

/// The user of an executed process, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecUser {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The supplementary groups, in place of those of the bundle.
    pub additional_gids: Vec<u32>,
}

/// The answers of a shim. Append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// It was done.
    Done,
    /// The container's init.
    Pid(Pid),
    /// Where the container is.
    State(TaskState),
    /// The container has ended, or the executed process that was asked for.
    Exited(Exit),
    /// The process runs. Its pidfd comes with it, then the master of its terminal if it has one and this is the first answer.
    Executes {
        /// Its process id on the host.
        pid: Pid,
        /// Whether a master comes.
        has_terminal: bool,
    },
    /// The executed processes that have not ended.
    Execs(Vec<ExecInfo>),
    /// The master of the container's terminal.
    Terminal {
        /// Whether it comes; it does not when a predecessor has died with it.
        is_there: bool,
    },
}

/// Where a container is, as its shim sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskState {
    /// The container was not made yet, or it was removed again.
    Empty,
    /// The runtime is making it.
    Creating,
    /// It is made; init waits.
    Created {
        /// Its init.
        pid: Pid,
    },
    /// It runs.
    Running {
        /// Its init.
        pid: Pid,
    },
    /// It is frozen.
    Paused {
        /// Its init.
        pid: Pid,
    },
    /// It has ended.
    Exited {
        /// How.
        exit: Exit,
    },
}
