//! A warm slot: all that a shim and the native runtime can do before there is a container, and the wait for one.
//!
//! On its leash (standard input) one byte says that the task file is there. The end of the leash before that is the end
//! of the daemon, or of its use for the slot: then nothing of it stays. SIGTERM is as good: nobody uses a slot.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use contd_cgroup::CgroupError;
use contd_durable::{Fs, RealFs};
use contd_launch::launcher::Settings;
use contd_protocol::shim::{RuntimeSpec, SLOT_SPEC_VERSION, SlotSpec, TaskSpec, files};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use crate::runtime::native::NativeRuntime;

/// A slot is a few paths.
const MAX_SLOT_BYTES: u64 = 64 * 1024;

/// Why a slot did not come up, or cannot take its task.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SlotError {
    /// Its file could not be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a slot of another version.
    #[error("read {}: version {found}, this shim knows {SLOT_SPEC_VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in it.
        found: u32,
    },
    /// The launcher could not be forked.
    #[error("fork the launcher of a warm slot")]
    WarmUp {
        /// Why.
        source: io::Error,
    },
    /// The leash could not be read.
    #[error("wait for a task")]
    Wait {
        /// Why.
        source: io::Error,
    },
    /// The launcher gave up before there was a task.
    #[error("wait for a task: the launcher has ended")]
    LauncherEnded,
    /// The task is another container's, or wants another runtime.
    #[error("take up task {task}: this slot is for container {slot} and the native runtime")]
    Foreign {
        /// The slot's container.
        slot: String,
        /// The task's.
        task: String,
    },
    /// The slot's cgroup could not be removed.
    #[error("remove what the slot has made")]
    CoolDown {
        /// Why.
        source: CgroupError,
    },
}

/// The word of the leash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// There is a task.
    Task,
    /// There will be none.
    End,
}

/// Reads the slot of a lease directory.
pub(crate) fn read(dir: &Path) -> Result<SlotSpec, SlotError> {
    let path = dir.join(files::SLOT);
    let spec = RealFs.read(&path, MAX_SLOT_BYTES).and_then(|bytes| Ok(serde_json::from_slice::<SlotSpec>(&bytes)?));
    match spec {
        Ok(spec) if spec.version == SLOT_SPEC_VERSION => Ok(spec),
        Ok(spec) => Err(SlotError::Version { path, found: spec.version }),
        Err(source) => Err(SlotError::Read { path, source }),
    }
}

/// Returns what the launcher must know.
pub(crate) fn settings(spec: &SlotSpec) -> Settings {
    Settings { cgroup: spec.cgroup.clone(), filters: spec.filters.clone(), compiler: spec.compiler.clone() }
}

/// Takes what standard input is, the leash or a pidfd, before it becomes `/dev/null`.
pub(crate) fn take_stdin() -> io::Result<OwnedFd> {
    io::stdin().as_fd().try_clone_to_owned()
}

/// Waits for the leash's word, for SIGTERM, or for the launcher to give up.
pub(crate) fn wait(leash: OwnedFd, signals: &SignalFd, runtime: &NativeRuntime) -> Result<Word, SlotError> {
    let input = PollFlags::POLLIN;
    let is_over = |fd: &PollFd<'_>| fd.revents().is_some_and(|ready| !ready.is_empty());
    loop {
        let mut fds = vec![PollFd::new(leash.as_fd(), input), PollFd::new(signals.as_fd(), input)];
        fds.extend(runtime.warm_fd().map(|fd| PollFd::new(fd, input)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(SlotError::Wait { source: errno.into() }),
        }
        // The word first: a task that was given is made, whatever else has come.
        if fds.first().is_some_and(is_over) {
            break;
        }
        if fds.get(1).is_some_and(is_over) && is_told_to_end(signals)? {
            return Ok(Word::End);
        }
        if fds.get(2).is_some_and(is_over) {
            return Err(SlotError::LauncherEnded);
        }
    }
    match File::from(leash).read(&mut [0]) {
        Ok(0) => Ok(Word::End),
        Ok(_) => Ok(Word::Task),
        Err(source) => Err(SlotError::Wait { source }),
    }
}

/// Takes the signals that have come. SIGCHLD is for whoever waits for the child.
fn is_told_to_end(signals: &SignalFd) -> Result<bool, SlotError> {
    let mut is_told = false;
    while let Some(info) = signals.read_signal().map_err(|errno| SlotError::Wait { source: errno.into() })? {
        is_told |= i32::try_from(info.ssi_signo) == Ok(nix::libc::SIGTERM);
    }
    Ok(is_told)
}

/// Refuses a task that the slot was not made for.
pub(crate) fn check(spec: &SlotSpec, task: &TaskSpec) -> Result<(), SlotError> {
    let SlotSpec { cgroup, filters, compiler, .. } = spec.clone();
    if task.id == spec.id && task.runtime == (RuntimeSpec::Native { cgroup, filters, compiler }) {
        Ok(())
    } else {
        Err(SlotError::Foreign { slot: spec.id.to_string(), task: task.id.to_string() })
    }
}
