//! The control socket: Status, Shutdown and the hand-over to a successor, in the frames of `contd-protocol`.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contd_handover::RightsError;
use contd_lease::ProcessIdentity;
use contd_protocol::flistfs::{self, Call, Reply, Request, Response, Status, VERSIONS};
use contd_protocol::hello::HELLO_VERSION;
use contd_protocol::{
    CodecError, Frame, FrameError, FrameReader, Hello, HelloReply, Kind, MAX_CONTROL_BODY_BYTES, Refusal, negotiate,
};
use contd_types::{ApiError, ErrorKind, Explain};
use tracing::{debug, info, warn};

use crate::estate::Estate;
use crate::mount::{Mount, MountError};
use crate::ops::Ops;
use crate::succession::process;

/// Connections at the same time: the daemon has one per flist, a person with a tool another.
const MAX_CONNECTIONS: usize = 16;

/// How long a connection may be silent between frames, or an answer unread. A caller connects anew after it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the kernel may take to give up the file system after the unmount, when nothing uses it: it is a matter of
/// milliseconds. If it takes longer, something that the mount table does not show still uses it.
const GONE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the end of the process waits for the answer to the Shutdown that caused it.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the server does not end when it is asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShutdownError {
    /// It could not be unmounted.
    #[error("shut down the flist server")]
    Unmount {
        /// Why.
        source: MountError,
    },
    /// It is unmounted here, and something still uses it.
    #[error("shut down the flist server: unmounted, but still in use after {GONE_TIMEOUT:?}")]
    StillUsed,
}

impl Explain for ShutdownError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unmount { source: MountError::InUse { .. } } | Self::StillUsed => ErrorKind::Busy,
            Self::Unmount { .. } => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        Some("end what uses it (grep contd-flistfs /proc/*/mountinfo), then shut down again".to_owned())
    }
}

/// What the connections share.
#[derive(Debug)]
pub(crate) struct Control {
    estate: Arc<Estate>,
    us: ProcessIdentity,
    ops: Arc<Ops>,
    mount: Mount,
    ending: Mutex<Ending>,
    changed: Condvar,
    connections: AtomicUsize,
}

/// How far the end is.
#[derive(Debug, Default)]
struct Ending {
    /// Whether the kernel has given up the file system.
    is_gone: bool,
    /// Shutdowns that were asked for and are not answered yet.
    farewells: usize,
    /// Connections of successors that were given all they need, and have not ended us yet.
    successors: usize,
}

