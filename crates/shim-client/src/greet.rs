//! Reaching a shim: its socket, whose it is, and which version both speak.

use std::io;
use std::path::Path;
use std::time::Duration;

use contd_protocol::hello::HELLO_VERSION;
use contd_protocol::shim::VERSIONS;
use contd_protocol::{Frame, FrameReader, Hello, HelloReply, Kind, MAX_CONTROL_BODY_BYTES, Refusal, decode};
use contd_types::{ApiError, ContainerId, ErrorKind};
use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::StreamCommon as _;
use interprocess::local_socket::traits::tokio::Stream as _;
use interprocess::local_socket::{GenericFilePath, ToFsName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{ShimError, deadline};

/// What this side calls itself.
const AGENT: &str = concat!("contd-shim-client/", env!("CARGO_PKG_VERSION"));

/// How long to wait when the shim's queue of new connections is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(10);

/// A connection on which both sides know the version; the reader may hold bytes that came early.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) stream: Stream,
    pub(crate) reader: FrameReader,
    pub(crate) version: u16,
}

/// Connects and says hello, within [`deadline::CONNECT`].
pub(crate) async fn connect(id: &ContainerId, socket: &Path, verb: &'static str) -> Result<Greeted, ShimError> {
    let waited = deadline::CONNECT;
    match tokio::time::timeout(waited, connect_now(id, socket)).await {
        Ok(result) => result,
        Err(_elapsed) => Err(ShimError::Silent { id: id.clone(), verb, waited }),
    }
}

async fn connect_now(id: &ContainerId, socket: &Path) -> Result<Greeted, ShimError> {
    let failed = |source| ShimError::Connect { id: id.clone(), socket: socket.to_owned(), source };
    let mut stream = open(socket).await.map_err(failed)?;
    let broken = |what: String| ShimError::Protocol { id: id.clone(), what };
    let owner = stream.peer_creds().map_err(failed)?.euid();
    if owner != Some(nix::unistd::geteuid().as_raw()) {
        return Err(broken(format!("its socket belongs to another user: uid {owner:?}")));
    }
    let hello = Hello { versions: VERSIONS, agent: AGENT.to_owned() };
    let frame = Frame::new(HELLO_VERSION, Kind::Hello, &hello).map_err(|error| broken(error.to_string()))?;
    let mut reader = FrameReader::new(MAX_CONTROL_BODY_BYTES);
    // A shim that refuses may close without reading the hello: its answer counts, not our failed write.
    let written = stream.write_all(&frame.to_bytes()).await;
    let frame = loop {
        if let Some(frame) = reader.next_frame().map_err(|error| broken(error.to_string()))? {
            break frame;
        }
        let mut buffer = [0; 512];
        match stream.read(&mut buffer).await.map_err(failed)? {
            0 => return Err(failed(written.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()))),
            count => reader.push(buffer.get(..count).unwrap_or_default()),
        }
    };
    if (frame.version, frame.kind) != (HELLO_VERSION, Kind::HelloReply) {
        return Err(broken(format!("it answered the hello with {:?} of version {}", frame.kind, frame.version)));
    }
    match decode(&frame.body).map_err(|error| broken(error.to_string()))? {
        HelloReply::Welcome { version, .. } if (VERSIONS.min..=VERSIONS.max).contains(&version) => {
            Ok(Greeted { stream, reader, version })
        }
        HelloReply::Welcome { version, .. } => {
            Err(broken(format!("it chose version {version}, which we do not speak")))
        }
        HelloReply::Refused(refusal) => Err(refused(id, &refusal)),
    }
}

fn refused(id: &ContainerId, refusal: &Refusal) -> ShimError {
    let kind = match refusal {
        Refusal::NoCommonVersion { .. } => return ShimError::Protocol { id: id.clone(), what: refusal.to_string() },
        Refusal::Forbidden { .. } => ErrorKind::PermissionDenied,
        Refusal::TooManyConnections { .. } | Refusal::Full { .. } => ErrorKind::Busy,
    };
    ShimError::Refused {
        id: id.clone(),
        verb: "connect to the shim of",
        source: ApiError::new(kind, refusal.to_string()),
    }
}

async fn open(socket: &Path) -> io::Result<Stream> {
    loop {
        match Stream::connect(socket.to_fs_name::<GenericFilePath>()?).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(QUEUE_FULL_PAUSE).await,
            result => return result,
        }
    }
}
