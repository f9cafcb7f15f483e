//! Tests of runs in the foreground.

use contd_protocol::api::{Item, LogItem, LogStream, Request, Response};
use contd_types::{ApiError, ErrorKind, Exit, ExitCause, Signal, Timestamp};
use tokio::sync::mpsc;

use super::samples::{exit, id};
use super::{Buffer, ClosedPipe, Daemon, Output, Shell};

fn log(stream: LogStream, content: &[u8]) -> Item {
    Item::Log(LogItem { at: Timestamp(0), stream, content: content.to_vec() })
}

fn signal(number: u8) -> Signal {
    Signal::new(number).expect("a signal")
}

/// Runs a container that only SIGKILL ends, as a stubborn program would.
fn stubborn(signals: mpsc::Sender<Signal>, first: Vec<u8>, then: Vec<u8>) -> Daemon {
    let (killed, was_killed) = tokio::sync::watch::channel(false);
    Daemon::scripted(move |request, caller| {
        let (signals, killed, mut was_killed) = (signals.clone(), killed.clone(), was_killed.clone());
        let (first, then) = (first.clone(), then.clone());
        async move {
            match request {
                Request::Run(_) => {
                    caller.item(Item::Started { id: id(1) }).await.expect("connected");
                    for number in first {
                        signals.send(signal(number)).await.expect("the command listens");
                    }
                    was_killed.wait_for(|is_killed| *is_killed).await.expect("alive");
                    Ok(Response::Exited { id: id(1), exit: exit(ExitCause::Signal(Signal::KILL)) })
                }
                Request::Kill { signal: got, .. } => {
                    killed.send_if_modified(|is_killed| {
                        *is_killed |= got == Signal::KILL;
                        *is_killed
                    });
                    for number in then.iter().filter(|_| got != Signal::KILL) {
                        signals.send(signal(*number)).await.expect("the command listens");
                    }
                    Ok(Response::Done)
                }
                other => panic!("asked for {other:?}"),
            }
        }
    })
}

#[test]
fn output_is_ours_stream_by_stream_and_the_exit_code_too() {
    let daemon = Daemon::scripted(async |request, caller| {
        let Request::Run(run) = request else { panic!("asked for {request:?}") };
        assert!(run.is_attached);
        caller
            .item(Item::Progress { what: "fetch".into(), done_bytes: 1, total_bytes: None })
            .await
            .expect("connected");
        caller.item(Item::Started { id: id(1) }).await.expect("connected");
        for number in 0..500 {
            let stream = if number % 2 == 0 { LogStream::Stdout } else { LogStream::Stderr };
            caller.item(log(stream, format!("{number}\n").as_bytes())).await.expect("connected");
        }
        Ok(Response::Exited { id: id(1), exit: exit(ExitCause::Code(42)) })
    });
    let outcome = daemon.contd("run x.fl");
    assert_eq!(outcome.code, 42);
    let lines = |rest| (0..500).filter(|n| n % 2 == rest).map(|n| format!("{n}\n")).collect::<String>();
    assert_eq!((outcome.out, outcome.err), (lines(0), lines(1)));
}

#[test]
fn output_that_was_lost_is_told_and_is_no_success() {
    for (code, expected) in [(0, 125), (3, 3)] {
        let daemon = Daemon::scripted(move |request, caller| async move {
            let Request::Run(_) = request else { panic!("asked for {request:?}") };
            caller.item(Item::Started { id: id(1) }).await.expect("connected");
            caller.item(log(LogStream::Stdout, b"the first half\n")).await.expect("connected");
            let exit = Exit { is_drained: false, ..exit(ExitCause::Code(code)) };
            Ok(Response::Exited { id: id(1), exit })
        });
        let outcome = daemon.contd("run --name web x.fl");
        assert_eq!((outcome.code, outcome.out.as_str()), (expected, "the first half\n"));
        assert!(outcome.err.contains("run container web: it has ended, and output was lost"), "{}", outcome.err);
        assert!(outcome.err.contains("hint: free space"), "{}", outcome.err);
    }
}

#[test]
fn each_way_not_to_run_has_its_exit_code() {
    for (kind, code) in [
        (ErrorKind::EntrypointNotFound, 127),
        (ErrorKind::EntrypointNotExecutable, 126),
        (ErrorKind::NotFound, 125),
        (ErrorKind::Internal, 125),
    ] {
        let daemon = Daemon::scripted(move |_, _| async move {
            Err(ApiError::new(kind, "start container web").with_hint("look inside"))
        });
        let outcome = daemon.contd("run x.fl nosuch");
        assert_eq!((outcome.code, outcome.out.as_str()), (code, ""));
        assert_eq!(outcome.err, "contd: error: start container web\nhint: look inside\n");
    }
}

