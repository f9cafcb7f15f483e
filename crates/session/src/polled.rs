//! The answering side of a session on a non-blocking socket, in a `poll(2)` loop.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use contd_descriptors::RightsError;
use contd_protocol::session::{Asked, Call, NoItem, Reply, busy};
use contd_protocol::{CodecError, Kind, Protocol, Refusal, Session, Violation};
use contd_types::ApiError;
use nix::poll::PollFlags;

/// How long a caller may take for its hello: local programs need microseconds.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// While so many bytes wait to be taken by the caller, nothing more is read from it.
const MAX_WAITING_BYTES: usize = 64 * 1024;

/// Bytes read at once: calls are a few dozen.
const READ_BYTES: usize = 4096;

/// Reads per turn, so that one caller cannot keep the others waiting.
const MAX_READS_PER_TURN: usize = 8;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionEnd {
    /// The caller has closed it.
    #[error("the caller has gone")]
    Gone,
    /// The socket failed.
    #[error("read or write the socket")]
    Socket {
        /// Why.
        #[from]
        source: RightsError,
    },
    /// The caller said what it must not.
    #[error("understand the caller")]
    Violation {
        /// Its message.
        #[from]
        source: Violation,
    },
    /// An answer cannot be written.
    #[error("write a message")]
    Codec {
        /// Why.
        #[from]
        source: CodecError,
    },
    /// No hello came.
    #[error("no hello within {HELLO_TIMEOUT:?}")]
    Silent,
}

/// Refuses a caller and closes, without waiting for anything.
pub fn refuse<P: Protocol>(mut stream: &UnixStream, refusal: &Refusal) {
    if let Ok(bytes) = Session::<P>::default().refuse(refusal) {
        // An empty socket takes it whole; if not, closing says enough.
        let _closed_anyway = stream.write(&bytes);
    }
}

/// A call with the descriptors that came with it.
#[derive(Debug)]
pub struct Received<P: Protocol> {
    /// The call.
    pub call: Call<P::Request>,
    /// As many as [`Protocol::descriptors_of_request`] says.
    pub fds: Vec<OwnedFd>,
}

/// One connection.
#[derive(Debug)]
pub struct Polled<P: Protocol> {
    stream: UnixStream,
    session: Session<P>,
    /// How we name ourselves in the hello.
    agent: &'static str,
    out: Vec<u8>,
    /// How much of `out` is written.
    sent: usize,
    /// The descriptors of answers in `out`, each with the position of its answer.
    out_fds: VecDeque<(usize, Vec<OwnedFd>)>,
    /// Until when the hello must have come; `None` once it has.
    hello_deadline: Option<Instant>,
    open_calls: usize,
    /// Closed as soon as `out` is written.
    is_closing: bool,
}

impl<P: Protocol<Item = NoItem>> Polled<P> {
    /// Takes on a non-blocking socket; `agent` is our name and version for the hello.
    pub fn new(stream: UnixStream, agent: &'static str, now: Instant) -> Self {
        Self {
            stream,
            session: Session::default(),
            agent,
            out: Vec::new(),
            sent: 0,
            out_fds: VecDeque::new(),
            hello_deadline: Some(now + HELLO_TIMEOUT),
            open_calls: 0,
            is_closing: false,
        }
    }

    /// Returns its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Returns what to wait for.
    pub fn wanted(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        if !self.is_closing && self.waiting_bytes() < MAX_WAITING_BYTES {
            flags |= PollFlags::POLLIN;
        }
        if self.has_output() {
            flags |= PollFlags::POLLOUT;
        }
        flags
    }

    /// Tells whether answers wait to be written.
    pub fn has_output(&self) -> bool {
        self.waiting_bytes() > 0
    }

    /// Returns when [`Self::check`] has something to say.
    pub fn deadline(&self) -> Option<Instant> {
        self.hello_deadline
    }

    /// Ends a connection without a hello, and one that has said all.
    ///
    /// # Errors
    /// The reason for the end.
    pub fn check(&self, now: Instant) -> Result<(), ConnectionEnd> {
        match self.hello_deadline {
            Some(deadline) if deadline <= now => Err(ConnectionEnd::Silent),
            _ if self.is_closing && !self.has_output() => Err(ConnectionEnd::Gone),
            _ => Ok(()),
        }
    }

