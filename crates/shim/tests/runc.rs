//! A real runtime, a real root file system: what only they can show.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::common::{Scene, TestRuntime, assert_killed, eventually};
use contd_protocol::shim::{Request, Response, RuntimeSpec};
use contd_types::{ErrorKind, ExitCause, Signal};

fn create_error(arguments: &[&str], prepare: impl FnOnce(&Scene)) -> ErrorKind {
    let scene = Scene::bare(TestRuntime::Runc);
    scene.configure(arguments, |_| {});
    prepare(&scene);
    let mut client = scene.up();
    let error = client.call(Request::Create).expect_err("cannot be created");
    assert!(error.hint.is_some(), "{error:?}");
    scene.finish(&mut client);
    error.kind
}

#[test]
fn an_entrypoint_that_cannot_be_found_is_named_as_such() {
    assert_eq!(create_error(&["/bin/absent"], |_| {}), ErrorKind::EntrypointNotFound);
    assert_eq!(create_error(&["absent"], |_| {}), ErrorKind::EntrypointNotFound);
}

#[test]
fn an_entrypoint_that_cannot_be_run_is_named_as_such() {
    let write = |scene: &Scene| {
        let path = scene.rootfs().join("bin/plain");
        fs::write(&path, "text").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    };
    assert_eq!(create_error(&["/bin/plain"], write), ErrorKind::EntrypointNotExecutable);
    assert_eq!(create_error(&["/bin"], |_| {}), ErrorKind::EntrypointNotExecutable);
}

#[test]
fn a_mount_without_its_source_is_an_invalid_argument() {
    let scene = Scene::bare(TestRuntime::Runc);
    scene.configure(&["/bin/sh"], |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(serde_json::json!({
            "destination": "/m", "type": "bind", "source": "/absent-on-this-node", "options": ["rbind"],
        }));
    });
    let mut client = scene.up();
    let error = client.call(Request::Create).expect_err("no source");
    assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("/absent-on-this-node"), "{error}");
    scene.finish(&mut client);
}

#[test]
fn a_runtime_that_is_not_installed_is_named() {
    let mut scene = Scene::new(TestRuntime::Runc, "true");
    scene.task.runtime = RuntimeSpec::Oci { binary: "/absent/runc".into(), root: "/absent".into() };
    scene.write_task();
    let mut client = scene.up();
    let error = client.call(Request::Create).expect_err("no runtime");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("/absent/runc")), "{error:?}");
    assert_eq!(client.call(Request::Shutdown), Ok(Response::Done));
    scene.census();
}

#[test]
fn a_hundred_thousand_lines_are_in_the_log_in_order_before_wait_answers() {
    let scene = Scene::new(TestRuntime::Runc, "seq 1 100000");
    let mut client = scene.up();
    client.create();
    client.start();
    let exit = client.wait();
    assert!(exit.is_drained && exit.is_success(), "{exit:?}");
    let expected: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    assert!(scene.output() == expected, "lines were lost or moved");
    scene.finish(&mut client);
}

#[test]
fn a_descendant_that_holds_the_output_is_ended_with_its_pid_namespace() {
    let scene = Scene::new(TestRuntime::Runc, "sleep 1 & echo x");
    let mut client = scene.up();
    client.create();
    client.start();
    let exit = client.wait();
    assert_eq!((exit.cause, exit.is_drained), (ExitCause::Code(0), true));
    assert_eq!(scene.output(), "x\n");
    scene.finish(&mut client);
}

#[test]
fn a_descendant_without_a_pid_namespace_holds_the_exit_back_no_longer_than_the_drain_time() {
    let mut scene = Scene::bare(TestRuntime::Runc);
    // Long enough for what was said before the end to be read, on a machine that is busy.
    scene.task.drain_timeout = Duration::from_secs(2);
    scene.write_task();
    scene.configure(&["/bin/sh", "-c", "sleep 1000 & echo x"], |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    });
    let mut client = scene.up();
    client.create();
    client.start();
    let exit = client.wait();
    assert_eq!((exit.cause, exit.is_drained), (ExitCause::Code(0), false));
    assert_eq!(scene.output(), "x\n");
    assert_eq!(scene.processes().len(), 2, "the shim and the descendant");
    scene.finish(&mut client);
}

#[test]
fn a_kill_for_all_reaches_every_process_of_the_cgroup() {
    let scene = Scene::bare(TestRuntime::Runc);
    scene.configure(&["/bin/sh", "-c", "sleep 1000 & sleep 1000 & wait"], |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    });
    let mut client = scene.up();
    client.create();
    client.start();
    eventually("all of it runs", || scene.processes().len() == 4);
    assert_eq!(client.call(Request::Kill { signal: Signal::KILL, is_for_all: true }), Ok(Response::Done));
    let exit = client.wait();
    assert_killed(&exit);
    assert!(exit.is_drained, "nobody was left to hold the output");
    scene.finish(&mut client);
}

