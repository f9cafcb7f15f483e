//! A scripted daemon: speaks the whole protocol over a real socket, credit included, and answers as a closure says.
//!
//! For the tests of this crate and of whoever uses it. It keeps every request, so that a test can ask what was asked.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use contd_protocol::api::{
    Call, Cancel, Credit, INITIAL_CREDIT, Item, Reply, Request, Response, StreamItem, TEXT_VERSION, VERSIONS,
};
use contd_protocol::hello::HELLO_VERSION;
use contd_protocol::{
    Frame, FrameReader, Hello, HelloReply, Kind, MAX_API_BODY_BYTES, VersionRange, decode, negotiate,
};
use contd_types::{ApiError, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

/// The answer of a script.
pub type Answer = Pin<Box<dyn Future<Output = Result<Response, ApiError>> + Send>>;
/// A script: what to do with each request.
pub type Script = dyn Fn(Request, Caller) -> Answer + Send + Sync;

/// A daemon that follows a script. Ends with all its connections when dropped.
#[derive(Debug)]
pub struct FakeDaemon {
    requests: Arc<Mutex<Vec<Request>>>,
    accepting: JoinHandle<()>,
}

impl FakeDaemon {
    /// Listens at a path and answers by the script.
    ///
    /// # Errors
    /// The system's error of the socket.
    pub fn listen<F, A>(path: &Path, script: F) -> io::Result<Self>
    where
        F: Fn(Request, Caller) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Response, ApiError>> + Send + 'static,
    {
        Self::listen_as(path, VERSIONS, script)
    }

    /// Listens as a daemon that speaks other versions.
    ///
    /// # Errors
    /// The system's error of the socket.
    pub fn listen_as<F, A>(path: &Path, versions: VersionRange, script: F) -> io::Result<Self>
    where
        F: Fn(Request, Caller) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Response, ApiError>> + Send + 'static,
    {
        let listener = UnixListener::bind(path)?;
        let script: Arc<Script> = Arc::new(move |request, caller| Box::pin(script(request, caller)));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _address)) = listener.accept().await {
                let (script, log) = (Arc::clone(&script), Arc::clone(&log));
                connections.spawn(async move { drop(converse(stream, versions, script, log).await) });
            }
        });
        Ok(Self { requests, accepting })
    }

    /// Returns every request so far, in the order in which they came.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The other end of one call.
#[derive(Debug, Clone)]
pub struct Caller {
    id: u64,
    version: u16,
    credit: Arc<Semaphore>,
    out: mpsc::Sender<Vec<u8>>,
    cancelled: watch::Receiver<bool>,
    hang_up: Arc<tokio::sync::Notify>,
}

impl Caller {
    /// Sends an item once there is credit for it.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn item(&self, item: Item) -> io::Result<()> {
        self.credit.acquire().await.map_err(io::Error::other)?.forget();
        self.item_without_credit(item).await
    }

    /// Sends an item whether there is credit or not: a fault.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn item_without_credit(&self, item: Item) -> io::Result<()> {
        let item = StreamItem { id: self.id, item };
        let frame = Frame::new(self.version, Kind::Item, &item).map_err(io::Error::other)?;
        self.out.send(frame.to_bytes()).await.map_err(io::Error::other)
    }

    /// Waits until the caller cancels the call.
    pub async fn cancelled(&self) {
        let mut cancelled = self.cancelled.clone();
        if cancelled.wait_for(|is_cancelled| *is_cancelled).await.is_err() {
            // The connection went first; its calls are dropped with it.
            std::future::pending::<()>().await;
        }
    }

    /// Closes the whole connection: a daemon that dies.
    pub fn hang_up(&self) {
        self.hang_up.notify_one();
    }
}

/// The calls of one connection, with what their credit and cancels go to.
#[derive(Default)]
struct Calls {
    open: std::collections::HashMap<u64, (Arc<Semaphore>, watch::Sender<bool>)>,
}

