//! One caller: its hello, its calls, its answers. Knows frames and bounds, nothing of containers.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use contd_protocol::shim::{Call, MAX_CALLS_PER_CONNECTION, Reply, VERSIONS};
use contd_protocol::{
    CodecError, Frame, FrameError, FrameReader, Hello, HelloReply, Kind, MAX_CONTROL_BODY_BYTES, Refusal, decode,
    negotiate,
};
use contd_types::{ApiError, ErrorKind};
use nix::poll::PollFlags;

/// The name under which we answer.
pub(crate) const AGENT: &str = concat!("contd-shim/", env!("CARGO_PKG_VERSION"));

/// Who has nothing to say for so long is no caller.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// While so many bytes wait to be taken by the caller, nothing more is read from it.
const MAX_WAITING_BYTES: usize = 64 * 1024;

/// Calls are a few dozen bytes.
const READ_BYTES: usize = 4096;

/// Reads per turn, so that one caller cannot keep the others waiting.
const MAX_READS_PER_TURN: usize = 8;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionEnd {
    /// The caller has closed it.
    #[error("the caller has gone")]
    Gone,
    /// The socket failed.
    #[error("read or write the socket")]
    Socket {
        /// Why.
        source: io::Error,
    },
    /// It does not speak in frames.
    #[error("read a frame")]
    Frame {
        /// Why.
        source: FrameError,
    },
    /// What is in a frame is not understood, or an answer cannot be said.
    #[error("read or write a message")]
    Codec {
        /// Why.
        source: CodecError,
    },
    /// The frame is not one that may come here.
    #[error("a frame of kind {kind:?} and version {version} may not come here")]
    OutOfPlace {
        /// Its kind.
        kind: Kind,
        /// Its version.
        version: u16,
    },
    /// No hello came.
    #[error("no hello within {HELLO_TIMEOUT:?}")]
    Silent,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    reader: FrameReader,
    out: Vec<u8>,
    /// How much of `out` is written.
    sent: usize,
    /// Once agreed on.
    version: Option<u16>,
    hello_deadline: Instant,
    open_calls: usize,
    /// Closed as soon as `out` is written.
    is_closing: bool,
}

impl Connection {
    /// Takes on a non-blocking socket.
    pub(crate) fn new(stream: UnixStream, now: Instant) -> Self {
        Self {
            stream,
            reader: FrameReader::new(MAX_CONTROL_BODY_BYTES),
            out: Vec::new(),
            sent: 0,
            version: None,
            hello_deadline: now + HELLO_TIMEOUT,
            open_calls: 0,
            is_closing: false,
        }
    }

    /// Says no and closes, without waiting for anything.
    pub(crate) fn refuse(mut stream: &UnixStream, refusal: Refusal) {
        let frame = Frame::new(contd_protocol::hello::HELLO_VERSION, Kind::HelloReply, &HelloReply::Refused(refusal));
        if let Ok(frame) = frame {
            // An empty socket takes it whole; if not, closing says enough.
            let _closed_anyway = stream.write(&frame.to_bytes());
        }
    }

    /// Returns its descriptor.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Returns what to wait for.
    pub(crate) fn wanted(&self) -> PollFlags {
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
    pub(crate) fn has_output(&self) -> bool {
        self.waiting_bytes() > 0
    }

    /// Returns when [`Self::check`] has something to say.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.version.is_none().then_some(self.hello_deadline)
    }

    /// Ends a connection without a hello, and one that has said all.
    pub(crate) fn check(&self, now: Instant) -> Result<(), ConnectionEnd> {
        match self.version {
            None if self.hello_deadline <= now => Err(ConnectionEnd::Silent),
            _ if self.is_closing && !self.has_output() => Err(ConnectionEnd::Gone),
            _ => Ok(()),
        }
    }

    /// Does what the socket is ready for and returns the calls that came.
    pub(crate) fn on_ready(&mut self, ready: PollFlags) -> Result<Vec<Call>, ConnectionEnd> {
        let mut calls = Vec::new();
        if ready.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            if !self.wanted().contains(PollFlags::POLLIN) {
                // Nothing is read, and yet woken: the other end is gone for good.
                return Err(ConnectionEnd::Gone);
            }
            self.read(&mut calls)?;
        }
        self.write()?;
        Ok(calls)
    }

    /// Adds the answer to a call.
    pub(crate) fn answer(&mut self, reply: &Reply) -> Result<(), ConnectionEnd> {
        self.open_calls = self.open_calls.saturating_sub(1);
        self.say(Kind::Reply, self.version.unwrap_or(VERSIONS.max), reply)?;
        self.write()
    }

    fn read(&mut self, calls: &mut Vec<Call>) -> Result<(), ConnectionEnd> {
        let mut chunk = [0u8; READ_BYTES];
        for _ in 0..MAX_READS_PER_TURN {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ConnectionEnd::Gone),
                Ok(length) => {
                    self.reader.push(chunk.get(..length).unwrap_or_default());
                    while let Some(frame) =
                        self.reader.next_frame().map_err(|source| ConnectionEnd::Frame { source })?
                    {
                        self.take(&frame, calls)?;
                    }
                    if self.waiting_bytes() >= MAX_WAITING_BYTES || self.is_closing {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ConnectionEnd::Socket { source }),
            }
        }
        Ok(())
    }

    fn take(&mut self, frame: &Frame, calls: &mut Vec<Call>) -> Result<(), ConnectionEnd> {
        let out_of_place = ConnectionEnd::OutOfPlace { kind: frame.kind, version: frame.version };
        match self.version {
            _ if self.is_closing => Ok(()),
            None if frame.kind == Kind::Hello && frame.version == contd_protocol::hello::HELLO_VERSION => {
                let hello: Hello = decode(&frame.body).map_err(|source| ConnectionEnd::Codec { source })?;
                self.greet(&hello)
            }
            Some(version) if frame.kind == Kind::Call && frame.version == version => {
                let call: Call = decode(&frame.body).map_err(|source| ConnectionEnd::Codec { source })?;
                if self.open_calls >= MAX_CALLS_PER_CONNECTION {
                    let busy = ApiError::new(
                        ErrorKind::Busy,
                        format!("call the shim: {MAX_CALLS_PER_CONNECTION} calls of this connection are under way"),
                    )
                    .with_hint("wait for one of them to be answered");
                    return self.say(Kind::Reply, version, &Reply { id: call.id, result: Err(busy) });
                }
                self.open_calls += 1;
                calls.push(call);
                Ok(())
            }
            None | Some(_) => Err(out_of_place),
        }
    }

    fn greet(&mut self, hello: &Hello) -> Result<(), ConnectionEnd> {
        let reply = match negotiate(hello.versions, VERSIONS) {
            Ok(version) => {
                self.version = Some(version);
                HelloReply::Welcome { version, agent: AGENT.to_owned(), features: Vec::new() }
            }
            Err(refusal) => {
                self.is_closing = true;
                HelloReply::Refused(refusal)
            }
        };
        self.say(Kind::HelloReply, contd_protocol::hello::HELLO_VERSION, &reply)
    }

    fn say<T: serde::Serialize>(&mut self, kind: Kind, version: u16, message: &T) -> Result<(), ConnectionEnd> {
        let frame = Frame::new(version, kind, message).map_err(|source| ConnectionEnd::Codec { source })?;
        self.out.extend_from_slice(&frame.to_bytes());
        Ok(())
    }

    fn write(&mut self) -> Result<(), ConnectionEnd> {
        while self.has_output() {
            match self.stream.write(self.out.get(self.sent..).unwrap_or_default()) {
                Ok(length) => self.sent += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
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