/// Why a connection ends early.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("read from or write to a connection")]
    Io(#[from] io::Error),
    #[error("split the bytes of a connection in frames")]
    Frame(#[from] FrameError),
    #[error("encode or decode a message")]
    Codec(#[from] CodecError),
    #[error("take a frame of kind {0:?}: it is not expected here")]
    Unexpected(Kind),
    #[error("agree with the caller")]
    Refused(#[source] Refusal),
    #[error("hand over to a successor")]
    HandOver(#[from] RightsError),
    #[error("write down for a successor what was agreed with the kernel")]
    Session(#[source] serde_json::Error),
}

impl Control {
    pub(crate) fn new(estate: Arc<Estate>, us: ProcessIdentity, ops: Arc<Ops>, mount: Mount) -> Arc<Self> {
        Arc::new(Self {
            estate,
            us,
            ops,
            mount,
            ending: Mutex::default(),
            changed: Condvar::new(),
            connections: AtomicUsize::new(0),
        })
    }

    /// Notes that the kernel has given up the file system.
    pub(crate) fn note_gone(&self) {
        self.ending().is_gone = true;
        self.changed.notify_all();
    }

    fn ending(&self) -> MutexGuard<'_, Ending> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until those who asked for the end have been told.
    pub(crate) fn wait_for_farewells(&self) {
        let is_awaited = |ending: &mut Ending| ending.farewells > 0;
        let _told_or_too_late = self.changed.wait_timeout_while(self.ending(), FAREWELL_TIMEOUT, is_awaited);
    }

    /// Waits while a successor that has been given everything may be about to end us.
    pub(crate) fn wait_for_successors(&self) {
        let is_awaited = |ending: &mut Ending| ending.successors > 0;
        drop(self.changed.wait_while(self.ending(), is_awaited));
    }

    /// Takes the next connection and serves it on a thread of its own.
    pub(crate) fn accept(self: &Arc<Self>, listener: &UnixListener) {
        let stream = match listener.accept() {
            Ok((stream, _nameless)) => stream,
            Err(error) => return debug!(%error, "nobody there any more"),
        };
        if self.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            // The caller sees the end of the stream, which it takes as "try again".
            return warn!("too many connections, closing the newest");
        }
        let control = Arc::clone(self);
        let served = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            if let Err(error) = control.serve(stream) {
                debug!(error = %contd_types::one_line(&error), "a connection ended early");
            }
            control.connections.fetch_sub(1, Ordering::Relaxed);
        });
        if let Err(error) = served {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            warn!(%error, "no thread for a connection, closing it");
        }
    }

    /// Unmounts and waits until the kernel has given up the file system; then the process ends by itself.
    ///
    /// # Errors
    /// [`ShutdownError`]; the server goes on serving.
    pub(crate) fn shut_down(&self) -> Result<(), ShutdownError> {
        self.mount.detach().map_err(|source| ShutdownError::Unmount { source })?;
        let waited = self.changed.wait_timeout_while(self.ending(), GONE_TIMEOUT, |ending| !ending.is_gone);
        let (ending, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if ending.is_gone { Ok(()) } else { Err(ShutdownError::StillUsed) }
    }

    fn serve(&self, mut stream: UnixStream) -> Result<(), ConnectionError> {
        stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
        stream.set_write_timeout(Some(IDLE_TIMEOUT))?;
        let mut frames = FrameReader::new(MAX_CONTROL_BODY_BYTES);
        let Some(first) = next_frame(&mut stream, &mut frames)? else { return Ok(()) };
        if first.kind != Kind::Hello {
            return Err(ConnectionError::Unexpected(first.kind));
        }
        let hello: Hello = contd_protocol::decode(&first.body)?;
        let negotiated = negotiate(hello.versions, VERSIONS);
        let reply = match &negotiated {
            Ok(version) => HelloReply::Welcome {
                version: *version,
                agent: concat!("contd-flistfs ", env!("CARGO_PKG_VERSION")).to_owned(),
                features: Vec::new(),
            },
            Err(refusal) => HelloReply::Refused(refusal.clone()),
        };
        stream.write_all(&Frame::new(HELLO_VERSION, Kind::HelloReply, &reply)?.to_bytes())?;
        let version = negotiated.map_err(ConnectionError::Refused)?;
        // Until this connection closes, whatever it is that ends it.
        let mut _succession = None;
        while let Some(frame) = next_frame(&mut stream, &mut frames)? {
            if frame.kind != Kind::Call {
                return Err(ConnectionError::Unexpected(frame.kind));
            }
            let call: Call = contd_protocol::decode(&frame.body)?;
            if matches!(call.request, Request::HandOver) {
                _succession = Some(Succession::new(self));
            }
            self.answer(&mut stream, version, &call)?;
        }
        Ok(())
    }

    fn answer(&self, stream: &mut UnixStream, version: u16, call: &Call) -> Result<(), ConnectionError> {
        let mut send = |result| -> Result<(), ConnectionError> {
            let reply = Reply { id: call.id, result };
            stream.write_all(&Frame::new(version, Kind::Reply, &reply)?.to_bytes())?;
            Ok(())
        };
        match call.request {
            Request::Status => send(Ok(Response::Status(self.status()))),
            Request::Shutdown => {
                // Counted before the end can begin, so that the end waits for this answer.
                self.count_farewell(|count| count.saturating_add(1));
                info!("asked to shut down");
                let result = self.shut_down().map(|()| Response::Done);
                let sent = send(result.map_err(|error| ApiError::from_error(&error)));
                self.count_farewell(|count| count.saturating_sub(1));
                sent
            }
            Request::HandOver => self.hand_over(stream, version, call.id),
        }
    }

    fn hand_over(&self, stream: &UnixStream, version: u16, id: u64) -> Result<(), ConnectionError> {
        let Estate { device, lease, listener, negotiated, .. } = &*self.estate;
        let session = serde_json::to_string(negotiated).map_err(ConnectionError::Session)?;
        let estate = flistfs::Handover { server: process(&self.us), session };
        let frame = Frame::new(version, Kind::Reply, &Reply { id, result: Ok(Response::Handover(estate)) })?;
        info!("handing over to a successor");
        Ok(contd_handover::send(stream, &frame.to_bytes(), &[device.as_fd(), lease.as_fd(), listener.as_fd()])?)
    }

    fn count_farewell(&self, change: impl FnOnce(usize) -> usize) {
        let mut ending = self.ending();
        ending.farewells = change(ending.farewells);
        drop(ending);
        self.changed.notify_all();
    }

    fn status(&self) -> Status {
        Status {
            pid: nix::unistd::getpid().as_raw(),
            hash: self.estate.spec.hash.clone(),
            mount_point: self.mount.path().to_owned(),
            inodes: self.ops.inodes(),
            failed_reads: self.ops.failed_reads(),
        }
    }
}

/// Counted as long as a successor's connection is open.
struct Succession<'a>(&'a Control);

impl<'a> Succession<'a> {
    fn new(control: &'a Control) -> Self {
        let mut ending = control.ending();
        ending.successors = ending.successors.saturating_add(1);
        Self(control)
    }
}

impl Drop for Succession<'_> {
    fn drop(&mut self) {
        let mut ending = self.0.ending();
        ending.successors = ending.successors.saturating_sub(1);
        drop(ending);
        self.0.changed.notify_all();
    }
}

/// Reads until a frame is whole; `None` when the caller has closed.
fn next_frame(stream: &mut UnixStream, frames: &mut FrameReader) -> Result<Option<Frame>, ConnectionError> {
    let mut chunk = [0; 4096];
    loop {
        if let Some(frame) = frames.next_frame()? {
            return Ok(Some(frame));
        }
        let len = stream.read(&mut chunk)?;
        if len == 0 {
            return Ok(None);
        }
        frames.push(chunk.get(..len).unwrap_or_default());
    }
}
