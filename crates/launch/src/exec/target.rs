//! The init of a running container: looked at and entered by its pidfd, so that none of it can be of a later owner of its pid.

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

/// By the names that `/proc/<pid>/ns` has.
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
    /// Its directory in `/proc`: of this process for ever, and empty when it has ended.
    proc: OwnedFd,
}

/// Says that there is no container any more.
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
        // Negative once it was reaped, zero in a PID namespace that is not ours or below.
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
        // The directory belongs to whoever had the pid when it was opened: to init, if that lives even now.
        if init.is_alive() { Ok(init) } else { Err(ended()) }
    }

    fn is_alive(&self) -> bool {
        let mut ended = [PollFd::new(self.pidfd, PollFlags::POLLIN)];
        matches!(poll(&mut ended, PollTimeout::ZERO), Ok(0))
    }

    /// Makes of a step's failure that the container has ended, if it has.
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

    /// Demands that it is the init of this very container: in its cgroup, and the first of a PID namespace if it has one.
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
        // Its pid here, and one namespace below: of a container inside of the container there are more.
        let is_first = matches!(pids.split_whitespace().collect::<Vec<_>>().as_slice(), [_, "1"]);
        if has_own_pids && !is_first {
            let what = "exec in a container: the process that it was given is not the container's first";
            return Err(Fault::invalid("linux.namespaces", what));
        }
        Ok(())
    }

    /// Enters all namespaces that are not this process's already, in one step; returns which. With the mounts the working
    /// directory becomes the container's root.
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
        // A container without its own mounts does not exist; an init that has the host's is none.
        if differing & NEW_MOUNT == 0 {
            return Err(Fault::invalid("linux.namespaces", "the container's init is in our own mount namespace"));
        }
        sys::setns(self.pidfd, differing)
            .map_err(|error| self.failed("linux.namespaces", "enter the container's namespaces", &error))?;
        Ok(differing)
    }
}
