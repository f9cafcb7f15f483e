//! The death of a shim, and its replacement, under a container that must not notice.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::common::{Scene, TestRuntime, eventually};
use contd_lease::{ProcessIdentity, wait_dead};
use contd_protocol::shim::{Request, Response, TaskState};
use contd_types::{ErrorKind, ExitCause, ExitSource, Signal};

const RUNTIMES: [TestRuntime; 2] = [TestRuntime::Runc, TestRuntime::Fake];

/// Where the container looks for leave to go on.
fn gate(scene: &Scene) -> PathBuf {
    match scene.kind {
        TestRuntime::Runc | TestRuntime::Native => scene.rootfs().join("tmp/go"),
        TestRuntime::Fake => scene.dir.join("go"),
    }
}

/// A container that waits, says its last words and ends.
fn waiting(kind: TestRuntime, last: &str) -> Scene {
    let scene = Scene::bare(kind);
    let path = match kind {
        TestRuntime::Runc | TestRuntime::Native => "/tmp/go".to_owned(),
        TestRuntime::Fake => scene.dir.join("go").display().to_string(),
    };
    scene.run(&format!("echo first; while [ ! -e {path} ]; do sleep 0.01; done; {last}"));
    scene
}

fn numbered(last: usize) -> String {
    (1..=last).map(|number| format!("{number}\n")).collect()
}

#[test]
fn a_successor_goes_on_where_its_predecessor_was_killed() {
    for kind in RUNTIMES {
        let scene = waiting(kind, "echo last >&2; exit 23");
        let mut client = scene.up();
        let pid = client.create();
        client.start();
        let (kept, _fifos) = scene.keep();
        scene.kill_shim();
        let mut client = scene.succeed(Some(kept.try_clone().unwrap()));
        assert_eq!(client.call(Request::State), Ok(Response::State(TaskState::Running { pid })));
        fs::write(gate(&scene), "").unwrap();
        let exit = client.wait();
        assert_eq!((&exit.cause, exit.source), (&ExitCause::Code(23), ExitSource::Pidfd), "{kind:?}");
        assert!(exit.is_drained);
        assert_eq!(scene.output(), "first\nlast\n");
        assert_eq!(scene.exit_record(), exit);
        scene.finish(&mut client);
    }
}

#[test]
fn an_end_that_no_shim_saw_is_told_by_the_pidfd_that_was_kept_with_all_that_was_said() {
    for kind in RUNTIMES {
        let scene = waiting(kind, "echo last; kill -9 $$");
        let mut client = scene.up();
        let pid = client.create();
        client.start();
        let (kept, fifos) = scene.keep();
        scene.kill_shim();
        fs::write(gate(&scene), "").unwrap();
        assert!(wait_dead(&kept, crate::common::LIMIT).unwrap());
        eventually("it is reaped", || ProcessIdentity::of(pid.0).unwrap().is_none());
        let mut client = scene.succeed(Some(kept));
        drop(fifos);
        let exit = client.wait();
        let expected = match kind {
            // The first process of a pid namespace is not ended by its own signal.
            TestRuntime::Runc | TestRuntime::Native => ExitCause::Code(0),
            TestRuntime::Fake => ExitCause::Signal(Signal::KILL),
        };
        assert_eq!((&exit.cause, exit.source), (&expected, ExitSource::Pidfd), "{kind:?}");
        assert_eq!(scene.output(), "first\nlast\n");
        scene.finish(&mut client);
    }
}

#[test]
fn an_end_that_nobody_saw_is_unknown_and_never_invented() {
    for kind in RUNTIMES {
        let scene = waiting(kind, "exit 23");
        let mut client = scene.up();
        let pid = client.create();
        client.start();
        scene.kill_shim();
        fs::write(gate(&scene), "").unwrap();
        eventually("it is reaped", || ProcessIdentity::of(pid.0).unwrap().is_none());
        let mut client = scene.succeed(None);
        let exit = client.wait();
        assert!(matches!(&exit.cause, ExitCause::Unknown(why) if why.contains("its shim died")), "{exit:?}");
        assert_eq!(exit.source, ExitSource::Unknown);
        scene.finish(&mut client);
    }
}

#[test]
fn an_end_that_was_written_down_is_told_by_the_successor() {
    for kind in RUNTIMES {
        let scene = Scene::new(kind, "exit 7");
        let mut client = scene.up();
        client.create();
        client.start();
        let exit = client.wait();
        scene.kill_shim();
        let mut client = scene.succeed(None);
        assert_eq!(client.wait(), exit);
        scene.finish(&mut client);
    }
}

