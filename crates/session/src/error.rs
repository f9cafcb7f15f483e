//! Reasons for the end of a blocking session.

use std::io;

use contd_descriptors::RightsError;
use contd_protocol::{CodecError, Refusal, Violation};
use contd_types::ApiError;

/// Why a message was not sent, not received, or not understood.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The socket does not take our settings.
    #[error("prepare the socket")]
    Prepare {
        /// Why.
        source: io::Error,
    },
    /// The socket failed, or its time-out is over.
    #[error("use the socket")]
    Socket {
        /// Why.
        source: RightsError,
    },
    /// The other side said what it must not.
    #[error("understand the other side")]
    Violation {
        /// Its message.
        #[from]
        source: Violation,
    },
    /// The message is one that no reader accepts.
    #[error("write a message")]
    Unsendable {
        /// Why.
        #[from]
        source: CodecError,
    },
    /// There is no agreement on a version, or no right to call.
    #[error("agree with the other side")]
    Refused {
        /// Why.
        source: Refusal,
    },
    /// The other side answered with an error.
    #[error("the other side refuses")]
    Answer {
        /// Its error.
        source: ApiError,
    },
    /// A message counts descriptors that did not come.
    #[error("a message came without its descriptors")]
    NoDescriptor,
    /// The other side has closed where a message was due.
    #[error("the other side has hung up")]
    HungUp,
}

impl SessionError {
    fn is_socket(&self, kinds: &[io::ErrorKind]) -> bool {
        let Self::Socket { source } = self else { return false };
        source.io().is_some_and(|error| kinds.contains(&error.kind()))
    }

    /// Tells whether the other side said nothing for as long as it may take.
    pub fn is_silence(&self) -> bool {
        self.is_socket(&[io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut])
    }

    /// Tells whether the other side is gone.
    pub fn is_hang_up(&self) -> bool {
        matches!(self, Self::HungUp) || self.is_socket(&[io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe])
    }
}
