//! The errors around a cgroup.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// An operation on a cgroup that failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The mounts could not be read.
    #[error("read where the cgroups are mounted")]
    Mounts {
        /// Why.
        source: io::Error,
    },
    /// No hierarchy is mounted.
    #[error("find the cgroups: none is mounted")]
    NoneMounted,
    /// The path is not an absolute path of plain names.
    #[error("use the cgroup path {}: it is not an absolute path of plain names", path.display())]
    Path {
        /// As given.
        path: PathBuf,
    },
    /// A limit needs a controller that no hierarchy has.
    #[error("limit the container: this node has no controller for it")]
    NoController {
        /// The limit's name in OCI's words.
        field: &'static str,
    },
    /// An operation on a file or directory failed.
    #[error("{verb} {}", path.display())]
    File {
        /// The operation.
        verb: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The name, in OCI's words, of the limit that it was for.
        field: Option<&'static str>,
        /// Why.
        source: io::Error,
    },
    /// A limit has a value that makes no sense.
    #[error("limit the container: {what}")]
    Value {
        /// The limit's name in OCI's words.
        field: &'static str,
        /// The error in the value.
        what: &'static str,
    },
    /// More is in use than a new limit allows.
    #[error("limit the container to {limit}: it uses {used}")]
    InUse {
        /// The limit's name in OCI's words.
        field: &'static str,
        /// The new limit, in bytes or processes.
        limit: u64,
        /// The amount in use.
        used: u64,
    },
    /// Processes are made faster than they can be moved.
    #[error("move the processes into {}: there are new ones after {rounds} rounds", path.display())]
    Restless {
        /// The directory.
        path: PathBuf,
        /// How often those were moved that there were.
        rounds: u32,
    },
    /// Processes are left in the cgroup.
    #[error("empty the cgroup {}: processes are left in it after {waited:?}", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// The time that was waited.
        waited: Duration,
    },
    /// The kernel did not freeze the cgroup in time.
    #[error("freeze the cgroup {}: it was not frozen after {waited:?}", path.display())]
    NotFrozen {
        /// The directory.
        path: PathBuf,
        /// The time that was waited.
        waited: Duration,
    },
}

impl CgroupError {
    /// Returns the name, in OCI's words, of the limit that the error is about.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::NoController { field } | Self::Value { field, .. } | Self::InUse { field, .. } => Some(field),
            Self::File { field, .. } => *field,
            _ => None,
        }
    }

    /// Returns the kernel's error number.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Mounts { source } | Self::File { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Returns the next step for a person.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Mounts { .. } => "/proc must be mounted",
            Self::NoneMounted => "mount cgroup v2 (or the v1 controllers) at /sys/fs/cgroup",
            Self::Path { .. } => "give an absolute path without `..`, such as /contd/<id>",
            Self::NoController { .. } => "mount or enable the controller, or remove the limit that is named",
            Self::File { field: Some(_), .. } | Self::Value { .. } => "correct the limit that is named",
            Self::InUse { .. } => "choose a limit above what it uses, or have it use less first",
            Self::Restless { .. } => "repeat it when it makes fewer processes, or pause it meanwhile",
            Self::File { .. } => "contd needs to write below /sys/fs/cgroup; see what is mounted there",
            Self::NotEmpty { .. } | Self::NotFrozen { .. } => {
                "see what its processes wait for (cat /proc/<pid>/stack): a hung disk or file system, mostly"
            }
        }
    }

    pub(crate) fn file(verb: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File { verb, path: path.into(), field: None, source }
    }
}
