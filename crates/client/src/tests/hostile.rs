//! Daemons that lie, stay silent, or die.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use contd_protocol::api::{Item, LogItem, LogStream, MAX_LOG_ITEM_BYTES, Reply, Request, Response, VERSIONS};
use contd_protocol::hello::HELLO_VERSION;
use contd_protocol::{Frame, FrameError, HelloReply, Kind, Refusal, VersionRange, Violation};
use contd_types::{ErrorKind, Explain, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::{log, patiently, place, run_request, summary, target};
use crate::testing::FakeDaemon;
use crate::{Client, ClientError, Deadline, ListFilter, LogsOptions, ProtocolError};

/// Short for a daemon that will not answer, so that the test is.
const SHORT: Deadline = Deadline::After(Duration::from_millis(50));

/// Accepts one connection and does with it what the test says.
fn serve<F: Future<Output = ()> + Send + 'static>(path: &Path, act: impl FnOnce(UnixStream) -> F + Send + 'static) {
    let listener = UnixListener::bind(path).expect("binds");
    tokio::spawn(async move { act(listener.accept().await.expect("a connection").0).await });
}

fn welcome(version: u16) -> Vec<u8> {
    let reply = HelloReply::Welcome { version, agent: "liar".into(), features: vec!["unknown".into()] };
    Frame::new(HELLO_VERSION, Kind::HelloReply, &reply).expect("small").to_bytes()
}

/// Welcomes, waits for the first bytes of a call, writes `answer`, and stays connected.
fn serve_answer(path: &Path, answer: Vec<u8>) {
    serve(path, |mut stream| async move {
        let mut buffer = vec![0; 4096];
        assert_ne!(stream.read(&mut buffer).await.expect("hello"), 0);
        stream.write_all(&welcome(VERSIONS.max)).await.expect("written");
        assert_ne!(stream.read(&mut buffer).await.expect("call"), 0);
        stream.write_all(&answer).await.expect("written");
        while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    });
}

async fn connect(socket: &Path) -> Client {
    patiently("the hello", Client::connect(socket, Deadline::Usual)).await.expect("connected")
}

async fn protocol_error_after(answer: Vec<u8>) -> ClientError {
    let place = place();
    serve_answer(&place.socket, answer);
    let client = connect(&place.socket).await;
    let first = patiently("an error", client.version(Deadline::Never)).await.expect_err("a lie was believed");
    let later = patiently("an error", client.version(Deadline::Never)).await.expect_err("the connection is closed");
    assert_eq!(later.kind(), first.kind(), "later calls fail in the same way");
    first
}

#[track_caller]
fn reason(error: ClientError) -> ProtocolError {
    let ClientError::Protocol { source, .. } = error else { panic!("got {error:?}") };
    std::sync::Arc::into_inner(source).unwrap_or(ProtocolError::PageOrder)
}

#[track_caller]
fn violation(error: &ClientError) -> &Violation {
    let ClientError::Protocol { source, .. } = error else { panic!("got {error:?}") };
    let ProtocolError::Session(violation) = &**source else { panic!("got {source:?}") };
    violation
}

