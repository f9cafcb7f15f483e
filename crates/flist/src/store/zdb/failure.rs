//! What can go wrong on a connection to a 0-db.

use std::io;

/// Where an exchange with a 0-db failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZdbFailure {
    /// The name has no address.
    #[error("the host name is unknown")]
    UnknownHost,
    /// The policy forbids the address, which is on this machine or its link.
    #[error("a flist from the network may not name this address")]
    Forbidden,
    /// No connection.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// Every connection was in use.
    #[error("no connection became free in time")]
    Busy,
    /// A bound on time was reached.
    #[error("no complete answer in time")]
    Timeout,
    /// The server closed the connection, or died, before its answer was complete.
    #[error("the connection was closed before the answer was complete")]
    Closed,
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[source] io::Error),
    /// Not the Redis protocol, or not the part of it that a 0-db speaks.
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
            // What a socket says when its time-out is over, and what we say when the deadline is.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error),
        }
    }

    /// Tells whether asking again soon may well help.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::UnknownHost | Self::Connect(_) | Self::Busy | Self::Timeout | Self::Closed | Self::Io(_) => true,
            Self::Forbidden | Self::NotZdb(_) => false,
        }
    }
}

/// What a command ended with, before it has the names of the store and the block.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection is of no more use.
    Failure(ZdbFailure),
    /// The value is larger than any block; the connection is of no more use, since the value was not read.
    TooLarge,
    /// The server says no, in its words; the connection is fine.
    Answer(String),
}

impl Fault {
    pub(super) fn not_redis(what: &'static str) -> Self {
        Self::Failure(ZdbFailure::NotZdb(what))
    }

    pub(super) fn io(error: io::Error) -> Self {
        Self::Failure(ZdbFailure::from_io(error))
    }

    /// Tells whether that is what a connection gives that was closed while nobody looked.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self, Self::Failure(ZdbFailure::Closed | ZdbFailure::Io(_)))
    }
}
