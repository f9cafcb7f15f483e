//! The content of `lease.json`.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::process::{BootId, ProcessError, ProcessIdentity, pidfd};

/// The version of the lease format that this code writes, and the newest that it reads.
pub const LEASE_VERSION: u32 = 1;

/// The description of a process that outlives the daemon. Unknown fields are ignored when read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The version of this format.
    pub version: u32,
    /// The boot in which it was written.
    pub boot_id: String,
    /// The process, once it has claimed the lease.
    pub process: Option<ProcessIdentity>,
    /// Where it listens.
    pub socket: PathBuf,
    /// The version of its program; empty until it has claimed the lease.
    pub binary_version: String,
    /// The container or flist that the process serves, for example `<namespace>/<id>`.
    pub owner: String,
}

impl Lease {
    /// Opens a pidfd of the process that holds the lease, after boot id, pid and start time have all been compared.
    ///
    /// # Errors
    /// [`ProcessError`] when it cannot be known.
    pub fn pidfd(&self) -> Result<Option<OwnedFd>, ProcessError> {
        match &self.process {
            Some(process) if BootId::current()?.as_str() == self.boot_id => pidfd(process),
            _ => Ok(None),
        }
    }
}
