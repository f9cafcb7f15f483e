//! One message at a time from a socket.

use std::io;
use std::time::Duration;

use contd_protocol::{Protocol, Session, Violation};
use interprocess::local_socket::tokio::Stream;

use crate::socket;

/// Bytes read at once: usual messages are small.
const READ_BYTES: usize = 8 * 1024;

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The socket failed.
    #[error("read the socket")]
    Io {
        /// Why.
        #[from]
        source: io::Error,
    },
    /// The other side said what it must not.
    #[error("understand the other side")]
    Violation {
        /// Its message.
        #[from]
        source: Violation,
    },
    /// The other side has closed in the middle of a frame.
    #[error("the other side broke off in the middle of a frame")]
    MidFrame,
    /// The other side has not ended a frame in time.
    #[error("the other side stopped in the middle of a frame for {waited:?}")]
    Stopped {
        /// How long it was waited for.
        waited: Duration,
    },
}

/// Reads until `take` finds a message; `None` when the other side has closed between frames. A frame that has begun may
/// stand still for `mid_frame_limit`. Cancellation-safe: bytes that were read stay in the session.
///
/// # Errors
/// [`ReceiveError`].
pub async fn receive<P: Protocol, T>(
    stream: &Stream,
    session: &mut Session<P>,
    mid_frame_limit: Option<Duration>,
    take: impl Fn(&mut Session<P>) -> Result<Option<T>, Violation>,
) -> Result<Option<T>, ReceiveError> {
    // On the heap: futures of callers would be as large as it.
    let mut buffer = vec![0u8; READ_BYTES];
    loop {
        if let Some(message) = take(session)? {
            return Ok(Some(message));
        }
        let mut fds = Vec::new();
        let read = socket::read(stream, &mut buffer, &mut fds);
        let count = match mid_frame_limit.filter(|_| session.is_mid_frame()) {
            Some(waited) => {
                tokio::time::timeout(waited, read).await.map_err(|_elapsed| ReceiveError::Stopped { waited })??
            }
            None => read.await?,
        };
        session.push_descriptors(fds)?;
        match count {
            0 if session.is_mid_frame() => return Err(ReceiveError::MidFrame),
            0 => return Ok(None),
            count => session.push(buffer.get(..count).unwrap_or_default()),
        }
    }
}
