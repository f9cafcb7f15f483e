//! The loop between `/dev/fuse` and [`Ops`].
//!
//! All threads read from one descriptor and answer what they read. Metadata, and content that is here and checked, are
//! answered at once. Only [`DATA_SLOTS`] of the threads may be inside an OPEN or READ that has to hash or to wait for a
//! network; those beyond that wait in a queue, so that there is always a thread left: `ls` never waits for a download.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, PipeReader, PipeWriter, Read as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::errno::Errno;
use tracing::{debug, error, warn};

use crate::ahead::AHEAD_THREADS;
use crate::negotiate::Negotiated;
use crate::ops::{Answer, Ops};
use crate::passthrough::Beginning;
use crate::sys;
use crate::wire::{Operation, REQUEST_BUFFER_BYTES, Request, WireError, reply_header, resend_notice};

/// OPENs and READs that may take long, answered at the same time: enough to keep a few cores or a few downloads busy.
const DATA_SLOTS: usize = 4;

/// Threads: two more, for what is answered at once.
const THREADS: usize = DATA_SLOTS + 2;

/// Requests that may wait for a slot. Each stands for a waiting thread somewhere or one of the kernel's few background
/// requests, so this is never reached in practice; beyond it one is answered in its turn on the descriptor.
const MAX_WAITING: usize = 16 * 1024;

/// Why a session cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The device could not be read.
    #[error("read the first request from /dev/fuse")]
    FirstRequest {
        /// Why.
        source: io::Error,
    },
    /// The first request was something else.
    #[error("begin the FUSE session: the first request is not INIT")]
    NotInit,
    /// The kernel's protocol is too old.
    #[error("begin the FUSE session: the kernel refuses our protocol version or is older than Linux 5.4")]
    Version,
    /// The answer did not arrive.
    #[error("answer INIT on /dev/fuse")]
    AnswerInit {
        /// Why.
        source: io::Error,
    },
    /// The kernel does not send again what a dead predecessor has left unanswered.
    #[error("resume the FUSE session: ask the kernel for the requests of the dead server")]
    Resend {
        /// Why; `EINVAL` before Linux 6.9.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("start a thread of the FUSE session")]
    Thread {
        /// Why.
        source: io::Error,
    },
    /// The pipe that tells the end could not be made.
    #[error("make the pipe that tells the end of the FUSE session")]
    Pipe {
        /// Why.
        source: io::Error,
    },
}

/// A connection to the kernel that is ready to be served. No thread runs before [`Session::start`].
#[derive(Debug)]
pub struct Session {
    device: Arc<File>,
    negotiated: Negotiated,
    ops: Arc<Ops>,
    slow: Mutex<Slow>,
}

/// The requests that may take long.
#[derive(Debug, Default)]
struct Slow {
    busy: usize,
    waiting: VecDeque<Request<'static>>,
}

/// Answers INIT, then starts the threads: [`Session::begin`] and [`Session::start`].
///
/// # Errors
/// [`SessionError`]; the device is closed, so the mount is dead.
pub fn start(device: File, ops: Arc<Ops>) -> Result<PipeReader, SessionError> {
    Session::begin(device, ops)?.start()
}

/// Takes INIT, the first request of a new mount, and answers it. What was agreed on holds as long as the mount lives.
///
/// # Errors
/// [`SessionError`].
pub fn agree(device: &File) -> Result<Negotiated, SessionError> {
    let mut inbox = vec![0; REQUEST_BUFFER_BYTES];
    let len = loop {
        match (&mut &*device).read(&mut inbox) {
            Ok(len) => break len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(SessionError::FirstRequest { source }),
        }
    };
    let request = Request::decode(inbox.get(..len).unwrap_or_default()).map_err(|_wire| SessionError::NotInit)?;
    let Operation::Init(offer) = request.operation else { return Err(SessionError::NotInit) };
    send(device, request.unique, &Ops::init(&offer), &[]).map_err(|source| SessionError::AnswerInit { source })?;
    Negotiated::agree(&offer).ok_or(SessionError::Version)
}

impl Session {
    /// Begins the session of a new mount: takes INIT and answers it.
    ///
    /// # Errors
    /// [`SessionError`]; the device is closed, so the mount is dead unless somebody else holds it too.
    pub fn begin(device: File, ops: Arc<Ops>) -> Result<Self, SessionError> {
        let negotiated = agree(&device)?;
        Ok(Self::new(device, negotiated, ops))
    }

    /// Serves a connection for which [`agree`] has just been called, the first to do so.
    pub fn new(device: File, negotiated: Negotiated, ops: Arc<Ops>) -> Self {
        Self::bound(device, negotiated, ops, Beginning::New)
    }

    /// Takes over the session of a predecessor that has ended: asks the kernel for what it had read and not answered.
    ///
    /// The predecessor must be dead: of two that answer one request, the second is refused by the kernel.
    ///
    /// # Errors
    /// [`SessionError::Resend`]: without that, some process would wait for ever.
    pub fn resume(device: File, negotiated: Negotiated, ops: Arc<Ops>) -> Result<Self, SessionError> {
        (&device).write_all(&resend_notice()).map_err(|source| SessionError::Resend { source })?;
        Ok(Self::bound(device, negotiated, ops, Beginning::Resumed))
    }

    fn bound(device: File, negotiated: Negotiated, ops: Arc<Ops>, beginning: Beginning) -> Self {
        let device = Arc::new(device);
        ops.attach(&device, &negotiated, beginning);
        Self { device, negotiated, ops, slow: Mutex::default() }
    }

    /// Returns what was agreed on in INIT: what a successor needs beside the device.
    #[must_use]
    pub fn negotiated(&self) -> Negotiated {
        self.negotiated
    }