#[test]
fn the_container_has_no_signal_blocked_or_ignored_and_only_three_descriptors() {
    let scene = Scene::new(TestRuntime::Runc, "grep -E '^Sig(Blk|Ign)' /proc/self/status; echo /proc/1/fd/*");
    let mut client = scene.up();
    client.create();
    client.start();
    client.wait();
    let output = scene.output();
    let words: Vec<_> = output.split_whitespace().collect();
    assert_eq!((words[0], words[2]), ("SigBlk:", "SigIgn:"), "{output}");
    // 32 and 33 belong to the C library, whose posix_spawn ignores them in every program it starts.
    let reserved = 0b11u64 << 31;
    for mask in [words[1], words[3]] {
        assert_eq!(u64::from_str_radix(mask, 16).unwrap() & !reserved, 0, "{output}");
    }
    // The shell itself opens the directory that it lists.
    let fds: Vec<_> = words[4..].iter().filter_map(|path| path.rsplit('/').next()).collect();
    assert!(fds.len() <= 4 && fds.starts_with(&["0", "1", "2"]), "{fds:?}");
    scene.finish(&mut client);
}

#[test]
fn a_process_that_takes_too_much_memory_is_counted() {
    let scene = Scene::bare(TestRuntime::Runc);
    let fill = "x=0123456789abcdef; while true; do x=$x$x; done";
    scene.configure(&["/bin/sh", "-c", fill], |config| {
        config["linux"]["resources"] = serde_json::json!({ "memory": {"limit": 16 * 1024 * 1024} });
    });
    let mut client = scene.up();
    client.create();
    client.start();
    let exit = client.wait();
    assert!(exit.oom_kills >= 1, "{exit:?}, {}", scene.output());
    scene.finish(&mut client);
}

#[test]
fn a_create_that_is_broken_off_at_any_moment_leaves_nothing() {
    for delay_micros in [0, 2_000, 5_000, 10_000, 20_000, 40_000] {
        let scene = Scene::new(TestRuntime::Runc, "sleep 1000");
        let mut client = scene.up();
        let creating = client.send(Request::Create);
        std::thread::sleep(Duration::from_micros(delay_micros));
        let mut other = scene.connect();
        assert_eq!(other.call(Request::Delete { force: true }), Ok(Response::Done), "{}", scene.shim_log());
        match client.answer(creating) {
            Ok(Response::Pid(_)) => {}
            Err(error) => assert_eq!(error.kind, ErrorKind::Conflict, "{error}"),
            other => panic!("{other:?}"),
        }
        scene.finish(&mut other);
    }
}

#[test]
fn init_survives_the_death_of_the_shim_and_its_output_waits_in_the_pipe() {
    let scene = Scene::new(TestRuntime::Runc, "while [ ! -e /tmp/go ]; do sleep 0.01; done; echo after; sleep 1000");
    let mut client = scene.up();
    let pid = client.create();
    client.start();
    let shim = contd_lease::ProcessIdentity::of(scene.shim_pid()).unwrap().unwrap();
    let pidfd = contd_lease::pidfd(&shim).unwrap().unwrap();
    // Its ends of the FIFOs die with it; a reader that is opened before keeps what is written from then on.
    let mut successor = fs::OpenOptions::new().read(true).write(true).open(scene.dir.join("stdout")).unwrap();
    contd_lease::signal(&pidfd, 9).unwrap();
    assert!(contd_lease::wait_dead(&pidfd, crate::common::LIMIT).unwrap());
    fs::write(scene.rootfs().join("tmp/go"), "").unwrap();
    let mut output = [0; 6];
    std::io::Read::read_exact(&mut successor, &mut output).unwrap();
    assert_eq!(&output, b"after\n");
    let record = scene.init_record();
    assert_eq!((record.pid, record.is_started), (pid, true));
    let identity = contd_lease::ProcessIdentity { pid: record.pid.0, start_ticks: record.start_ticks };
    let init = contd_lease::pidfd(&identity).unwrap().expect("it is this very process");
    contd_lease::signal(&init, 9).unwrap();
    assert!(contd_lease::wait_dead(&init, crate::common::LIMIT).unwrap());
    let RuntimeSpec::Oci { binary, root } = &scene.task.runtime else { panic!("not an OCI runtime") };
    let delete = std::process::Command::new(binary)
        .arg("--root")
        .arg(root)
        .args(["delete", "--force", scene.task.id.as_str()])
        .output()
        .unwrap();
    assert!(delete.status.success(), "{delete:?}");
    fs::remove_file(scene.dir.join("sock")).unwrap();
    scene.census();
}

/// A container that gets at the shim's file by `/proc/self/exe` (CVE-2019-5736) cannot write it: crates/launch/tests/escape.
#[test]
fn the_shim_executes_its_file_from_a_read_only_mount() {
    let scene = Scene::new(TestRuntime::Runc, "true");
    let mut client = scene.up();
    let link = format!("/proc/{}/exe", scene.shim_pid());
    assert!(contd_launch::sealed::is_sealed(link.as_ref()).unwrap());
    assert_eq!(fs::read_to_string(format!("/proc/{}/comm", scene.shim_pid())).unwrap(), "contd-shim\n");
    assert_eq!(client.call(Request::Shutdown), Ok(Response::Done));
    scene.census();
}