#[test]
fn a_paused_container_is_paused_for_the_successor_and_can_be_resumed_and_killed() {
    let scene = Scene::new(TestRuntime::Runc, "sleep 1000");
    let mut client = scene.up();
    let pid = client.create();
    client.start();
    assert_eq!(client.call(Request::Pause), Ok(Response::Done));
    scene.kill_shim();
    let mut client = scene.succeed(None);
    assert_eq!(client.call(Request::State), Ok(Response::State(TaskState::Paused { pid })));
    assert_eq!(client.call(Request::Resume), Ok(Response::Done));
    assert_eq!(client.call(Request::State), Ok(Response::State(TaskState::Running { pid })));
    client.kill(Signal::KILL);
    crate::common::assert_killed(&client.wait());
    scene.finish(&mut client);
}

#[test]
fn no_line_is_lost_or_doubled_however_often_shims_are_killed_under_the_stream() {
    const BURST: usize = 2000;
    const KILLS: u64 = 20;
    // The log's files are small, so that deaths fall into rotations as well.
    let mut scene = Scene::bare(TestRuntime::Fake);
    scene.task.log_max_bytes = 512 * 1024;
    scene.task.log_max_files = 1000;
    scene.write_task();
    // It goes on until there were enough deaths, on a machine of whatever speed, and then says how much it has said.
    let [enough, total] = ["enough", "total"].map(|name| scene.task.log_path.with_file_name(name));
    let burst = format!("seq $((i*{BURST}+1)) $((i*{BURST}+{BURST})); i=$((i+1)); sleep 0.05");
    let end = format!("echo $i > {}; exit 3", total.display());
    scene.run(&format!("i=0; while [ ! -e {} ]; do {burst}; done; {end}", enough.display()));
    let mut client = scene.up();
    client.create();
    let (kept, fifos) = scene.keep();
    client.start();
    let mut kills = 0;
    while !scene.dir.join("exit.json").exists() {
        std::thread::sleep(Duration::from_micros(500 + 700 * (kills % 7)));
        if kills == KILLS {
            fs::write(&enough, "").unwrap();
        }
        if wait_dead(&kept, Duration::ZERO).unwrap() {
            break;
        }
        scene.kill_shim();
        client = scene.succeed(Some(kept.try_clone().unwrap()));
        kills += 1;
    }
    drop(fifos);
    let exit = client.wait();
    assert_eq!(exit.cause, ExitCause::Code(3), "after {kills} kills");
    assert!(kills >= KILLS, "it ended by itself after {kills} kills");
    let bursts: usize = fs::read_to_string(&total).unwrap().trim().parse().unwrap();
    assert_eq!(scene.whole_output(), numbered(bursts * BURST), "after {kills} kills");
    scene.finish(&mut client);
}

#[test]
fn another_program_takes_over_in_the_same_process_and_reaps_its_own_child() {
    for kind in RUNTIMES {
        let scene = waiting(kind, "echo last; exit 5");
        let mut client = scene.up();
        let pid = client.create();
        client.start();
        let shim = ProcessIdentity::of(scene.shim_pid()).unwrap();
        let waiter = client.send(Request::Wait);
        client.send(Request::HandOver { binary: scene.binary() });
        assert!(client.frame().is_none(), "call {waiter} and the other were answered");
        let mut client = scene.reconnect();
        assert_eq!(client.call(Request::State), Ok(Response::State(TaskState::Running { pid })));
        assert_eq!(ProcessIdentity::of(scene.shim_pid()).unwrap(), shim, "it is the same process");
        fs::write(gate(&scene), "").unwrap();
        let exit = client.wait();
        assert_eq!((&exit.cause, exit.source), (&ExitCause::Code(5), ExitSource::Reaped), "{kind:?}");
        assert_eq!(scene.output(), "first\nlast\n");
        scene.finish(&mut client);
    }
}

#[test]
fn a_program_that_cannot_be_executed_is_refused_and_the_shim_goes_on() {
    let scene = waiting(TestRuntime::Fake, "exit 5");
    let mut client = scene.up();
    let none = client.call(Request::HandOver { binary: scene.binary() }).unwrap_err();
    assert_eq!(none.kind, ErrorKind::Conflict, "there is no container yet");
    client.create();
    client.start();
    let missing = client.call(Request::HandOver { binary: "/no/such/shim".into() }).unwrap_err();
    assert!(missing.to_string().contains("/no/such/shim"), "{missing}");
    assert!(missing.hint.is_some());
    fs::write(gate(&scene), "").unwrap();
    assert_eq!(client.wait().cause, ExitCause::Code(5));
    scene.finish(&mut client);
}
