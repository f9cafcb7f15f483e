//! The descriptors that a daemon gets at its start: from the service manager, and from a predecessor.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use contd_descriptors::Named;
use contd_service_manager::{ManagerError, ServiceManager};
use contd_shim_client::is_kept_name;
use contd_types::ErrorKind;
use nix::sys::socket::{SockType, getsockopt, sockopt};
use tracing::{info, warn};

use crate::daemon::handover::Entered;

/// The name under which the service manager keeps a listening socket that is ours.
pub(crate) const LISTENER: &str = "contd-listener";

/// Why what was passed cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InheritError {
    /// It cannot be taken.
    #[error(transparent)]
    Manager(#[from] ManagerError),
    /// A socket unit listens elsewhere.
    #[error("the service manager passes a socket that listens at {}, and the API socket is {}", passed.display(), address.display())]
    Elsewhere {
        /// Where it listens.
        passed: PathBuf,
        /// Where it should.
        address: PathBuf,
    },
}

impl InheritError {
    /// Classifies the failure for programs.
    pub(crate) fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }

    /// Says what to do next.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Manager(error) => error.hint(),
            Self::Elsewhere { .. } => "make ListenStream of the socket unit and the address of contd the same",
        }
    }
}

/// The descriptors that the service manager has passed.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// A socket of its own, which is not ours to remove.
    socket: Option<UnixListener>,
    /// One that an earlier daemon had made, and stored.
    stored: Option<UnixListener>,
    /// The descriptors of running containers that an earlier daemon held.
    kept: Vec<Named>,
}

impl Passed {
    /// Takes what was passed and looks what it is; what nobody understands is closed.
    ///
    /// # Errors
    /// [`InheritError`]; a daemon that runs already was not touched.
    pub(crate) fn take(address: &Path) -> Result<Self, InheritError> {
        let mut passed = Self::default();
        for named in contd_service_manager::received()? {
            passed.add(named, address)?;
        }
        Ok(passed)
    }

    fn add(&mut self, named: Named, address: &Path) -> Result<(), InheritError> {
        let Named { name, fd } = named;
        if is_kept_name(&name) {
            self.kept.push(Named { name, fd });
            return Ok(());
        }
        let Some(listener) = listening(fd) else {
            warn!(name, "the service manager passes what is neither a listening socket nor of ours");
            return Ok(());
        };
        let path = path_of(&listener);
        if name == LISTENER {
            // With another address configured since, it is made anew.
            self.stored = (path == address).then_some(listener);
        } else if path == address {
            self.socket = Some(listener);
        } else {
            return Err(InheritError::Elsewhere { passed: path, address: address.to_owned() });
        }
        Ok(())
    }
}

/// All that was there before us.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// The API socket, if somebody listened already.
    pub(crate) listener: Option<UnixListener>,
    /// Whether the service manager made it, and keeps it whatever we do.
    pub(crate) is_managers: bool,
    /// The descriptors of running containers.
    pub(crate) kept: Vec<Named>,
    /// The service manager.
    pub(crate) manager: ServiceManager,
}

impl Inherited {
    /// Puts together what the service manager passed and what a predecessor gave; the newer word counts.
    pub(crate) fn gather(passed: Passed, entered: &mut Entered, address: &Path) -> Self {
        let own = ServiceManager::from_environment();
        let manager = match entered.notify_socket.take() {
            Some(socket) if !own.is_there() => ServiceManager::at(socket),
            _ => own,
        };
        let is_managers = passed.socket.is_some();
        let from_predecessor = entered.listener.take().and_then(listening).filter(|listener| {
            let path = path_of(listener);
            if path != address {
                info!(old = %path.display(), "the API socket has another address now");
                // Its listener ends with the predecessor; nobody answers there any more.
                let _gone_already = std::fs::remove_file(&path);
            }
            path == address
        });
        // A socket whose file was removed is one that nobody finds.
        let listener = passed.socket.or(from_predecessor).or(passed.stored).filter(|_| address.exists());
        let mut kept = std::mem::take(&mut entered.kept);
        let is_new = |named: &Named| !kept.iter().any(|newer| newer.name == named.name);
        let older: Vec<Named> = passed.kept.into_iter().filter(is_new).collect();
        kept.extend(older);
        Self { listener, is_managers, kept, manager }
    }
}

/// Takes a descriptor as a listening stream socket, if it is one.
fn listening(fd: OwnedFd) -> Option<UnixListener> {
    let is_stream = getsockopt(&fd, sockopt::SockType).is_ok_and(|kind| kind == SockType::Stream);
    let is_listening = getsockopt(&fd, sockopt::AcceptConn).unwrap_or(false);
    (is_stream && is_listening).then(|| UnixListener::from(fd))
}

/// Returns where a socket listens; empty for one without a path.
fn path_of(listener: &UnixListener) -> PathBuf {
    let address = listener.local_addr().ok();
    address.and_then(|address| address.as_pathname().map(Path::to_path_buf)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, fd: impl Into<OwnedFd>) -> Named {
        Named { name: name.to_owned(), fd: fd.into() }
    }

    #[test]
    fn what_is_passed_is_told_apart_by_what_it_is_and_what_it_is_called() {
        let dir = tempfile::tempdir().expect("temp");
        let address = dir.path().join("contd.sock");
        let socket = UnixListener::bind(&address).expect("bind");
        let mut passed = Passed::default();
        let file = || std::fs::File::open("/dev/null").expect("open");
        for given in [
            named("contd.socket", socket.try_clone().expect("clone")),
            named(LISTENER, socket),
            named("contd-0123456789abcdef-init", file()),
            named("strange", file()),
        ] {
            passed.add(given, &address).expect("fits");
        }
        assert!(passed.socket.is_some() && passed.stored.is_some());
        assert_eq!(passed.kept.len(), 1);
    }

    #[test]
    fn a_socket_unit_with_another_address_is_an_error_and_a_stored_one_is_made_anew() {
        let dir = tempfile::tempdir().expect("temp");
        let socket = UnixListener::bind(dir.path().join("other.sock")).expect("bind");
        let address = dir.path().join("contd.sock");
        let mut passed = Passed::default();
        passed.add(named(LISTENER, socket.try_clone().expect("clone")), &address).expect("dropped");
        assert!(passed.stored.is_none());
        let error = passed.add(named("contd.socket", socket), &address).expect_err("elsewhere");
        assert!(error.to_string().contains("other.sock") && error.hint().contains("ListenStream"), "{error}");
    }
}
