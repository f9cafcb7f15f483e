//! The words that a shim may say, and what the client makes of them: over a real socket, with a shim played by the test.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use crate::common::{Peer, Scratch, Server, attach, id, namespace};
use contd_protocol::hello::HELLO_VERSION;
use contd_protocol::shim::{ExecProcess, Request, Response, TaskState, VERSIONS};
use contd_protocol::{Frame, HelloReply, Kind, MAX_CONTROL_BODY_BYTES, Refusal, VersionRange};
use contd_shim_client::{Attached, ShimClient, ShimError};
use contd_types::{ApiError, ErrorKind, ExecId, Exit, ExitCause, Explain, Pid, Signal, Timestamp, WindowSize};
use tokio::sync::{Notify, mpsc};

const SOON: Duration = Duration::from_secs(300);

fn oversize() -> Vec<u8> {
    let length = u32::try_from(MAX_CONTROL_BODY_BYTES + 1).expect("small");
    [&length.to_le_bytes()[..], &[1, 0, 4, 0]].concat()
}

/// Answers the hello with these bytes and tells what attach makes of it.
async fn greeted_with(bytes: Vec<u8>) -> Result<Attached, ShimError> {
    let scratch = Scratch::new();
    let _server = Server::start(&scratch, 1, move |mut peer: Peer, _| {
        let bytes = bytes.clone();
        async move {
            peer.hear_hello().await;
            peer.send(&bytes).await;
            let _until_hung_up = peer.frame().await;
        }
    });
    scratch.client.attach(&namespace(), &id(1)).await
}

