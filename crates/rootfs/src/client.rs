//! One call to a flist's server, blocking.

use std::io;
use std::path::Path;
use std::time::Duration;

use contd_protocol::flistfs::{FlistSocket, Request, Response, Status};
use contd_session::{Blocking, SessionError};
use contd_types::{ErrorKind, Explain};

/// How long the server may be silent: it answers from memory.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("connect to the flist server")]
    Connect { source: io::Error },
    #[error("connect to the flist server: it accepts nobody")]
    Full { source: io::Error },
    #[error("talk to the flist server")]
    Talk {
        #[from]
        source: SessionError,
    },
    #[error("understand the flist server: it sent something else than was asked for")]
    Unexpected,
}

impl ClientError {
    /// Tells whether nobody listens: the server is gone, or about to go.
    pub(crate) fn is_nobody_there(&self) -> bool {
        matches!(self, Self::Connect { .. })
    }

    /// Tells whether it did not answer in time.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::Full { .. }) || matches!(self, Self::Talk { source } if source.is_silence())
    }

    /// Tells whether the server closed without an answer: it had too many connections, or ended.
    pub(crate) fn is_hang_up(&self) -> bool {
        matches!(self, Self::Talk { source } if source.is_hang_up())
    }
}

impl Explain for ClientError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Talk { source: SessionError::Answer { source } } => source.kind,
            Self::Talk { source: SessionError::Refused { .. } } => ErrorKind::VersionMismatch,
            Self::Talk { source: SessionError::Violation { .. } | SessionError::Unsendable { .. } } => {
                ErrorKind::Internal
            }
            Self::Unexpected => ErrorKind::Internal,
            Self::Connect { .. } | Self::Full { .. } | Self::Talk { .. } => ErrorKind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Talk { source: SessionError::Answer { source } } => source.hint.clone(),
            Self::Talk { source: SessionError::Refused { .. } } => {
                Some("end its containers, so that a server of this version can start".to_owned())
            }
            _ => Some("see flistfs.log in the server's directory, then retry".to_owned()),
        }
    }
}

/// Asks what is served.
pub(crate) fn status(socket: &Path) -> Result<Status, ClientError> {
    let stream = contd_session::connect(socket, ANSWER_TIMEOUT).map_err(|source| match source.kind() {
        // Its queue is full: it lives, and does not accept.
        io::ErrorKind::WouldBlock => ClientError::Full { source },
        _ => ClientError::Connect { source },
    })?;
    let mut session = Blocking::<FlistSocket>::new(stream, ANSWER_TIMEOUT)?;
    session.greet(concat!("contd-rootfs ", env!("CARGO_PKG_VERSION")))?;
    match session.call(Request::Status)? {
        Response::Status(status) => Ok(status),
        Response::Done | Response::Handover(_) => Err(ClientError::Unexpected),
    }
}
