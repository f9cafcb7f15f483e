//! Callers that hang: one that never says hello, one that stops in the middle of a frame, one that asks and does not read.
//! Each is hung up on in time, and nobody else waits for it.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use contd_protocol::api::{Call, Request, VERSIONS};
use contd_protocol::hello::HELLO_VERSION;
use contd_protocol::{Frame, Hello, Kind};

use crate::harness::{Node, SOON};

fn greeted(node: &Node) -> UnixStream {
    let mut stream = UnixStream::connect(node.socket()).expect("connect");
    let hello = Hello { versions: VERSIONS, agent: "test".into() };
    stream.write_all(&Frame::new(HELLO_VERSION, Kind::Hello, &hello).expect("small").to_bytes()).expect("say hello");
    stream
}

fn call(id: u64) -> Vec<u8> {
    Frame::new(VERSIONS.max, Kind::Call, &Call { id, request: Request::Version }).expect("small").to_bytes()
}

/// Waits until the other side has closed.
#[track_caller]
fn until_hung_up(mut stream: UnixStream, who: &str) {
    stream.set_read_timeout(Some(*SOON)).expect("set a time-out");
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{who} was not hung up on: {error}"),
    }
}

/// Asks without reading until the other side has closed.
fn ask_and_never_read(mut stream: UnixStream) {
    stream.set_write_timeout(Some(Duration::from_millis(200))).expect("set a time-out");
    let begun = Instant::now();
    for id in 1.. {
        assert!(begun.elapsed() < *SOON, "who does not read was not hung up on");
        match stream.write_all(&call(id)) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_closed) => return,
        }
    }
}

#[test]
fn hung_callers_are_hung_up_on_and_delay_nobody() {
    let node = Node::start();
    let flist = node.flist();
    node.contd(["run", "-d", "--name", "stays", flist.arg(), "/bin/sleep", "1000"]).ok();
    let silent = UnixStream::connect(node.socket()).expect("connect");
    let mut halfway = greeted(&node);
    let whole = call(1);
    halfway.write_all(&whole[..whole.len() / 2]).expect("half a frame");
    let deaf = greeted(&node);
    std::thread::scope(|scope| {
        let waits = [
            scope.spawn(|| until_hung_up(silent, "who says nothing")),
            scope.spawn(|| until_hung_up(halfway, "who stops half-way")),
            scope.spawn(|| ask_and_never_read(deaf)),
        ];
        // Two of them are given half a minute.
        assert_eq!(node.inspect("stays")["status"], "running");
        let still_hang = waits.iter().filter(|wait| !wait.is_finished()).count();
        assert!(still_hang >= 2, "a question was answered when {still_hang} of them were left");
    });
    node.contd(["run", "--rm", flist.arg(), "/bin/true"]).ok();
    node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
    node.finish();
}
