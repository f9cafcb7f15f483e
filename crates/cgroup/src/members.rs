//! The processes in a cgroup: lists them, signals them, waits for their end.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use contd_descriptors::pidfd;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cgroup::read;
use crate::clock;
use crate::error::CgroupError;

/// The most rounds of killing, for a container that forks faster than we read.
const MAX_KILL_ROUNDS: usize = 64;

/// Returns the processes of a directory; none when the directory does not exist.
pub(crate) fn pids(dir: &Path) -> Result<Vec<i32>, CgroupError> {
    match read(&dir.join("cgroup.procs")) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(CgroupError::File { source, .. }) if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Sends a signal to each process of a directory. SIGKILL is repeated until no new process is found, because they may
/// fork meanwhile.
pub(crate) fn signal_all(dir: &Path, signal: i32) -> Result<(), CgroupError> {
    let mut done = BTreeSet::new();
    for _ in 0..MAX_KILL_ROUNDS {
        let mut is_complete = true;
        for pid in pids(dir)? {
            if done.insert(pid) {
                is_complete = false;
                signal_member(dir, pid, signal)?;
            }
        }
        if is_complete || signal != libc::SIGKILL {
            break;
        }
    }
    Ok(())
}

/// Signals by pidfd, and only after the process behind the pidfd was seen in the cgroup: the pid may have been reused.
fn signal_member(dir: &Path, pid: i32, signal: i32) -> Result<(), CgroupError> {
    let gone_is_fine = |error: io::Error| match error.raw_os_error() {
        Some(libc::ESRCH) => Ok(()),
        _ => Err(CgroupError::file("signal a process in", dir, error)),
    };
    match pidfd::open(pid) {
        Ok(process) if pids(dir)?.contains(&pid) => pidfd::send_signal(process, signal).or_else(gone_is_fine),
        Ok(_another) => Ok(()),
        Err(error) => gone_is_fine(error),
    }
}

/// Waits until a v2 events file has a line; `false` at the deadline. The kernel announces every change of the file.
pub(crate) fn await_event(file: &Path, line: &str, deadline: Instant) -> Result<bool, CgroupError> {
    let failed = |source| CgroupError::file("watch", file, source);
    let mut events = match File::open(file) {
        Ok(events) => events,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(failed(error)),
    };
    loop {
        let mut text = String::new();
        match events.seek(SeekFrom::Start(0)).and_then(|_| events.read_to_string(&mut text)) {
            Ok(_) => {}
            // The cgroup was removed meanwhile, so it was empty.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(true),
            Err(error) => return Err(failed(error)),
        }
        if text.lines().any(|known| known == line) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(clock::monotonic());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
}
