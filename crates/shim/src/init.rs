//! The container's init: found by the pid that the runtime tells, from then on known by its pidfd only.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use contd_cgroup::{CgroupError, Hierarchies, TaskCgroup};
use contd_lease::{ProcessError, ProcessIdentity};
use contd_protocol::shim::InitRecord;
use contd_types::{Pid, Signal};

use crate::reaper;
use crate::sys::{self, ChildStatus};

/// Why the container's init could not be taken on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    /// No pidfd.
    #[error("open a pidfd of init {pid}")]
    Open {
        /// The pid that the runtime told.
        pid: i32,
        /// Why.
        source: io::Error,
    },
    /// It is somebody else's.
    #[error("take on init {pid}: it is not our child")]
    NotOurs {
        /// The pid that the runtime told.
        pid: i32,
    },
    /// Its cgroup is not known.
    #[error("find the cgroup of init {pid}")]
    Cgroup {
        /// The pid that the runtime told.
        pid: i32,
        /// Why.
        source: CgroupError,
    },
}

/// A container's init, alive or not yet reaped.
#[derive(Debug)]
pub(crate) struct Init {
    identity: ProcessIdentity,
    pidfd: OwnedFd,
    cgroup: TaskCgroup,
    /// What it executed when it was taken on: the runtime's own program.
    program: Option<PathBuf>,
}

impl Init {
    /// Takes on the process with this pid, which must be our child: until we reap it, its pid is certainly its own.
    pub(crate) fn adopt(pid: i32, hierarchies: &Hierarchies) -> Result<Self, InitError> {
        let (identity, pidfd) = reaper::pidfd_of(pid).map_err(|source| InitError::Open { pid, source })?;
        if !sys::is_child(pidfd.as_fd()).map_err(|source| InitError::Open { pid, source })? {
            return Err(InitError::NotOurs { pid });
        }
        let cgroup = hierarchies.of_process(pid).map_err(|source| InitError::Cgroup { pid, source })?;
        Ok(Self { identity, pidfd, cgroup, program: program_of(pid) })
    }

    /// Returns its pid.
    pub(crate) fn pid(&self) -> Pid {
        Pid(self.identity.pid)
    }

    /// Returns what is written down about it.
    pub(crate) fn record(&self, is_started: bool) -> InitRecord {
        InitRecord { pid: self.pid(), start_ticks: self.identity.start_ticks, is_started }
    }

    /// Returns the descriptor that becomes readable when it has ended.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Takes its status once it has ended; `None` while it lives.
    pub(crate) fn reap(&self) -> io::Result<Option<ChildStatus>> {
        sys::reap(self.pidfd.as_fd())
    }

    /// Sends a signal to it alone. It is fine when it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        contd_lease::signal(&self.pidfd, signal.number()).map(|_is_alive| ())
    }

    /// Tells whether it executes another program than when it was taken on; also when that cannot be told.
    pub(crate) fn has_become_another(&self) -> bool {
        self.program.is_none() || program_of(self.identity.pid) != self.program
    }

    /// Returns its cgroup.
    pub(crate) fn cgroup(&self) -> &TaskCgroup {
        &self.cgroup
    }
}

/// Reads what a child of ours executes; it is not reaped yet, so its pid is its own. A zombie executes nothing.
fn program_of(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}
