//! One connection of a caller: the table of calls under way, and the task that moves frames for all of them.
//!
//! The task never waits for a caller: a call's items fit into its channel, since the other side sends only what it has
//! credit for, and one that sends more is cut off. Nothing here grows without a bound: calls by their slots, frames to
//! send by [`OUTBOX_FRAMES`], cancels by the calls.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contd_protocol::session::{Answered, Cancel, Reply, StreamItem, Welcome};
use contd_protocol::{CodecError, Frame, Kind, Protocol, Session, Violation};
use contd_types::{ApiError, RequestId};
use interprocess::local_socket::tokio::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::socket;

/// Frames on their way to the socket. A few, so that a side that does not read holds its callers back.
const OUTBOX_FRAMES: usize = 16;
/// How long messages are still read that the other side sent before it closed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The callers' side of a connection; when the last user is dropped, the socket is closed.
#[derive(Debug)]
pub struct Connection<P: Protocol> {
    welcome: Welcome,
    /// Frames to send, from the calls.
    pub(crate) outbox: mpsc::Sender<Outgoing>,
    /// Calls to cancel; sent by `Drop`, which cannot wait.
    pub(crate) cancels: mpsc::UnboundedSender<u64>,
    /// One per call under way, given back with its entry in the table.
    pub(crate) slots: Arc<Semaphore>,
    /// The calls under way.
    pub(crate) calls: Arc<Calls<P>>,
    next_id: AtomicU64,
}

/// A frame with the descriptors that go with it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// A reply with the descriptors that came with it, as many as [`Protocol::descriptors_of_response`] says.
#[derive(Debug)]
pub struct Answer<P: Protocol> {
    /// The answer.
    pub response: P::Response,
    /// Its descriptors.
    pub fds: Vec<OwnedFd>,
}

/// How a connection ended; the same for all its calls.
#[derive(Debug, Clone)]
pub enum Ending {
    /// The other side went away.
    Lost(Arc<io::Error>),
    /// The other side said what it must not.
    Broken(Arc<Violation>),
}

impl Ending {
    fn lost(error: impl Into<io::Error>) -> Self {
        Self::Lost(Arc::new(error.into()))
    }
}

/// The calls under way, and how the connection ended.
#[derive(Debug)]
pub(crate) struct Calls<P: Protocol> {
    table: Mutex<Table<P>>,
}

#[derive(Debug)]
struct Table<P: Protocol> {
    pending: HashMap<u64, Pending<P>>,
    ending: Option<Ending>,
    /// Whether it ended by the other side's closing while no call was under way.
    is_closed_idle: bool,
}

/// A call that has no reply yet. Where calls can be cancelled, it stays when its caller has gone.
#[derive(Debug)]
pub(crate) struct Pending<P: Protocol> {
    /// Where its items go; `None` for a call that has none.
    pub(crate) items: Option<mpsc::Sender<P::Item>>,
    /// Where its reply goes.
    pub(crate) reply: oneshot::Sender<Result<Answer<P>, ApiError>>,
    /// Held until the reply is there.
    pub(crate) _slot: OwnedSemaphorePermit,
}

impl<P: Protocol> Calls<P> {
    fn new() -> Self {
        Self { table: Mutex::new(Table { pending: HashMap::new(), ending: None, is_closed_idle: false }) }
    }

    fn lock(&self) -> MutexGuard<'_, Table<P>> {
        // No code under the lock can panic half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a call, unless the connection has ended.
    pub(crate) fn enter(&self, id: u64, pending: Pending<P>) -> Result<(), Ending> {
        let mut table = self.lock();
        match &table.ending {
            Some(ending) => Err(ending.clone()),
            None => {
                table.pending.insert(id, pending);
                Ok(())
            }
        }
    }

    /// Forgets a call: its late answer finds nobody.
    pub(crate) fn forget(&self, id: u64) {
        self.lock().pending.remove(&id);
    }

    /// Tells why a call has got no reply.
    pub(crate) fn why_ended(&self) -> Ending {
        // No ending: the task is gone without a word, since its runtime was shut down.
        self.lock().ending.clone().unwrap_or_else(|| Ending::lost(io::ErrorKind::ConnectionAborted))
    }

    /// The first ending stands; dropping the senders tells all callers.
    fn end(&self, ending: Ending) {
        let pending = {
            let mut table = self.lock();
            if table.ending.is_none() {
                let is_closed =
                    matches!(&ending, Ending::Lost(source) if source.kind() == io::ErrorKind::UnexpectedEof);
                table.is_closed_idle = is_closed && table.pending.is_empty();
                table.ending = Some(ending);
            }
            std::mem::take(&mut table.pending)
        };
        drop(pending);
    }

    /// Hands an answer to its call. A caller that has gone gets nothing; its reply is still to come.
    fn deliver(&self, answer: Answered<P>, session: &mut Session<P>) -> Result<(), Violation> {
        match answer {
            Answered::Reply(Reply { id, result }) => {
                let result = match result {
                    Ok(response) => {
                        let fds = session.take_descriptors(P::descriptors_of_response(&response))?;
                        Ok(Answer { response, fds })
                    }
                    Err(error) => Err(error),
                };
                match self.lock().pending.remove(&id) {
                    // The items' sender goes with the entry: the stream ends behind its last item.
                    Some(pending) => drop(pending.reply.send(result)),
                    // Where calls cannot be cancelled they are forgotten: this one's caller waits no longer.
                    None if P::CREDIT == 0 => tracing::debug!(call = id, "late answer dropped"),
                    None => return Err(Violation::UnknownCall { id }),
                }
            }
            Answered::Item(StreamItem { id, item }) => {
                let table = self.lock();
                let pending = table.pending.get(&id).ok_or(Violation::UnknownCall { id })?;
                // A call without items has credit for none.
                let items = pending.items.as_ref().ok_or(Violation::OverCredit { id })?;
                if let Err(mpsc::error::TrySendError::Full(_)) = items.try_send(item) {
                    return Err(Violation::OverCredit { id });
                }
            }
        }
        Ok(())
    }
}

