//! The resources that a node can run out of, as recognised by the system's errors.
//!
//! The [`crate::Explain`] of each error calls [`Shortage::behind`]: a failure for lack of a resource is
//! [`crate::ErrorKind::OutOfResources`], with a hint that names the limit. The path is in the error's own text.

use std::error::Error;
use std::io;

/// Linux's error numbers, which are the same on all machines that we build for; this crate needs `libc` for nothing
/// else.
mod errno {
    pub(super) const EAGAIN: i32 = 11;
    pub(super) const ENOMEM: i32 = 12;
    pub(super) const ENFILE: i32 = 23;
    pub(super) const EMFILE: i32 = 24;
    pub(super) const ENOSPC: i32 = 28;
    pub(super) const EDQUOT: i32 = 122;
}

/// The resource that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shortage {
    /// Space or inodes of a file system.
    Space,
    /// The quota of a user on a file system.
    Quota,
    /// Descriptors of one process.
    Descriptors,
    /// Open files of the whole node.
    OpenFiles,
    /// Processes and threads.
    Processes,
    /// Memory.
    Memory,
}

impl Shortage {
    /// Returns the shortage that an error reports. `EAGAIN` is none here: usually it means "not now"; see
    /// [`Self::of_spawn`].
    pub fn of(error: &io::Error) -> Option<Self> {
        Some(match (error.raw_os_error(), error.kind()) {
            (Some(errno::ENOSPC), _) | (None, io::ErrorKind::StorageFull) => Self::Space,
            (Some(errno::EDQUOT), _) | (None, io::ErrorKind::QuotaExceeded) => Self::Quota,
            (Some(errno::EMFILE), _) => Self::Descriptors,
            (Some(errno::ENFILE), _) => Self::OpenFiles,
            (Some(errno::ENOMEM), _) | (None, io::ErrorKind::OutOfMemory) => Self::Memory,
            _ => return None,
        })
    }

    /// Returns the shortage that kept a process or thread from being made: there, `EAGAIN` means that a limit on them
    /// is reached.
    pub fn of_spawn(error: &io::Error) -> Option<Self> {
        match error.raw_os_error() {
            Some(errno::EAGAIN) => Some(Self::Processes),
            _ => Self::of(error),
        }
    }

    /// Returns the shortage in an error's chain of sources, itself included.
    pub fn behind(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut all = std::iter::once(error).chain(crate::error::causes(error));
        all.find_map(|error| error.downcast_ref::<io::Error>().and_then(Self::of))
    }

    /// Returns a hint that names the limit and the next step.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Space => "free space (or inodes) on the file system of the path that is named, then repeat",
            Self::Quota => "free space or raise the quota on the file system of the path that is named, then repeat",
            Self::Descriptors => {
                "contd has reached its limit of open files: raise it (RLIMIT_NOFILE, systemd's LimitNOFILE), or delete containers"
            }
            Self::OpenFiles => "the node has reached its limit of open files: raise fs.file-max, or end programs",
            Self::Processes => {
                "a limit of processes is reached: kernel.pid_max, RLIMIT_NPROC, or the pids limit of contd's cgroup \
                 (systemd's TasksMax): raise it, or end programs"
            }
            Self::Memory => "free memory on this node, or raise the memory limit of contd's cgroup, then repeat",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("write the book")]
    struct Outer {
        source: io::Error,
    }

    #[test]
    fn each_error_number_is_its_shortage_however_deep_it_lies() {
        for (number, expected) in [
            (28, Some(Shortage::Space)),
            (122, Some(Shortage::Quota)),
            (24, Some(Shortage::Descriptors)),
            (23, Some(Shortage::OpenFiles)),
            (12, Some(Shortage::Memory)),
            (11, None),
            (2, None),
        ] {
            let source = io::Error::from_raw_os_error(number);
            assert_eq!(Shortage::of(&source), expected);
            assert_eq!(Shortage::behind(&Outer { source }), expected);
        }
        assert_eq!(Shortage::of(&io::ErrorKind::StorageFull.into()), Some(Shortage::Space));
    }

    #[test]
    fn a_process_that_cannot_be_made_meets_a_limit_of_processes() {
        let refused = io::Error::from_raw_os_error(11);
        assert_eq!(Shortage::of_spawn(&refused), Some(Shortage::Processes));
        assert_eq!(Shortage::of_spawn(&io::Error::from_raw_os_error(12)), Some(Shortage::Memory));
    }
}
