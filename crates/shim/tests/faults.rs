//! A runtime that hangs, fails or is slow; a daemon that never comes. With the scripted fake.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::time::Duration;

use crate::common::{Scene, TestRuntime, assert_killed, eventually, exited, pid};
use contd_lease::{LeaseDir, LeaseState};
use contd_protocol::shim::{Request, Response, TaskState};
use contd_shim::runtime::fake::{Act, Script};
use contd_types::{ErrorKind, ExitCause, Signal};

const LONG: &str = "sleep 1000";

fn scripted(script: &Script) -> Scene {
    let scene = Scene::bare(TestRuntime::Fake);
    scene.script(script);
    scene
}

fn script(command: &str) -> Script {
    Script { command: command.to_owned(), ..Script::default() }
}

#[test]
fn a_kill_is_carried_out_while_the_create_hangs() {
    let scene = scripted(&Script { create: Act::Hang, ..script(LONG) });
    let mut client = scene.up();
    let creating = client.send(Request::Create);
    let mut other = scene.connect();
    assert_eq!(other.call(Request::State), Ok(Response::State(TaskState::Creating)));
    let term = Request::Kill { signal: Signal::TERM, is_for_all: false };
    assert_eq!(other.call(term).expect_err("no init yet").kind, ErrorKind::Conflict);
    other.kill(Signal::KILL);
    assert_eq!(client.answer(creating).expect_err("broken off").kind, ErrorKind::Conflict);
    eventually("what the create had made is ended", || scene.processes() == [scene.shim_pid()]);
    scene.finish(&mut client);
}

#[test]
fn a_forced_delete_is_carried_out_while_the_create_hangs() {
    let scene = scripted(&Script { create: Act::Hang, ..script(LONG) });
    let mut client = scene.up();
    let creating = client.send(Request::Create);
    let mut other = scene.connect();
    assert_eq!(other.call(Request::Delete { force: false }).expect_err("busy").kind, ErrorKind::Busy);
    assert_eq!(other.call(Request::Shutdown).expect_err("at work").kind, ErrorKind::Conflict);
    assert_eq!(other.call(Request::Delete { force: true }), Ok(Response::Done));
    assert_eq!(client.answer(creating).expect_err("broken off").kind, ErrorKind::Conflict);
    scene.finish(&mut other);
}

#[test]
fn a_runtime_that_is_not_done_in_time_is_broken_off() {
    let mut scene = scripted(&Script { create: Act::Hang, ..script(LONG) });
    // It holds for the deletion as well, which must have the time that it needs.
    scene.task.runtime_timeout = Duration::from_secs(10);
    scene.write_task();
    let mut client = scene.up();
    let error = client.call(Request::Create).expect_err("too slow");
    assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
    scene.finish(&mut client);
}

#[test]
fn a_start_that_hangs_can_be_killed_and_the_exit_is_told_once_it_is_over() {
    let mut scene = scripted(&Script { start: Act::Hang, ..script(LONG) });
    scene.task.runtime_timeout = Duration::from_secs(10);
    scene.write_task();
    let mut client = scene.up();
    client.create();
    let starting = client.send(Request::Start);
    let mut other = scene.connect();
    let waiting = other.send(Request::Wait);
    other.kill(Signal::KILL);
    assert_eq!(client.answer(starting).expect_err("too slow").kind, ErrorKind::Timeout);
    assert_killed(&exited(other.answer(waiting)));
    scene.finish(&mut other);
}

#[test]
fn a_container_that_ends_before_its_start_is_reported_done_has_started_and_then_exited() {
    let scene = scripted(&Script { start: Act::Delay(200), ..script("echo quick") });
    let mut client = scene.up();
    let created = client.create();
    let mut other = scene.connect();
    let waiting = other.send(Request::Wait);
    let starting = client.send(Request::Start);
    assert_eq!(pid(client.answer(starting)), created);
    assert_eq!(exited(other.answer(waiting)).cause, ExitCause::Code(0));
    assert!(scene.init_record().is_started);
    assert_eq!(scene.output(), "quick\n");
    scene.finish(&mut client);
}

