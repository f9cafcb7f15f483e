//! The errors of fetching and storing a block. No variant holds a credential: stores are named redacted.

use std::fmt;
use std::io;

use super::zdb::ZdbFailure;
use crate::block::BlockError;
use crate::error::FlistErrorKind;
use crate::hash::BlockId;
use crate::http::HttpFailure;

/// The operation on a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Reading a block.
    Get,
    /// Storing a block.
    Put,
}

impl Action {
    /// Returns the preposition between block and store in messages.
    fn preposition(self) -> &'static str {
        match self {
            Self::Get => "from",
            Self::Put => "in",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "get",
            Self::Put => "put",
        })
    }
}

/// An operation on a store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The URL of a route is invalid.
    #[error("use store {store}: {reason}")]
    BadUrl {
        /// The URL, redacted.
        store: String,
        /// The fault.
        reason: &'static str,
    },
    /// The URL has a scheme that this version does not support.
    #[error("use store {store}: scheme {scheme:?} is not supported")]
    UnsupportedScheme {
        /// The URL, redacted.
        store: String,
        /// Its scheme.
        scheme: String,
    },
    /// The policy forbids this `dir://` route.
    #[error("use store {store}: this flist may not read that folder")]
    NotAllowed {
        /// The URL.
        store: String,
    },
    /// The directory, namespace or bucket does not exist. Reading never creates it.
    #[error("use store {store}: there is no such folder, namespace or bucket")]
    NoStore {
        /// The URL, redacted.
        store: String,
    },
    /// The store answered that it has no such block.
    #[error("get block {id} from {store}: it has no such block")]
    NotFound {
        /// The store, redacted.
        store: String,
        /// The block.
        id: BlockId,
    },
    /// The block could not be read.
    #[error("get block {id} from {store}")]
    Read {
        /// The store.
        store: String,
        /// The block.
        id: BlockId,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The exchange with a server failed.
    #[error("{action} block {id} {} {store}", .action.preposition())]
    Exchange {
        /// The operation.
        action: Action,
        /// The store, redacted.
        store: String,
        /// The block.
        id: BlockId,
        /// The failed step.
        source: HttpFailure,
    },
    /// The exchange with a 0-db failed.
    #[error("{action} block {id} {} {store}", .action.preposition())]
    Zdb {
        /// The operation.
        action: Action,
        /// The store, redacted.
        store: String,
        /// The block.
        id: BlockId,
        /// The failed step.
        source: ZdbFailure,
    },
    /// The server answered with a status that is neither success nor absence.
    #[error("{action} block {id} {} {store}: status {status} {code}", .action.preposition())]
    Status {
        /// The operation.
        action: Action,
        /// The store, redacted.
        store: String,
        /// The block.
        id: BlockId,
        /// The HTTP status.
        status: u16,
        /// The error code of an S3 server, letters only; empty if there is none.
        code: String,
    },
    /// The server refused the operation.
    #[error("{action} block {id} {} {store}: not allowed: {answer:?}", .action.preposition())]
    Denied {
        /// The operation.
        action: Action,
        /// The store, redacted.
        store: String,
        /// The block.
        id: BlockId,
        /// The server's text, without our password.
        answer: String,
    },
    /// The server answered with another error.
    #[error("{action} block {id} {} {store}: it answered {answer:?}", .action.preposition())]
    Answer {
        /// The operation.
        action: Action,
        /// The store, redacted.
        store: String,
        /// The block.
        id: BlockId,
        /// The server's text, without our password.
        answer: String,
        /// Whether the answer asks for a retry.
        is_transient: bool,
    },
    /// The store has failed several times in a row, so it was not asked.
    #[error("get block {id} from {store}: not asked, since it failed {failures} times in a row, at last: {reason}")]
    Paused {
        /// The store, redacted.
        store: String,
        /// The block.
        id: BlockId,
        /// The number of failures since its last answer.
        failures: u32,
        /// The last failure.
        reason: String,
    },
    /// The object is larger than any block.
    #[error("get block {id} from {store}: more than {limit} bytes")]
    TooLarge {
        /// The store, redacted.
        store: String,
        /// The block.
        id: BlockId,
        /// The limit in bytes.
        limit: usize,
    },
    /// The bytes from the store are not the block.
    #[error("verify a block from {store}")]
    Verify {
        /// The store, redacted.
        store: String,
        /// The failed check.
        source: BlockError,
    },
    /// No route covers this id.
    #[error("get block {id}: no route of the flist covers it")]
    NoRoute {
        /// The block.
        id: BlockId,
    },
    /// All stores for this block were asked, some more than once.
    #[error("get block {id}: {attempts} attempts on {stores} stores failed")]
    Exhausted {
        /// The block.
        id: BlockId,
        /// The number of attempts.
        attempts: u32,
        /// The number of stores that cover the block.
        stores: usize,
        /// The most informative failure.
        source: Box<StoreError>,
    },
    /// This kind of store cannot be written.
    #[error("put block {id} in {store}: it can only be read")]
    ReadOnly {
        /// The store, redacted.
        store: String,
        /// The block.
        id: BlockId,
    },
    /// This kind of store cannot be a target of a pack.
    #[error("use store {store} for writing: it can only be read")]
    NotWritable {
        /// The store, redacted.
        store: String,
    },
    /// The block could not be written.
    #[error("put block {id} in {store}")]
    Write {
        /// The store.
        store: String,
        /// The block.
        id: BlockId,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The blocks could not be synced to the disk.
    #[error("flush {store} to disk")]
    Flush {
        /// The store.
        store: String,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl StoreError {
    /// Returns the next step for the user.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::BadUrl { .. } => {
                "write a store as dir:///path, http(s)://host/path, zdb://[:password@]host[:port][/namespace] or \
                 s3(s)://[user:secret@]host[:port]/bucket, with special characters of a password as %xx"
            }
            Self::UnsupportedScheme { .. } => "stores are dir://, http://, https://, zdb://, s3:// and s3s://",
            Self::NotAllowed { .. } => "fetch the flist to a local file, if you trust it, and use that",
            Self::NoStore { .. } => {
                "create the folder, namespace or bucket (or mount it), or rewrite the route of the flist"
            }
            Self::NotFound { .. } | Self::NoRoute { .. } => {
                "the store is incomplete: pack the flist again or restore the block"
            }
            Self::Read { .. } => "check the permissions and the disk of the store",
            Self::Exchange { source: HttpFailure::Forbidden, .. } | Self::Zdb { source: ZdbFailure::Forbidden, .. } => {
                "fetch the flist to a local file, if you trust it, and use that"
            }
            Self::Exchange { .. } | Self::Zdb { .. } | Self::Paused { .. } => {
                "check that the store is up and reachable from this node, then retry"
            }
            Self::Status { code, .. } if code == "RequestTimeTooSkewed" => "set the clock of this node",
            Self::Denied { .. } | Self::Status { .. } => {
                "check the password in the route; without one the store must allow everyone to read"
            }
            Self::Answer { .. } => "ask the operator of the store",
            Self::TooLarge { .. } => "the store holds something else under that name: restore the block",
            Self::Verify { source, .. } => source.hint(),
            Self::Exhausted { source, .. } => source.hint(),
            Self::ReadOnly { .. } | Self::NotWritable { .. } => "pack to a dir:// store and serve that by http",
            Self::Write { .. } | Self::Flush { .. } => "check the permissions and the free space of the store",
        }
    }

    /// Returns the category of the error.
    #[must_use]
    pub fn kind(&self) -> FlistErrorKind {
        match self {
            Self::BadUrl { .. } | Self::NotAllowed { .. } | Self::ReadOnly { .. } | Self::NotWritable { .. } => {
                FlistErrorKind::Invalid
            }
            Self::Denied { .. }
            | Self::Status { status: 401 | 403, .. }
            | Self::Exchange { source: HttpFailure::Forbidden, .. }
            | Self::Zdb { source: ZdbFailure::Forbidden, .. } => FlistErrorKind::Denied,
            Self::UnsupportedScheme { .. } => FlistErrorKind::Unsupported,
            Self::NoStore { .. }
            | Self::Exchange { .. }
            | Self::Zdb { .. }
            | Self::Status { .. }
            | Self::Answer { .. }
            | Self::Paused { .. } => FlistErrorKind::Unreachable,
            Self::NotFound { .. } | Self::NoRoute { .. } => FlistErrorKind::NotFound,
            Self::Read { .. } | Self::Write { .. } | Self::Flush { .. } => FlistErrorKind::Io,
            Self::TooLarge { .. } => FlistErrorKind::Corrupt,
            Self::Verify { source, .. } => source.kind(),
            Self::Exhausted { source, .. } => source.kind(),
        }
    }

    /// Tells whether a retry soon may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Exchange { source, .. } => source.is_transient(),
            Self::Zdb { source, .. } => source.is_transient(),
            Self::Answer { is_transient, .. } => *is_transient,
            Self::Status { status, .. } => crate::http::is_transient_status(*status),
            _ => false,
        }
    }

    /// Tells whether a timeout expired: the store may hang, and a retry may take as long again.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::Exchange { source: HttpFailure::Timeout, .. } | Self::Zdb { source: ZdbFailure::Timeout, .. }
        )
    }
}