#[test]
fn signals_are_passed_on_and_the_second_interrupt_kills() {
    let (sender, receiver) = mpsc::channel(4);
    let daemon = stubborn(sender, vec![15], vec![]);
    drop(daemon); // A script that nobody ran leaves nothing behind.
    let (sender, signals) = mpsc::channel(4);
    let daemon = stubborn(sender, vec![2], vec![2]);
    drop(receiver);
    let words = format!("--address {} run x.fl", daemon.socket().display());
    let outcome = Shell::with_signals(signals).contd(&words);
    assert_eq!(outcome.code, 137, "{}", outcome.err);
    let kills: Vec<i32> = daemon
        .requests()
        .iter()
        .filter_map(|request| match request {
            Request::Kill { signal, target } => {
                assert_eq!(target.container.as_str(), id(1).as_str());
                Some(signal.number())
            }
            _ => None,
        })
        .collect();
    assert_eq!(kills, [2, 9]);
}

#[test]
fn a_signal_before_the_start_gives_the_run_up() {
    let (sender, signals) = mpsc::channel(4);
    let daemon = Daemon::scripted(move |_, caller| {
        let sender = sender.clone();
        async move {
            sender.send(signal(2)).await.expect("the command listens");
            caller.cancelled().await;
            Err(ApiError::new(ErrorKind::Conflict, "run container: given up by its caller"))
        }
    });
    let words = format!("--address {} run x.fl", daemon.socket().display());
    let outcome = Shell::with_signals(signals).contd(&words);
    assert_eq!(outcome.code, 130);
    assert_eq!(outcome.err, "contd: error: run the container: ended by SIGINT\n");
}

#[test]
fn a_signal_that_comes_too_late_to_give_up_is_passed_on() {
    let (sender, signals) = mpsc::channel(4);
    let (killed, was_killed) = tokio::sync::watch::channel(false);
    let daemon = Daemon::scripted(move |request, caller| {
        let (sender, killed, mut was_killed) = (sender.clone(), killed.clone(), was_killed.clone());
        async move {
            if let Request::Kill { signal, .. } = request {
                assert_eq!(signal, Signal::TERM);
                killed.send_replace(true);
                return Ok(Response::Done);
            }
            sender.send(Signal::TERM).await.expect("the command listens");
            caller.cancelled().await;
            caller.item(Item::Started { id: id(1) }).await.expect("connected");
            was_killed.wait_for(|is_killed| *is_killed).await.expect("alive");
            Ok(Response::Exited { id: id(1), exit: exit(ExitCause::Code(0)) })
        }
    });
    let words = format!("--address {} run x.fl", daemon.socket().display());
    assert_eq!(Shell::with_signals(signals).contd(&words).code, 0, "the container's own code counts");
}

#[test]
fn a_daemon_that_dies_before_the_container_runs_is_an_engine_error() {
    let daemon = Daemon::scripted(async |_, caller| {
        caller.hang_up();
        std::future::pending().await
    });
    let outcome = daemon.contd("run x.fl");
    assert_eq!((outcome.code, outcome.out.as_str()), (125, ""));
    assert!(outcome.err.contains("connection to the daemon was lost"), "got {}", outcome.err);
    assert!(outcome.err.contains("\nhint: "), "got {}", outcome.err);
}

#[test]
fn a_daemon_that_dies_under_a_run_is_followed_by_the_next_one_which_tells_the_rest() {
    fn said(at: u64, content: &[u8]) -> Item {
        Item::Log(LogItem { at: Timestamp(at), stream: LogStream::Stdout, content: content.to_vec() })
    }
    let daemon = Daemon::scripted(async |request, caller| match request {
        Request::Run(_) => {
            caller.item(Item::Started { id: id(1) }).await.expect("connected");
            caller.item(said(1, b"one\n")).await.expect("connected");
            caller.item(said(2, b"two\n")).await.expect("connected");
            caller.hang_up();
            std::future::pending().await
        }
        Request::Logs { target, is_following: true, tail: None } => {
            assert_eq!(target.container.as_str(), id(1).as_str());
            for (at, content) in [(1, "one\n"), (2, "two\n"), (3, "three\n")] {
                caller.item(said(at, content.as_bytes())).await.expect("connected");
            }
            Ok(Response::Done)
        }
        Request::Wait { target } if target.container.as_str() == id(1).as_str() => {
            Ok(Response::Exited { id: id(1), exit: exit(ExitCause::Code(7)) })
        }
        other => panic!("asked for {other:?}"),
    });
    let outcome = daemon.contd("run x.fl");
    // The second daemon tells the rest, whatever of it the first one had passed on; nothing comes twice.
    assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (7, "one\ntwo\nthree\n", ""));
}

#[test]
fn a_reader_that_has_gone_ends_the_command_quietly() {
    let daemon = Daemon::scripted(async |_, caller| {
        caller.item(Item::Started { id: id(1) }).await.expect("connected");
        loop {
            tokio::select! {
                sent = caller.item(log(LogStream::Stdout, b"y\n")) => if sent.is_err() { break },
                () = caller.cancelled() => break,
            }
        }
        Ok(Response::Exited { id: id(1), exit: exit(ExitCause::Code(0)) })
    });
    let err = Buffer::default();
    let words = format!("--address {} run x.fl", daemon.socket().display());
    let code = Shell::new().run(&words, Output::new(ClosedPipe, err.clone()));
    assert_eq!((code, err.text().as_str()), (141, ""));
}
