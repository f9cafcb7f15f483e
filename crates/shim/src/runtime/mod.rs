//! The runtime that makes containers: the boundary to an OCI runtime's command and to a launcher of our own.
//!
//! No call here blocks: an operation is begun, has a descriptor that becomes readable when it is over, and is then
//! finished. It need not be a process. Create and start are apart; the container's init, once made, is our child.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use contd_launch::fault::FaultKind;
use contd_launch::launcher::LaunchError;
use contd_protocol::shim::{ExecProcess, TaskSpec};
use contd_types::{ContainerId, ErrorKind, Explain, Shortage};

mod exec;
#[cfg(feature = "testing")]
pub mod fake;
pub mod native;
pub mod oci;
mod oci_console;
mod oci_error;
mod oci_exec;
mod worker;

pub use exec::{ExecStdio, ExecStep, Executing, Held};
pub(crate) use oci_error::classify;

/// The container's ends of its input and output. One with a terminal gets that instead, natively; an OCI runtime itself writes here.
#[derive(Debug)]
pub struct Stdio {
    /// Descriptor 0; `None` is `/dev/null`.
    pub stdin: Option<File>,
    /// Descriptor 1.
    pub stdout: File,
    /// Descriptor 2.
    pub stderr: File,
}

/// Makes, starts, freezes and removes one container. One operation is under way at a time.
pub trait Runtime: Debug {
    /// Begins to make the container; its init waits. Ends in [`Outcome::Created`].
    ///
    /// # Errors
    /// [`RuntimeError`] when it cannot even begin.
    fn begin_create(&mut self, task: &TaskSpec, stdio: Stdio) -> Result<Box<dyn Operation>, RuntimeError>;

    /// Begins to let init run the entrypoint.
    ///
    /// # Errors
    /// [`RuntimeError`] when it cannot even begin.
    fn begin_start(&mut self, task: &TaskSpec) -> Result<Box<dyn Operation>, RuntimeError>;

    /// Begins to remove what is kept of the container; with `is_forced`, kills it first. It is fine when there is none.
    ///
    /// # Errors
    /// [`RuntimeError`] when it cannot even begin.
    fn begin_delete(&mut self, task: &TaskSpec, is_forced: bool) -> Result<Box<dyn Operation>, RuntimeError>;

    /// Begins to freeze the container.
    ///
    /// # Errors
    /// [`RuntimeError`] when it cannot even begin.
    fn begin_pause(&mut self, task: &TaskSpec) -> Result<Box<dyn Operation>, RuntimeError>;

    /// Begins to thaw the container.
    ///
    /// # Errors
    /// [`RuntimeError`] when it cannot even begin.
    fn begin_resume(&mut self, task: &TaskSpec) -> Result<Box<dyn Operation>, RuntimeError>;

    /// Begins to execute one more process in the container, which runs; `init` is a pidfd of its init. Several may be under
    /// way at a time, also beside other operations.
    ///
    /// # Errors
    /// [`RuntimeError`] when it cannot even begin.
    fn begin_exec(
        &mut self,
        task: &TaskSpec,
        process: &ExecProcess,
        init: BorrowedFd<'_>,
        stdio: ExecStdio,
    ) -> Result<Box<dyn Executing>, RuntimeError>;
}

/// One operation under way.
pub trait Operation: Debug {
    /// Returns the descriptor that becomes readable when the operation is over.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Returns the child that [`Self::finish`] will reap, if there is one: nobody else may.
    fn child(&self) -> Option<i32>;

    /// Takes the result. Only legal once the descriptor is readable.
    ///
    /// # Errors
    /// [`RuntimeError`] when the operation failed.
    fn finish(self: Box<Self>) -> Result<Outcome, RuntimeError>;

    /// Breaks the operation off. What it has made so far is there until a delete; its child is reaped as an orphan.
    fn abort(self: Box<Self>);
}

/// The result of an operation.
#[derive(Debug)]
pub enum Outcome {
    /// The container is made; this is its init.
    Created {
        /// On the host.
        pid: i32,
        /// The master of its terminal, if it is to have one.
        terminal: Option<OwnedFd>,
    },
    /// Init was let go; it runs the entrypoint once it is another program than the runtime's own.
    LetGo,
    /// It was done.
    Done,
}

/// The operations of a runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Make.
    Create,
    /// Run the entrypoint.
    Start,
    /// Freeze.
    Pause,
    /// Thaw.
    Resume,
    /// Remove.
    Delete,
    /// Execute one more process.
    Exec,
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Delete => "delete",
            Self::Exec => "execute a process in",
        })
    }
}

/// A runtime's own words, capped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Words(pub String);

