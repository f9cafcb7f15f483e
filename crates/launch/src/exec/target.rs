//! The init of a running container, examined and entered by its pidfd, so that a reused pid cannot stand in for it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use contd_cgroup::{Cgroup, Hierarchies};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;

use crate::config::Linux;
use crate::fault::Fault;
use crate::prepare::namespaces::{NEW_CGROUP, NEW_IPC, NEW_MOUNT, NEW_NET, NEW_PID, NEW_USER, NEW_UTS};
use crate::sys;

/// The names in `/proc/<pid>/ns`, with their `CLONE_NEW*`.
const KINDS: [(&str, u64); 7] = [
    ("user", NEW_USER),
    ("mnt", NEW_MOUNT),
    ("uts", NEW_UTS),
    ("ipc", NEW_IPC),
    ("pid", NEW_PID),
    ("net", NEW_NET),
    ("cgroup", NEW_CGROUP),
];

/// The first process of a running container.
pub(super) struct Init<'a> {
    pidfd: BorrowedFd<'a>,
    /// The init's directory in `/proc`: it never shows another process, and is empty when init has ended.
    proc: OwnedFd,
}

/// Returns the fault that the container has ended.
pub(super) fn ended() -> Fault {
    Fault::kernel("", "exec in a container: it has ended", &io::Error::from_raw_os_error(libc::ESRCH))
}

impl<'a> Init<'a> {
    /// Finds the process of a pidfd.
    pub(super) fn open(pidfd: BorrowedFd<'a>) -> Result<Self, Fault> {
        let failed = |error: &io::Error| Fault::kernel("", "look at the container's init", error);
        let text =
            fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).map_err(|error| failed(&error))?;
        let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i32>().ok());
        let pid = pid.ok_or_else(|| Fault::invalid("", "exec in a container: what it was given is no pidfd"))?;
        // The pid is negative once the process was reaped, and zero in a PID namespace that is not ours or below ours.
        if pid <= 0 {
            return Err(ended());
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let proc = match open(format!("/proc/{pid}").as_str(), flags, Mode::empty()) {
            Ok(proc) => proc,
            Err(Errno::ENOENT | Errno::ESRCH) => return Err(ended()),
            Err(errno) => return Err(failed(&errno.into())),
        };
        let init = Self { pidfd, proc };
        // The directory shows the process that had the pid when it was opened: that is init, if init is still alive.
        if init.is_alive() { Ok(init) } else { Err(ended()) }
    }

    fn is_alive(&self) -> bool {
        let mut ended = [PollFd::new(self.pidfd, PollFlags::POLLIN)];
        matches!(poll(&mut ended, PollTimeout::ZERO), Ok(0))
    }

    /// Returns the fault of a failed step: that the container has ended, if it has.
    fn failed(&self, field: &str, what: impl Into<String>, error: &io::Error) -> Fault {
        if self.is_alive() { Fault::kernel(field, what, error) } else { ended() }
    }

    fn read(&self, name: &str) -> Result<String, Fault> {
        let read = || {
            let file = openat(self.proc.as_fd(), name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
            let mut text = String::new();
            File::from(file).read_to_string(&mut text).map(|_| text)
        };
        read().map_err(|error| self.failed("", format!("read {name} of the container's init"), &error))
    }

    /// Checks that the process is the init of this container: in its cgroup, and the first of a PID namespace if the
    /// container has one.
    pub(super) fn check(&self, cgroup: &Cgroup, hierarchies: &Hierarchies, linux: &Linux) -> Result<(), Fault> {
        let memberships = self.read("cgroup")?;
        if !cgroup.holds(hierarchies, &memberships) {
            let what = "exec in a container: the process that it was given is in another cgroup than the container";
            return Err(if self.is_alive() { Fault::invalid("linux.cgroupsPath", what) } else { ended() });
        }
        let mut namespaces = linux.namespaces.iter().flatten();
        let has_own_pids =
            namespaces.any(|one| one.kind == "pid" && one.path.as_ref().is_none_or(|path| path.as_os_str().is_empty()));
        let status = self.read("status")?;
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        // Exactly two pids: ours and that of one namespace below. The init of a container inside the container has
        // more.
        let is_first = matches!(pids.split_whitespace().collect::<Vec<_>>().as_slice(), [_, "1"]);
        if has_own_pids && !is_first {
            let what = "exec in a container: the process that it was given is not the container's first";
            return Err(Fault::invalid("linux.namespaces", what));
        }
        Ok(())
    }

    /// Enters all namespaces of the container that this process is not in yet, in one step; returns which. Entering the
    /// mount namespace sets the working directory to the container's root.
    pub(super) fn join_namespaces(&self) -> Result<u64, Fault> {
        let mut differing = 0;
        for (name, flag) in KINDS {
            let path = format!("ns/{name}");
            let own = fs::read_link(format!("/proc/self/{path}"));
            let own = own.map_err(|error| Fault::kernel("linux.namespaces", format!("read our own {path}"), &error))?;
            let theirs = readlinkat(self.proc.as_fd(), path.as_str());
            let what = || format!("read {path} of the container's init");
            let theirs = theirs.map_err(|errno| self.failed("linux.namespaces", what(), &errno.into()))?;
            if own.as_os_str() != theirs {
                differing |= flag;
            }
        }
        // Every container has its own mount namespace; an init in the host's is not one of ours.
        if differing & NEW_MOUNT == 0 {
            return Err(Fault::invalid("linux.namespaces", "the container's init is in our own mount namespace"));
        }
        sys::setns(self.pidfd, differing)
            .map_err(|error| self.failed("linux.namespaces", "enter the container's namespaces", &error))?;
        Ok(differing)
    }
}
