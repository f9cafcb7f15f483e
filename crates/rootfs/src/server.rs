//! One flist's server: its directory, whether it serves, and its end.
//!
//! ```text
//! Nothing ──reserve──► starting ──► Serving ──killed with its keeper──► Dead ─┐
//!                                      │ the last user goes                   │ and its users
//!                                      └──► Ending: detached, killed, removed ◄┘
//! ```
//! An end waits for nobody: the file `ending` says that the directory is used no more, the mount is detached here, the
//! processes are killed, which closes `/dev/fuse` and fails all requests, and removing the mount point takes the mount out
//! of all other mount namespaces (Linux 3.18). What resists is left for a later sweep; meanwhile a new server has another
//! directory, and with it another mount point.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use contd_durable::{Fs, RealFs};
use contd_lease::{Lease, LeaseDir, LeaseError, LeaseState, ProcessIdentity, ProcessLog, pidfd, signal, wait_dead};
use contd_protocol::flistfs::{ENDING_FILE, LAST_WORDS_FILE, LOG_FILE, Process, SERVER_FILE, Status};
use contd_types::{ApiError, ErrorKind};
use nix::libc::SIGKILL;
use tracing::{debug, info};

use crate::client::{self, ANSWER_TIMEOUT, ClientError};
use crate::detach::{MountPoint, detach, remove_mount_point};
use crate::mount_table::is_mount_point;
use crate::provider::RootfsError;
use crate::users::{self, disk};

/// How long a server that does not listen is watched: so often, each time so long.
const MAX_LOOKS: u32 = 100;
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// How often those who serve are killed: each may have been replaced just before it was told not to be.
const MAX_KILL_ROUNDS: u32 = 100;
const KILL_PAUSE: Duration = Duration::from_millis(10);

/// How long a killed process is waited for. One that waits in the kernel for a disk is left to the next sweep.
const KILLED_TIMEOUT: Duration = Duration::from_secs(2);

/// A process is two numbers; an error some lines.
const MAX_SERVER_BYTES: u64 = 1024;
const MAX_WORDS_BYTES: u64 = 64 * 1024;

/// One server's directory.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) lease: LeaseDir,
    pub(crate) mount_point: PathBuf,
    pub(crate) socket: PathBuf,
    /// How errors name it.
    pub(crate) flist: String,
}

/// The state of a server.
pub(crate) enum Found {
    /// None was ever started, or not to the end.
    Nothing,
    /// It ended without being asked.
    Dead,
    /// It is told to end, or has ended and something of it could not be removed yet.
    Ending,
    /// It answers.
    Serving(Status),
}

impl Server {
    /// Names the server of a directory.
    pub(crate) fn at(dir: PathBuf, shown: &str) -> Self {
        Self {
            mount_point: dir.join("mnt"),
            socket: dir.join("sock"),
            lease: LeaseDir::new(dir),
            flist: shown.to_owned(),
        }
    }

    /// Finds out whether it serves; waits for one that is just coming or going by itself.
    pub(crate) fn look(&self) -> Result<Found, RootfsError> {
        for _ in 0..MAX_LOOKS {
            if self.is_ending() {
                return Ok(Found::Ending);
            }
            let lease = match self.lease.probe().map_err(|error| self.lease_failed(&error))? {
                LeaseState::Absent | LeaseState::Reserved => return Ok(Found::Nothing),
                LeaseState::Dead(_) | LeaseState::OtherBoot(_) => return Ok(Found::Dead),
                LeaseState::Held(lease) => lease,
            };
            match client::status(&self.socket) {
                Ok(status) => return Ok(Found::Serving(status)),
                // It is about to listen, or about to end.
                Err(error) if error.is_nobody_there() || error.is_hang_up() => {
                    if self.wait_for_end(&lease, LOOK_PAUSE)? {
                        // Its keeper is dead, and another one on its way.
                        thread::park_timeout(KILL_PAUSE);
                    }
                }
                Err(error) => return Err(self.call_failed(&error)),
            }
        }
        Err(RootfsError::ServerSilent { flist: self.flist.clone(), waited: LOOK_PAUSE * MAX_LOOKS })
    }

    /// Tells whether its flist is mounted where it should be; a person may have unmounted it.
    pub(crate) fn is_mounted(&self) -> Result<bool, RootfsError> {
        is_mount_point(&self.mount_point)
    }

    /// Tells whether it is told to end. Whoever notes a user looks afterwards: whoever ends it looks for users after that
    /// word, so one of the two sees the other.
    pub(crate) fn is_ending(&self) -> bool {
        self.lease.path().join(ENDING_FILE).symlink_metadata().is_ok()
    }

