//! The API socket: binds it, accepts, and bounds how many connections there are.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use interprocess::local_socket::tokio::Listener;
use interprocess::local_socket::traits::tokio::Listener as _;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::daemon::calls::Backend;
use crate::daemon::connection;
use crate::daemon::limits::Spare;

/// The longest path of a Unix socket: `sun_path` less its NUL (unix(7)).
const MAX_SOCKET_PATH_BYTES: usize = 107;
/// Owner and group may connect; who of them may do what is decided per call.
const SOCKET_MODE: u32 = 0o660;
/// How long to wait after a failed accept: out of descriptors is the usual reason, and spinning does not free any.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// The path does not fit into a socket address.
    #[error("API socket {}: the path has {len} bytes, more than the {MAX_SOCKET_PATH_BYTES} that a socket can have", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        len: usize,
    },
    /// A stale socket of an earlier daemon cannot be removed.
    #[error("remove the stale API socket {}", path.display())]
    Stale {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket cannot be bound.
    #[error("bind the API socket {}", path.display())]
    Bind {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Binds the API socket. The caller holds the daemon lock, so a socket that is there belongs to a dead daemon.
///
/// # Errors
/// [`BindError`] with the path.
pub(crate) fn bind(path: &Path) -> Result<Listener, BindError> {
    let len = path.as_os_str().len();
    if len > MAX_SOCKET_PATH_BYTES {
        return Err(BindError::TooLong { path: path.to_path_buf(), len });
    }
    match std::fs::remove_file(path) {
        Ok(()) => info!(socket = %path.display(), "removed the socket of a dead daemon"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(BindError::Stale { path: path.to_path_buf(), source }),
    }
    let failed = |source| BindError::Bind { path: path.to_path_buf(), source };
    let name = path.to_fs_name::<GenericFilePath>().map_err(failed)?;
    // The name is never reclaimed on drop: at a hand-over that would remove the successor's socket (FACTS: interprocess).
    ListenerOptions::new().name(name).mode(SOCKET_MODE as _).reclaim_name(false).create_tokio().map_err(failed)
}

/// Accepts connections until the future is dropped.
pub(crate) async fn serve(listener: Listener, backend: Arc<Backend>, max_connections: usize) {
    let places = Arc::new(Semaphore::new(max_connections));
    let mut connections = JoinSet::new();
    let mut spare = Spare::default();
    loop {
        spare.keep();
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            // One caller is let in all the same.
            Err(error) if spare.give_up(&error) => match listener.accept().await {
                Ok(stream) => stream,
                Err(_gone) => continue,
            },
            Err(error) => {
                warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let place = Arc::clone(&places).try_acquire_owned().ok();
        connections.spawn_local(connection::serve(stream, Arc::clone(&backend), place));
    }
}
