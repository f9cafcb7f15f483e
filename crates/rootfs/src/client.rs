//! One call to a flist's server, blocking.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use contd_protocol::flistfs::{Call, Reply, Request, Response, Status, VERSIONS};
use contd_protocol::hello::HELLO_VERSION;
use contd_protocol::{
    CodecError, Frame, FrameError, FrameReader, Hello, HelloReply, Kind, MAX_CONTROL_BODY_BYTES, Refusal,
};
use contd_types::{ApiError, ErrorKind, Explain};
use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

/// How long the server may be silent: it answers from memory.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The id of the only call of a connection.
const CALL_ID: u64 = 1;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("connect to the flist server")]
    Connect { source: io::Error },
    #[error("talk to the flist server")]
    Talk { source: io::Error },
    #[error("understand the flist server")]
    Frame { source: FrameError },
    #[error("understand the flist server")]
    Codec { source: CodecError },
    #[error("agree on a protocol version with the flist server")]
    Refused { source: Refusal },
    #[error("understand the flist server: it sent something else than was asked for")]
    Unexpected,
    #[error("the flist server refuses")]
    Answer { source: ApiError },
}

impl ClientError {
    /// Tells whether nobody listens: the server is gone, or about to go.
    pub(crate) fn is_nobody_there(&self) -> bool {
        matches!(self, Self::Connect { .. })
    }

    /// Tells whether it did not answer in time.
    pub(crate) fn is_silence(&self) -> bool {
        let Self::Talk { source } = self else { return false };
        matches!(source.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
    }

    /// Tells whether the server closed without an answer: it had too many connections, or ended.
    pub(crate) fn is_hang_up(&self) -> bool {
        let Self::Talk { source } = self else { return false };
        matches!(
            source.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        )
    }
}

impl Explain for ClientError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect { .. } | Self::Talk { .. } => ErrorKind::Unavailable,
            Self::Frame { .. } | Self::Codec { .. } | Self::Unexpected => ErrorKind::Internal,
            Self::Refused { .. } => ErrorKind::VersionMismatch,
            Self::Answer { source } => source.kind,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Answer { source } => source.hint.clone(),
            Self::Refused { .. } => Some("end its containers, so that a server of this version can start".to_owned()),
            _ => Some("see flistfs.log in the server's directory, then retry".to_owned()),
        }
    }
}

/// Asks what is served.
pub(crate) fn status(socket: &Path) -> Result<Status, ClientError> {
    match call(socket, Request::Status)? {
        Response::Status(status) => Ok(status),
        Response::Done | Response::Handover(_) => Err(ClientError::Unexpected),
    }
}

fn call(socket: &Path, request: Request) -> Result<Response, ClientError> {
    let talk = |source| ClientError::Talk { source };
    let mut stream = match connect(socket) {
        Ok(stream) => stream,
        // Its queue is full: it lives, and does not accept.
        Err(source) if source.kind() == io::ErrorKind::WouldBlock => return Err(talk(source)),
        Err(source) => return Err(ClientError::Connect { source }),
    };
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(talk)?;
    let mut frames = FrameReader::new(MAX_CONTROL_BODY_BYTES);
    let agent = concat!("contd-rootfs ", env!("CARGO_PKG_VERSION")).to_owned();
    send(&mut stream, HELLO_VERSION, Kind::Hello, &Hello { versions: VERSIONS, agent })?;
    let version = match receive::<HelloReply>(&mut stream, &mut frames, Kind::HelloReply)? {
        HelloReply::Welcome { version, .. } => version,
        HelloReply::Refused(source) => return Err(ClientError::Refused { source }),
    };
    send(&mut stream, version, Kind::Call, &Call { id: CALL_ID, request })?;
    let reply: Reply = receive(&mut stream, &mut frames, Kind::Reply)?;
    if reply.id != CALL_ID {
        return Err(ClientError::Unexpected);
    }
    reply.result.map_err(|source| ClientError::Answer { source })
}

/// Connects with a deadline, which then holds for writes as well: a server that stands still would keep us for ever once
/// its queue is full.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let seconds = i64::try_from(ANSWER_TIMEOUT.as_secs()).unwrap_or(1);
    socket::setsockopt(&socket, sockopt::SendTimeout, &TimeVal::seconds(seconds))?;
    let address = UnixAddr::new(path)?;
    // A signal may interrupt it while the queue is full; it has not begun then, and may be repeated.
    while let Err(errno) = socket::connect(socket.as_raw_fd(), &address) {
        if errno != Errno::EINTR {
            return Err(errno.into());
        }
    }
    Ok(socket.into())
}

fn send<T: serde::Serialize>(
    stream: &mut UnixStream,
    version: u16,
    kind: Kind,
    message: &T,
) -> Result<(), ClientError> {
    let frame = Frame::new(version, kind, message).map_err(|source| ClientError::Codec { source })?;
    stream.write_all(&frame.to_bytes()).map_err(|source| ClientError::Talk { source })
}

fn receive<T: serde::de::DeserializeOwned>(
    stream: &mut UnixStream,
    frames: &mut FrameReader,
    kind: Kind,
) -> Result<T, ClientError> {
    let mut chunk = [0; 4096];
    loop {
        if let Some(frame) = frames.next_frame().map_err(|source| ClientError::Frame { source })? {
            if frame.kind != kind {
                return Err(ClientError::Unexpected);
            }
            return contd_protocol::decode(&frame.body).map_err(|source| ClientError::Codec { source });
        }
        let len = match stream.read(&mut chunk) {
            Ok(0) => return Err(ClientError::Talk { source: io::ErrorKind::UnexpectedEof.into() }),
            Ok(len) => len,
            // A child of ours has ended: where there is a deadline the kernel does not go on by itself (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(ClientError::Talk { source }),
        };
        frames.push(chunk.get(..len).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn an_answer_is_waited_for_also_when_a_signal_comes_meanwhile() {
        let (mut own, mut server) = UnixStream::pair().expect("a pair");
        own.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("a deadline");
        let asked = std::thread::spawn(move || {
            let mut frames = FrameReader::new(MAX_CONTROL_BODY_BYTES);
            receive::<u32>(&mut own, &mut frames, Kind::Reply)
        });
        // Being stopped and continued interrupts a wait with a deadline, as a handled signal does, and needs no handler.
        let script = format!("sleep 0.2; kill -STOP {0}; sleep 0.1; kill -CONT {0}", std::process::id());
        let stopper = std::process::Command::new("/bin/sh").args(["-c", &script]).status().expect("run a shell");
        assert!(stopper.success());
        send(&mut server, HELLO_VERSION, Kind::Reply, &7u32).expect("answer");
        assert_eq!(asked.join().expect("no panic").expect("an answer"), 7);
    }

    #[test]
    fn a_server_whose_queue_is_full_is_silent_and_keeps_nobody_for_ever() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("sock");
        let _never_accepts = UnixListener::bind(&path).expect("bind");
        let mut held = Vec::new();
        let full = loop {
            // The queue has at most some thousand places (net.core.somaxconn).
            assert!(held.len() < 10_000, "the queue is never full");
            let (sender, receiver) = std::sync::mpsc::channel();
            let own = path.clone();
            std::thread::spawn(move || sender.send(connect(&own)));
            match receiver.recv_timeout(ANSWER_TIMEOUT * 2).expect("it hangs") {
                Ok(stream) => held.push(stream),
                Err(error) => break error,
            }
        };
        assert!(ClientError::Talk { source: full }.is_silence());
    }
}
