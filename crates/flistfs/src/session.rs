//! The loop between `/dev/fuse` and [`Ops`].
//!
//! All threads read from one descriptor and answer what they read. Metadata, and content that is here and checked, are
//! answered at once. Only [`MAX_BUSY`] of the threads may be inside an OPEN or READ that has to hash or to wait for a
//! network; those beyond that wait on a shelf, so that there is always a thread left: `ls` never waits for a download.
//!
//! Each request stands in memory that outlives this process until it is answered ([`crate::slots`]): a session begins with the
//! requests that a dead predecessor has left there.

use std::fs::File;
use std::io::{self, IoSlice, PipeReader, PipeWriter, Read as _, Write as _};
use std::mem::take;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::errno::Errno;
use tracing::{debug, error, warn};

use crate::ahead::AHEAD_THREADS;
use crate::negotiate::Negotiated;
use crate::ops::{Answer, Ops};
use crate::passthrough::Beginning;
use crate::slots::{self, INBOXES, Inbox, Shelf, Slots};
use crate::sys;
use crate::wire::{Operation, REQUEST_BUFFER_BYTES, Request, WireError, reply_header};

/// OPENs and READs that may take long, answered at the same time: enough to keep a few cores or a few downloads busy.
const MAX_BUSY: usize = 4;

/// Threads: two more, for what is answered at once. Each has an inbox.
const THREADS: usize = INBOXES;
const _: () = assert!(THREADS == MAX_BUSY + 2);

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
    /// The memory of the requests could not be made or used.
    #[error("take the memory of the FUSE session's requests")]
    Requests {
        /// Why.
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
    /// Until the threads take them.
    inboxes: Vec<Inbox>,
    slow: Mutex<Slow>,
}

/// The requests that may take long.
#[derive(Debug)]
struct Slow {
    /// Threads that are inside one.
    busy: usize,
    shelf: Shelf,
}

