//! The reason why a container could not be launched; one type for init, the launcher and its caller.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// The kind of reason; decides the exit code and the API's error kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// A field has a value that cannot be honoured.
    Invalid,
    /// A field that the launcher does not implement.
    Unsupported,
    /// The entrypoint does not exist: exit code 127.
    NotFound,
    /// The entrypoint exists and cannot be executed: exit code 126.
    NotExecutable,
    /// The node lacks memory, processes, descriptors or space.
    OutOfResources,
    /// The kernel refused a step.
    Kernel,
}

/// A failed step: the field, the step, and the kernel's error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The kind of reason.
    pub kind: FaultKind,
    /// The field of `config.json`, such as `linux.resources.pids.limit` or `mounts[3].destination`; empty when there is
    /// none.
    pub field: String,
    /// The step, and its object.
    pub what: String,
    /// The kernel's error number.
    pub errno: Option<i32>,
}

impl Fault {
    /// Returns the fault of a field whose value cannot be honoured.
    pub fn invalid(field: impl Into<String>, what: impl Into<String>) -> Self {
        Self { kind: FaultKind::Invalid, field: field.into(), what: what.into(), errno: None }
    }

    /// Returns the fault of a field that the launcher does not implement.
    pub fn unsupported(field: impl Into<String>) -> Self {
        let what = "the native runtime does not implement this".to_owned();
        Self { kind: FaultKind::Unsupported, field: field.into(), what, errno: None }
    }

    /// Returns the fault of a step that the kernel refused.
    pub fn kernel(field: impl Into<String>, what: impl Into<String>, error: &io::Error) -> Self {
        let errno = error.raw_os_error();
        let kind = match errno {
            Some(libc::ENOMEM | libc::EAGAIN | libc::ENOSPC | libc::EMFILE | libc::ENFILE | libc::EDQUOT) => {
                FaultKind::OutOfResources
            }
            _ => FaultKind::Kernel,
        };
        let what = if errno.is_some() { what.into() } else { format!("{}: {error}", what.into()) };
        Self { kind, field: field.into(), what, errno }
    }

    /// Returns the fault with another kind.
    #[must_use]
    pub fn of_kind(mut self, kind: FaultKind) -> Self {
        self.kind = kind;
        self
    }

    /// Returns the exit code that a shell would give: 127, 126, or 125 when the entrypoint is not at fault.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            FaultKind::NotFound => 127,
            FaultKind::NotExecutable => 126,
            _ => 125,
        }
    }

    /// Returns the next step for a person.
    pub fn hint(&self) -> &'static str {
        match self.kind {
            FaultKind::Invalid => "correct the field that is named",
            FaultKind::Unsupported => "remove the field, or choose an OCI runtime such as runc for this container",
            FaultKind::NotFound => {
                "give a command that exists in the root file system, with its full path or in its PATH"
            }
            FaultKind::NotExecutable => "the command must be a file with execute permission, built for this machine",
            FaultKind::OutOfResources => match self.errno {
                Some(libc::EAGAIN) => {
                    "a limit of processes is reached: kernel.pid_max, RLIMIT_NPROC, or a pids limit of a cgroup: raise it, or \
                     end programs"
                }
                Some(libc::EMFILE | libc::ENFILE) => "a limit of open files is reached: raise it, or end programs",
                Some(libc::ENOMEM) => {
                    "free memory on this node, or raise the memory limit of contd's cgroup, then repeat"
                }
                _ => "free the resource that is named on this node, then repeat",
            },
            FaultKind::Kernel => "see what the kernel says above; the kernel log may say more",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.what)?;
        match self.errno {
            Some(errno) => write!(f, ": {}", io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}
