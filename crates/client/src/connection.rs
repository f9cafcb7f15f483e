//! One connection: the table of calls under way, and the task that moves frames for all of them.
//!
//! The task never waits for a caller: a call's items fit into its channel, since the daemon sends only what it has
//! credit for, and one that sends more is cut off. Nothing here grows without a bound: calls by their slots, frames to
//! send by [`OUTBOX_FRAMES`], cancels by the calls.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contd_protocol::api::{
    Cancel, INITIAL_CREDIT, Item, MAX_CALLS_PER_CONNECTION, MAX_LOG_ITEM_BYTES, Reply, Response, StreamItem,
};
use contd_protocol::{CodecError, Frame, FrameReader, Kind, decode};
use contd_types::ApiError;
use interprocess::local_socket::tokio::Stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::error::{ClientError, ProtocolError};

/// Frames on their way to the socket. A few, so that a daemon that does not read holds its callers back.
const OUTBOX_FRAMES: usize = 16;
/// Bytes read at once: a whole log item with its head.
const READ_BYTES: usize = MAX_LOG_ITEM_BYTES + 4096;
/// What the daemon said before it closed is still read, but not for longer than this.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The callers' side of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The version that both sides speak.
    pub(crate) version: u16,
    /// The daemon's name and version, as its hello said.
    pub(crate) agent: String,
    /// Frames to send, from the calls.
    pub(crate) outbox: mpsc::Sender<Vec<u8>>,
    /// Calls to cancel; sent by `Drop`, which cannot wait.
    pub(crate) cancels: mpsc::UnboundedSender<u64>,
    /// One per call under way, given back by its reply.
    pub(crate) slots: Arc<Semaphore>,
    /// The calls under way.
    pub(crate) calls: Arc<Calls>,
    next_id: AtomicU64,
}

/// The calls under way, and how the connection ended.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    pending: HashMap<u64, Pending>,
    ending: Option<Ending>,
    /// Whether it ended by the other side's closing while no call was under way.
    is_closed_idle: bool,
}

/// A call that has no reply yet; stays when its caller has gone.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Where its items go; `None` for a call that has none.
    pub(crate) items: Option<mpsc::Sender<Item>>,
    /// Where its reply goes.
    pub(crate) reply: oneshot::Sender<Result<Response, ApiError>>,
    /// Held until the reply is there.
    pub(crate) _slot: OwnedSemaphorePermit,
}

/// How a connection ended; the same for all its calls.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    /// The other side went away.
    Lost(Arc<io::Error>),
    /// The other side said what it must not.
    Broken(Arc<ProtocolError>),
}

impl Ending {
    fn lost(error: io::Error) -> Self {
        Self::Lost(Arc::new(error))
    }

    fn broken(error: ProtocolError) -> Self {
        Self::Broken(Arc::new(error))
    }

    fn to_error(&self, what: &'static str) -> ClientError {
        match self {
            Self::Lost(source) => ClientError::Lost { what, source: Arc::clone(source) },
            Self::Broken(source) => ClientError::Protocol { what, source: Arc::clone(source) },
        }
    }
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code under the lock can panic half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a call, unless the connection has ended.
    pub(crate) fn enter(&self, id: u64, pending: Pending, what: &'static str) -> Result<(), ClientError> {
        let mut table = self.lock();
        match &table.ending {
            Some(ending) => Err(ending.to_error(what)),
            None => {
                table.pending.insert(id, pending);
                Ok(())
            }
        }
    }

    /// Tells why a call has got no reply.
    pub(crate) fn why_ended(&self, what: &'static str) -> ClientError {
        match &self.lock().ending {
            Some(ending) => ending.to_error(what),
            // The task is gone without a word: its runtime was shut down.
            None => Ending::lost(io::ErrorKind::ConnectionAborted.into()).to_error(what),
        }
    }

    /// Tells whether the daemon has closed it while it was idle: nothing is lost then, and another will do.
    pub(crate) fn is_closed_idle(&self) -> bool {
        self.lock().is_closed_idle
    }

    fn take(&self, id: u64) -> Result<Pending, ProtocolError> {
        self.lock().pending.remove(&id).ok_or(ProtocolError::UnknownCall { id })
    }

    fn end(&self, ending: Ending) {
        let pending = {
            let mut table = self.lock();
            let is_closed = matches!(&ending, Ending::Lost(source) if source.kind() == io::ErrorKind::UnexpectedEof);
            table.is_closed_idle = is_closed && table.pending.is_empty();
            table.ending = Some(ending);
            std::mem::take(&mut table.pending)
        };
        drop(pending);
    }

