//! That the daemon leaves, and why: what its last callers hear.

use contd_types::{ApiError, ErrorKind};

/// Why the daemon leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It was told to end.
    Ending,
    /// A successor has its socket.
    Replaced,
}

impl Leaving {
    /// Makes the answer to a call that lasts longer than the daemon.
    pub(crate) fn to_error(self) -> ApiError {
        let (message, hint) = match self {
            Self::Ending => ("the daemon is ending; containers run on", "connect again when it is back"),
            Self::Replaced => {
                ("the daemon is being replaced; containers run on", "connect again: its successor has the socket")
            }
        };
        ApiError::new(ErrorKind::Unavailable, message).with_hint(hint)
    }
}