#[test]
fn a_failed_start_leaves_a_created_container() {
    let scene = scripted(&Script { start: Act::Fail(ErrorKind::EntrypointNotExecutable), ..script(LONG) });
    let mut client = scene.up();
    let created = client.create();
    assert_eq!(client.call(Request::Start).expect_err("scripted").kind, ErrorKind::EntrypointNotExecutable);
    assert_eq!(client.call(Request::State), Ok(Response::State(TaskState::Created { pid: created })));
    scene.finish(&mut client);
}

#[test]
fn a_failed_delete_can_be_repeated() {
    let scene = scripted(&Script { delete: Act::Fail(ErrorKind::Internal), ..script("exit 0") });
    let mut client = scene.up();
    client.create();
    client.start();
    client.wait();
    for _ in 0..2 {
        assert_eq!(client.call(Request::Delete { force: true }).expect_err("scripted").kind, ErrorKind::Internal);
    }
    assert_eq!(client.call(Request::Shutdown), Ok(Response::Done));
    scene.census();
}

#[test]
fn a_shim_that_nobody_calls_ends_by_itself_and_removes_only_its_socket() {
    let scene = scripted(&Script { unclaimed_millis: Some(50), ..script(LONG) });
    assert!(scene.spawn().status.success());
    eventually("it has ended", || {
        matches!(LeaseDir::new(&scene.dir).probe(), Ok(LeaseState::Dead(_))) && scene.processes().is_empty()
    });
    for name in ["lease.json", "lock", "task.json", "stdout", "stderr", "shim.log"] {
        assert!(scene.dir.join(name).exists(), "{name} is gone");
    }
    scene.census();
}

#[test]
fn a_shim_that_cannot_come_up_says_why_and_leaves_nothing_running() {
    let scene = Scene::bare(TestRuntime::Fake);
    fs::write(scene.dir.join("task.json"), br#"{"version": 99}"#).unwrap();
    let output = scene.spawn();
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("version 99") && words.contains("hint: "), "{words}");
    scene.census();

    let scene = scripted(&script(LONG));
    LeaseDir::new(&scene.dir).retire().unwrap();
    let output = scene.spawn();
    assert!(!output.status.success(), "it came too late");
    assert!(!scene.dir.exists(), "who comes too late must leave no trace");
    scene.census();
}

#[test]
fn a_second_shim_under_the_same_lease_gives_up() {
    let scene = scripted(&script(LONG));
    let mut client = scene.up();
    assert!(!scene.spawn().status.success());
    assert_eq!(client.call(Request::State), Ok(Response::State(TaskState::Empty)), "the first was not disturbed");
    // It has said why, and is just ending.
    eventually("the second one is gone", || scene.processes() == [scene.shim_pid()]);
    scene.finish(&mut client);
}

#[test]
fn the_shim_is_not_ended_by_a_signal_that_can_be_blocked() {
    let scene = scripted(&script(LONG));
    let mut client = scene.up();
    let shim = contd_lease::ProcessIdentity::of(scene.shim_pid()).unwrap().unwrap();
    let pidfd = contd_lease::pidfd(&shim).unwrap().unwrap();
    for signal in [1, 2, 3, 15, 13, 10, 12] {
        assert!(contd_lease::signal(&pidfd, signal).unwrap());
    }
    assert_eq!(client.call(Request::State), Ok(Response::State(TaskState::Empty)));
    scene.finish(&mut client);
}

#[test]
fn orphans_of_the_container_are_reaped() {
    const ORPHANS: usize = 5;
    let scene = Scene::bare(TestRuntime::Fake);
    // They live until they are told, so that none is gone before it was seen.
    let go = scene.task.log_path.with_file_name("go");
    let orphan = format!("(while [ ! -e {} ]; do sleep 0.05; done &)", go.display());
    scene.script(&script(&format!("for n in $(seq {ORPHANS}); do {orphan}; done; sleep 1000")));
    let mut client = scene.up();
    client.create();
    client.start();
    let shim = scene.shim_pid();
    let children = || {
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
            .filter(|stat| stat.rsplit_once(") ").is_some_and(|s| s.1.split(' ').nth(1) == Some(&shim.to_string())))
            .count()
    };
    eventually("the orphans came", || children() == 1 + ORPHANS);
    fs::write(go, "").unwrap();
    eventually("only init is left", || children() == 1);
    scene.finish(&mut client);
}