    /// Hands an item to its call. A caller that has gone gets nothing; its reply is still to come.
    fn deliver(&self, StreamItem { id, item }: StreamItem) -> Result<(), ProtocolError> {
        if let Item::Log(log) = &item
            && log.content.len() > MAX_LOG_ITEM_BYTES
        {
            return Err(ProtocolError::LargeItem { bytes: log.content.len() });
        }
        let table = self.lock();
        let pending = table.pending.get(&id).ok_or(ProtocolError::UnknownCall { id })?;
        let Some(items) = &pending.items else {
            return Err(ProtocolError::WrongItem { got: crate::call::item_name(&item) });
        };
        match items.try_send(item) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(ProtocolError::OverCredit { id }),
        }
    }
}

impl Connection {
    /// Puts a socket whose hello is done under the care of a task, which ends with the connection's last user.
    pub(crate) fn start(stream: Stream, reader: FrameReader, version: u16, agent: String) -> Arc<Self> {
        let (outbox, frames) = mpsc::channel(OUTBOX_FRAMES);
        let (cancels, cancelled) = mpsc::unbounded_channel();
        let slots = Arc::new(Semaphore::new(MAX_CALLS_PER_CONNECTION));
        let calls = Arc::new(Calls::default());
        let writer = Writer { version, frames, cancelled };
        tokio::spawn(carry(stream, reader, writer, Arc::clone(&calls), Arc::clone(&slots)));
        Arc::new(Self { version, agent, outbox, cancels, slots, calls, next_id: AtomicU64::new(1) })
    }

    /// Chooses an id that this connection has not used.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

/// Makes the channel for a call's items: as many as the daemon may send unread.
pub(crate) fn item_channel() -> (mpsc::Sender<Item>, mpsc::Receiver<Item>) {
    mpsc::channel(usize::try_from(INITIAL_CREDIT).unwrap_or(usize::MAX))
}

/// The task of a connection.
async fn carry(stream: Stream, reader: FrameReader, mut writer: Writer, calls: Arc<Calls>, slots: Arc<Semaphore>) {
    let version = writer.version;
    let (mut receive, mut send) = (&stream, &stream);
    let ending = {
        let reading = read_frames(&mut receive, reader, version, &calls);
        tokio::pin!(reading);
        let written = tokio::select! {
            ending = &mut reading => Err(ending),
            result = writer.write_frames(&mut send) => Ok(result),
        };
        match written {
            Err(ending) => ending,
            Ok(Ok(())) => Ending::lost(io::ErrorKind::ConnectionAborted.into()),
            Ok(Err(error)) => {
                tokio::time::timeout(LAST_WORDS, reading).await.unwrap_or_else(|_elapsed| Ending::lost(error))
            }
        }
    };
    tracing::debug!(?ending, "connection to the daemon ended");
    calls.end(ending);
    slots.close();
}

/// Reads until the connection ends.
async fn read_frames(
    receive: &mut (impl AsyncRead + Unpin),
    mut reader: FrameReader,
    version: u16,
    calls: &Calls,
) -> Ending {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        loop {
            match reader.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    if let Err(error) = dispatch(&frame, version, calls) {
                        return Ending::broken(error);
                    }
                }
                Err(error) => return Ending::broken(ProtocolError::Frame(error)),
            }
        }
        match receive.read(&mut buffer).await {
            Ok(0) => return Ending::lost(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => reader.push(buffer.get(..count).unwrap_or_default()),
            Err(error) => return Ending::lost(error),
        }
    }
}

fn dispatch(frame: &Frame, version: u16, calls: &Calls) -> Result<(), ProtocolError> {
    if frame.version != version {
        return Err(ProtocolError::FrameVersion { agreed: version, got: frame.version });
    }
    match frame.kind {
        Kind::Reply => {
            let Reply { id, result } = decode(&frame.body).map_err(ProtocolError::Message)?;
            // The items' sender goes with `pending`: the stream ends behind its last item.
            let pending = calls.take(id)?;
            drop(pending.reply.send(result));
            Ok(())
        }
        Kind::Item => calls.deliver(decode(&frame.body).map_err(ProtocolError::Message)?),
        got => Err(ProtocolError::FrameKind { got, wanted: "a reply or an item" }),
    }
}

/// What the task writes.
struct Writer {
    version: u16,
    frames: mpsc::Receiver<Vec<u8>>,
    cancelled: mpsc::UnboundedReceiver<u64>,
}

impl Writer {
    /// Writes until the last user of the connection is gone.
    async fn write_frames(&mut self, send: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        loop {
            // Calls first: a cancel must not overtake the call it cancels.
            let bytes = tokio::select! {
                biased;
                frame = self.frames.recv() => match frame {
                    Some(bytes) => bytes,
                    None => return Ok(()),
                },
                id = self.cancelled.recv() => match id {
                    Some(id) => self.cancel_frame(id).map_err(io::Error::other)?,
                    None => return Ok(()),
                },
            };
            send.write_all(&bytes).await?;
            send.flush().await?;
        }
    }

    fn cancel_frame(&self, id: u64) -> Result<Vec<u8>, CodecError> {
        Ok(Frame::new(self.version, Kind::Cancel, &Cancel { id })?.to_bytes())
    }
}
