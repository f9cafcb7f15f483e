//! From one generation to the next: how a successor asks for what it needs, and how it ends those before it.
//!
//! ```text
//! keeper dead, server lives     the server starts `contd-flistfs --dir DIR --succeed`
//! upgrade                       whoever upgrades starts the same of the new program
//!                               └─► asks the server (HandOver) ─► loads the flist ─► forks a server of its own,
//!                                   which ends keeper and server of before and goes on at the request they left
//! ```
//!
//! Whatever dies on the way, somebody is left who holds the device and goes on: until the new server lives, the old one does.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use contd_handover::receive;
use contd_lease::{ProcessIdentity, pidfd, signal, wait_dead};
use contd_protocol::flistfs::{self, Call, HAND_OVER_SINCE, Process, Reply, Request, Response, VERSIONS};
use contd_protocol::hello::HELLO_VERSION;
use contd_protocol::{Frame, FrameReader, Hello, HelloReply, Kind, MAX_CONTROL_BODY_BYTES};
use nix::libc::SIGKILL;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::error::{AskError, ServeError};
use crate::estate::SOCKET_FILE;
use crate::negotiate::Negotiated;

/// How long a server may take to hand over: it answers from memory.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a killed process may take to be gone: it has a device and some files to close.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// The id of the only call of the connection.
const CALL_ID: u64 = 1;

/// What a living server offers.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) device: File,
    pub(crate) lock: OwnedFd,
    pub(crate) listener: UnixListener,
    pub(crate) server: ProcessIdentity,
    pub(crate) negotiated: Negotiated,
    /// While it is open, the server starts no successor of its own.
    pub(crate) connection: UnixStream,
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
    let mut stream = connect(socket)?;
    let mut inbox = Inbox { frames: FrameReader::new(MAX_CONTROL_BODY_BYTES), fds: Vec::new() };
    let agent = concat!("contd-flistfs ", env!("CARGO_PKG_VERSION")).to_owned();
    stream.write_all(&Frame::new(HELLO_VERSION, Kind::Hello, &Hello { versions: VERSIONS, agent })?.to_bytes())?;
    let version = match inbox.message::<HelloReply>(&stream, Kind::HelloReply)? {
        HelloReply::Welcome { version, .. } if version >= HAND_OVER_SINCE => version,
        HelloReply::Welcome { .. } => return Err(AskError::TooOld),
        HelloReply::Refused(refusal) => return Err(AskError::Refused(refusal)),
    };
    let call = Call { id: CALL_ID, request: Request::HandOver };
    stream.write_all(&Frame::new(version, Kind::Call, &call)?.to_bytes())?;
    let reply: Reply = inbox.message(&stream, Kind::Reply)?;
    let estate = match reply.result.map_err(AskError::Answer)? {
        Response::Handover(estate) => estate,
        Response::Done | Response::Status(_) => return Err(AskError::Unexpected),
    };
    let Ok([device, lock, listener]) = <[OwnedFd; 3]>::try_from(inbox.fds) else { return Err(AskError::Unexpected) };
    Ok(Offer {
        device: device.into(),
        lock,
        listener: listener.into(),
        server: identity(estate.server),
        negotiated: session(&estate)?,
        connection: stream,
    })
}

/// Connects with a deadline, which then holds for reads and writes as well.
fn connect(path: &Path) -> Result<UnixStream, AskError> {
    let failed = std::io::Error::from;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
    let seconds = TimeVal::seconds(i64::try_from(ASK_TIMEOUT.as_secs()).unwrap_or(1));
    socket::setsockopt(&socket, sockopt::SendTimeout, &seconds).map_err(failed)?;
    socket::setsockopt(&socket, sockopt::ReceiveTimeout, &seconds).map_err(failed)?;
    let address = UnixAddr::new(path).map_err(failed)?;
    socket::connect(socket.as_raw_fd(), &address).map_err(failed)?;
    Ok(socket.into())
}

/// What has come and is not read yet.
struct Inbox {
    frames: FrameReader,
    fds: Vec<OwnedFd>,
}

impl Inbox {
    fn message<T: serde::de::DeserializeOwned>(&mut self, stream: &UnixStream, kind: Kind) -> Result<T, AskError> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(frame) = self.frames.next_frame()? {
                if frame.kind != kind {
                    return Err(AskError::Unexpected);
                }
                return Ok(contd_protocol::decode(&frame.body)?);
            }
            let len = receive(stream, &mut chunk, &mut self.fds)?;
            if len == 0 {
                return Err(AskError::Talk(std::io::ErrorKind::UnexpectedEof.into()));
            }
            self.frames.push(chunk.get(..len).unwrap_or_default());
        }
    }
}

fn session(estate: &flistfs::Handover) -> Result<Negotiated, AskError> {
    serde_json::from_str(&estate.session).map_err(AskError::Session)
}

fn identity(process: Process) -> ProcessIdentity {
    ProcessIdentity { pid: process.pid, start_ticks: process.start_ticks }
}

/// Gives a process the form in which it travels.
pub(crate) fn process(identity: &ProcessIdentity) -> Process {
    Process { pid: identity.pid, start_ticks: identity.start_ticks }
}

/// Ends those who served before, one after the other, and waits until they are gone: what they have read and not answered
/// can then be asked for again.
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
