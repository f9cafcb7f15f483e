//! Why a call to the daemon failed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contd_protocol::{CodecError, Refusal, Violation};
use contd_types::{ApiError, ErrorKind, Explain};

/// A failed connection or call. `what` is the call, as a person would name it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No daemon answers at the socket.
    #[error("connect to {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The daemon answers, and wants nothing to do with this caller.
    #[error("connect to {}: the daemon refuses", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Its reason.
        source: Refusal,
    },
    /// The daemon says what the protocol does not allow; the connection is closed.
    #[error("{what}: the daemon broke the protocol")]
    Protocol {
        /// The call that saw it.
        what: &'static str,
        /// Its message.
        source: Arc<ProtocolError>,
    },
    /// The connection ended before the answer. Whether the call was carried out is not known.
    #[error("{what}: the connection to the daemon was lost")]
    Lost {
        /// The call that was under way.
        what: &'static str,
        /// How it ended.
        source: Arc<io::Error>,
    },
    /// The answer did not come in time; the call was cancelled.
    #[error("{what}: no answer within {waited:?}")]
    TimedOut {
        /// The call.
        what: &'static str,
        /// How long the deadline was.
        waited: Duration,
    },
    /// The request is larger than any daemon accepts, or has more than this one knows; nothing was sent.
    #[error("{what}: write the request")]
    Unsendable {
        /// The call.
        what: &'static str,
        /// The codec's error.
        source: CodecError,
    },
    /// The daemon answered with an error.
    #[error(transparent)]
    Api(ApiError),
}

/// A message that a daemon must not send.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// It broke the rules that hold for every message: frames, versions, ids, credit.
    #[error(transparent)]
    Session(Arc<Violation>),
    /// An item that does not belong to the call.
    #[error("an item came that does not belong to the call: {got}")]
    WrongItem {
        /// The name of the item.
        got: &'static str,
    },
    /// An answer that does not belong to the call.
    #[error("an answer came that does not belong to the call: {got}")]
    WrongResponse {
        /// The name of the answer.
        got: &'static str,
    },
    /// A text that is not what it should be.
    #[error("an answer cannot be read")]
    Text {
        /// The error in it.
        source: CodecError,
    },
    /// A page of a list that does not go on behind the last one.
    #[error("a page of the list does not follow the one before")]
    PageOrder,
}

impl Explain for ClientError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                ErrorKind::PermissionDenied
            }
            Self::Connect { .. } | Self::Lost { .. } => ErrorKind::Unavailable,
            Self::Refused { source, .. } => match source {
                Refusal::NoCommonVersion { .. } => ErrorKind::VersionMismatch,
                Refusal::Forbidden { .. } => ErrorKind::PermissionDenied,
                Refusal::TooManyConnections { .. } | Refusal::Full { .. } => ErrorKind::Busy,
            },
            Self::Protocol { .. } => ErrorKind::Corrupt,
            Self::TimedOut { .. } => ErrorKind::Timeout,
            Self::Unsendable { source: CodecError::TooNew { .. }, .. } => ErrorKind::VersionMismatch,
            Self::Unsendable { .. } => ErrorKind::InvalidArgument,
            Self::Api(error) => error.kind,
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Connect { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                return Some(crate::socket::who_may_open(path));
            }
            Self::Connect { .. } => "is the daemon running? start `contd daemon`, or name its socket with --address",
            Self::Refused { source: Refusal::NoCommonVersion { .. }, .. } => {
                "use a `contd` of the same release as the daemon"
            }
            Self::Refused { source: Refusal::Forbidden { .. }, .. } => {
                "no [[access]] rule in the daemon's configuration fits your user or one of your groups (`id`): ask the operator for one"
            }
            Self::Refused { source: Refusal::TooManyConnections { .. }, .. } => "try again in a moment",
            Self::Refused { source: Refusal::Full { .. }, .. } => {
                "close some of them, or have the operator raise that limit"
            }
            Self::Protocol { .. } => "is this the socket of a contd daemon? compare `contd version` on both sides",
            Self::Lost { .. } => "try again; before that, see whether it was carried out: contd ps -a",
            Self::TimedOut { .. } => "the daemon may be overloaded or stuck: read its log, then try again",
            Self::Unsendable { source: CodecError::TooNew { .. }, .. } => {
                "the daemon is of an earlier release: upgrade and restart it (containers run on), or leave out what is new"
            }
            Self::Unsendable { .. } => "pass large inputs by a mounted file",
            Self::Api(error) => return error.hint.clone(),
        };
        Some(text.to_owned())
    }
}

impl ClientError {
    /// Turns it into the one shape of errors that travel, with every cause apart.
    pub fn to_api_error(&self) -> ApiError {
        match self {
            Self::Api(error) => error.clone(),
            other => ApiError::from_error(other),
        }
    }
}
