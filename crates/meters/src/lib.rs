//! The figures of running containers, the processes in them, and changes of their limits.
//!
//! Takes in: ids and the pids of inits. Gives out: figures since the start, lists of processes. Never does: change anything but limits,
//! keep a container's network namespace or cgroup alive once it was told that it has ended ([`Meters::forget`]).
//!
//! ```text
//! Meters::read ─► CgroupMeters ─► files that stay open, of each container's cgroup (crates/cgroup)
//!                             └─► /proc/<init>/net/dev, by a descriptor of that process
//! ```
//!
//! A process is asked by a descriptor of its directory in `/proc`, so none that has the same pid later is taken for it, and it must be
//! in a cgroup that is named after the container.
#![forbid(unsafe_code)]

mod cgroups;
#[cfg(any(test, feature = "testing"))]
mod fake;
mod processes;

use std::fmt::Debug;

use contd_types::{CgroupLimits, ContainerId, ErrorKind, Explain, NetworkUsage, Pid, ProcessInfo, Usage};

pub use cgroups::CgroupMeters;
#[cfg(any(test, feature = "testing"))]
pub use fake::FakeMeters;

/// A running container to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metered {
    /// Its id, which its cgroup is named after.
    pub id: ContainerId,
    /// Its init.
    pub pid: Pid,
}

/// The figures of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Which.
    pub of: Metered,
    /// By a clock that never goes back, in nanoseconds.
    pub monotonic_ns: u64,
    /// Its cgroup.
    pub usage: Usage,
    /// Its network namespace; `None` when it cannot be read.
    pub network: Option<NetworkUsage>,
}

/// Why the processes of a container cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum MeterError {
    /// It has ended, or its pid is another process's by now.
    #[error("look at the processes of container {id}: it does not run any more")]
    Ended {
        /// Which.
        id: ContainerId,
    },
    /// Files of the kernel cannot be read.
    #[error("look at the processes of container {id}")]
    Cgroup {
        /// Which.
        id: ContainerId,
        /// Why.
        source: contd_cgroup::CgroupError,
    },
    /// Its limits cannot be changed.
    #[error("change the limits of container {id}")]
    Limits {
        /// Which.
        id: ContainerId,
        /// Why.
        source: contd_cgroup::CgroupError,
    },
    /// This node does not look at processes.
    #[error("look at the processes of container {id}: this node has no meters")]
    None {
        /// Which.
        id: ContainerId,
    },
}

impl Explain for MeterError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Ended { .. } => ErrorKind::Conflict,
            Self::Cgroup { .. } => ErrorKind::Internal,
            Self::Limits { source: contd_cgroup::CgroupError::InUse { .. }, .. } => ErrorKind::Conflict,
            Self::Limits { .. } => ErrorKind::InvalidArgument,
            Self::None { .. } => ErrorKind::Unsupported,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Ended { id } => format!("see how it ended: contd inspect {id}"),
            Self::Cgroup { source, .. } | Self::Limits { source, .. } => source.hint().to_owned(),
            Self::None { .. } => "give the node `Parts::meters`".to_owned(),
        };
        Some(hint)
    }
}

/// Looks at running containers. Files of the kernel are read, which may take a millisecond each on a busy node: not on a thread
/// that serves others.
pub trait Meters: Send + Sync + Debug {
    /// Reads the figures of containers. One that has ended meanwhile, or cannot be read, is absent.
    fn read(&self, of: &[Metered]) -> Vec<Reading>;

    /// Lists the processes of a container by pid, zombies too.
    ///
    /// # Errors
    /// [`MeterError`].
    fn processes(&self, of: &Metered) -> Result<Vec<ProcessInfo>, MeterError>;

    /// Changes the limits of a container, from those in force. None below what is in use; all of them or none.
    ///
    /// # Errors
    /// [`MeterError`].
    fn limit(&self, of: &Metered, from: &CgroupLimits, to: &CgroupLimits) -> Result<(), MeterError>;

    /// Lets go of what is open of a container that has ended. Fine when nothing is.
    fn forget(&self, id: &ContainerId);
}

/// Looks at nothing: for a node without containers of its own to look at.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMeters;

impl Meters for NoMeters {
    fn read(&self, _of: &[Metered]) -> Vec<Reading> {
        Vec::new()
    }

    fn processes(&self, of: &Metered) -> Result<Vec<ProcessInfo>, MeterError> {
        Err(MeterError::None { id: of.id.clone() })
    }

    fn limit(&self, of: &Metered, _from: &CgroupLimits, _to: &CgroupLimits) -> Result<(), MeterError> {
        Err(MeterError::None { id: of.id.clone() })
    }

    fn forget(&self, _id: &ContainerId) {}
}
