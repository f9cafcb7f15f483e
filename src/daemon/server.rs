//! The API socket: binds it or goes on with one, accepts, and hands on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use interprocess::local_socket::traits::tokio::Listener as _;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use interprocess::os::unix::uds_local_socket;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat};
use nix::unistd::{Gid, fchownat};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::daemon::calls::Backend;
use crate::daemon::connection;
use crate::daemon::spare::Spare;
use contd_node::Api;

/// The longest path of a Unix socket: `sun_path` less its NUL (unix(7)).
const MAX_SOCKET_PATH_BYTES: usize = 107;
/// The mode of a socket until it has its owner and mode: nobody but root gets in meanwhile, whatever the umask.
const FIRST_MODE: u32 = 0o600;
/// How long to wait after a failed accept: out of descriptors is the usual reason, and spinning does not free any.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// The path does not fit into a socket address.
    #[error("socket {}: the path has {len} bytes, more than the {MAX_SOCKET_PATH_BYTES} that a socket can have", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        len: usize,
    },
    /// A stale socket of an earlier daemon cannot be removed.
    #[error("remove the stale socket {}", path.display())]
    Stale {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket cannot be given its group or mode.
    #[error("set group and mode of the socket {}", path.display())]
    Rights {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket cannot be bound.
    #[error("bind the socket {}", path.display())]
    Bind {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Binds a socket with these rights. The caller holds the daemon lock, so one that is there belongs to a dead daemon.
///
/// # Errors
/// [`BindError`] with the path.
pub(crate) fn bind(path: &Path, rights: Api) -> Result<UnixListener, BindError> {
    check(path)?;
    match std::fs::remove_file(path) {
        Ok(()) => info!(socket = %path.display(), "removed the socket of a dead daemon"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(BindError::Stale { path: path.to_path_buf(), source }),
    }
    let failed = |source| BindError::Bind { path: path.to_path_buf(), source };
    let name = path.to_fs_name::<GenericFilePath>().map_err(failed)?;
    // The name is never reclaimed on drop: at a handover that would remove the successor's socket (docs/architecture.md, facts).
    let options = ListenerOptions::new().name(name).mode(FIRST_MODE as _).reclaim_name(false);
    let socket = options.create_sync_as::<uds_local_socket::Listener>().map(UnixListener::from).map_err(failed)?;
    set_rights(path, rights)?;
    Ok(socket)
}

/// Gives the file of a socket its group, then its mode: at no moment more may open it than before or after.
///
/// # Errors
/// [`BindError::Rights`].
pub(crate) fn set_rights(path: &Path, rights: Api) -> Result<(), BindError> {
    let failed = |errno: Errno| BindError::Rights { path: path.to_path_buf(), source: errno.into() };
    // By descriptor: what is looked at is what is changed.
    let file = open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()).map_err(failed)?;
    let found = fstat(&file).map_err(failed)?;
    if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT != SFlag::S_IFSOCK {
        return Err(failed(Errno::ENOTSOCK));
    }
    let opened = format!("/proc/self/fd/{}", file.as_raw_fd());
    let set_mode =
        |mode: u32| fchmodat(AT_FDCWD, opened.as_str(), Mode::from_bits_truncate(mode), FchmodatFlags::FollowSymlink);
    if let Some(gid) = rights.group.filter(|gid| *gid != found.st_gid) {
        // One that was open to another group is closed to it first.
        set_mode(FIRST_MODE).map_err(failed)?;
        fchownat(&file, "", None, Some(Gid::from_raw(gid)), AtFlags::AT_EMPTY_PATH).map_err(failed)?;
    }
    set_mode(rights.mode).map_err(failed)
}

/// Checks that a path fits into a socket address.
///
/// # Errors
/// [`BindError::TooLong`].
pub(crate) fn check(path: &Path) -> Result<(), BindError> {
    let len = path.as_os_str().len();
    if len > MAX_SOCKET_PATH_BYTES {
        return Err(BindError::TooLong { path: path.to_path_buf(), len });
    }
    Ok(())
}

/// The API socket and who is connected to it.
pub(crate) struct Server {
    listener: uds_local_socket::tokio::Listener,
    backend: Arc<Backend>,
    connections: JoinSet<()>,
}

impl Server {
    /// Goes on with a listening socket; nobody is accepted yet. Wants a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] when the runtime does not take it.
    pub(crate) fn new(socket: UnixListener, backend: Arc<Backend>, path: &Path) -> Result<Self, BindError> {
        let failed = |source| BindError::Bind { path: path.to_path_buf(), source };
        let listener = uds_local_socket::tokio::Listener::try_from(OwnedFd::from(socket)).map_err(failed)?;
        Ok(Self { listener, backend, connections: JoinSet::new() })
    }

    /// Accepts connections until the future is dropped, which loses none: those not accepted yet wait in the backlog.
    pub(crate) async fn accept(&mut self) {
        let mut spare = Spare::default();
        loop {
            spare.keep();
            let stream = match self.listener.accept().await {
                Ok(stream) => stream,
                // One caller is let in all the same.
                Err(error) if spare.give_up(&error) => match self.listener.accept().await {
                    Ok(stream) => stream,
                    Err(_gone) => continue,
                },
                Err(error) => {
                    warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            while self.connections.try_join_next().is_some() {}
            if let Some(connection) = connection::admit(stream.into(), &self.backend) {
                self.connections.spawn_local(connection);
            }
        }
    }

    /// Duplicates the listening socket, for a successor or the service manager.
    ///
    /// # Errors
    /// Out of descriptors.
    pub(crate) fn listener(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// Returns the number of the listening descriptor.
    pub(crate) fn listener_number(&self) -> i32 {
        self.listener.as_fd().as_raw_fd()
    }

    /// Accepts nobody from here on: closes the listening socket and returns who is still connected.
    pub(crate) fn close(self) -> Connections {
        Connections(self.connections)
    }
}

/// Connections of a daemon that accepts nobody any more.
#[derive(Debug)]
pub(crate) struct Connections(JoinSet<()>);

impl Connections {
    /// Waits until all have ended, at most so long.
    pub(crate) async fn finish(&mut self, limit: Duration) {
        let all = async { while self.0.join_next().await.is_some() {} };
        let _some_are_busy = tokio::time::timeout(limit, all).await.is_err();
    }
}
