//! Calls a flist server over its control socket, as the daemon does.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use contd_protocol::flistfs::{Call, Reply, Request, Response, VERSIONS};
use contd_protocol::hello::HELLO_VERSION;
use contd_protocol::{Frame, FrameReader, Hello, HelloReply, Kind, MAX_CONTROL_BODY_BYTES};

/// The time limit of an answer: a server answers from memory, but a Shutdown takes two seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the process id of the server that answers; `None` when none does.
pub(crate) fn serving_pid(socket: &Path) -> Option<i32> {
    match call(socket, Request::Status).ok()? {
        Response::Status(status) => Some(status.pid),
        other => panic!("the status of a server is {other:?}"),
    }
}

/// Makes the server unmount and end.
pub(crate) fn shut_down(socket: &Path) -> io::Result<()> {
    call(socket, Request::Shutdown).map(drop)
}

fn call(socket: &Path, request: Request) -> io::Result<Response> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut frames = FrameReader::new(MAX_CONTROL_BODY_BYTES);
    let hello = Hello { versions: VERSIONS, agent: "bench".to_owned() };
    stream.write_all(&Frame::new(HELLO_VERSION, Kind::Hello, &hello).expect("encode").to_bytes())?;
    let welcome = contd_protocol::decode(&next(&mut stream, &mut frames)?.body).expect("decode");
    let HelloReply::Welcome { version, .. } = welcome else { panic!("the server refuses: {welcome:?}") };
    let call = Call { id: 1, request };
    stream.write_all(&Frame::new(version, Kind::Call, &call).expect("encode").to_bytes())?;
    let reply: Reply = contd_protocol::decode(&next(&mut stream, &mut frames)?.body).expect("decode");
    reply.result.map_err(|error| io::Error::other(error.to_string()))
}

fn next(stream: &mut UnixStream, frames: &mut FrameReader) -> io::Result<Frame> {
    let mut chunk = [0; 4096];
    loop {
        if let Some(frame) = frames.next_frame().expect("a frame") {
            return Ok(frame);
        }
        let len = stream.read(&mut chunk)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        frames.push(&chunk[..len]);
    }
}
