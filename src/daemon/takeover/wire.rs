//! Frames with descriptors, over a blocking socket with a time-out.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use contd_handover::RightsError;
use contd_protocol::hello::HELLO_VERSION;
use contd_protocol::{CodecError, Frame, FrameError, FrameReader, Kind, MAX_CONTROL_BODY_BYTES, decode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes read at once.
const READ_BYTES: usize = 8 * 1024;

/// Why a word was not sent or not understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The socket does not take our settings.
    #[error("prepare the socket of a takeover")]
    Prepare { source: io::Error },
    /// The socket failed, or its time-out is over.
    #[error("pass a word of a takeover")]
    Pass { source: RightsError },
    /// No frame.
    #[error("read a frame of a takeover")]
    Frame { source: FrameError },
    /// No message of ours.
    #[error("read a message of a takeover")]
    Message { source: CodecError },
    /// A frame that does not belong here.
    #[error("a frame of kind {got:?} came in a takeover where {wanted:?} was due")]
    Kind { got: Kind, wanted: Kind },
    /// A word counts descriptors that did not come.
    #[error("a word of a takeover came without its descriptors")]
    NoDescriptor,
    /// The other side has ended.
    #[error("the other side of a takeover has hung up")]
    HungUp,
}

impl WireError {
    /// Tells whether the other side said nothing for as long as it may take.
    pub(crate) fn is_silence(&self) -> bool {
        match self {
            Self::Pass { source: RightsError::Receive { source } | RightsError::Send { source, .. } } => {
                matches!(source.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
            }
            _ => false,
        }
    }

    /// Tells whether the other side is gone.
    pub(crate) fn is_end(&self) -> bool {
        let is_broken =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
        match self {
            Self::HungUp => true,
            Self::Pass { source: RightsError::Receive { source } | RightsError::Send { source, .. } } => {
                is_broken(source)
            }
            _ => false,
        }
    }
}

/// One side of a takeover.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: UnixStream,
    frames: FrameReader,
    fds: VecDeque<OwnedFd>,
}

impl Wire {
    /// Takes a connected socket; no call on it lasts longer than `timeout` without a byte.
    pub(crate) fn new(stream: UnixStream, timeout: Duration) -> Result<Self, WireError> {
        let prepare = || {
            stream.set_nonblocking(false)?;
            stream.set_write_timeout(Some(timeout))?;
            stream.set_read_timeout(Some(timeout))
        };
        prepare().map_err(|source| WireError::Prepare { source })?;
        Ok(Self { stream, frames: FrameReader::new(MAX_CONTROL_BODY_BYTES), fds: VecDeque::new() })
    }

    /// Sets how long the next words may take.
    pub(crate) fn be_patient(&self, timeout: Duration) -> Result<(), WireError> {
        self.stream.set_read_timeout(Some(timeout)).map_err(|source| WireError::Prepare { source })
    }

    /// Returns the process at the other end: the one that listened, or connected.
    pub(crate) fn peer(&self) -> io::Result<nix::sys::socket::UnixCredentials> {
        nix::sys::socket::getsockopt(&self.stream, nix::sys::socket::sockopt::PeerCredentials).map_err(io::Error::from)
    }

    /// Sends a message with its descriptors.
    pub(crate) fn send(
        &self,
        version: u16,
        kind: Kind,
        message: &impl Serialize,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), WireError> {
        let frame = Frame::new(version, kind, message).map_err(|source| WireError::Message { source })?;
        contd_handover::send(&self.stream, &frame.to_bytes(), fds).map_err(|source| WireError::Pass { source })
    }

    /// Sends a greeting or its answer.
    pub(crate) fn greet(&self, kind: Kind, message: &impl Serialize) -> Result<(), WireError> {
        self.send(HELLO_VERSION, kind, message, &[])
    }

    /// Waits for the next message, which must be of this kind.
    pub(crate) fn next<T: DeserializeOwned>(&mut self, wanted: Kind) -> Result<T, WireError> {
        let mut buffer = [0; READ_BYTES];
        loop {
            if let Some(frame) = self.frames.next_frame().map_err(|source| WireError::Frame { source })? {
                if frame.kind != wanted {
                    return Err(WireError::Kind { got: frame.kind, wanted });
                }
                return decode(&frame.body).map_err(|source| WireError::Message { source });
            }
            let mut fds = Vec::new();
            let count = contd_handover::receive(&self.stream, &mut buffer, &mut fds);
            self.fds.extend(fds);
            match count.map_err(|source| WireError::Pass { source })? {
                0 => return Err(WireError::HungUp),
                count => self.frames.push(buffer.get(..count).unwrap_or_default()),
            }
        }
    }

    /// Takes the next descriptor that came.
    pub(crate) fn descriptor(&mut self) -> Result<OwnedFd, WireError> {
        self.fds.pop_front().ok_or(WireError::NoDescriptor)
    }
}
