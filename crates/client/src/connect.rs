//! Reaching the daemon: the socket, then the hello.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use contd_protocol::api::VERSIONS;
use contd_protocol::hello::HELLO_VERSION;
use contd_protocol::{Frame, FrameReader, Hello, HelloReply, Kind, MAX_API_BODY_BYTES, decode};
use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::tokio::Stream as _;
use interprocess::local_socket::{GenericFilePath, ToFsName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connection::Connection;
use crate::deadline::within;
use crate::error::{ClientError, ProtocolError};

/// What this side calls itself.
const AGENT: &str = concat!("contd-client/", env!("CARGO_PKG_VERSION"));
/// The call's name in errors.
const WHAT: &str = "greet the daemon";
/// How long to wait when the daemon's queue of new connections is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(10);

/// Connects and agrees on a version.
pub(crate) async fn connect(path: &Path, limit: Option<Duration>) -> Result<Arc<Connection>, ClientError> {
    within(WHAT, limit, async {
        let mut stream = open(path).await.map_err(|source| ClientError::Connect { path: path.to_owned(), source })?;
        let (reader, version, agent) = greet(&mut stream, path).await?;
        Ok(Connection::start(stream, reader, version, agent))
    })
    .await
}

async fn open(path: &Path) -> io::Result<Stream> {
    loop {
        let name = path.to_fs_name::<GenericFilePath>()?;
        match Stream::connect(name).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(QUEUE_FULL_PAUSE).await,
            result => return result,
        }
    }
}

async fn greet(stream: &mut Stream, path: &Path) -> Result<(FrameReader, u16, String), ClientError> {
    let hello = Hello { versions: VERSIONS, agent: AGENT.to_owned() };
    let frame = Frame::new(HELLO_VERSION, Kind::Hello, &hello)
        .map_err(|source| ClientError::Unsendable { what: WHAT, source })?;
    let mut reader = FrameReader::new(MAX_API_BODY_BYTES);
    // A daemon that refuses may close without reading the hello: its answer counts, not our failed write.
    let written = stream.write_all(&frame.to_bytes()).await;
    let reply = match read_frame(stream, &mut reader).await {
        Ok(frame) => frame,
        Err(ClientError::Lost { source, .. }) => {
            let source = written.err().map_or(source, Arc::new);
            return Err(ClientError::Lost { what: WHAT, source });
        }
        Err(error) => return Err(error),
    };
    match accept(&reply).map_err(broken)? {
        HelloReply::Refused(source) => Err(ClientError::Refused { path: PathBuf::from(path), source }),
        HelloReply::Welcome { version, agent, .. } if (VERSIONS.min..=VERSIONS.max).contains(&version) => {
            Ok((reader, version, agent))
        }
        HelloReply::Welcome { version: got, .. } => Err(broken(ProtocolError::ChosenVersion { got })),
    }
}

fn accept(frame: &Frame) -> Result<HelloReply, ProtocolError> {
    if frame.version != HELLO_VERSION {
        return Err(ProtocolError::FrameVersion { agreed: HELLO_VERSION, got: frame.version });
    }
    if frame.kind != Kind::HelloReply {
        return Err(ProtocolError::FrameKind { got: frame.kind, wanted: "the answer to the hello" });
    }
    decode(&frame.body).map_err(ProtocolError::Message)
}

async fn read_frame(stream: &mut Stream, reader: &mut FrameReader) -> Result<Frame, ClientError> {
    let lost = |error: io::Error| ClientError::Lost { what: WHAT, source: Arc::new(error) };
    let mut buffer = vec![0; 1024];
    loop {
        if let Some(frame) = reader.next_frame().map_err(|error| broken(ProtocolError::Frame(error)))? {
            return Ok(frame);
        }
        match stream.read(&mut buffer).await.map_err(lost)? {
            0 => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
            count => reader.push(buffer.get(..count).unwrap_or_default()),
        }
    }
}

fn broken(error: ProtocolError) -> ClientError {
    ClientError::Protocol { what: WHAT, source: Arc::new(error) }
}