    /// Starts the threads. The returned pipe hangs up when the last thread has ended, which is when the kernel has given
    /// up the file system: it is unmounted everywhere and nothing uses it any more.
    ///
    /// # Errors
    /// [`SessionError::Pipe`] or [`SessionError::Thread`].
    pub fn start(self) -> Result<PipeReader, SessionError> {
        sys::keep_memory_small();
        let session = Arc::new(self);
        let (gone, alive) = io::pipe().map_err(|source| SessionError::Pipe { source })?;
        let alive = Arc::new(alive);
        for number in 0..THREADS {
            let (session, alive) = (Arc::clone(&session), Arc::clone(&alive));
            let work = move || session.work(&alive);
            let spawned = thread::Builder::new().name(format!("fuse-{number}")).spawn(work);
            drop(spawned.map_err(|source| SessionError::Thread { source })?);
        }
        for number in 0..AHEAD_THREADS {
            let ops = Arc::clone(&session.ops);
            let spawned = thread::Builder::new().name(format!("ahead-{number}")).spawn(move || ops.work_ahead());
            drop(spawned.map_err(|source| SessionError::Thread { source })?);
        }
        Ok(gone)
    }

    /// Reads and answers until the file system is gone. `_alive` hangs up the pipe when the last thread drops it.
    fn work(&self, _alive: &PipeWriter) {
        let mut inbox = vec![0; REQUEST_BUFFER_BYTES];
        let mut outbox = Vec::new();
        loop {
            let len = match (&*self.device).read(&mut inbox) {
                Ok(len) => len,
                Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                    // ENOENT: the request was withdrawn while it was handed to us.
                    Some(Errno::EINTR | Errno::EAGAIN | Errno::ENOENT) => continue,
                    Some(Errno::ENODEV) => {
                        self.ops.stop_ahead();
                        return debug!("the file system is gone");
                    }
                    _ => return error!(%error, "reading from /dev/fuse failed, this thread ends"),
                },
            };
            self.handle(inbox.get(..len).unwrap_or_default(), &mut outbox);
        }
    }

    fn handle(&self, bytes: &[u8], outbox: &mut Vec<u8>) {
        match Request::decode(bytes) {
            Ok(Request { unique, node, operation: Operation::Read(read) }) => {
                self.handle_content(Request { unique, node, operation: Operation::Read(read) }, outbox);
            }
            Ok(Request { unique, node, operation: Operation::Open }) => {
                self.handle_content(Request { unique, node, operation: Operation::Open }, outbox);
            }
            Ok(request) => self.answer(&request, outbox),
            Err(error @ WireError::Short { unique, .. }) => {
                warn!(%error, "answering EIO");
                self.reply(unique, &Answer::Error(Errno::EIO), &[]);
            }
            Err(error @ WireError::NoHeader { .. }) => warn!(%error, "nobody to answer"),
        }
    }

    fn handle_content(&self, first: Request<'static>, outbox: &mut Vec<u8>) {
        if let Some(answer) = guarded(&first, || self.ops.answer_at_once(&first, outbox)) {
            return self.reply(first.unique, &answer, outbox);
        }
        {
            let mut slow = self.slow();
            if slow.busy >= DATA_SLOTS && slow.waiting.len() < MAX_WAITING {
                slow.waiting.push_back(first);
                return self.ops.set_waiting(slow.waiting.len());
            }
            slow.busy += 1;
        }
        let mut next = Some(first);
        while let Some(request) = next {
            self.answer(&request, outbox);
            let mut slow = self.slow();
            next = slow.waiting.pop_front();
            self.ops.set_waiting(slow.waiting.len());
            if next.is_none() {
                slow.busy -= 1;
            }
        }
    }

    fn slow(&self) -> MutexGuard<'_, Slow> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request<'_>, outbox: &mut Vec<u8>) {
        let answer = guarded(request, || Some(self.ops.answer(request, outbox)));
        self.reply(request.unique, &answer.unwrap_or(Answer::Error(Errno::EIO)), outbox);
    }

    fn reply(&self, unique: u64, answer: &Answer, content: &[u8]) {
        self.ops.count_request();
        let Err(error) = send(&self.device, unique, answer, content) else { return };
        match error.raw_os_error().map(Errno::from_raw) {
            // The asker was killed, or the file system is gone.
            Some(Errno::ENOENT | Errno::ENODEV) => {}
            _ => {
                error!(%error, "the kernel refuses an answer, sending EIO instead");
                // If that fails too there is nothing left to say.
                let _refused = send(&self.device, unique, &Answer::Error(Errno::EIO), &[]);
            }
        }
    }
}

/// Answers, whatever happens: a request without an answer would hang its asker for ever.
fn guarded(request: &Request<'_>, answer: impl FnOnce() -> Option<Answer>) -> Option<Answer> {
    catch_unwind(AssertUnwindSafe(answer)).unwrap_or_else(|_panic| {
        error!(node = request.node, operation = ?request.operation, "a handler panicked, answering EIO");
        Some(Answer::Error(Errno::EIO))
    })
}

fn send(device: &File, unique: u64, answer: &Answer, content: &[u8]) -> io::Result<()> {
    let (errno, body) = match answer {
        Answer::None => return Ok(()),
        Answer::Error(errno) => (*errno as i32, &[][..]),
        Answer::Body(body) => (0, body.as_slice()),
        Answer::Content(len) => (0, content.get(..*len).unwrap_or_default()),
    };
    let header = reply_header(unique, errno, body.len());
    loop {
        match (&mut &*device).write_vectored(&[IoSlice::new(&header), IoSlice::new(body)]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(|_all_or_nothing| ()),
        }
    }
}