#[tokio::test]
async fn a_wrong_answer_to_the_hello_is_a_typed_error() {
    let welcome = |version| HelloReply::Welcome { version, agent: "x".into(), features: vec![] };
    let framed = |version, kind, reply: &HelloReply| Frame::new(version, kind, reply).expect("small").to_bytes();
    let caller = VersionRange { min: 7, max: 9 };
    let cases = [
        ("garbage", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("oversize", oversize()),
        ("version never offered", framed(HELLO_VERSION, Kind::HelloReply, &welcome(VERSIONS.max + 1))),
        ("wrong frame version", framed(1, Kind::HelloReply, &welcome(1))),
        ("wrong kind", framed(HELLO_VERSION, Kind::Reply, &welcome(1))),
        ("undecodable", Frame { version: HELLO_VERSION, kind: Kind::HelloReply, body: vec![9; 9] }.to_bytes()),
        (
            "no common version",
            framed(
                HELLO_VERSION,
                Kind::HelloReply,
                &HelloReply::Refused(Refusal::NoCommonVersion { caller, own: caller }),
            ),
        ),
    ];
    for (name, bytes) in cases {
        let found = greeted_with(bytes).await;
        assert!(matches!(found, Err(ShimError::Protocol { .. })), "{name}: {found:?}");
    }
    let busy = HelloReply::Refused(Refusal::TooManyConnections { limit: 8 });
    let found = greeted_with(framed(HELLO_VERSION, Kind::HelloReply, &busy)).await;
    assert!(matches!(&found, Err(error) if error.kind() == ErrorKind::Busy), "{found:?}");
}

#[tokio::test]
async fn a_shim_that_hangs_up_or_does_not_listen_cannot_be_reached() {
    let scratch = Scratch::new();
    let _server = Server::start(&scratch, 1, |_peer, _| async {});
    let found = scratch.client.attach(&namespace(), &id(1)).await;
    assert!(matches!(found, Err(ShimError::Connect { .. })), "{found:?}");
    let _held = scratch.hold(2);
    let found = scratch.client.attach(&namespace(), &id(2)).await;
    assert!(matches!(found, Err(ShimError::Connect { .. })), "{found:?}");
}

#[tokio::test]
async fn a_living_shim_that_says_nothing_is_silent() {
    let scratch = Scratch::new();
    let _server = Server::start(&scratch, 1, |mut peer: Peer, _| async move { while peer.frame().await.is_some() {} });
    let found = scratch.client.attach(&namespace(), &id(1)).await;
    assert!(matches!(found, Err(ShimError::Silent { .. })), "{found:?}");
}

#[tokio::test]
async fn each_verb_is_sent_as_itself_and_its_answer_understood() {
    let scratch = Scratch::new();
    let (seen, mut requests) = mpsc::unbounded_channel();
    let _server = Server::start(&scratch, 1, move |mut peer: Peer, _| {
        let seen = seen.clone();
        async move {
            peer.greet_and_tell_state().await;
            while let Some(call) = peer.call().await {
                let answer = match &call.request {
                    Request::Create => Response::Pid(Pid(7)),
                    Request::Start => Response::Pid(Pid(8)),
                    Request::State => Response::State(TaskState::Running { pid: Pid(8) }),
                    Request::Wait => Response::Exited(Exit::unknown("test", Timestamp(3))),
                    _ => Response::Done,
                };
                peer.reply(call.id, Ok(answer)).await;
                seen.send(call.request).expect("the test listens");
            }
        }
    });
    let shim = attach(&scratch, 1).await;
    assert_eq!(shim.create().await.expect("create"), Pid(7));
    assert_eq!(shim.start().await.expect("start"), Pid(8));
    assert_eq!(shim.state().await.expect("state"), TaskState::Running { pid: Pid(8) });
    shim.kill(Signal::TERM, true).await.expect("kill");
    assert_eq!(shim.wait().await.expect("wait"), Exit::unknown("test", Timestamp(3)));
    shim.delete(true).await.expect("delete");
    let kill = Request::Kill { signal: Signal::TERM, is_for_all: true };
    let delete = Request::Delete { force: true };
    for wanted in [Request::Create, Request::Start, Request::State, kill, Request::Wait, delete] {
        assert_eq!(requests.recv().await, Some(wanted));
    }
}

#[tokio::test]
async fn an_answer_of_another_kind_is_a_protocol_error() {
    let scratch = Scratch::new();
    let _server = Server::start(&scratch, 1, |mut peer: Peer, _| async move {
        peer.greet_and_tell_state().await;
        while let Some(call) = peer.call().await {
            peer.reply(call.id, Ok(Response::Done)).await;
        }
    });
    let shim = attach(&scratch, 1).await;
    for result in [shim.create().await.err(), shim.state().await.err(), shim.wait().await.err()] {
        assert!(matches!(result, Some(ShimError::Protocol { .. })), "{result:?}");
    }
}

#[tokio::test]
async fn garbage_instead_of_a_reply_ends_every_call_and_not_the_container() {
    let bad = [
        ("garbage", b"garbage garbage!".to_vec()),
        ("oversize", oversize()),
        ("undecodable", Frame { version: 1, kind: Kind::Reply, body: vec![1, 2, 3] }.to_bytes()),
        ("wrong version", Frame { version: 2, kind: Kind::Reply, body: vec![] }.to_bytes()),
        ("wrong kind", Frame { version: 1, kind: Kind::Call, body: vec![] }.to_bytes()),
    ];
    for (name, bytes) in bad {
        let scratch = Scratch::new();
        let _server = Server::start(&scratch, 1, move |mut peer: Peer, number| {
            let bytes = bytes.clone();
            async move {
                peer.greet_and_tell_state().await;
                if number == 0 {
                    let _waiting = peer.call().await;
                    let _second = peer.call().await;
                    peer.send(&bytes).await;
                }
                while peer.frame().await.is_some() {}
            }
        });
        let shim = attach(&scratch, 1).await;
        let (wait, create) = tokio::join!(shim.wait(), shim.create());
        assert!(matches!(wait, Err(ShimError::Protocol { .. })), "{name}: {wait:?}");
        assert!(matches!(create, Err(ShimError::Protocol { .. })), "{name}: {create:?}");
        assert_eq!(shim.state().await.expect("connected again"), TaskState::Empty, "{name}");
    }
}

#[tokio::test]
async fn a_lost_connection_fails_the_call_and_the_next_one_connects_again() {
    let scratch = Scratch::new();
    let _server = Server::start(&scratch, 1, |mut peer: Peer, number| async move {
        peer.greet_and_tell_state().await;
        if number == 0 {
            let _unanswered = peer.call().await;
            return;
        }
        while peer.frame().await.is_some() {}
    });
    let shim = attach(&scratch, 1).await;
    let created = shim.create().await;
    assert!(matches!(created, Err(ShimError::Lost { verb: "create", .. })), "{created:?}");
    assert_eq!(shim.state().await.expect("connected again"), TaskState::Empty);
}

#[tokio::test]
async fn a_wait_survives_a_lost_connection_while_the_shim_lives_and_is_lost_with_it() {
    let scratch = Scratch::new();
    let mut server = Some(Server::start(&scratch, 1, |mut peer: Peer, number| async move {
        if number == 0 {
            peer.greet_and_tell_state().await;
        } else {
            peer.greet().await;
        }
        let call = peer.call().await.expect("a call");
        assert_eq!(call.request, Request::Wait);
        if number == 2 {
            peer.reply(call.id, Ok(Response::Exited(Exit::unknown("third", Timestamp(1))))).await;
            while peer.frame().await.is_some() {}
        }
    }));
    let shim = attach(&scratch, 1).await;
    let exit = tokio::time::timeout(SOON, shim.wait()).await.expect("in time").expect("exit");
    assert_eq!(exit.cause, ExitCause::Unknown("third".into()));
    drop(server.take());
    let waited = tokio::time::timeout(SOON, shim.wait()).await.expect("in time");
    assert!(matches!(waited, Err(ShimError::Lost { .. })), "{waited:?}");
}

#[tokio::test]
async fn a_shim_that_always_hangs_up_is_not_asked_for_ever() {
    let scratch = Scratch::new();
    let _server = Server::start(&scratch, 1, |mut peer: Peer, number| async move {
        if number == 0 {
            peer.greet_and_tell_state().await;
        } else {
            peer.greet().await;
        }
        let _unanswered = peer.call().await;
    });
    let shim = attach(&scratch, 1).await;
    let waited = tokio::time::timeout(SOON, shim.wait()).await.expect("in time");
    assert!(matches!(waited, Err(ShimError::Lost { .. })), "{waited:?}");
}

#[tokio::test]
async fn a_late_answer_reaches_nobody() {
    let scratch = Scratch::new();
    let _server = Server::start(&scratch, 1, |mut peer: Peer, _| async move {
        peer.greet_and_tell_state().await;
        let late = peer.call().await.expect("a call");
        let next = peer.call().await.expect("a call");
        peer.reply(late.id, Ok(Response::State(TaskState::Creating))).await;
        peer.reply(12345, Ok(Response::Done)).await;
        peer.reply(next.id, Ok(Response::State(TaskState::Running { pid: Pid(1) }))).await;
        while peer.frame().await.is_some() {}
    });
    let shim = attach(&scratch, 1).await;
    let silent = shim.state().await;
    assert!(matches!(silent, Err(ShimError::Silent { .. })), "{silent:?}");
    assert_eq!(shim.state().await.expect("state"), TaskState::Running { pid: Pid(1) });
}

#[tokio::test]
async fn fifty_calls_at_once_get_each_their_own_answer() {
    let scratch = Scratch::new();
    let _server = Server::start(&scratch, 1, |mut peer: Peer, _| async move {
        peer.greet_and_tell_state().await;
        let mut calls = Vec::new();
        while calls.len() < 50 {
            calls.push(peer.call().await.expect("a call"));
        }
        for call in calls.into_iter().rev() {
            let Request::Kill { signal, .. } = call.request else { panic!("not a kill: {call:?}") };
            peer.reply(call.id, Err(ApiError::new(ErrorKind::Conflict, signal.number().to_string()))).await;
        }
        while peer.frame().await.is_some() {}
    });
    let shim = attach(&scratch, 1).await;
    let calls = (1..=50u8).map(|number| {
        let shim = Arc::clone(&shim);
        tokio::spawn(async move { (number, shim.kill(Signal::new(number).expect("valid"), false).await) })
    });
    for call in calls.collect::<Vec<_>>() {
        let (number, answer) = call.await.expect("no panic");
        let Err(ShimError::Refused { source, verb: "kill", .. }) = answer else { panic!("{number}: {answer:?}") };
        assert_eq!(source.message, number.to_string());
    }
}

#[tokio::test]
async fn the_socket_is_closed_when_the_last_user_lets_go() {
    let scratch = Scratch::new();
    let closed = Arc::new(Notify::new());
    let tell = Arc::clone(&closed);
    let _server = Server::start(&scratch, 1, move |mut peer: Peer, _| {
        let tell = Arc::clone(&tell);
        async move {
            peer.greet_and_tell_state().await;
            while peer.frame().await.is_some() {}
            tell.notify_one();
        }
    });
    let shim = attach(&scratch, 1).await;
    drop(shim);
    tokio::time::timeout(SOON, closed.notified()).await.expect("the connection was not closed");
}

#[tokio::test]
async fn a_shim_of_before_an_upgrade_is_asked_nothing_that_it_does_not_know() {
    let scratch = Scratch::new();
    let _server = Server::start(&scratch, 1, |mut peer: Peer, _| async move {
        peer.greet().await;
        while let Some(call) = peer.call().await {
            assert_eq!(call.request, Request::State);
            peer.reply(call.id, Ok(Response::State(TaskState::Running { pid: Pid(8) }))).await;
        }
    });
    let shim = attach(&scratch, 1).await;
    let exec = ExecId::from_random(1);
    let failures = [
        shim.exec(exec, ExecProcess::default(), None).await.expect_err("no exec"),
        shim.wait_exec(exec).await.expect_err("no exec"),
        shim.kill_exec(exec, Signal::KILL).await.expect_err("no exec"),
        shim.execs().await.expect_err("no exec"),
        shim.close_input().await.expect_err("no input"),
        shim.resize(WindowSize { rows: 1, columns: 1 }).await.expect_err("no terminal"),
    ];
    for failure in failures {
        assert!(matches!(failure, ShimError::TooOld { .. }), "{failure:?}");
        assert!(failure.hint().expect("a hint").contains("contd shim upgrade"), "{failure:?}");
    }
    // The connection is as it was.
    assert_eq!(shim.state().await.expect("state"), TaskState::Running { pid: Pid(8) });
}
