//! The boundary between the actors and the shim processes, as two traits.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contd_protocol::shim::{ExecProcess, TaskSpec, TaskState};
use contd_types::{
    ApiError, ContainerId, ErrorKind, ExecId, ExecInfo, Exit, Explain, NamespaceId, Pid, RequestId, Shortage, Signal,
    WindowSize,
};
use futures_util::future::BoxFuture;

/// Starts shims and finds them again.
pub trait ShimClient: Send + Sync + std::fmt::Debug {
    /// Starts a shim for a container that has none, and connects to it. The lease is on disk before the process starts.
    ///
    /// Repeatable: a shim that is already there for this container is connected to instead.
    fn spawn(&self, task: TaskSpec) -> BoxFuture<'_, Result<Arc<dyn Shim>, ShimError>>;

    /// Takes an id for which a warm shim waits; `None` when there is none. Its container should be spawned soon, by
    /// [`Self::spawn`] with this id, or given up by [`Self::clean_up`]; after a while the shim waits no longer.
    fn reserve_id(&self) -> Option<ContainerId> {
        None
    }

    /// Gives up an id that was reserved and whose container does not come.
    fn release_id(&self, _id: &ContainerId) {}

    /// Looks for the shim of a container, after the daemon has started or when its connection was lost. One that died
    /// under its container gets a successor, which goes on with it.
    fn attach(&self, namespace: &NamespaceId, id: &ContainerId) -> BoxFuture<'_, Result<Attached, ShimError>>;

    /// Removes what a dead or never started shim left: its lease directory, sockets, FIFOs, the runtime's state and the
    /// container itself if the runtime still has it. Repeatable. Refused while the shim lives.
    fn clean_up(&self, namespace: &NamespaceId, id: &ContainerId) -> BoxFuture<'_, Result<(), ShimError>>;

    /// Ends a shim that does not answer, without a word to its container, so that [`Self::attach`] starts a successor.
    fn end_silent(&self, namespace: &NamespaceId, id: &ContainerId) -> BoxFuture<'_, Result<(), ShimError>>;

    /// Lists the processes of a container that are left: asked for when they do not end, to say why. None when nothing can
    /// be told.
    fn holdouts(&self, namespace: &NamespaceId, id: &ContainerId) -> BoxFuture<'_, Vec<Holdout>>;

    /// Lists every shim that has a lease, so that those without a record can be ended.
    fn list(&self) -> BoxFuture<'_, Result<Vec<FoundShim>, ShimError>>;
}

/// The result of a search for a shim.
#[derive(Debug)]
pub enum Attached {
    /// It lives and answers.
    Alive {
        /// The connection.
        shim: Arc<dyn Shim>,
        /// Where its container is.
        state: TaskState,
    },
    /// It is dead, and so is its container. `exit` is what it wrote down about its end; `None` when the container never
    /// was made.
    Dead {
        /// The end of the container.
        exit: Option<Exit>,
    },
    /// There is nothing, or something of an earlier boot.
    Absent,
}

/// A process of a container that is left, as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdout {
    /// Its process id on the host.
    pub pid: Pid,
    /// Its name, at most 15 bytes of what it calls itself.
    pub name: String,
    /// The letter of its state: `D` waits in the kernel, where no signal reaches it.
    pub state: char,
    /// The kernel's function in which it waits, where that is told.
    pub place: Option<String>,
}

impl std::fmt::Display for Holdout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}) in {} state", self.pid, self.name, self.state)?;
        match &self.place {
            Some(place) => write!(f, " at {place}"),
            None => Ok(()),
        }
    }
}

/// A shim's lease, as `list` finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundShim {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The container.
    pub id: ContainerId,
    /// Its lease directory.
    pub dir: PathBuf,
    /// Whether the process lives.
    pub is_alive: bool,
}