async fn converse(
    stream: UnixStream,
    versions: VersionRange,
    script: Arc<Script>,
    log: Arc<Mutex<Vec<Request>>>,
) -> io::Result<()> {
    let (mut receive, mut send) = stream.into_split();
    let mut reader = FrameReader::new(MAX_API_BODY_BYTES);
    let Some(version) = welcome(&mut receive, &mut send, &mut reader, versions).await? else { return Ok(()) };
    let (out, mut frames) = mpsc::channel::<Vec<u8>>(1);
    let hang_up = Arc::new(tokio::sync::Notify::new());
    let writing = async move {
        while let Some(bytes) = frames.recv().await {
            send.write_all(&bytes).await?;
        }
        Ok(())
    };
    let reading = async {
        let mut calls = Calls::default();
        let mut running = tokio::task::JoinSet::new();
        while let Some(frame) = read_frame(&mut receive, &mut reader).await? {
            match frame.kind {
                Kind::Call => {
                    let Call { id, request }: Call = decode(&frame.body).map_err(io::Error::other)?;
                    let request = request.plain().map_err(io::Error::other)?;
                    log.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
                    let credit = Arc::new(Semaphore::new(usize::try_from(INITIAL_CREDIT).unwrap_or(0)));
                    let (cancel, cancelled) = watch::channel(false);
                    calls.open.insert(id, (Arc::clone(&credit), cancel));
                    let (out, hang_up) = (out.clone(), Arc::clone(&hang_up));
                    let caller = Caller { id, version, credit, out: out.clone(), cancelled, hang_up };
                    let follows =
                        matches!(request, Request::Logs { is_following: true, .. }) && version >= TEXT_VERSION;
                    let first = follows.then(|| caller.clone());
                    let answer = script(request, caller);
                    running.spawn(async move {
                        if let Some(caller) = first {
                            drop(caller.item(Item::Follows).await);
                        }
                        let form = |response: Response| {
                            response
                                .for_version(version)
                                .map_err(|error| ApiError::new(ErrorKind::Internal, error.to_string()))
                        };
                        let reply = Reply { id, result: answer.await.and_then(form) };
                        if let Ok(frame) = Frame::new(version, Kind::Reply, &reply) {
                            drop(out.send(frame.to_bytes()).await);
                        }
                    });
                }
                Kind::Credit => {
                    let Credit { id, items } = decode(&frame.body).map_err(io::Error::other)?;
                    if let Some((credit, _)) = calls.open.get(&id) {
                        credit.add_permits(usize::try_from(items).unwrap_or(0));
                    }
                }
                Kind::Cancel => {
                    let Cancel { id } = decode(&frame.body).map_err(io::Error::other)?;
                    if let Some((_, cancel)) = calls.open.get(&id) {
                        cancel.send_replace(true);
                    }
                }
                other => return Err(io::Error::other(format!("unexpected frame {other:?}"))),
            }
        }
        Ok(())
    };
    tokio::select! {
        result = reading => result,
        result = writing => result,
        () = hang_up.notified() => Ok(()),
    }
}

async fn welcome(
    receive: &mut OwnedReadHalf,
    send: &mut OwnedWriteHalf,
    reader: &mut FrameReader,
    versions: VersionRange,
) -> io::Result<Option<u16>> {
    let Some(frame) = read_frame(receive, reader).await? else { return Ok(None) };
    let hello: Hello = decode(&frame.body).map_err(io::Error::other)?;
    let (reply, version) = match negotiate(hello.versions, versions) {
        Ok(version) => {
            (HelloReply::Welcome { version, agent: "fake/1".to_owned(), features: Vec::new() }, Some(version))
        }
        Err(refusal) => (HelloReply::Refused(refusal), None),
    };
    let frame = Frame::new(HELLO_VERSION, Kind::HelloReply, &reply).map_err(io::Error::other)?;
    send.write_all(&frame.to_bytes()).await?;
    Ok(version)
}

async fn read_frame(receive: &mut OwnedReadHalf, reader: &mut FrameReader) -> io::Result<Option<Frame>> {
    let mut buffer = vec![0; 8192];
    loop {
        if let Some(frame) = reader.next_frame().map_err(io::Error::other)? {
            return Ok(Some(frame));
        }
        match receive.read(&mut buffer).await? {
            0 => return Ok(None),
            count => reader.push(buffer.get(..count).unwrap_or_default()),
        }
    }
}
