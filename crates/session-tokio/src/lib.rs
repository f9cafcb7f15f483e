//! Drivers of [`contd_protocol::Session`] over Unix sockets, for programs with a tokio runtime.
//!
//! Takes in: the path of a socket, and requests. Gives out: answers, and items with bounded memory. Never does: retries,
//! deadlines (callers drop what they no longer wait for), anything on a thread of its own.
//!
//! ```text
//!  Underway ──► slot (Protocol::MAX_CALLS) ──frame──► ┐                    ┌──► socket
//!              ──────────────────────────── credit──► ├─ one task per  ────┤
//!                                         ◄──items──  ┘  connection        └──◄ socket
//! ```
//!
//! - [`connect`] and [`greet`]: from a path to a [`Connection`].
//! - [`Underway`]: one call, its items and its reply.
//! - [`receive`], [`write_all`]: one message, for the answering side; its descriptors are in the session, or go with it.
#![forbid(unsafe_code)]

mod connection;
mod receive;
mod socket;
mod underway;

pub use connection::{Answer, Connection, Ending};
pub use receive::{ReceiveError, receive};
pub use socket::write_all;
pub use underway::{CallError, Underway};

use std::io;
use std::path::Path;
use std::time::Duration;

use contd_protocol::session::Welcome;
use contd_protocol::{CodecError, Protocol, Refusal, Session, Violation};
use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::tokio::Stream as _;
use interprocess::local_socket::{GenericFilePath, ToFsName};

/// How long to wait when the other side's queue of new connections is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(10);

/// Why a hello brought no agreement.
#[derive(Debug, thiserror::Error)]
pub enum GreetError {
    /// The socket failed, or was closed, before the answer.
    #[error("say hello")]
    Lost {
        /// Why.
        source: io::Error,
    },
    /// The other side said what it must not.
    #[error("understand the answer to the hello")]
    Violation {
        /// Its message.
        source: Violation,
    },
    /// The other side does not want us.
    #[error("agree with the other side")]
    Refused {
        /// Its reason.
        source: Refusal,
    },
    /// Our hello cannot be written.
    #[error("write the hello")]
    Unsendable {
        /// Why.
        source: CodecError,
    },
}

/// Connects to a socket, and waits while its queue of new connections is full. Has no deadline of its own.
///
/// # Errors
/// The system's error.
pub async fn connect(path: &Path) -> io::Result<Stream> {
    loop {
        match Stream::connect(path.to_fs_name::<GenericFilePath>()?).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(QUEUE_FULL_PAUSE).await,
            result => return result,
        }
    }
}

/// Says hello and waits for the answer, without a deadline; the session may hold bytes that came early.
///
/// # Errors
/// [`GreetError`].
pub async fn greet<P: Protocol>(stream: &Stream, agent: &str) -> Result<(Session<P>, Welcome), GreetError> {
    let mut session = Session::default();
    let hello = session.hello(agent).map_err(|source| GreetError::Unsendable { source })?;
    // A side that refuses may close without reading the hello: its answer counts, not our failed write.
    let written = write_all(stream, &hello, &[]).await;
    let lost = |source| GreetError::Lost { source };
    let answer = match receive(stream, &mut session, None, Session::hear_welcome).await {
        Ok(Some(answer)) => answer,
        Ok(None) | Err(ReceiveError::MidFrame) => {
            return Err(lost(written.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())));
        }
        Err(ReceiveError::Io { source }) => return Err(lost(written.err().unwrap_or(source))),
        Err(ReceiveError::Stopped { waited }) => return Err(lost(io::Error::other(format!("stopped for {waited:?}")))),
        Err(ReceiveError::Violation { source }) => return Err(GreetError::Violation { source }),
    };
    answer.map(|welcome| (session, welcome)).map_err(|source| GreetError::Refused { source })
}