#[tokio::test]
async fn no_daemon_is_an_error_with_the_way_to_start_one() {
    let place = place();
    let error = Client::connect(&place.socket, Deadline::Usual).await.expect_err("nobody listens");
    assert!(matches!(error, ClientError::Connect { .. }), "got {error:?}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.hint().expect("a hint").contains("start `contd daemon`"));
}

#[tokio::test]
async fn a_path_that_no_socket_can_have_is_a_connect_error() {
    let error = Client::connect(Path::new(&"/x".repeat(100)), Deadline::Usual).await.expect_err("too long");
    assert!(matches!(error, ClientError::Connect { .. }), "got {error:?}");
}

#[tokio::test]
async fn garbage_instead_of_a_hello_is_a_protocol_error() {
    for garbage in [b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), vec![0; 64], vec![255; 64]] {
        let place = place();
        serve(&place.socket, |mut stream| async move {
            stream.write_all(&garbage).await.expect("written");
            stream.read_to_end(&mut Vec::new()).await.ok();
        });
        let error = patiently("an error", Client::connect(&place.socket, Deadline::Never)).await.expect_err("garbage");
        assert!(matches!(error, ClientError::Protocol { .. }), "got {error:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_told_with_its_reason() {
    let place = place();
    let _daemon =
        FakeDaemon::listen_as(&place.socket, VersionRange { min: 7, max: 9 }, |_, _| async { Ok(Response::Done) })
            .expect("listens");
    let error = patiently("an error", Client::connect(&place.socket, Deadline::Usual)).await.expect_err("no version");
    assert!(matches!(&error, ClientError::Refused { source: Refusal::NoCommonVersion { .. }, .. }), "got {error:?}");
    assert_eq!(error.kind(), ErrorKind::VersionMismatch);
}

#[tokio::test]
async fn a_version_that_was_not_offered_is_not_accepted() {
    let place = place();
    serve(&place.socket, |mut stream| async move {
        stream.write_all(&welcome(99)).await.expect("written");
        stream.read_to_end(&mut Vec::new()).await.ok();
    });
    let error = patiently("an error", Client::connect(&place.socket, Deadline::Never)).await.expect_err("version 99");
    assert!(matches!(violation(&error), Violation::ChosenVersion { got: 99 }));
}

#[tokio::test]
async fn a_silent_daemon_ends_connecting_and_calls_by_their_deadline() {
    let silent = place();
    let _listener = UnixListener::bind(&silent.socket).expect("binds");
    let error = patiently("the deadline", Client::connect(&silent.socket, SHORT)).await.expect_err("silence");
    assert!(matches!(error, ClientError::TimedOut { .. }), "got {error:?}");

    let mute = place();
    serve_answer(&mute.socket, Vec::new());
    let client = connect(&mute.socket).await;
    let error = patiently("the deadline", client.version(SHORT)).await.expect_err("silence");
    assert!(matches!(error, ClientError::TimedOut { waited, .. } if waited == Duration::from_millis(50)));
    let mut run = client.run_attached(run_request(), SHORT).await.expect("sent");
    let error = patiently("the deadline", run.next()).await.expect("an item").expect_err("silence");
    assert!(matches!(error, ClientError::TimedOut { .. }), "got {error:?}");
    assert!(run.next().await.is_none());
}

#[tokio::test]
async fn an_oversize_frame_is_refused_by_its_head() {
    let mut head = u32::MAX.to_le_bytes().to_vec();
    head.extend_from_slice(&[1, 0, 4, 0]);
    let error = protocol_error_after(head).await;
    assert!(matches!(violation(&error), Violation::Frame(FrameError::TooLarge { .. })), "got {error:?}");
}

#[tokio::test]
async fn frames_that_a_daemon_must_not_send_end_the_connection() {
    let reply = |id, version| {
        Frame::new(version, Kind::Reply, &Reply { id, result: Ok(Response::Done) }).expect("small").to_bytes()
    };
    let call = Frame::new(VERSIONS.max, Kind::Cancel, &1u64).expect("small").to_bytes();
    let trailing = Frame::new(VERSIONS.max, Kind::Reply, &vec![0u8; 100]).expect("small").to_bytes();
    for lie in [reply(77, VERSIONS.max), reply(1, VERSIONS.max + 1), call, trailing, vec![0xaa; 500]] {
        let error = protocol_error_after(lie).await;
        assert!(matches!(error, ClientError::Protocol { .. }), "got {error:?}");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn an_answer_to_another_question_fails_that_call_only() {
    let place = place();
    let _daemon = FakeDaemon::listen(&place.socket, |_, _| async { Ok(Response::Done) }).expect("listens");
    let client = connect(&place.socket).await;
    let error = client.version(Deadline::Usual).await.expect_err("Done is no version");
    assert!(matches!(reason(error), ProtocolError::WrongResponse { got: "Done" }));
    client.start(target(), Deadline::Usual).await.expect("the connection lives");
}

#[tokio::test]
async fn items_without_credit_and_too_large_items_end_the_connection() {
    let place = place();
    let _daemon = FakeDaemon::listen(&place.socket, |request, caller| async move {
        match request {
            Request::Logs { tail: None, .. } => {
                for _ in 0..200 {
                    caller.item_without_credit(log("x")).await.ok();
                }
            }
            Request::Wait { .. } => {}
            _ => {
                let content = vec![b'x'; MAX_LOG_ITEM_BYTES + 1];
                let item = LogItem { at: Timestamp(0), stream: LogStream::Stdout, content };
                caller.item(Item::Log(item)).await.ok();
            }
        }
        std::future::pending().await
    })
    .expect("listens");
    for (tail, is_large) in [(None, false), (Some(1), true)] {
        let client = connect(&place.socket).await;
        let options = LogsOptions { is_following: false, tail };
        let mut logs = client.logs(target(), options, Deadline::Usual).await.expect("sent");
        // The streams are not read until the connection has ended, or a window would be free again.
        let error = patiently("the end", client.wait(target(), Deadline::Never)).await.expect_err("ended");
        let source = violation(&error);
        assert!(
            matches!(source, Violation::LargeItem { .. }) == is_large
                && matches!(source, Violation::OverCredit { .. }) != is_large,
            "got {source:?}"
        );
        let last = patiently("the stream's end", async {
            loop {
                match logs.next().await {
                    Some(Ok(_)) => {}
                    other => break other,
                }
            }
        })
        .await;
        assert!(matches!(last, Some(Err(ClientError::Protocol { .. }))), "got {last:?}");
    }
}

#[tokio::test]
async fn a_daemon_that_dies_fails_every_call_under_way() {
    let place = place();
    let _daemon = FakeDaemon::listen(&place.socket, |request, caller| async move {
        match request {
            Request::Logs { .. } => {
                caller.item(log("last words\n")).await.ok();
            }
            Request::Version => caller.hang_up(),
            _ => {}
        }
        std::future::pending().await
    })
    .expect("listens");
    let client = connect(&place.socket).await;
    let mut logs = client.logs(target(), LogsOptions::default(), Deadline::Never).await.expect("sent");
    let item = patiently("the output", logs.next()).await.expect("an item").expect("no error");
    assert_eq!(item.content, b"last words\n");
    let (waiting, version) = patiently(
        "the end",
        Box::pin(async { tokio::join!(client.wait(target(), Deadline::Never), client.version(Deadline::Never)) }),
    )
    .await;
    for error in [waiting.expect_err("lost"), version.map(drop).expect_err("lost")] {
        assert!(matches!(error, ClientError::Lost { .. }), "got {error:?}");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    let last = patiently("the end of the stream", logs.next()).await;
    assert!(matches!(last, Some(Err(ClientError::Lost { .. }))), "got {last:?}");
    let later = patiently("an error", client.version(Deadline::Never)).await;
    assert!(matches!(later, Err(ClientError::Lost { .. })), "got {later:?}");
}

#[tokio::test]
async fn a_list_that_does_not_go_on_is_an_error_and_not_a_loop() {
    let place = place();
    let _daemon = FakeDaemon::listen(&place.socket, |_, _| async {
        Ok(Response::Page { containers: vec![summary(1)], has_more: true })
    })
    .expect("listens");
    let client = connect(&place.socket).await;
    let error = patiently("an error", client.list(ListFilter::All, Deadline::Usual)).await.expect_err("a loop");
    assert!(matches!(reason(error), ProtocolError::PageOrder));
}

#[tokio::test]
async fn a_request_that_no_daemon_accepts_is_not_sent() {
    let place = place();
    let daemon = FakeDaemon::listen(&place.socket, |_, _| async { Ok(Response::Done) }).expect("listens");
    let client = connect(&place.socket).await;
    let mut request = run_request();
    request.spec.env.push(format!("K={}", "x".repeat(2 * 1024 * 1024)));
    let error = client.run(request, Deadline::Usual, |_| {}).await.expect_err("too large");
    assert!(matches!(error, ClientError::Unsendable { .. }), "got {error:?}");
    client.start(target(), Deadline::Usual).await.expect("the connection lives");
    assert_eq!(daemon.requests().len(), 1);
}