/// A process that was executed, for whoever uses it from here on.
#[derive(Debug)]
pub struct Executed {
    /// Its process id on the host.
    pub pid: Pid,
    /// A pidfd of it.
    pub pidfd: OwnedFd,
    /// The master of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

/// One connection to one shim. Every call has a deadline of its own inside and may be made twice.
pub trait Shim: Send + Sync + std::fmt::Debug {
    /// Returns the same shim for one operation: its log shows the id for what the calls make it do.
    fn for_operation(&self, operation: RequestId) -> Arc<dyn Shim>;
    /// Has the runtime make the container.
    fn create(&self) -> BoxFuture<'_, Result<Pid, ShimError>>;
    /// Lets its init run the entrypoint.
    fn start(&self) -> BoxFuture<'_, Result<Pid, ShimError>>;
    /// Tells where the container is.
    fn state(&self) -> BoxFuture<'_, Result<TaskState, ShimError>>;
    /// Sends a signal to its init, or to all its processes.
    fn kill(&self, signal: Signal, is_for_all: bool) -> BoxFuture<'_, Result<(), ShimError>>;
    /// Freezes all its processes, or thaws them.
    fn set_paused(&self, is_paused: bool) -> BoxFuture<'_, Result<(), ShimError>>;
    /// Waits for its end, without a deadline. [`ShimError::Lost`] when the shim goes first.
    fn wait(&self) -> BoxFuture<'_, Result<Exit, ShimError>>;
    /// Removes what the runtime keeps of it; kills it first when `force`.
    fn delete(&self, force: bool) -> BoxFuture<'_, Result<(), ShimError>>;
    /// Has the program that a new shim would be take over in this one's place, and waits until it answers. The container
    /// does not notice.
    fn hand_over(&self) -> BoxFuture<'_, Result<(), ShimError>>;
    /// Executes a process in the container; `stdio` are its descriptors 0, 1 and 2 unless it has a terminal. After
    /// [`ShimError::Lost`] it is not known whether it runs.
    fn exec(
        &self,
        exec: ExecId,
        process: ExecProcess,
        stdio: Option<[OwnedFd; 3]>,
    ) -> BoxFuture<'_, Result<Executed, ShimError>>;
    /// Waits for the end of an executed process, without a deadline. [`ShimError::Lost`] when the shim goes first.
    fn wait_exec(&self, exec: ExecId) -> BoxFuture<'_, Result<Exit, ShimError>>;
    /// Sends a signal to an executed process.
    fn kill_exec(&self, exec: ExecId, signal: Signal) -> BoxFuture<'_, Result<(), ShimError>>;
    /// Lists the executed processes that have not ended.
    fn execs(&self) -> BoxFuture<'_, Result<Vec<ExecInfo>, ShimError>>;
    /// Opens a writing end of its standard input; `None` when that is not open, not any more, or nobody reads it.
    fn open_input(&self) -> BoxFuture<'_, Result<Option<OwnedFd>, ShimError>>;
    /// Lets its process read the end of its standard input, once all who have opened it have let go. Nothing for a terminal.
    fn close_input(&self) -> BoxFuture<'_, Result<(), ShimError>>;
    /// Changes the size of its terminal.
    fn resize(&self, size: WindowSize) -> BoxFuture<'_, Result<(), ShimError>>;
    /// Begins the next file of its log, unless there is no output in this one.
    fn rotate_log(&self) -> BoxFuture<'_, Result<(), ShimError>>;
    /// Ends the shim and waits until it is gone.
    fn shutdown(&self) -> BoxFuture<'_, Result<(), ShimError>>;
}

/// Why a shim could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The process did not come up.
    #[error("start the shim of container {id} with {}", binary.display())]
    Spawn {
        /// The container.
        id: ContainerId,
        /// The shim's binary.
        binary: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no thread to do it in.
    #[error("{verb} container {id}: get a thread for it")]
    NoThread {
        /// The container.
        id: ContainerId,
        /// The request.
        verb: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// It came up and gave up, saying why.
    #[error("start the shim of container {id}: it ended with {status}: {stderr}")]
    EndedEarly {
        /// The container.
        id: ContainerId,
        /// Its exit status.
        status: String,
        /// Its message.
        stderr: String,
        /// Whether the node has run out of something, as its exit code says.
        has_run_out: bool,
    },
    /// Its lease could not be written or read.
    #[error("lease of the shim of container {id}")]
    Lease {
        /// The container.
        id: ContainerId,
        /// Why.
        source: contd_lease::LeaseError,
    },
    /// Its socket's path is longer than the kernel takes.
    #[error("name the socket of the shim of container {id}: {} has more than {limit} bytes", socket.display())]
    PathTooLong {
        /// The container.
        id: ContainerId,
        /// The socket.
        socket: PathBuf,
        /// The most bytes that a path may have.
        limit: usize,
    },
    /// Its task file could not be written.
    #[error("write the task of the shim of container {id} to {}", path.display())]
    WriteTask {
        /// The container.
        id: ContainerId,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The directory of all leases could not be read.
    #[error("list the shims in {}", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its socket cannot be reached.
    #[error("connect to the shim of container {id} at {}", socket.display())]
    Connect {
        /// The container.
        id: ContainerId,
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It speaks another version, or not our language at all.
    #[error("talk to the shim of container {id}: {what}")]
    Protocol {
        /// The container.
        id: ContainerId,
        /// The violation.
        what: String,
    },
    /// The connection broke; the shim is gone or is being replaced.
    #[error("{verb} container {id}: the connection to its shim was lost")]
    Lost {
        /// The container.
        id: ContainerId,
        /// The request.
        verb: &'static str,
    },
    /// It did not answer in time.
    #[error("{verb} container {id}: its shim did not answer within {waited:?}")]
    Silent {
        /// The container.
        id: ContainerId,
        /// The request.
        verb: &'static str,
        /// How long was waited.
        waited: Duration,
    },
    /// It answered with an error: the runtime's, mostly.
    #[error("{verb} container {id}")]
    Refused {
        /// The container.
        id: ContainerId,
        /// The request.
        verb: &'static str,
        /// Its answer.
        source: ApiError,
    },
    /// Files or cgroups that it left could not be removed.
    #[error("clean up behind the shim of container {id}: {}", path.display())]
    CleanUp {
        /// The container.
        id: ContainerId,
        /// The file or cgroup that is left.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The container's init still runs without a shim: a second one must not be made beside it.
    #[error("start the shim of container {id}: its init still runs without one")]
    Orphaned {
        /// The container.
        id: ContainerId,
    },
    /// Its standard input could not be opened.
    #[error("open the input of container {id} at {}", path.display())]
    OpenInput {
        /// The container.
        id: ContainerId,
        /// The FIFO.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is of a version that cannot do this, from before the node was upgraded.
    #[error("{verb} container {id}: its shim is of an older version, which cannot do this")]
    TooOld {
        /// The container.
        id: ContainerId,
        /// The request.
        verb: &'static str,
    },
    /// It still lives, so nothing behind it may be removed.
    #[error("clean up behind the shim of container {id}: it is alive")]
    StillAlive {
        /// The container.
        id: ContainerId,
    },
}

impl ShimError {
    fn shortage(&self) -> Option<Shortage> {
        match self {
            Self::Spawn { source, .. } | Self::NoThread { source, .. } => Shortage::of_spawn(source),
            // An answer has its own kind.
            Self::Refused { .. } => None,
            other => Shortage::behind(other),
        }
    }
}

impl Explain for ShimError {
    fn kind(&self) -> ErrorKind {
        if self.shortage().is_some() {
            return ErrorKind::OutOfResources;
        }
        match self {
            Self::EndedEarly { has_run_out: true, .. } => ErrorKind::OutOfResources,
            Self::Spawn { .. }
            | Self::NoThread { .. }
            | Self::EndedEarly { .. }
            | Self::Lease { .. }
            | Self::WriteTask { .. }
            | Self::List { .. }
            | Self::OpenInput { .. }
            | Self::CleanUp { .. } => ErrorKind::Internal,
            Self::PathTooLong { .. } => ErrorKind::InvalidArgument,
            Self::Connect { .. } | Self::Lost { .. } => ErrorKind::Unavailable,
            Self::Protocol { .. } | Self::TooOld { .. } => ErrorKind::VersionMismatch,
            Self::Silent { .. } => ErrorKind::Timeout,
            Self::Refused { source, .. } => source.kind,
            Self::Orphaned { .. } | Self::StillAlive { .. } => ErrorKind::Conflict,
        }
    }

    fn hint(&self) -> Option<String> {
        if let Some(shortage) = self.shortage() {
            return Some(shortage.hint().to_owned());
        }
        match self {
            Self::EndedEarly { has_run_out: true, .. } => {
                Some("free what it says is used up, on this node, then repeat".to_owned())
            }
            Self::Spawn { binary, .. } => Some(format!("check that {} exists and can be run", binary.display())),
            Self::PathTooLong { .. } => Some("use a shorter run directory".to_owned()),
            Self::NoThread { .. } => Some("retry in a moment".to_owned()),
            Self::EndedEarly { .. }
            | Self::Lease { .. }
            | Self::WriteTask { .. }
            | Self::OpenInput { .. }
            | Self::List { .. } => Some("check the run directory: space, rights".to_owned()),
            Self::Connect { .. } | Self::Lost { .. } | Self::Silent { .. } => {
                Some("inspect the container; it is re-attached or reported as lost by itself".to_owned())
            }
            Self::Protocol { .. } => Some("the shim may be of another version: see `contd version`".to_owned()),
            Self::TooOld { id, .. } => {
                Some(format!("replace it, the container does not notice: contd shim upgrade {id}"))
            }
            Self::Refused { source, .. } => source.hint.clone(),
            Self::CleanUp { path, .. } => Some(format!("remove {} by hand once it is free", path.display())),
            Self::Orphaned { .. } => Some("attach to it, or clean it up first, which ends the orphan".to_owned()),
            Self::StillAlive { .. } => Some("stop the container first".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_runs_out_under_a_shim_is_told_with_its_limit() {
        let id = ContainerId::from_random([1; 16]);
        let source = std::io::Error::from_raw_os_error;
        let spawn =
            |number| ShimError::Spawn { id: id.clone(), binary: "/bin/contd-shim".into(), source: source(number) };
        let task = |number| ShimError::WriteTask { id: id.clone(), path: "/run/s/x".into(), source: source(number) };
        let lease = |number| ShimError::Lease {
            id: id.clone(),
            source: contd_lease::LeaseError::CreateDir { dir: "/run/s/x".into(), source: source(number) },
        };
        for (error, limit) in [
            (spawn(11), "kernel.pid_max"),
            (spawn(12), "memory"),
            (spawn(24), "open files"),
            (task(28), "space"),
            (task(122), "quota"),
            (lease(28), "space"),
            (lease(23), "fs.file-max"),
        ] {
            assert_eq!(error.kind(), ErrorKind::OutOfResources, "{error:?}");
            assert!(error.hint().is_some_and(|hint| hint.contains(limit)), "{error:?}: {:?}", error.hint());
        }
        let early = |has_run_out| ShimError::EndedEarly {
            id: id.clone(),
            status: "exit status: 71".into(),
            stderr: "make the FIFO /run/s/x/stdout: No space left on device".into(),
            has_run_out,
        };
        assert_eq!((early(true).kind(), early(false).kind()), (ErrorKind::OutOfResources, ErrorKind::Internal));
    }
}