/// Ends all calls, also when the task is dropped with its runtime.
struct EndOnDrop<P: Protocol> {
    calls: Arc<Calls<P>>,
    slots: Arc<Semaphore>,
}

impl<P: Protocol> Drop for EndOnDrop<P> {
    fn drop(&mut self) {
        self.calls.end(Ending::lost(io::ErrorKind::ConnectionAborted));
        self.slots.close();
    }
}

impl<P: Protocol> Connection<P> {
    /// Puts a socket whose hello is done under the care of a task, which ends with the connection's last user. Only legal
    /// within a tokio runtime.
    pub fn start(stream: Stream, session: Session<P>, welcome: Welcome) -> Self {
        let (outbox, frames) = mpsc::channel(OUTBOX_FRAMES);
        let (cancels, cancelled) = mpsc::unbounded_channel();
        let slots = Arc::new(Semaphore::new(P::MAX_CALLS));
        let calls = Arc::new(Calls::new());
        let writer = Writer { version: welcome.version, frames, cancelled };
        let guard = EndOnDrop { calls: Arc::clone(&calls), slots: Arc::clone(&slots) };
        tokio::spawn(async move {
            let ending = carry(&stream, session, writer, &guard.calls).await;
            tracing::debug!(?ending, "connection ended");
            guard.calls.end(ending);
        });
        Self { welcome, outbox, cancels, slots, calls, next_id: AtomicU64::new(1) }
    }

    /// Returns what the other side agreed to.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Tells whether nothing can be called any more.
    pub fn has_ended(&self) -> bool {
        self.calls.lock().ending.is_some()
    }

    /// Tells whether the other side has closed it while it was idle: nothing is lost then, and another will do.
    pub fn is_closed_idle(&self) -> bool {
        self.calls.lock().is_closed_idle
    }

    /// Makes a frame of the version agreed on.
    pub(crate) fn frame(&self, kind: Kind, message: &impl serde::Serialize) -> Result<Vec<u8>, CodecError> {
        Ok(Frame::new(self.welcome.version, kind, message)?.to_bytes())
    }

    /// Chooses an id that this connection has not used.
    pub(crate) fn next_id(&self, operation: Option<RequestId>) -> u64 {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        // The lower 16 bits: far fewer calls of one operation are under way at once.
        operation.map_or(number, |operation| operation.call(u16::try_from(number & 0xffff).unwrap_or_default()))
    }
}

/// Moves frames until the connection ends.
async fn carry<P: Protocol>(stream: &Stream, session: Session<P>, mut writer: Writer, calls: &Calls<P>) -> Ending {
    let reading = read_answers(stream, session, calls);
    tokio::pin!(reading);
    let written = tokio::select! {
        ending = &mut reading => return ending,
        result = writer.write_frames(stream) => result,
    };
    match written {
        Ok(()) => Ending::lost(io::ErrorKind::ConnectionAborted),
        Err(error) => tokio::time::timeout(LAST_WORDS, reading).await.unwrap_or_else(|_elapsed| Ending::lost(error)),
    }
}

/// Reads until the connection ends.
async fn read_answers<P: Protocol>(stream: &Stream, mut session: Session<P>, calls: &Calls<P>) -> Ending {
    let mut buffer = vec![0; P::READ_BYTES];
    loop {
        loop {
            let answer = session.next_answered();
            match answer.and_then(|answer| answer.map(|answer| calls.deliver(answer, &mut session)).transpose()) {
                Ok(Some(())) => {}
                Ok(None) => break,
                Err(violation) => return Ending::Broken(Arc::new(violation)),
            }
        }
        let mut fds = Vec::new();
        let read = socket::read(stream, &mut buffer, &mut fds).await;
        if let Err(violation) = session.push_descriptors(fds) {
            return Ending::Broken(Arc::new(violation));
        }
        match read {
            Ok(0) => return Ending::lost(io::ErrorKind::UnexpectedEof),
            Ok(count) => session.push(buffer.get(..count).unwrap_or_default()),
            Err(error) => return Ending::lost(error),
        }
    }
}

/// The sending half of the task.
struct Writer {
    version: u16,
    frames: mpsc::Receiver<Outgoing>,
    cancelled: mpsc::UnboundedReceiver<u64>,
}

impl Writer {
    /// Writes until the last user of the connection is gone.
    async fn write_frames(&mut self, stream: &Stream) -> io::Result<()> {
        loop {
            // Calls first: a cancel must not overtake the call it cancels.
            let Outgoing { bytes, fds } = tokio::select! {
                biased;
                frame = self.frames.recv() => match frame {
                    Some(frame) => frame,
                    None => return Ok(()),
                },
                id = self.cancelled.recv() => match id {
                    Some(id) => {
                        let frame = Frame::new(self.version, Kind::Cancel, &Cancel { id });
                        Outgoing { bytes: frame.map_err(io::Error::other)?.to_bytes(), fds: Vec::new() }
                    }
                    None => return Ok(()),
                },
            };
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            socket::write_all(stream, &bytes, &fds).await?;
        }
    }
}
