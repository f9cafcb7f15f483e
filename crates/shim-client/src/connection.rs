//! One connection: calls by id, and the task that moves their frames.
//!
//! The task ends when the socket does, when the shim says what it must not, or when the last caller is gone; then every
//! call under way is told. A caller that has stopped waiting takes its entry out, so its late answer finds nobody.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contd_protocol::shim::{Call, MAX_CALLS_PER_CONNECTION, Reply, Request, Response};
use contd_protocol::{Frame, FrameReader, Kind, decode};
use contd_types::ApiError;
use interprocess::local_socket::tokio::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::greet::Greeted;

/// Frames on their way to the socket; a shim that does not read holds its callers back, whose deadlines then count.
const OUTBOX_FRAMES: usize = 8;
/// Bytes read at once; most answers have fewer than 100.
const READ_BYTES: usize = 4096;

/// The callers' side; when the last one is dropped, the socket is closed.
#[derive(Debug)]
pub(crate) struct Connection {
    version: u16,
    outbox: mpsc::Sender<Vec<u8>>,
    /// One per call that the shim may hold at once.
    slots: Semaphore,
    calls: Arc<Calls>,
    next_id: AtomicU64,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The socket was closed or broke.
    Lost,
    /// The shim said what it must not.
    Protocol(String),
}

#[derive(Debug, Default)]
struct Calls {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    pending: HashMap<u64, oneshot::Sender<Result<Response, ApiError>>>,
    ending: Option<Ending>,
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code under the lock can panic half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first ending stands; dropping the senders tells all callers.
    fn end(&self, ending: Ending) {
        let pending = {
            let mut table = self.lock();
            table.ending.get_or_insert(ending);
            std::mem::take(&mut table.pending)
        };
        drop(pending);
    }

    fn ending(&self) -> Option<Ending> {
        self.lock().ending.clone()
    }
}

/// Takes a call out of the table when its caller stops waiting.
struct Entry<'a> {
    calls: &'a Calls,
    id: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.calls.lock().pending.remove(&self.id);
    }
}

/// Tells all callers even when the task is dropped with its runtime.
struct EndOnDrop(Arc<Calls>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(Ending::Lost);
    }
}

impl Connection {
    /// Starts the task of a connection. Only legal within a tokio runtime.
    pub(crate) fn start(Greeted { stream, reader, version }: Greeted) -> Self {
        let (outbox, frames) = mpsc::channel(OUTBOX_FRAMES);
        let calls = Arc::new(Calls::default());
        let guard = EndOnDrop(Arc::clone(&calls));
        tokio::spawn(async move {
            let ending = tokio::select! {
                ending = receive_all(&stream, reader, version, &guard.0) => ending,
                ending = send_all(&stream, frames) => ending,
            };
            guard.0.end(ending);
        });
        Self { version, outbox, slots: Semaphore::new(MAX_CALLS_PER_CONNECTION), calls, next_id: AtomicU64::new(1) }
    }

    /// Tells whether nothing can be called any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.calls.ending().is_some()
    }

    /// Asks and waits for the answer, without a deadline. May be dropped at any time.
    pub(crate) async fn call(&self, request: Request) -> Result<Result<Response, ApiError>, Ending> {
        let ended = || self.calls.ending().unwrap_or(Ending::Lost);
        let _slot = self.slots.acquire().await.map_err(|_closed| ended())?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = Frame::new(self.version, Kind::Call, &Call { id, request })
            .map_err(|error| Ending::Protocol(error.to_string()))?;
        let (sender, answer) = oneshot::channel();
        {
            let mut table = self.calls.lock();
            if let Some(ending) = &table.ending {
                return Err(ending.clone());
            }
            table.pending.insert(id, sender);
        }
        let _entry = Entry { calls: &self.calls, id };
        self.outbox.send(frame.to_bytes()).await.map_err(|_closed| ended())?;
        answer.await.map_err(|_dropped| ended())
    }
}

async fn send_all(mut socket: &Stream, mut frames: mpsc::Receiver<Vec<u8>>) -> Ending {
    while let Some(frame) = frames.recv().await {
        if let Err(error) = socket.write_all(&frame).await {
            tracing::debug!(%error, "connection to a shim broke while writing");
            // What the shim said before it closed is still read; its end of file then ends the connection.
            if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) {
                return Ending::Lost;
            }
            return std::future::pending().await;
        }
    }
    Ending::Lost
}

async fn receive_all(mut socket: &Stream, mut reader: FrameReader, version: u16, calls: &Calls) -> Ending {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => {
                    if let Err(what) = accept(&frame, version, calls) {
                        return Ending::Protocol(what);
                    }
                }
                Ok(None) => break,
                Err(error) => return Ending::Protocol(error.to_string()),
            }
        }
        match socket.read(&mut buffer).await {
            Ok(0) => return Ending::Lost,
            Ok(count) => reader.push(buffer.get(..count).unwrap_or_default()),
            Err(error) => {
                tracing::debug!(%error, "connection to a shim broke while reading");
                return Ending::Lost;
            }
        }
    }
}

fn accept(frame: &Frame, version: u16, calls: &Calls) -> Result<(), String> {
    if (frame.version, frame.kind) != (version, Kind::Reply) {
        return Err(format!("it sent {:?} of version {} instead of a reply", frame.kind, frame.version));
    }
    let Reply { id, result } = decode(&frame.body).map_err(|error| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })?;
    let waiting = calls.lock().pending.remove(&id);
    match waiting.map(|waiting| waiting.send(result)) {
        Some(Ok(())) => {}
        // Its caller's deadline was over.
        Some(Err(_)) | None => tracing::debug!(call = id, "late answer of a shim dropped"),
    }
    Ok(())
}
