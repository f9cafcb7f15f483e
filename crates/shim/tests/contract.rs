//! The results that every runtime must bring about through the shim: the same scenes with `runc` and with the scripted fake.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::common::{Scene, TestRuntime, assert_killed, eventually, exited};
use contd_protocol::shim::{Request, Response, TaskState};
use contd_shim::runtime::fake::{Act, Script};
use contd_types::{ErrorKind, ExitCause, ExitSource, Signal};

const BOTH: [TestRuntime; 2] = [TestRuntime::Fake, TestRuntime::Runc];
const KILL: Request = Request::Kill { signal: Signal::KILL, is_for_all: false };

#[test]
fn a_container_runs_to_its_end_with_its_output_and_its_code() {
    for kind in BOTH {
        let scene = Scene::new(kind, "echo out; echo err >&2; exit 7");
        let mut client = scene.up();
        assert_eq!(client.call(Request::State), Ok(Response::State(TaskState::Empty)));
        let pid = client.create();
        assert_eq!(client.call(Request::State), Ok(Response::State(TaskState::Created { pid })));
        assert_eq!((scene.init_record().pid, scene.init_record().is_started), (pid, false));
        assert_eq!(client.start(), pid);
        let exit = client.wait();
        assert_eq!((&exit.cause, exit.source, exit.is_drained), (&ExitCause::Code(7), ExitSource::Reaped, true));
        assert_eq!(exit.oom_kills, 0);
        assert_eq!(scene.exit_record(), exit, "it is written down before it is told");
        assert!(scene.init_record().is_started);
        let mut lines: Vec<_> = scene.output().lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(lines, ["err", "out"]);
        assert_eq!(client.call(Request::State), Ok(Response::State(TaskState::Exited { exit })));
        assert_eq!(client.call(Request::Delete { force: false }), Ok(Response::Done));
        scene.finish(&mut client);
    }
}

#[test]
fn every_call_may_be_made_twice() {
    for kind in BOTH {
        let scene = Scene::new(kind, "sleep 1000");
        let mut client = scene.up();
        let (first, second) = (client.send(Request::Create), client.send(Request::Create));
        let pid = crate::common::pid(client.answer(first));
        assert_eq!(crate::common::pid(client.answer(second)), pid);
        assert_eq!(client.create(), pid);
        let (first, second) = (client.send(Request::Start), client.send(Request::Start));
        assert_eq!(crate::common::pid(client.answer(first)), pid);
        assert_eq!(crate::common::pid(client.answer(second)), pid);
        assert_eq!(client.start(), pid);
        assert_eq!(client.call(KILL), Ok(Response::Done));
        assert_killed(&client.wait());
        assert_killed(&client.wait());
        assert_eq!(client.call(KILL), Ok(Response::Done), "what has ended cannot be ended again");
        assert_eq!(client.start(), pid, "the start did succeed");
        for _ in 0..2 {
            assert_eq!(client.call(Request::Delete { force: false }), Ok(Response::Done));
        }
        scene.finish(&mut client);
    }
}

#[test]
fn what_the_state_forbids_is_a_conflict_with_a_hint() {
    for kind in BOTH {
        let scene = Scene::new(kind, "sleep 1000");
        let mut client = scene.up();
        let mut conflict = |request: Request| {
            let error = client.call(request).expect_err("forbidden");
            assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
            assert!(error.hint.is_some(), "{error}");
        };
        for request in [Request::Start, KILL, Request::Pause, Request::Resume] {
            conflict(request);
        }
        let mut client = scene.connect();
        client.create();
        client.start();
        let mut conflict = |request: Request| {
            let error = client.call(request).expect_err("forbidden");
            assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
        };
        for request in [Request::Create, Request::Delete { force: false }, Request::Shutdown] {
            conflict(request);
        }
        scene.finish(&mut client);
    }
}

