//! The service manager, where there is one: systemd, or any other that speaks `sd_notify(3)` and `sd_listen_fds(3)`.
//!
//! A stored descriptor comes back at every start of the service until it is removed. It is stored with `FDPOLL=0`: systemd
//! would otherwise drop a pidfd or a pipe at the very moment when it counts, which is when the other end has gone.
//!
//! ```text
//!  process ── FDSTORE=1 ──► service manager ── LISTEN_FDS ──► the next process of the service
//! ```
#![deny(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use contd_descriptors::{Named, RightsError};
use sd_notify::NotifyState;

/// How long a message may wait for the manager: it reads within microseconds, and nothing of ours depends on it.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// The variable that names the manager's socket.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// Why the service manager could not be told, or what it passed not be taken.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// Its socket is not there, or it does not read.
    #[error("reach the service manager at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The message was not taken.
    #[error("tell the service manager {what:?}")]
    Tell {
        /// The message.
        what: String,
        /// Why.
        source: RightsError,
    },
    /// The variables about passed descriptors do not fit together.
    #[error("take the descriptors that the service manager passes")]
    Received {
        /// Why.
        source: io::Error,
    },
}

impl ManagerError {
    /// Says what to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Connect { .. } | Self::Tell { .. } => "look at the service's NotifyAccess and FileDescriptorStoreMax",
            Self::Received { .. } => {
                "LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID must come from the service manager itself"
            }
        }
    }
}

/// Tells the service manager things; without one, tells nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceManager {
    socket: Option<PathBuf>,
}

impl ServiceManager {
    /// Takes the one that has started this process, if one has.
    pub fn from_environment() -> Self {
        Self { socket: std::env::var_os(NOTIFY_SOCKET).map(PathBuf::from) }
    }

    /// Takes the one at a socket: that of the predecessor.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket: Some(socket) }
    }

    /// Returns its socket, for a successor.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Tells whether there is one.
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Says that the service is ready, and which process it is now.
    ///
    /// # Errors
    /// [`ManagerError`]; the service itself is not affected.
    pub fn ready(&self) -> Result<(), ManagerError> {
        self.tell(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready], &[])
    }

    /// Says that the service is about to end.
    ///
    /// # Errors
    /// As [`Self::ready`].
    pub fn stopping(&self) -> Result<(), ManagerError> {
        self.tell(&[NotifyState::Stopping], &[])
    }

    /// Says that another process is the service from now on. Only the service itself is believed.
    ///
    /// # Errors
    /// As [`Self::ready`].
    pub fn succeeded_by(&self, pid: u32) -> Result<(), ManagerError> {
        self.tell(&[NotifyState::MainPid(pid)], &[])
    }

    /// Gives it a duplicate of a descriptor to keep, in the place of any other of that name.
    ///
    /// # Errors
    /// As [`Self::ready`].
    pub fn store(&self, name: &str, fd: BorrowedFd<'_>) -> Result<(), ManagerError> {
        // Two of one name would both come back.
        self.remove(name)?;
        let name = format!("FDNAME={name}");
        let states = [NotifyState::Custom("FDSTORE=1"), NotifyState::Custom(&name), NotifyState::Custom("FDPOLL=0")];
        self.tell(&states, &[fd])
    }

    /// Has it let go of what it keeps under a name; it is fine when there is none.
    ///
    /// # Errors
    /// As [`Self::ready`].
    pub fn remove(&self, name: &str) -> Result<(), ManagerError> {
        let name = format!("FDNAME={name}");
        self.tell(&[NotifyState::Custom("FDSTOREREMOVE=1"), NotifyState::Custom(&name)], &[])
    }

    fn tell(&self, states: &[NotifyState<'_>], fds: &[BorrowedFd<'_>]) -> Result<(), ManagerError> {
        let Some(path) = &self.socket else { return Ok(()) };
        let failed = |source| ManagerError::Connect { path: path.clone(), source };
        let socket = UnixDatagram::unbound().map_err(failed)?;
        socket.set_write_timeout(Some(SEND_TIMEOUT)).map_err(failed)?;
        socket.connect(path).map_err(failed)?;
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        let text = lines.join("\n");
        contd_descriptors::send(&socket, text.as_bytes(), fds)
            .map_err(|source| ManagerError::Tell { what: text, source })
    }
}

/// Takes what the service manager has passed to this process: sockets of its own, and what was stored with it. Gives it out
/// once; nothing the second time.
///
/// # Errors
/// [`ManagerError::Received`] when the variables do not fit together; nothing was taken then.
pub fn received() -> Result<Vec<Named>, ManagerError> {
    static IS_TAKEN: AtomicBool = AtomicBool::new(false);
    if IS_TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let passed = sd_notify::listen_fds_with_names().map_err(|source| ManagerError::Received { source })?;
    Ok(passed.map(|(number, name)| Named { name, fd: own_passed(number) }).collect())
}

/// Owns a descriptor that the service manager has put into our table before we were executed.
#[expect(unsafe_code, reason = "a descriptor by its number, from the environment")]
fn own_passed(number: RawFd) -> OwnedFd {
    // SAFETY: from_raw_fd needs an open descriptor with no other owner. LISTEN_PID names this very process, so the manager
    // has opened it for us; sd-notify has just reached it by fcntl, so it is open; `received` hands out each number once
    // per process, which its own flag guarantees.
    unsafe { OwnedFd::from_raw_fd(number) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_stored_descriptor_is_named_and_not_dropped_when_its_other_end_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let theirs = UnixDatagram::bind(&path).unwrap();
        let manager = ServiceManager::at(path);
        manager.store("contd-x", theirs.as_fd()).unwrap();
        let (mut buffer, mut fds) = ([0; 256], Vec::new());
        let mut next = || {
            let count = contd_descriptors::receive(&theirs, &mut buffer, &mut fds).unwrap();
            (String::from_utf8_lossy(&buffer[..count]).into_owned(), std::mem::take(&mut fds).len())
        };
        assert_eq!(next(), ("FDSTOREREMOVE=1\nFDNAME=contd-x".to_owned(), 0));
        assert_eq!(next(), ("FDSTORE=1\nFDNAME=contd-x\nFDPOLL=0".to_owned(), 1));
        manager.ready().unwrap();
        assert_eq!(next().0, format!("MAINPID={}\nREADY=1", std::process::id()));
        manager.stopping().unwrap();
        assert_eq!(next().0, "STOPPING=1");
    }

    #[test]
    fn without_a_manager_nobody_is_told_and_nothing_fails() {
        ServiceManager::default().ready().unwrap();
        let error = ServiceManager::at("/nonexistent/notify".into()).ready().unwrap_err();
        assert!(error.to_string().contains("/nonexistent/notify"), "{error}");
    }
}
