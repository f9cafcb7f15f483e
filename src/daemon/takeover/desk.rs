//! The side of the daemon that runs: hears its successor, and hands over.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use contd_handover::{MAX_DESCRIPTORS_AT_ONCE, Named};
use contd_protocol::handover::{HandoverSocket, Request, Word};
use contd_protocol::{Hello, HelloReply, Kind, Refusal, negotiate};
use contd_types::one_line;
use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};

use super::wire::{Wire, WireError};
use super::{ANSWER_TIMEOUT, socket};
use crate::daemon::server::{self, BindError};
use contd_node::Api;

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
    Wire(#[from] WireError),
    #[error("the kernel does not say who asks")]
    Peer { source: io::Error },
    #[error("uid {uid} may not take over")]
    Forbidden { uid: u32 },
    #[error("no common version with {agent}")]
    Version { agent: String },
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
                Err(error) => info!(error = %one_line(&error), "a takeover was not begun"),
            }
        }
    }

    async fn converse(&self, stream: UnixStream) -> Result<Successor, RefusedError> {
        let (own_uid, agent) = (self.own_uid, self.agent.clone());
        let stream = stream.into_std().map_err(|source| RefusedError::Peer { source })?;
        blocking(move || {
            let mut wire = Wire::new(stream, ANSWER_TIMEOUT)?;
            let peer = wire.peer().map_err(|source| RefusedError::Peer { source })?;
            let (uid, pid) = (peer.uid(), peer.pid());
            if uid != 0 && uid != own_uid {
                wire.greet(Kind::HelloReply, &HelloReply::Refused(Refusal::Forbidden { uid }))?;
                return Err(RefusedError::Forbidden { uid });
            }
            let hello: Hello = wire.next(Kind::Hello)?;
            match negotiate(hello.versions, <HandoverSocket as contd_protocol::session::Protocol>::VERSIONS) {
                Ok(version) => {
                    wire.greet(Kind::HelloReply, &HelloReply::Welcome { version, agent, features: Vec::new() })?;
                    let Request::TakeOver = wire.next(Kind::Call)?;
                    Ok(Successor { wire, version, pid, agent: hello.agent })
                }
                Err(refusal) => {
                    wire.greet(Kind::HelloReply, &HelloReply::Refused(refusal))?;
                    Err(RefusedError::Version { agent: hello.agent })
                }
            }
        })
        .await
        .unwrap_or(Err(RefusedError::Wire(WireError::HungUp)))
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

/// Who asked to take over.
#[derive(Debug)]
pub(crate) struct Successor {
    wire: Wire,
    version: u16,
    /// Its process.
    pub(crate) pid: i32,
    /// Its name and version.
    pub(crate) agent: String,
}

impl Successor {
    /// Hands the listening socket over; from here on it is the successor's.
    ///
    /// # Errors
    /// [`WireError`] when it has gone; then nothing was handed over.
    pub(crate) async fn hand_listener(
        self,
        listener: OwnedFd,
        notify_socket: Option<PathBuf>,
    ) -> Result<Self, WireError> {
        blocking(move || {
            let word = Word::Listener { notify_socket };
            self.wire.send(self.version, Kind::Item, &word, &[listener.as_fd()])?;
            Ok(self)
        })
        .await
        .unwrap_or(Err(WireError::HungUp))
    }

    /// Hands over what is kept of running containers, and says that all is at rest. One that has gone gets nothing.
    pub(crate) async fn hand_kept(self, kept: Vec<Named>) {
        let handed = blocking(move || {
            for part in kept.chunks(MAX_DESCRIPTORS_AT_ONCE) {
                let names = part.iter().map(|named| named.name.clone()).collect();
                let fds: Vec<_> = part.iter().map(|named| named.fd.as_fd()).collect();
                self.wire.send(self.version, Kind::Item, &Word::Kept { names }, &fds)?;
            }
            self.wire.send(self.version, Kind::Item, &Word::Rested, &[])
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