#[test]
fn a_forced_delete_ends_what_runs_and_answers_who_waits() {
    for kind in BOTH {
        let scene = Scene::new(kind, "trap '' TERM; sleep 1000 & sleep 1000; wait");
        let mut client = scene.up();
        client.create();
        client.start();
        let mut other = scene.connect();
        let waiting = other.send(Request::Wait);
        eventually("its children run", || scene.processes().len() >= 4);
        assert_eq!(client.call(Request::Delete { force: true }), Ok(Response::Done));
        assert_killed(&exited(other.answer(waiting)));
        scene.finish(&mut client);
    }
}

#[test]
fn a_container_that_was_never_started_can_be_deleted() {
    for kind in BOTH {
        let scene = Scene::new(kind, "echo never");
        let mut client = scene.up();
        client.create();
        assert_eq!(client.call(Request::Delete { force: true }), Ok(Response::Done));
        assert_eq!(scene.output(), "");
        scene.finish(&mut client);
    }
}

#[test]
fn the_same_shim_makes_the_container_again_after_a_delete() {
    for kind in BOTH {
        let scene = Scene::new(kind, "echo hello; exit 3");
        let mut client = scene.up();
        for _ in 0..3 {
            client.create();
            client.start();
            assert_eq!(client.wait().cause, ExitCause::Code(3));
            assert_eq!(client.call(Request::Delete { force: false }), Ok(Response::Done));
        }
        assert_eq!(scene.output(), "hello\nhello\nhello\n");
        scene.finish(&mut client);
    }
}

#[test]
fn a_paused_container_stands_still_and_can_still_be_killed() {
    for kind in BOTH {
        let scene = Scene::new(kind, "sleep 1000");
        let mut client = scene.up();
        let pid = client.create();
        client.start();
        for _ in 0..2 {
            assert_eq!(client.call(Request::Pause), Ok(Response::Done));
            assert_eq!(client.call(Request::State), Ok(Response::State(TaskState::Paused { pid })));
        }
        for _ in 0..2 {
            assert_eq!(client.call(Request::Resume), Ok(Response::Done));
            assert_eq!(client.call(Request::State), Ok(Response::State(TaskState::Running { pid })));
        }
        assert_eq!(client.call(Request::Pause), Ok(Response::Done));
        client.kill(Signal::KILL);
        assert_killed(&client.wait());
        scene.finish(&mut client);
    }
}

#[test]
fn a_failed_create_says_why_and_may_be_repeated_after_a_delete() {
    for kind in BOTH {
        let scene = Scene::bare(kind);
        match kind {
            TestRuntime::Runc | TestRuntime::Native => scene.configure(&["/bin/absent"], |_| {}),
            TestRuntime::Fake => scene.script(&Script {
                create: Act::Fail(ErrorKind::EntrypointNotFound),
                command: "sleep 1000".into(),
                ..Script::default()
            }),
        }
        let mut client = scene.up();
        for _ in 0..2 {
            let waiting = client.send(Request::Wait);
            let error = client.call(Request::Create).expect_err("no entrypoint");
            assert_eq!(error.kind, ErrorKind::EntrypointNotFound, "{error}");
            assert!(error.hint.is_some() && !error.causes.is_empty(), "{error:?}");
            assert_eq!(client.answer(waiting).expect_err("never ran").kind, ErrorKind::Conflict);
            assert_eq!(client.call(Request::Create).expect_err("half-made").kind, ErrorKind::Conflict);
            assert_eq!(client.call(KILL), Ok(Response::Done));
            assert_eq!(client.call(Request::Delete { force: false }), Ok(Response::Done));
        }
        assert_eq!(scene.output(), "", "what the runtime says is not the container's output");
        scene.finish(&mut client);
    }
}

#[test]
fn an_exit_without_a_client_is_told_to_the_next_one() {
    for kind in BOTH {
        let scene = Scene::new(kind, "read x < /dev/null; sleep 0.3; echo late; exit 42");
        let mut client = scene.up();
        client.create();
        client.start();
        drop(client);
        eventually("the exit is written down", || scene.dir.join("exit.json").exists());
        let mut client = scene.connect();
        assert_eq!(client.wait().cause, ExitCause::Code(42));
        assert_eq!(scene.output(), "late\n");
        scene.finish(&mut client);
    }
}