    /// From here on nobody takes it for a new container, and no process starts another one in the directory.
    pub(crate) fn leave_word_of_the_end(&self) -> Result<(), RootfsError> {
        let path = self.lease.path().join(ENDING_FILE);
        match RealFs.write_new(&path, b"", 0o600) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => Ok(()),
            written => written.map_err(|source| disk("write", &path, source)),
        }
    }

    /// Takes that word back: somebody has begun to use it in the same moment.
    pub(crate) fn take_word_back(&self) -> Result<(), RootfsError> {
        let path = self.lease.path().join(ENDING_FILE);
        match RealFs.remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|source| disk("remove", &path, source)),
        }
    }

    /// Ends all its processes and removes all that is left. The word of the end is left already.
    ///
    /// # Errors
    /// [`RootfsError`] when something resists: a process that does not die, or a mount point that is covered by a copy of
    /// the mount in our own namespace. Repeating goes on where it ended.
    pub(crate) fn end(&self) -> Result<(), RootfsError> {
        detach(&self.mount_point)?;
        for _ in 0..MAX_KILL_ROUNDS {
            let LeaseState::Held(lease) = self.lease.probe().map_err(|error| self.lease_failed(&error))? else {
                self.retire()?;
                info!(flist = %self.flist, "flist server ended with its last user");
                return Ok(());
            };
            // The keeper, the process that serves, and whoever has just taken the place of either.
            let mut killed = Vec::new();
            for process in lease.process.into_iter().chain(self.serving()) {
                let fd = pidfd(&process).map_err(|error| self.process_failed(&error))?;
                killed.extend(fd);
            }
            for fd in &killed {
                signal(fd, SIGKILL).map_err(|error| self.process_failed(&error))?;
            }
            for fd in &killed {
                if !wait_dead(fd, KILLED_TIMEOUT).map_err(|error| self.process_failed(&error))? {
                    return Err(RootfsError::ServerSilent { flist: self.flist.clone(), waited: KILLED_TIMEOUT });
                }
            }
            if killed.is_empty() {
                thread::park_timeout(KILL_PAUSE);
            }
        }
        Err(RootfsError::Successor { flist: self.flist.clone(), waited: KILL_PAUSE * MAX_KILL_ROUNDS })
    }

    /// Tells why nobody serves any more, if the last one could say.
    pub(crate) fn last_words(&self) -> ApiError {
        let text = RealFs.read(&self.lease.path().join(LAST_WORDS_FILE), MAX_WORDS_BYTES);
        text.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_else(|| {
            ApiError::new(ErrorKind::Unavailable, "the flist server and its keeper were both killed")
                .with_hint("stop and start the containers of this flist")
        })
    }

    /// Carries new lines of the server's log over into the daemon's.
    pub(crate) fn tell_the_log(&self) {
        match ProcessLog::new(self.lease.path(), LOG_FILE).new_lines() {
            Ok(lines) => lines.iter().for_each(|line| info!(flist = %self.flist, "flistfs: {line}")),
            Err(error) => debug!(flist = %self.flist, %error, "flist server log not read"),
        }
    }

    /// Tells whether nobody, or only this container, is noted as its user.
    pub(crate) fn is_unused_but_by(&self, leaving: Option<&users::User>) -> Result<bool, RootfsError> {
        Ok(users::list(self.lease.path())?.iter().all(|user| Some(user) == leaving))
    }

    /// Moves its processes into a cgroup. The keeper first: a process that takes the place of the one that serves starts there.
    pub(crate) fn take_in(&self, cgroup: &Path) -> Result<(), RootfsError> {
        let LeaseState::Held(lease) = self.lease.probe().map_err(|error| self.lease_failed(&error))? else {
            return Ok(());
        };
        for process in lease.process.into_iter().chain(self.serving()) {
            // Looked for by its start time too: a pid may be another process's by now.
            if pidfd(&process).map_err(|error| self.process_failed(&error))?.is_some() {
                contd_cgroup::Cgroup::take_in(cgroup, process.pid).map_err(|error| {
                    let source = ApiError::flatten(ErrorKind::Internal, &error, error.hint());
                    RootfsError::Server { flist: self.flist.clone(), source }
                })?;
            }
        }
        Ok(())
    }

    /// The process that serves, as it has written itself down.
    fn serving(&self) -> Option<ProcessIdentity> {
        let text = RealFs.read(&self.lease.path().join(SERVER_FILE), MAX_SERVER_BYTES).ok()?;
        let process: Process = serde_json::from_slice(&text).ok()?;
        Some(ProcessIdentity { pid: process.pid, start_ticks: process.start_ticks })
    }

    /// Removes the directory. Removing the mount point takes the mount out of all other mount namespaces, and with it what
    /// keeps the file system alive there.
    fn retire(&self) -> Result<(), RootfsError> {
        self.tell_the_log();
        match remove_mount_point(&self.mount_point)? {
            MountPoint::Gone => self.lease.retire().map_err(|error| self.lease_failed(&error)),
            MountPoint::Covered => Err(RootfsError::Covered { path: self.mount_point.clone() }),
        }
    }

    /// Waits until the process has ended; `false` when it lives on.
    fn wait_for_end(&self, lease: &Lease, timeout: Duration) -> Result<bool, RootfsError> {
        let failed = |error: contd_lease::ProcessError| self.process_failed(&error);
        match lease.pidfd().map_err(failed)? {
            Some(pidfd) => wait_dead(&pidfd, timeout).map_err(failed),
            None => Ok(true),
        }
    }

    fn process_failed(&self, error: &contd_lease::ProcessError) -> RootfsError {
        let source = ApiError::flatten(ErrorKind::Internal, error, error.hint());
        RootfsError::Server { flist: self.flist.clone(), source }
    }

    pub(crate) fn lease_failed(&self, error: &LeaseError) -> RootfsError {
        let kind = if matches!(error, LeaseError::Held { .. }) { ErrorKind::Busy } else { ErrorKind::Internal };
        RootfsError::Server { flist: self.flist.clone(), source: ApiError::flatten(kind, error, error.hint()) }
    }

    fn call_failed(&self, error: &ClientError) -> RootfsError {
        if error.is_silence() {
            return RootfsError::ServerSilent { flist: self.flist.clone(), waited: ANSWER_TIMEOUT };
        }
        RootfsError::Server { flist: self.flist.clone(), source: ApiError::from_error(error) }
    }
}
