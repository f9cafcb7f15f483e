//! SIGTERM, as a node that goes down sends it to every process: a shim goes once it has nothing left to guard, and what it
//! knew is on disk. Until then it stays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;

use crate::common::{Scene, TestRuntime, eventually, exited};
use contd_lease::{LeaseDir, LeaseState};
use contd_protocol::shim::{Request, Response, TaskState, files};
use contd_types::ExitCause;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const BOTH: [TestRuntime; 2] = [TestRuntime::Fake, TestRuntime::Runc];

fn terminate(scene: &Scene) {
    kill(Pid::from_raw(scene.shim_pid()), Signal::SIGTERM).unwrap();
    eventually("it has heard", || scene.shim_log().contains("told to end by process"));
}

fn is_dead(scene: &Scene) -> bool {
    matches!(LeaseDir::new(&scene.dir).probe(), Ok(LeaseState::Dead(_)))
}

/// Has a successor remove what is left, as the next daemon does.
fn clean_up(scene: Scene) {
    let mut client = scene.succeed(None);
    scene.finish(&mut client);
}

#[test]
fn a_shim_whose_container_has_ended_goes_with_exit_and_output_on_disk() {
    for kind in BOTH {
        let scene = Scene::new(kind, "echo last words; exit 7");
        let mut client = scene.up();
        client.create();
        client.start();
        let exit = client.wait();
        drop(client);
        terminate(&scene);
        eventually("it has gone", || is_dead(&scene));
        assert_eq!(exit.cause, ExitCause::Code(7));
        assert_eq!((scene.exit_record(), scene.output()), (exit, "last words\n".to_owned()));
        assert!(!scene.dir.join(files::SOCKET).exists());
        clean_up(scene);
    }
}

#[test]
fn a_shim_whose_container_lives_stays_and_goes_when_it_has_ended() {
    for kind in BOTH {
        let scene = Scene::bare(kind);
        let (inside, outside) = match kind {
            TestRuntime::Fake => (scene.dir.join("go"), scene.dir.join("go")),
            TestRuntime::Runc | TestRuntime::Native => ("/tmp/go".into(), scene.rootfs().join("tmp/go")),
        };
        scene.run(&format!("while [ ! -e {} ]; do sleep 0.01; done; echo said; exit 9", inside.display()));
        let mut client = scene.up();
        client.create();
        client.start();
        drop(client);
        terminate(&scene);
        let mut client = scene.connect();
        assert!(matches!(client.call(Request::State), Ok(Response::State(TaskState::Running { .. }))));
        drop(client);
        fs::write(outside, "").unwrap();
        eventually("it has gone", || is_dead(&scene));
        assert_eq!((scene.exit_record().cause, scene.output()), (ExitCause::Code(9), "said\n".to_owned()));
        clean_up(scene);
    }
}

#[test]
fn a_shim_with_a_caller_stays_until_the_caller_has_gone() {
    for kind in BOTH {
        let scene = Scene::new(kind, "exit 5");
        let mut client = scene.up();
        client.create();
        client.start();
        client.wait();
        terminate(&scene);
        assert_eq!(exited(client.call(Request::Wait)).cause, ExitCause::Code(5));
        assert_eq!(client.call(Request::Delete { force: false }), Ok(Response::Done));
        assert!(!is_dead(&scene));
        drop(client);
        eventually("it has gone", || is_dead(&scene));
        scene.census();
    }
}
