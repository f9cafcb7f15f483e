//! Garbage on the sockets: the one who sent it is hung up on, and nobody else notices.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use contd_protocol::hello::HELLO_VERSION;
use contd_protocol::{Frame, FrameReader, Hello, HelloReply, Kind, VersionRange};

use crate::harness::{Node, SOON};

fn hello(versions: VersionRange) -> Vec<u8> {
    Frame::new(HELLO_VERSION, Kind::Hello, &Hello { versions, agent: "test".into() }).expect("small").to_bytes()
}

/// Sends bytes and returns all that comes back until the other side hangs up.
#[track_caller]
fn exchange(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).expect("connect");
    // The other side may hang up before all is sent; that is an answer as well.
    let _hung_up = stream.write_all(bytes);
    read_to_hang_up(socket, stream)
}

#[track_caller]
fn read_to_hang_up(socket: &Path, mut stream: UnixStream) -> Vec<u8> {
    stream.set_read_timeout(Some(*SOON)).expect("set a time-out");
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => answer,
        Err(error) => panic!("{} did not hang up: {error}", socket.display()),
    }
}

fn first_reply(bytes: &[u8]) -> Option<HelloReply> {
    let mut reader = FrameReader::new(1 << 20);
    reader.push(bytes);
    let frame = reader.next_frame().expect("a frame")?;
    assert_eq!(frame.kind, Kind::HelloReply);
    Some(contd_protocol::decode(&frame.body).expect("a hello reply"))
}

/// Every way to be wrong on a socket whose versions are `good`.
#[track_caller]
fn abuse(socket: &Path, good: VersionRange, limit: usize) {
    let declared = u32::try_from(limit + 1).expect("small").to_le_bytes();
    let oversize = [&declared[..], &[1, 0, 3, 0]].concat();
    assert!(exchange(socket, &[0xff; 64]).is_empty(), "garbage was answered");
    assert!(exchange(socket, &oversize).is_empty(), "an oversize frame was answered");

    let reply = first_reply(&exchange(socket, &hello(VersionRange { min: 900, max: 999 })));
    assert!(matches!(reply, Some(HelloReply::Refused(_))), "{reply:?}");

    // After a good hello: an oversize frame, a body that is no call, and a frame that only the other side sends.
    for bad in [
        oversize,
        Frame { version: good.max, kind: Kind::Call, body: vec![0xff; 32] }.to_bytes(),
        Frame { version: good.max, kind: Kind::HelloReply, body: vec![] }.to_bytes(),
    ] {
        let mut stream = UnixStream::connect(socket).expect("connect");
        stream.write_all(&hello(good)).expect("say hello");
        let mut answer = [0; 4096];
        let count = stream.read(&mut answer).expect("be greeted");
        assert!(matches!(first_reply(&answer[..count]), Some(HelloReply::Welcome { .. })));
        stream.write_all(&bad).expect("send");
        assert!(read_to_hang_up(socket, stream).is_empty(), "{bad:?} was answered");
    }
    // Half a frame, then silence and a hang-up of ours.
    let mut half = UnixStream::connect(socket).expect("connect");
    half.write_all(&hello(good)[..5]).expect("send half");
}

#[test]
fn garbage_on_either_socket_hurts_only_its_sender() {
    let node = Node::start();
    let flist = node.flist();
    node.contd(["run", "-d", "--name", "bystander", flist.arg(), "/bin/sleep", "1000"]).ok();
    let pid = node.inspect("bystander")["pid"].clone();
    abuse(&node.socket(), contd_protocol::api::VERSIONS, contd_protocol::MAX_API_BODY_BYTES);
    for socket in sockets_below(&node.root.join("run/s")) {
        abuse(&socket, contd_protocol::shim::VERSIONS, contd_protocol::MAX_CONTROL_BODY_BYTES);
    }
    for socket in sockets_below(&node.root.join("run/f")) {
        abuse(&socket, contd_protocol::flistfs::VERSIONS, contd_protocol::MAX_CONTROL_BODY_BYTES);
    }
    assert_eq!(node.inspect("bystander")["pid"], pid);
    assert_eq!(node.inspect("bystander")["status"], "running");
    node.contd(["rm", "-f", "-t", "0", "bystander"]).ok();
    node.finish();
}

fn sockets_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("the directory of leases").flatten();
    // A warm slot listens already and answers nobody yet.
    let is_waiting = |dir: &Path| dir.join("slot.json").exists() && !dir.join("task.json").exists();
    let servers = entries.map(|entry| entry.path()).filter(|dir| !is_waiting(dir));
    let found: Vec<PathBuf> = servers.map(|dir| dir.join("sock")).filter(|path| path.exists()).collect();
    assert_eq!(found.len(), 1, "one server in {}", dir.display());
    found
}
