//! One connection: hello, then calls side by side, their answers through one writer.
//!
//! ```text
//!  socket ──► Session ──► one task per call ──► frames (bounded queue) ──► writer ──► socket
//! ```
//! A caller that does not read stops its own streams (credit) and, past that, only its own connection. When it goes, what
//! was only for its eyes ends; what it asked to be changed goes on.
//!
//! When the daemon leaves, a connection that has asked nothing yet still may, and one that is idle is closed.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use contd_protocol::api::{
    ApiSocket, Call, Cancel, Credit, INITIAL_CREDIT, Item, MAX_CALLS_PER_CONNECTION, Reply, Response, StreamItem,
};
use contd_protocol::session::{Asked, busy};
use contd_protocol::{CodecError, Frame, Kind, Protocol as _, Refusal, Session, Violation};
use contd_session_tokio::{ReceiveError, receive, write_all};
use contd_types::{ApiError, ErrorKind};
use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::tokio::prelude::*;
use nix::sys::socket::{MsgFlags, Shutdown};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::daemon::access::{Peer, Rights};
use crate::daemon::calls::{self, Answered, ApiSettings, Backend};
use crate::daemon::leaving::Leaving;
use crate::daemon::places::{Place, Shares};

/// How long a caller may take for its hello: local programs need microseconds; more is a stuck or hostile one.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a caller may stop in the middle of a frame: it has it whole before it begins to send.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the writer waits for a caller that does not read, before it hangs up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Frames that may wait for the writer: enough to keep it busy, few enough to bound memory (1 MiB each at worst).
const MAX_FRAMES_QUEUED: usize = 16;
/// How long a caller that has just connected may take for its first call when the daemon leaves: it was accepted, so it is
/// served.
const FIRST_CALL_GRACE: Duration = Duration::from_secs(1);
/// How long one that was served may take for its next call then: a page of a list, the next of several questions.
const NEXT_CALL_GRACE: Duration = Duration::from_millis(100);
/// How long the last frames to a caller may take when the daemon leaves.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a connection ended before its caller closed it.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("the socket failed")]
    Io(#[from] std::io::Error),
    #[error("the caller broke off, or broke the protocol")]
    Receive(#[from] ReceiveError),
    #[error("the caller sent too few descriptors")]
    Descriptors(#[from] Violation),
    #[error("an answer cannot be written")]
    Codec(#[from] CodecError),
    #[error("the caller said nothing within {HELLO_TIMEOUT:?}")]
    HelloTimeout,
    #[error("the caller used call id {0} twice")]
    DuplicateCall(u64),
}

/// Takes a connection in: returns what serves it to its end. `None` when its user, or all together, have as many as they
/// may: it was told so, and hung up on, so that those who come too often cost nothing.
pub(crate) fn admit(stream: Stream, backend: &Arc<Backend>) -> Option<impl Future<Output = ()> + use<>> {
    let peer = peer_of(&stream);
    admit_as(stream, backend, peer)
}

/// [`admit`], of a peer that is known.
pub(crate) fn admit_as(stream: Stream, backend: &Arc<Backend>, peer: Peer) -> Option<impl Future<Output = ()> + use<>> {
    let settings = Arc::clone(&backend.settings.borrow());
    let rights = Rights::of(&peer, backend.own_uid, settings.rules.access());
    let shares = Rights::shares(rights.as_ref(), &settings.limits);
    let is_root = peer.uid == 0 || peer.uid == backend.own_uid;
    match backend.places.connect(peer.uid, is_root, shares, &settings.limits) {
        Ok(place) => Some(serve(stream, Arc::clone(backend), peer, place)),
        Err(full) => {
            debug!(uid = peer.uid, pid = peer.pid, %full, "turned a caller away");
            turn_away(&stream, &Refusal::Full { what: full.to_string() });
            None
        }
    }
}

/// Says the last word to one that has not been heard, without waiting for anything.
fn turn_away(stream: &Stream, refusal: &Refusal) {
    let Ok(bytes) = Session::<ApiSocket>::default().refuse(refusal) else { return };
    let Stream::UdSocket(stream) = stream;
    // A new socket has room for it; one that is gone already needs no word.
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let _gone = nix::sys::socket::send(stream.as_fd().as_raw_fd(), &bytes, flags);
}

/// Serves one connection to its end. It has its place until then.
async fn serve(stream: Stream, backend: Arc<Backend>, peer: Peer, _place: Place) {
    let stream = Arc::new(stream);
    let mut session = Session::default();
    let result = match tokio::time::timeout(HELLO_TIMEOUT, greet(&stream, &mut session, &backend, &peer)).await {
        Err(_elapsed) => Err(ConnectionError::HelloTimeout),
        Ok(Err(error)) => Err(error),
        Ok(Ok(false)) => Ok(()),
        Ok(Ok(true)) => {
            let version = session.version();
            let (access, peer) = (Standing::of(&backend, &peer), peer.clone());
            Connection { access, backend, peer, version }.run(stream, session).await
        }
    };
    if let Err(error) = result {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        debug!(uid = peer.uid, pid = peer.pid, %error, cause, "hung up on a caller");
    }
}

/// The rights and limits of a peer, by the settings that were looked at last.
struct Standing {
    settings: Arc<ApiSettings>,
    rights: Option<Rights>,
    shares: Shares,
}

impl Standing {
    fn of(backend: &Backend, peer: &Peer) -> Self {
        let settings = Arc::clone(&backend.settings.borrow());
        let rights = Rights::of(peer, backend.own_uid, settings.rules.access());
        let shares = Rights::shares(rights.as_ref(), &settings.limits);
        Self { settings, rights, shares }
    }

    /// Looks again if the settings have changed.
    fn refresh(&mut self, backend: &Backend, peer: &Peer) {
        if !Arc::ptr_eq(&self.settings, &backend.settings.borrow()) {
            *self = Self::of(backend, peer);
        }
    }
}

/// Reads who is at the other end; a peer that the kernel does not name has no rights.
fn peer_of(stream: &Stream) -> Peer {
    let nobody = Peer { uid: u32::MAX, gid: u32::MAX, groups: Arc::default(), pid: 0 };
    let Stream::UdSocket(socket) = stream;
    match stream.peer_creds() {
        Ok(creds) => Peer {
            uid: creds.euid().unwrap_or(u32::MAX),
            gid: creds.egid().unwrap_or(u32::MAX),
            // On a kernel that does not tell them only the primary one counts.
            groups: contd_access::peer_groups(socket).unwrap_or_default().into(),
            pid: creds.pid().unwrap_or(0),
        },
        Err(error) => {
            warn!(%error, "the kernel does not say who is connected");
            nobody
        }
    }
}

/// Exchanges hellos; `false` after a refusal that was said, and when the caller has closed.
async fn greet(
    stream: &Stream,
    session: &mut Session<ApiSocket>,
    backend: &Backend,
    peer: &Peer,
) -> Result<bool, ConnectionError> {
    let hello = receive(stream, session, Some(FRAME_TIMEOUT), Session::hear_hello).await?;
    let Some(hello) = hello else { return Ok(false) };
    let (bytes, outcome) = session.answer_hello(&hello, &backend.agent, |_version| {
        let rights = Rights::of(peer, backend.own_uid, backend.settings.borrow().rules.access());
        rights.map(drop).ok_or(Refusal::Forbidden { uid: peer.uid })
    })?;
    write_all(stream, &bytes, &[]).await?;
    Ok(outcome.is_ok())
}

/// A connection after its hello.
struct Connection {
    backend: Arc<Backend>,
    peer: Peer,
    access: Standing,
    version: u16,
}

/// A frame on its way to the caller.
#[derive(Debug)]
struct Outgoing {
    frame: Frame,
    /// The descriptors that go with it.
    fds: Vec<OwnedFd>,
    /// The call that it ends; over once it is written, so that replies which nobody reads count.
    _place: Option<Place>,
}

impl From<Frame> for Outgoing {
    fn from(frame: Frame) -> Self {
        Self { frame, fds: Vec::new(), _place: None }
    }
}

/// The reader's handles of a call under way.
struct CallControl {
    credit: Arc<Semaphore>,
    cancel: watch::Sender<bool>,
}

impl Connection {
    async fn run(mut self, stream: Arc<Stream>, mut session: Session<ApiSocket>) -> Result<(), ConnectionError> {
        let (queue, waiting) = mpsc::channel(MAX_FRAMES_QUEUED);
        let mut writer = tokio::task::spawn_local(write_frames(Arc::clone(&stream), waiting));
        let mut under_way: HashMap<u64, CallControl> = HashMap::new();
        // Dropped, and with it every call that only the caller would have heard of, when the connection ends.
        let mut calls: JoinSet<u64> = JoinSet::new();
        let mut leaving = self.backend.leaving.subscribe();
        let mut grace = FIRST_CALL_GRACE;
        // Whether nothing more is read: it was idle for too long.
        let (mut is_closing, mut is_read) = (false, false);
        let result = loop {
            if is_read && under_way.is_empty() {
                drop(queue);
                let _does_not_read = tokio::time::timeout(FLUSH_TIMEOUT, &mut writer).await.is_err();
                break Ok(());
            }
            let idle = Duration::from_secs(self.backend.settings.borrow().limits.idle_timeout_s);
            tokio::select! {
                Some(ended) = calls.join_next() => {
                    if let Ok(id) = ended {
                        under_way.remove(&id);
                    }
                }
                // `receive` keeps what it has read in the session and in the socket: it may be dropped at any await.
                asked = receive(&stream, &mut session, Some(FRAME_TIMEOUT), Session::next_asked), if !is_read => match asked {
                    Ok(Some(asked)) => {
                        grace = NEXT_CALL_GRACE;
                        let wanted = match &asked {
                            Asked::Call(call) => ApiSocket::descriptors_of_request(&call.request),
                            Asked::Cancel(_) | Asked::Credit(_) => 0,
                        };
                        let fds = match session.take_descriptors(wanted) {
                            Ok(fds) => fds,
                            Err(violation) => break Err(violation.into()),
                        };
                        if let Err(error) = self.take(asked, fds, &mut under_way, &mut calls, &queue).await {
                            break Err(error);
                        }
                    }
                    Ok(None) if is_closing => is_read = true,
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error.into()),
                },
                _ = &mut writer => break Ok(()),
                () = tokio::time::sleep(idle), if under_way.is_empty() && !is_closing => {
                    debug!(uid = self.peer.uid, pid = self.peer.pid, "closing an idle connection");
                    // Requests that were sent before this are read and answered; later ones are not, and their sender is told.
                    stop_reading(&stream);
                    is_closing = true;
                }
                () = idle_at_the_end(&mut leaving, under_way.is_empty(), grace) => {
                    drop(queue);
                    let _does_not_read = tokio::time::timeout(FLUSH_TIMEOUT, &mut writer).await.is_err();
                    break Ok(());
                }
            }
        };
        writer.abort();
        result
    }

    async fn take(
        &mut self,
        asked: Asked<ApiSocket>,
        fds: Vec<OwnedFd>,
        under_way: &mut HashMap<u64, CallControl>,
        calls: &mut JoinSet<u64>,
        queue: &mpsc::Sender<Outgoing>,
    ) -> Result<(), ConnectionError> {
        match asked {
            Asked::Call(call) => return self.begin(call, fds, under_way, calls, queue).await,
            Asked::Cancel(Cancel { id }) => {
                if let Some(control) = under_way.get(&id) {
                    control.cancel.send_replace(true);
                }
            }
            Asked::Credit(Credit { id, items }) => {
                if let Some(control) = under_way.get(&id) {
                    let room = Semaphore::MAX_PERMITS.saturating_sub(control.credit.available_permits());
                    control.credit.add_permits(usize::try_from(items).unwrap_or(0).min(room));
                }
            }
        }
        Ok(())
    }

    async fn begin(
        &mut self,
        call: Call,
        fds: Vec<OwnedFd>,
        under_way: &mut HashMap<u64, CallControl>,
        calls: &mut JoinSet<u64>,
        queue: &mpsc::Sender<Outgoing>,
    ) -> Result<(), ConnectionError> {
        let id = call.id;
        if under_way.contains_key(&id) {
            return Err(ConnectionError::DuplicateCall(id));
        }
        if under_way.len() >= MAX_CALLS_PER_CONNECTION {
            return self.refuse(id, busy::<ApiSocket>(id), queue).await;
        }
        self.access.refresh(&self.backend, &self.peer);
        let Some(rights) = self.access.rights.clone() else {
            let refusal = Refusal::Forbidden { uid: self.peer.uid };
            let error = ApiError::new(ErrorKind::PermissionDenied, format!("call {id}: {refusal}"))
                .with_hint("its rule was taken out of the configuration of contd: ask the operator");
            return self.refuse(id, error, queue).await;
        };
        let request = match call.request.plain() {
            Ok(request) => request,
            Err(error) => return self.refuse(id, unreadable(id, &error), queue).await,
        };
        let place = self.backend.places.take(calls::kind_of(&request), self.peer.uid, self.access.shares);
        let place = match place {
            Ok(place) => place,
            Err(full) => return self.refuse(id, full.to_error(id), queue).await,
        };
        let credit = Arc::new(Semaphore::new(usize::try_from(INITIAL_CREDIT).unwrap_or(1)));
        let (cancel, cancelled) = watch::channel(false);
        let items =
            ItemSender { id, version: self.version, credit: Arc::clone(&credit), queue: queue.clone(), cancelled };
        under_way.insert(id, CallControl { credit, cancel });
        let (backend, peer, version) = (Arc::clone(&self.backend), self.peer.clone(), self.version);
        let queue = queue.clone();
        calls.spawn_local(async move {
            let (result, fds) = match calls::serve(&backend, &peer, &rights, request, fds, items).await {
                Ok(Answered { response, fds }) => (Ok(response), fds),
                Err(error) => (Err(error), Vec::new()),
            };
            let frame = reply_frame(version, id, result);
            let _closed = queue.send(Outgoing { frame, fds, _place: Some(place) }).await;
            id
        });
        Ok(())
    }

    /// Answers a call that is not begun. The caller may flood and not read: waiting here holds back only its own connection.
    async fn refuse(&self, id: u64, error: ApiError, queue: &mpsc::Sender<Outgoing>) -> Result<(), ConnectionError> {
        let reply = Frame::new(self.version, Kind::Reply, &Reply { id, result: Err(error) })?;
        let _closed = queue.send(reply.into()).await;
        Ok(())
    }
}

/// Waits until the daemon leaves and the connection has been idle for a while since then.
async fn idle_at_the_end(leaving: &mut watch::Receiver<Option<Leaving>>, is_idle: bool, grace: Duration) {
    if leaving.wait_for(Option::is_some).await.is_err() || !is_idle {
        return std::future::pending().await;
    }
    tokio::time::sleep(grace).await;
}

/// Says why a request cannot be read.
fn unreadable(id: u64, error: &CodecError) -> ApiError {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let mut answer = ApiError::new(ErrorKind::InvalidArgument, format!("call {id}: {error}"));
    answer.causes = causes.map(ToString::to_string).collect();
    match error {
        CodecError::Unknown { .. } => {
            answer.with_hint("the caller is of a later release than the daemon: upgrade the daemon, or leave them out")
        }
        _ => answer,
    }
}

/// Encodes a reply; one that is too large becomes an error that is not.
fn reply_frame(version: u16, id: u64, result: Result<Response, ApiError>) -> Frame {
    let result = match result {
        Ok(response) => response.for_version(version).map(Ok),
        Err(error) => Ok(Err(error)),
    };
    match result.and_then(|result| Frame::new(version, Kind::Reply, &Reply { id, result })) {
        Ok(frame) => frame,
        Err(error) => {
            warn!(%error, id, "a reply cannot be sent");
            let result = Err(ApiError::new(ErrorKind::Internal, format!("answer call {id}: {error}")));
            let fallback = Frame::new(version, Kind::Reply, &Reply { id, result });
            fallback.unwrap_or(Frame { version, kind: Kind::Reply, body: Vec::new() })
        }
    }
}

/// Takes what was sent so far, and nothing more; the other side cannot send from here on.
fn stop_reading(stream: &Stream) {
    let Stream::UdSocket(stream) = stream;
    // One that is gone already has nothing to send.
    let _gone = nix::sys::socket::shutdown(stream.as_fd().as_raw_fd(), Shutdown::Read);
}

async fn write_frames(stream: Arc<Stream>, mut waiting: mpsc::Receiver<Outgoing>) {
    while let Some(outgoing) = waiting.recv().await {
        let fds: Vec<BorrowedFd<'_>> = outgoing.fds.iter().map(AsFd::as_fd).collect();
        match tokio::time::timeout(WRITE_TIMEOUT, write_all(&stream, &outgoing.frame.to_bytes(), &fds)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return debug!(%error, "the caller is gone"),
            Err(_elapsed) => return debug!("the caller does not read"),
        }
    }
}

/// The way of a call's stream to its caller.
#[derive(Debug)]
pub(crate) struct ItemSender {
    id: u64,
    version: u16,
    credit: Arc<Semaphore>,
    queue: mpsc::Sender<Outgoing>,
    cancelled: watch::Receiver<bool>,
}

/// The caller wants no more items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unwanted;

impl ItemSender {
    /// Sends an item once the caller has credit for it.
    ///
    /// # Errors
    /// [`Unwanted`] when the caller has cancelled the call or is gone.
    pub(crate) async fn send(&mut self, item: Item) -> Result<(), Unwanted> {
        let permit = tokio::select! {
            biased;
            () = cancelled(&mut self.cancelled) => return Err(Unwanted),
            permit = Arc::clone(&self.credit).acquire_owned() => permit.map_err(|_closed| Unwanted)?,
        };
        permit.forget();
        self.push(item).await
    }

    /// Sends an item if the caller has credit for it right now, and drops it otherwise: for progress.
    pub(crate) async fn send_or_drop(&mut self, item: Item) {
        if let Ok(permit) = Arc::clone(&self.credit).try_acquire_owned() {
            permit.forget();
            let _unwanted = self.push(item).await;
        }
    }

    /// Waits until the caller cancels the call.
    pub(crate) async fn until_cancelled(&mut self) {
        cancelled(&mut self.cancelled).await;
    }

    async fn push(&self, item: Item) -> Result<(), Unwanted> {
        if !item.is_known(self.version) {
            return Ok(());
        }
        let frame = match Frame::new(self.version, Kind::Item, &StreamItem { id: self.id, item }) {
            Ok(frame) => frame,
            Err(error) => {
                warn!(%error, id = self.id, "an item cannot be sent");
                return Err(Unwanted);
            }
        };
        self.queue.send(frame.into()).await.map_err(|_closed| Unwanted)
    }
}

async fn cancelled(flag: &mut watch::Receiver<bool>) {
    // An error means that the connection is gone; this task goes with it.
    let _gone = flag.wait_for(|is_cancelled| *is_cancelled).await;
}
