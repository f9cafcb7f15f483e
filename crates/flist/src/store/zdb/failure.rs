//! The failures of a connection to a 0-db.

use std::io;

/// An exchange with a 0-db failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZdbFailure {
    /// The name has no address.
    #[error("the host name is unknown")]
    UnknownHost,
    /// The policy forbids the address, for example because it is on this machine.
    #[error("a flist from the network may not name this address")]
    Forbidden,
    /// The connection could not be made.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// All connections were in use.
    #[error("no connection became free in time")]
    Busy,
    /// A timeout expired.
    #[error("no complete answer in time")]
    Timeout,
    /// The server closed the connection, or ended, before its answer was complete.
    #[error("the connection was closed before the answer was complete")]
    Closed,
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[source] io::Error),
    /// The answer is not Redis protocol, or not the part of it that a 0-db supports.
    #[error("the answer is not that of a 0-db: {0}")]
    NotZdb(&'static str),
}

impl ZdbFailure {
    pub(super) fn from_connect(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::UnknownHost,
            io::ErrorKind::PermissionDenied => Self::Forbidden,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::Timeout,
            _ => Self::Connect(error),
        }
    }

    pub(super) fn from_io(error: io::Error) -> Self {
        match error.kind() {
            // The error of a socket timeout, and of our deadline.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error),
        }
    }

    /// Tells whether a retry soon may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::UnknownHost | Self::Connect(_) | Self::Busy | Self::Timeout | Self::Closed | Self::Io(_) => true,
            Self::Forbidden | Self::NotZdb(_) => false,
        }
    }
}

/// The failure of a command, without the names of the store and the block.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection cannot be used again.
    Failure(ZdbFailure),
    /// The value is larger than any block. The connection cannot be used again, since the value was not read.
    TooLarge,
    /// The server answered with this error text; the connection can be used again.
    Answer(String),
}

impl Fault {
    pub(super) fn not_redis(what: &'static str) -> Self {
        Self::Failure(ZdbFailure::NotZdb(what))
    }

    pub(super) fn io(error: io::Error) -> Self {
        Self::Failure(ZdbFailure::from_io(error))
    }

    /// Tells whether the connection may have been closed while it was idle.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self, Self::Failure(ZdbFailure::Closed | ZdbFailure::Io(_)))
    }
}