    /// Does what the socket is ready for and returns the calls that came. Those beyond [`Protocol::MAX_CALLS`] are answered.
    ///
    /// # Errors
    /// The reason for the end of the connection.
    pub fn on_ready(&mut self, ready: PollFlags) -> Result<Vec<Received<P>>, ConnectionEnd> {
        let mut calls = Vec::new();
        if ready.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            if !self.wanted().contains(PollFlags::POLLIN) {
                // A wake-up without bytes: the other end is gone for good.
                return Err(ConnectionEnd::Gone);
            }
            self.read(&mut calls)?;
        }
        self.write()?;
        Ok(calls)
    }

    /// Answers a call, with the descriptors that belong to the answer.
    ///
    /// # Errors
    /// The reason for the end of the connection.
    pub fn answer(
        &mut self,
        id: u64,
        result: Result<P::Response, ApiError>,
        fds: Vec<OwnedFd>,
    ) -> Result<(), ConnectionEnd> {
        self.open_calls = self.open_calls.saturating_sub(1);
        if !fds.is_empty() {
            self.out_fds.push_back((self.out.len(), fds));
        }
        self.reply(id, result)?;
        self.write()
    }

    fn reply(&mut self, id: u64, result: Result<P::Response, ApiError>) -> Result<(), ConnectionEnd> {
        self.out.extend_from_slice(&self.session.frame(Kind::Reply, &Reply { id, result })?);
        Ok(())
    }

    fn read(&mut self, calls: &mut Vec<Received<P>>) -> Result<(), ConnectionEnd> {
        let mut chunk = [0u8; READ_BYTES];
        for _ in 0..MAX_READS_PER_TURN {
            let mut fds = Vec::new();
            let received = contd_descriptors::receive(&self.stream, &mut chunk, &mut fds);
            self.session.push_descriptors(fds)?;
            match received {
                Ok(0) => return Err(ConnectionEnd::Gone),
                Ok(length) => {
                    self.session.push(chunk.get(..length).unwrap_or_default());
                    self.take(calls)?;
                    if self.waiting_bytes() >= MAX_WAITING_BYTES || self.is_closing {
                        return Ok(());
                    }
                }
                Err(error) if would_block(&error) => return Ok(()),
                Err(source) => return Err(ConnectionEnd::Socket { source }),
            }
        }
        Ok(())
    }

    /// Takes all messages that are whole.
    fn take(&mut self, calls: &mut Vec<Received<P>>) -> Result<(), ConnectionEnd> {
        while !self.is_closing {
            if self.hello_deadline.is_some() {
                let Some(hello) = self.session.hear_hello()? else { return Ok(()) };
                let (bytes, outcome) = self.session.answer_hello(&hello, self.agent, |_version| Ok(()))?;
                self.out.extend_from_slice(&bytes);
                match outcome {
                    Ok(()) => self.hello_deadline = None,
                    Err(_told) => self.is_closing = true,
                }
                continue;
            }
            match self.session.next_asked()? {
                Some(Asked::Call(call)) => {
                    let fds = self.session.take_descriptors(P::descriptors_of_request(&call.request))?;
                    if self.open_calls >= P::MAX_CALLS {
                        self.reply(call.id, Err(busy::<P>(call.id)))?;
                        continue;
                    }
                    self.open_calls += 1;
                    calls.push(Received { call, fds });
                }
                // The session of a protocol without streams has refused both.
                Some(Asked::Cancel(_) | Asked::Credit(_)) | None => return Ok(()),
            }
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), ConnectionEnd> {
        while self.has_output() {
            // Descriptors go with the first bytes of their answer, and so with no earlier ones.
            let is_due = |(at, _): &(usize, Vec<OwnedFd>)| *at <= self.sent;
            let due = self.out_fds.front().filter(|first| is_due(first)).map(|(_, fds)| fds.as_slice());
            let until = self.out_fds.iter().map(|(at, _)| *at).find(|at| *at > self.sent).unwrap_or(self.out.len());
            let fds: Vec<BorrowedFd<'_>> = due.unwrap_or_default().iter().map(AsFd::as_fd).collect();
            let bytes = self.out.get(self.sent..until).unwrap_or_default();
            match contd_descriptors::send_some(&self.stream, bytes, &fds) {
                Ok(length) => {
                    drop(fds);
                    if self.out_fds.front().is_some_and(is_due) {
                        self.out_fds.pop_front();
                    }
                    self.sent += length;
                }
                Err(error) if would_block(&error) => return Ok(()),
                Err(source) => return Err(ConnectionEnd::Socket { source }),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    fn waiting_bytes(&self) -> usize {
        self.out.len().saturating_sub(self.sent)
    }
}

fn would_block(error: &RightsError) -> bool {
    error.io().is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
