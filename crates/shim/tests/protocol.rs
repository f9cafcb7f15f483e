//! Hostile, slow, many and mistaken callers of the socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use crate::common::{Client, Scene, TestRuntime, exited};
use contd_protocol::shim::{Call, MAX_CALLS_PER_CONNECTION, MAX_CONNECTIONS, Request, Response, TaskState, VERSIONS};
use contd_protocol::{Frame, HelloReply, Kind, MAX_CONTROL_BODY_BYTES, Refusal};
use contd_types::ErrorKind;

fn scene() -> Scene {
    Scene::new(TestRuntime::Fake, "sleep 1000")
}

#[track_caller]
fn assert_closed_and_others_served(mut bad: Client, good: &mut Client) {
    assert!(bad.frame().is_none(), "the connection goes on");
    assert_eq!(good.call(Request::State), Ok(Response::State(TaskState::Empty)), "another connection was disturbed");
}

#[test]
fn a_bad_frame_closes_its_connection_and_no_other() {
    let scene = scene();
    let mut good = scene.up();
    let oversize = u32::try_from(MAX_CONTROL_BODY_BYTES + 1).unwrap().to_le_bytes();
    let call = |version, body: &[u8]| Frame { version, kind: Kind::Call, body: body.to_vec() }.to_bytes();
    let state = contd_protocol::encode(&Call { id: 1, request: Request::State }).unwrap();
    let mut trailing = state.clone();
    trailing.push(0);
    for (what, bytes) in [
        ("garbage", vec![0xff; 64]),
        ("oversize", [&oversize[..], &[1, 0, 3, 0]].concat()),
        ("a second hello", Frame { version: 0, kind: Kind::Hello, body: Vec::new() }.to_bytes()),
        ("another version", call(VERSIONS.max + 1, &state)),
        ("no such call", call(VERSIONS.max, &[0xff; 12])),
        ("bytes left over", call(VERSIONS.max, &trailing)),
        ("a cancel", Frame { version: VERSIONS.max, kind: Kind::Cancel, body: vec![0; 8] }.to_bytes()),
    ] {
        let mut bad = scene.connect();
        bad.stream.write_all(&bytes).expect(what);
        assert_closed_and_others_served(bad, &mut good);
    }
    scene.finish(&mut good);
}

#[test]
fn a_call_before_the_hello_closes_the_connection() {
    let scene = scene();
    let mut good = scene.up();
    let mut bad = scene.connect_raw();
    bad.send(Request::State);
    assert_closed_and_others_served(bad, &mut good);
    scene.finish(&mut good);
}

#[test]
fn versions_without_overlap_are_refused_with_both_named() {
    let scene = scene();
    let mut good = scene.up();
    let mut bad = scene.connect_raw();
    let reply = bad.try_hello(VERSIONS.max + 1, VERSIONS.max + 2);
    assert!(matches!(reply, HelloReply::Refused(Refusal::NoCommonVersion { own: VERSIONS, .. })), "{reply:?}");
    assert_closed_and_others_served(bad, &mut good);
    scene.finish(&mut good);
}

#[test]
fn one_connection_too_many_is_refused_and_a_place_that_is_free_is_given_again() {
    let scene = scene();
    let mut good = scene.up();
    let others: Vec<_> = (1..MAX_CONNECTIONS).map(|_| scene.connect()).collect();
    let mut refused = scene.connect_raw();
    let reply = refused.hello_reply();
    assert!(matches!(reply, HelloReply::Refused(Refusal::TooManyConnections { .. })), "{reply:?}");
    assert!(refused.frame().is_none());
    drop(others);
    assert_eq!(good.call(Request::State), Ok(Response::State(TaskState::Empty)));
    let mut again = scene.connect();
    scene.finish(&mut again);
}

#[test]
fn a_call_too_many_is_answered_busy() {
    let scene = scene();
    let mut client = scene.up();
    let waits: Vec<_> = (0..MAX_CALLS_PER_CONNECTION).map(|_| client.send(Request::Wait)).collect();
    assert_eq!(client.call(Request::State).expect_err("too many").kind, ErrorKind::Busy);
    let mut other = scene.connect();
    other.create();
    other.kill(contd_types::Signal::KILL);
    for wait in waits {
        exited(client.answer(wait));
    }
    assert!(client.call(Request::State).is_ok(), "there is room again");
    scene.finish(&mut client);
}

#[test]
fn a_caller_that_never_reads_delays_nobody() {
    let scene = scene();
    let mut good = scene.up();
    let mut deaf = scene.connect();
    deaf.stream.set_nonblocking(true).unwrap();
    let frame = Frame::new(VERSIONS.max, Kind::Call, &Call { id: 9, request: Request::State }).unwrap().to_bytes();
    let many: Vec<u8> = frame.iter().copied().cycle().take(frame.len() * 1000).collect();
    let mut sent = 0usize;
    // Until neither socket buffer nor shim takes more.
    while sent < 64 * 1024 * 1024 {
        match deaf.stream.write(&many[sent % frame.len()..]) {
            Ok(length) => sent += length,
            Err(_full) => {
                assert_eq!(good.call(Request::State), Ok(Response::State(TaskState::Empty)));
                if deaf.stream.write(&many[sent % frame.len()..]).is_err() {
                    break;
                }
            }
        }
    }
    assert!(sent < 64 * 1024 * 1024, "the shim reads without bound");
    assert_eq!(good.call(Request::State), Ok(Response::State(TaskState::Empty)));
    scene.finish(&mut good);
}

#[test]
fn two_clients_get_the_same_exit_and_one_that_has_gone_is_forgotten() {
    let scene = scene();
    let (mut one, mut two, mut gone) = (scene.up(), scene.connect(), scene.connect());
    one.create();
    one.start();
    gone.send(Request::Wait);
    let (first, second) = (one.send(Request::Wait), two.send(Request::Wait));
    drop(gone);
    two.kill(contd_types::Signal::KILL);
    assert_eq!(exited(one.answer(first)), exited(two.answer(second)));
    scene.finish(&mut one);
}

#[test]
fn the_socket_and_the_fifos_are_for_their_owner_only() {
    let scene = scene();
    let mut client = scene.up();
    for name in ["sock", "stdout", "stderr", "shim.log"] {
        let mode = std::fs::metadata(scene.dir.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    scene.finish(&mut client);
}
