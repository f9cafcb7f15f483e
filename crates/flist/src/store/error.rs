//! Why a block could not be fetched or stored. No variant holds a credential: stores are named redacted.

use std::io;

use crate::block::BlockError;
use crate::error::FlistErrorKind;
use crate::hash::BlockId;
use crate::http::HttpFailure;

/// What went wrong between us and a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The URL of a route cannot be understood.
    #[error("use store {store}: {reason}")]
    BadUrl {
        /// The URL, redacted.
        store: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A scheme that this version does not speak.
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
    /// The folder of a `dir://` store is not there. Reading never creates it.
    #[error("use store {store}: there is no such folder")]
    NoStore {
        /// The URL.
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
    /// The system could not read it.
    #[error("get block {id} from {store}")]
    Read {
        /// The store.
        store: String,
        /// The block.
        id: BlockId,
        /// What the system says.
        source: io::Error,
    },
    /// The exchange with a server failed.
    #[error("get block {id} from {store}")]
    Exchange {
        /// The store, redacted.
        store: String,
        /// The block.
        id: BlockId,
        /// Where it failed.
        source: HttpFailure,
    },
    /// The server answered with a status that is neither success nor absence.
    #[error("get block {id} from {store}: status {status}")]
    Status {
        /// The store, redacted.
        store: String,
        /// The block.
        id: BlockId,
        /// The HTTP status.
        status: u16,
    },
    /// The object is larger than any block.
    #[error("get block {id} from {store}: more than {limit} bytes")]
    TooLarge {
        /// The store, redacted.
        store: String,
        /// The block.
        id: BlockId,
        /// The cap.
        limit: usize,
    },
    /// What the store gave is not the block.
    #[error("verify a block from {store}")]
    Verify {
        /// The store, redacted.
        store: String,
        /// Which check failed.
        source: BlockError,
    },
    /// No route covers this id.
    #[error("get block {id}: no route of the flist covers it")]
    NoRoute {
        /// The block.
        id: BlockId,
    },
    /// Every matching store was asked, some more than once.
    #[error("get block {id}: {attempts} attempts on {stores} stores failed")]
    Exhausted {
        /// The block.
        id: BlockId,
        /// How often a store was asked.
        attempts: u32,
        /// How many stores the routes allow for it.
        stores: usize,
        /// The most telling failure.
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
    /// The system could not write it.
    #[error("put block {id} in {store}")]
    Write {
        /// The store.
        store: String,
        /// The block.
        id: BlockId,
        /// What the system says.
        source: io::Error,
    },
    /// The system could not promise that the blocks are on disk.
    #[error("flush {store} to disk")]
    Flush {
        /// The store.
        store: String,
        /// What the system says.
        source: io::Error,
    },
}

impl StoreError {
    /// Says what to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::BadUrl { .. } => "write a store as dir:///path or http(s)://host/path",
            Self::UnsupportedScheme { .. } => {
                "zdb:// and s3:// come with a later version: serve the store by http:// or copy it to a dir:// store"
            }
            Self::NotAllowed { .. } => "allow the folder in the configuration, if you trust the flist",
            Self::NoStore { .. } => "mount or create the folder, or rewrite the route of the flist",
            Self::NotFound { .. } | Self::NoRoute { .. } => {
                "the store is incomplete: pack the flist again or restore the block"
            }
            Self::Read { .. } => "check the permissions and the disk of the store",
            Self::Exchange { .. } => "check that the store is up and reachable from this node, then retry",
            Self::Status { .. } => "ask the operator of the store; it may need public read access",
            Self::TooLarge { .. } => "the store holds something else under that name: restore the block",
            Self::Verify { source, .. } => source.hint(),
            Self::Exhausted { source, .. } => source.hint(),
            Self::ReadOnly { .. } => "pack to a dir:// store and serve that by http",
            Self::Write { .. } | Self::Flush { .. } => "check the permissions and the free space of the store",
        }
    }

    /// Says what sort of trouble it is.
    #[must_use]
    pub fn kind(&self) -> FlistErrorKind {
        match self {
            Self::BadUrl { .. } | Self::NotAllowed { .. } | Self::ReadOnly { .. } => FlistErrorKind::Invalid,
            Self::UnsupportedScheme { .. } => FlistErrorKind::Unsupported,
            Self::NoStore { .. } | Self::Exchange { .. } | Self::Status { .. } => FlistErrorKind::Unreachable,
            Self::NotFound { .. } | Self::NoRoute { .. } => FlistErrorKind::NotFound,
            Self::Read { .. } | Self::Write { .. } | Self::Flush { .. } => FlistErrorKind::Io,
            Self::TooLarge { .. } => FlistErrorKind::Corrupt,
            Self::Verify { source, .. } => source.kind(),
            Self::Exhausted { source, .. } => source.kind(),
        }
    }

    /// Tells whether the same store may well answer if it is asked again soon.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Exchange { source, .. } => source.is_transient(),
            Self::Status { status, .. } => crate::http::is_transient_status(*status),
            _ => false,
        }
    }
}