/// Why a runtime could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Its program could not be started.
    #[error("run {} to {verb} container {id}", binary.display())]
    Spawn {
        /// The request.
        verb: Verb,
        /// The container.
        id: ContainerId,
        /// The program.
        binary: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was started, but its end could not be waited for.
    #[error("wait for the runtime to {verb} container {id}")]
    Watch {
        /// The request.
        verb: Verb,
        /// The container.
        id: ContainerId,
        /// Why.
        source: io::Error,
    },
    /// It failed.
    #[error("{verb} container {id}: the runtime ended with {status}")]
    Failed {
        /// The request.
        verb: Verb,
        /// The container.
        id: ContainerId,
        /// How it ended.
        status: String,
        /// The class of the failure, by the runtime's words.
        kind: ErrorKind,
        /// Its message.
        source: Words,
    },
    /// Our own launcher failed.
    #[error("{verb} container {id}")]
    Launch {
        /// The request.
        verb: Verb,
        /// The container.
        id: ContainerId,
        /// Why.
        source: LaunchError,
    },
    /// The container's cgroup did not do what was asked.
    #[error("{verb} container {id}")]
    Cgroup {
        /// The request.
        verb: Verb,
        /// The container.
        id: ContainerId,
        /// Why.
        source: contd_cgroup::CgroupError,
    },
    /// There is no init that waits for "start".
    #[error("{verb} container {id}: no init of it waits")]
    NoInit {
        /// The request.
        verb: Verb,
        /// The container.
        id: ContainerId,
    },
    /// It says that it has made the container, and does not tell its init.
    #[error("read the pid of container {id} from {}", path.display())]
    PidFile {
        /// The container.
        id: ContainerId,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It took too long and was killed.
    #[error("{verb} container {id}: the runtime was not done after {waited:?}")]
    TimedOut {
        /// The request.
        verb: Verb,
        /// The container.
        id: ContainerId,
        /// How long it had.
        waited: Duration,
    },
    /// It was broken off by a kill or a delete.
    #[error("{verb} container {id}: broken off by a later request")]
    Aborted {
        /// The request.
        verb: Verb,
        /// The container.
        id: ContainerId,
    },
}

impl RuntimeError {
    /// Tells what has run out, where that is why.
    fn shortage(&self) -> Option<Shortage> {
        match self {
            // A fork, or a descriptor for it.
            Self::Spawn { source, .. }
            | Self::Watch { source, .. }
            | Self::Launch { source: LaunchError::Talk { source }, .. } => Shortage::of_spawn(source),
            // It has told its kind itself.
            Self::Launch { .. } | Self::Failed { .. } => None,
            other => Shortage::behind(other),
        }
    }
}

impl Explain for RuntimeError {
    fn kind(&self) -> ErrorKind {
        if self.shortage().is_some() {
            return ErrorKind::OutOfResources;
        }
        match self {
            Self::Spawn { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorKind::Unavailable,
            Self::Spawn { .. } | Self::Watch { .. } | Self::PidFile { .. } => ErrorKind::Internal,
            Self::Failed { kind, .. } => *kind,
            Self::Launch { source, .. } => launch_kind(source),
            Self::Cgroup { .. } => ErrorKind::Internal,
            Self::NoInit { .. } => ErrorKind::Conflict,
            Self::TimedOut { .. } => ErrorKind::Timeout,
            Self::Aborted { .. } => ErrorKind::Conflict,
        }
    }

    fn hint(&self) -> Option<String> {
        if let Some(shortage) = self.shortage() {
            return Some(shortage.hint().to_owned());
        }
        Some(match self {
            Self::Spawn { binary, .. } => format!("check that {} exists and can be run", binary.display()),
            Self::Watch { .. } | Self::PidFile { .. } => "delete the container and create it again".to_owned(),
            Self::Failed { kind: ErrorKind::EntrypointNotFound, .. } => {
                "give a command that exists in the root file system, with its full path or in its PATH".to_owned()
            }
            Self::Failed { kind: ErrorKind::EntrypointNotExecutable, .. } => {
                "the command must be a file with execute permission, built for this machine".to_owned()
            }
            Self::Failed { kind: ErrorKind::InvalidArgument, .. } => {
                "correct the part of the container's spec that is named".to_owned()
            }
            Self::Failed { kind: ErrorKind::OutOfResources, .. } => {
                "free the resource that is named on this node, then repeat".to_owned()
            }
            Self::Launch { source: LaunchError::Fault(fault), .. } => fault.hint().to_owned(),
            Self::Launch { .. } => "see the kernel log: the launcher may have been killed; then repeat".to_owned(),
            Self::Cgroup { source, .. } => source.hint().to_owned(),
            Self::NoInit { .. } => "delete the container and create it again".to_owned(),
            Self::Failed { .. } => "see runtime.log in the shim's directory and the kernel log".to_owned(),
            Self::TimedOut { .. } => "see what the node waits for (disk, cgroups); then delete and create".to_owned(),
            Self::Aborted { .. } => return None,
        })
    }
}

fn launch_kind(error: &LaunchError) -> ErrorKind {
    match error {
        LaunchError::Fault(fault) => match fault.kind {
            FaultKind::Invalid => ErrorKind::InvalidArgument,
            FaultKind::Unsupported => ErrorKind::Unsupported,
            FaultKind::NotFound => ErrorKind::EntrypointNotFound,
            FaultKind::NotExecutable => ErrorKind::EntrypointNotExecutable,
            FaultKind::OutOfResources => ErrorKind::OutOfResources,
            FaultKind::Kernel => ErrorKind::Internal,
        },
        LaunchError::Silent | LaunchError::Talk { .. } => ErrorKind::Internal,
    }
}