/// The fate of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handled {
    Answered,
    /// On the shelf, or by a thread that was busy with it and can take the next one from there.
    Slow,
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
    /// Begins the session of a new mount that no successor will take over: takes INIT and answers it.
    ///
    /// # Errors
    /// [`SessionError`]; the device is closed, so the mount is dead unless somebody else holds it too.
    pub fn begin(device: File, ops: Arc<Ops>) -> Result<Self, SessionError> {
        let negotiated = agree(&device)?;
        let slots = slots::create().and_then(Slots::map).map_err(|source| SessionError::Requests { source })?;
        Ok(Self::new(device, negotiated, ops, slots))
    }

    /// Serves a connection for which [`agree`] has just been called, the first to do so.
    pub fn new(device: File, negotiated: Negotiated, ops: Arc<Ops>, slots: Slots) -> Self {
        Self::bound(device, negotiated, ops, slots, Beginning::New)
    }

    /// Takes over the session of a predecessor that is dead, with the requests that it has left in the slots.
    pub fn resume(device: File, negotiated: Negotiated, ops: Arc<Ops>, slots: Slots) -> Self {
        Self::bound(device, negotiated, ops, slots, Beginning::Resumed)
    }

    fn bound(device: File, negotiated: Negotiated, ops: Arc<Ops>, slots: Slots, beginning: Beginning) -> Self {
        let device = Arc::new(device);
        ops.attach(&device, &negotiated, beginning);
        let Slots { inboxes, shelf } = slots;
        Self { device, negotiated, ops, inboxes, slow: Mutex::new(Slow { busy: 0, shelf }) }
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
    pub fn start(mut self) -> Result<PipeReader, SessionError> {
        sys::keep_memory_small();
        let inboxes = take(&mut self.inboxes);
        let session = Arc::new(self);
        let (gone, alive) = io::pipe().map_err(|source| SessionError::Pipe { source })?;
        let alive = Arc::new(alive);
        for (number, inbox) in inboxes.into_iter().enumerate().take(THREADS) {
            let (session, alive) = (Arc::clone(&session), Arc::clone(&alive));
            let work = move || session.work(inbox, &alive);
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

    /// Answers what a predecessor has left, then reads and answers until the file system is gone. `_alive` hangs up the pipe
    /// when the last thread drops it.
    fn work(&self, mut inbox: Inbox, _alive: &PipeWriter) {
        let mut outbox = Vec::new();
        if let Some(left) = inbox.left() {
            self.handle(left, &mut outbox);
        }
        inbox.clear();
        self.empty_shelf(&mut outbox);
        loop {
            let handled = match inbox.read(&self.device) {
                Ok(request) => self.handle(request, &mut outbox),
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
            inbox.clear();
            if handled == Handled::Slow {
                self.empty_shelf(&mut outbox);
            }
        }
    }

    fn handle(&self, bytes: &[u8], outbox: &mut Vec<u8>) -> Handled {
        match Request::decode(bytes) {
            Ok(request @ Request { operation: Operation::Read(_) | Operation::Open, .. }) => {
                return self.handle_content(&request, bytes, outbox);
            }
            Ok(request) => self.answer(&request, outbox),
            Err(error @ WireError::Short { unique, .. }) => {
                warn!(%error, "answering EIO");
                self.reply(unique, &Answer::Error(Errno::EIO), &[]);
            }
            Err(error @ WireError::NoHeader { .. }) => warn!(%error, "nobody to answer"),
        }
        Handled::Answered
    }

    fn handle_content(&self, request: &Request<'_>, bytes: &[u8], outbox: &mut Vec<u8>) -> Handled {
        if let Some(answer) = guarded(request, || self.ops.answer_at_once(request, outbox)) {
            self.reply_to(request, &answer, outbox);
            return Handled::Answered;
        }
        {
            let mut slow = self.slow();
            if slow.busy >= MAX_BUSY && slow.shelf.put(bytes) {
                self.ops.set_waiting(slow.shelf.len());
                return Handled::Slow;
            }
            slow.busy += 1;
        }
        self.answer(request, outbox);
        self.slow().busy -= 1;
        Handled::Slow
    }

    /// Answers requests that wait on the shelf, as long as not too many threads do so.
    fn empty_shelf(&self, outbox: &mut Vec<u8>) {
        loop {
            let waiting = {
                let mut slow = self.slow();
                if slow.busy >= MAX_BUSY {
                    return;
                }
                let Some(waiting) = slow.shelf.take() else { return };
                slow.busy += 1;
                self.ops.set_waiting(slow.shelf.len());
                waiting
            };
            if let Ok(request) = Request::decode(waiting.request()) {
                self.answer(&request, outbox);
            }
            let mut slow = self.slow();
            slow.shelf.free(waiting);
            slow.busy -= 1;
        }
    }

    fn slow(&self) -> MutexGuard<'_, Slow> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request<'_>, outbox: &mut Vec<u8>) {
        let answer = guarded(request, || Some(self.ops.answer(request, outbox)));
        self.reply_to(request, &answer.unwrap_or(Answer::Error(Errno::EIO)), outbox);
    }

    fn reply_to(&self, request: &Request<'_>, answer: &Answer, content: &[u8]) {
        let is_taken = self.reply(request.unique, answer, content);
        if !is_taken && request.operation == Operation::Open {
            self.ops.open_refused(request.unique);
        }
    }

    /// Gives the kernel an answer; `false` if it does not wait for one any more.
    fn reply(&self, unique: u64, answer: &Answer, content: &[u8]) -> bool {
        self.ops.count_request();
        let Err(error) = send(&self.device, unique, answer, content) else { return true };
        match error.raw_os_error().map(Errno::from_raw) {
            // A predecessor has answered it, its asker was killed, or the file system is gone.
            Some(Errno::ENOENT | Errno::ENODEV) => false,
            _ => {
                error!(%error, "the kernel refuses an answer, sending EIO instead");
                // If that fails too there is nothing left to say.
                let _refused = send(&self.device, unique, &Answer::Error(Errno::EIO), &[]);
                true
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
