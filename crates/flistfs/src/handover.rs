//! The handover from one keeper and server to the next: the successor asks for the mount's state, then ends its predecessors.
//!
//! ```text
//! keeper dead, server lives     the server starts `contd-flistfs --dir DIR --succeed`
//! upgrade                       whoever upgrades starts the same of the new program
//!                               └─► asks the server (HandOver) ─► loads the flist ─► forks a server of its own,
//!                                   which ends keeper and server of before and goes on at the request they left
//! ```
//!
//! The old server lives until the new one does: whichever process dies on the way, another one holds the device and goes on.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use contd_lease::{ProcessIdentity, pidfd, signal, wait_dead};
use contd_protocol::flistfs::{FlistSocket, HAND_OVER_SINCE, Process, Request, Response};
use contd_session::{Blocking, SessionError, connect};
use nix::libc::SIGKILL;

use crate::error::{AskError, ServeError};
use crate::mount_state::SOCKET_FILE;
use crate::negotiate::Negotiated;

/// How long a server may take to hand over: it answers from memory.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a killed process may take to be gone: it has a device and some files to close.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// The state that a living server hands over.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) device: File,
    pub(crate) lock: OwnedFd,
    pub(crate) listener: UnixListener,
    pub(crate) requests: OwnedFd,
    pub(crate) server: ProcessIdentity,
    pub(crate) negotiated: Negotiated,
    /// While it is open, the server starts no successor of its own.
    pub(crate) connection: Blocking<FlistSocket>,
}

/// Asks the server of this lease directory for all it has. It serves on.
///
/// # Errors
/// [`ServeError::Ask`].
pub(crate) fn ask(dir: &Path) -> Result<Offer, ServeError> {
    let socket = dir.join(SOCKET_FILE);
    ask_at(&socket).map_err(|source| ServeError::Ask { socket, source })
}

fn ask_at(socket: &Path) -> Result<Offer, AskError> {
    let stream = connect(socket, ASK_TIMEOUT).map_err(AskError::Connect)?;
    let mut connection = Blocking::<FlistSocket>::new(stream, ASK_TIMEOUT)?;
    if connection.greet(concat!("contd-flistfs ", env!("CARGO_PKG_VERSION")))?.version < HAND_OVER_SINCE {
        return Err(AskError::TooOld);
    }
    let handover = match connection.call(Request::HandOver)? {
        Response::Handover(handover) => handover,
        Response::Done | Response::Status(_) => return Err(AskError::Unexpected),
    };
    let mut next = || connection.descriptor();
    let (device, lock, listener): (File, OwnedFd, UnixListener) = (next()?.into(), next()?, next()?.into());
    let requests = next()?;
    if !matches!(next(), Err(SessionError::NoDescriptor)) {
        return Err(AskError::Unexpected);
    }
    let negotiated = serde_json::from_str(&handover.session).map_err(AskError::Session)?;
    Ok(Offer { device, lock, listener, requests, server: identity(handover.server), negotiated, connection })
}

fn identity(process: Process) -> ProcessIdentity {
    ProcessIdentity { pid: process.pid, start_ticks: process.start_ticks }
}

/// Gives a process the form in which it travels.
pub(crate) fn process(identity: &ProcessIdentity) -> Process {
    Process { pid: identity.pid, start_ticks: identity.start_ticks }
}

/// Ends the predecessors, one after the other, and waits until they are gone: requests that they have read and not answered
/// can then be answered.
///
/// # Errors
/// [`ServeError::PredecessorLives`] or [`ServeError::Process`].
pub(crate) fn end_all(predecessors: &[ProcessIdentity]) -> Result<(), ServeError> {
    let failed = |source| ServeError::Process { source };
    for predecessor in predecessors {
        let Some(fd) = pidfd(predecessor).map_err(failed)? else { continue };
        signal(&fd, SIGKILL).map_err(failed)?;
        if !wait_dead(&fd, END_TIMEOUT).map_err(failed)? {
            return Err(ServeError::PredecessorLives { pid: predecessor.pid });
        }
    }
    Ok(())
}
