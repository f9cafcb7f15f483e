//! The container's init: found by the pid that the runtime tells, from then on known by its pidfd only.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use contd_cgroup::{CgroupError, Hierarchies, TaskCgroup};
use contd_lease::ProcessIdentity;
use contd_protocol::shim::InitRecord;
use contd_types::Pid;
use serde::{Deserialize, Serialize};

use crate::process::{Process, ProcessLost};

/// Why the container's init could not be taken on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    /// Its process.
    #[error("take on init")]
    Process {
        /// Why.
        #[from]
        source: ProcessLost,
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

/// `init.json`: what a successor needs to know, and what the daemon reads of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredInit {
    /// Its identity.
    #[serde(flatten)]
    pub(crate) record: InitRecord,
    /// Where it lives; its process cannot be asked any more once it has ended.
    #[serde(default)]
    pub(crate) cgroup: TaskCgroup,
}

impl StoredInit {
    /// Tells which process it is.
    pub(crate) fn identity(&self) -> ProcessIdentity {
        ProcessIdentity { pid: self.record.pid.0, start_ticks: self.record.start_ticks }
    }
}

/// A container's init, alive or not yet reaped.
#[derive(Debug)]
pub(crate) struct Init {
    process: Process,
    cgroup: TaskCgroup,
    /// The program that it executed when it was taken on: the runtime's own.
    program: Option<PathBuf>,
}

impl Init {
    /// Takes on the process with this pid, which must be our child.
    pub(crate) fn adopt(pid: i32, hierarchies: &Hierarchies) -> Result<Self, InitError> {
        let process = Process::adopt(pid)?;
        let cgroup = hierarchies.of_process(pid).map_err(|source| InitError::Cgroup { pid, source })?;
        Ok(Self { process, cgroup, program: program_of(pid) })
    }

    /// Takes on what a predecessor has written down: [`Process::take_over`].
    pub(crate) fn take_over(
        stored: &StoredInit,
        kept: Option<OwnedFd>,
        run_dir: &Path,
    ) -> Result<Option<Self>, InitError> {
        let process = Process::take_over(stored.identity(), kept, run_dir)?;
        Ok(process.map(|process| Self { process, cgroup: stored.cgroup.clone(), program: None }))
    }

    /// Returns its process.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Returns its process, to ask for its end.
    pub(crate) fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Returns its pid.
    pub(crate) fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Returns what is written down about it.
    pub(crate) fn record(&self, is_started: bool) -> StoredInit {
        let ProcessIdentity { pid, start_ticks } = self.process.identity();
        let record = InitRecord { pid: Pid(pid), start_ticks, is_started };
        StoredInit { record, cgroup: self.cgroup.clone() }
    }

    /// Tells whether it executes another program than when it was taken on; also when that cannot be told.
    pub(crate) fn has_become_another(&self) -> bool {
        self.program.is_none() || program_of(self.pid().0) != self.program
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
