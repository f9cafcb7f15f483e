//! The predecessor's side of a handover: hears its successor, and hands over.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use contd_descriptors::Named;
use contd_protocol::handover::{HandoverSocket, Request, Word};
use contd_protocol::{Kind, Refusal};
use contd_session::{Blocking, SessionError};
use contd_types::one_line;
use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};

use super::{ANSWER_TIMEOUT, socket};
use crate::daemon::server::{self, BindError};
use contd_node::Api;

/// How many descriptors go with one message: an earlier release has room for no more.
const KEPT_AT_ONCE: usize = 128;
/// For the daemon's own user only; the peer is asked for besides.
const RIGHTS: Api = Api { group: None, mode: 0o600 };
/// How long to wait after a failed accept, as for the API.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a successor asks; its socket is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Desk {
    path: PathBuf,
    listener: UnixListener,
    own_uid: u32,
    agent: String,
}

/// Why one who asked got nothing.
#[derive(Debug, thiserror::Error)]
enum RefusedError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the socket of a successor is unusable")]
    Socket { source: io::Error },
    #[error("uid {uid} may not take over")]
    Forbidden { uid: u32 },
}

impl Desk {
    /// Opens it. The caller holds the daemon lock, so a socket that is there belongs to a dead daemon. Wants a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] with the path.
    pub(crate) fn open(run_dir: &Path, own_uid: u32, agent: String) -> Result<Self, BindError> {
        let path = socket(run_dir);
        let bound = server::bind(&path, RIGHTS)?;
        let prepared = bound.set_nonblocking(true).and_then(|()| UnixListener::from_std(bound));
        let listener = prepared.map_err(|source| BindError::Bind { path: path.clone(), source })?;
        Ok(Self { path, listener, own_uid, agent })
    }

    /// Waits until somebody who may asks to take over. Dropped half-way, it hangs up on whoever is just asking.
    pub(crate) async fn asked(&self) -> Successor {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _address)) => stream,
                Err(error) => {
                    warn!(%error, "accepting a successor failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match self.converse(stream).await {
                Ok(successor) => return successor,
                // Somebody who only looked, or may not: the API's own log would not tell either.
                Err(error) => info!(error = %one_line(&error), "handover not begun"),
            }
        }
    }

    async fn converse(&self, stream: UnixStream) -> Result<Successor, RefusedError> {
        let (own_uid, agent) = (self.own_uid, self.agent.clone());
        let stream = stream.into_std().map_err(|source| RefusedError::Socket { source })?;
        blocking(move || {
            let mut session = Blocking::new(stream, ANSWER_TIMEOUT)?;
            let peer = session.peer()?;
            let (uid, pid) = (peer.uid(), peer.pid());
            if uid != 0 && uid != own_uid {
                session.refuse(&Refusal::Forbidden { uid })?;
                return Err(RefusedError::Forbidden { uid });
            }
            let hello = session.welcome(&agent)?.ok_or(SessionError::HungUp)?;
            let Request::TakeOver = session.next(Kind::Call, "a call")?;
            Ok(Successor { session, pid, agent: hello.agent })
        })
        .await
        .unwrap_or(Err(RefusedError::Session(SessionError::HungUp)))
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // The lock is still held: the socket is ours to remove.
        if let Err(error) = std::fs::remove_file(&self.path) {
            warn!(%error, "the socket for successors could not be removed");
        }
    }
}

/// A daemon that asked to take over.
#[derive(Debug)]
pub(crate) struct Successor {
    session: Blocking<HandoverSocket>,
    /// Its process.
    pub(crate) pid: i32,
    /// Its name and version.
    pub(crate) agent: String,
}

impl Successor {
    /// Hands the listening socket over; from here on it is the successor's.
    ///
    /// # Errors
    /// [`SessionError`] when it has gone; then nothing was handed over.
    pub(crate) async fn hand_listener(
        self,
        listener: OwnedFd,
        notify_socket: Option<PathBuf>,
    ) -> Result<Self, SessionError> {
        blocking(move || {
            let word = Word::Listener { notify_socket };
            self.session.send(Kind::Item, &word, &[listener.as_fd()])?;
            Ok(self)
        })
        .await
        .unwrap_or(Err(SessionError::HungUp))
    }

    /// Hands over what is kept of running containers, and says that all is at rest. One that has gone gets nothing.
    pub(crate) async fn hand_kept(self, kept: Vec<Named>) {
        let handed = blocking(move || {
            for part in kept.chunks(KEPT_AT_ONCE) {
                let names = part.iter().map(|named| named.name.clone()).collect();
                let fds: Vec<_> = part.iter().map(|named| named.fd.as_fd()).collect();
                self.session.send(Kind::Item, &Word::Kept { names }, &fds)?;
            }
            self.session.send(Kind::Item, &Word::Rested, &[])
        });
        match handed.await {
            None | Some(Ok(())) => {}
            // The lock comes free all the same, and the next one finds everything on disk.
            Some(Err(error)) => info!(error = %one_line(&error), "the successor has gone"),
        }
    }
}

/// Runs a conversation on the pool for what blocks; `None` when the runtime goes down.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
