//! Attacks on the launcher's own file on the host, by `/proc/self/exe` and `/proc/<pid>/exe` (CVE-2019-5736).
//!
//! `loader.rs` explains the attack: the image is executed as our program, with the image's loader. The launcher is
//! started from a copy, so that a hole would not destroy the one that the other tests use.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::programs::programs;
use crate::run::{Outcome, Running};
use crate::scene::{EINVAL, EROFS, ETXTBSY, Scene, Start, add_capability, bind, on_both, without_seccomp};

/// The path where the kernel looks for our programs' loader.
#[cfg(target_arch = "x86_64")]
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// The number of containers that join the PID namespace of the one that hunts.
const JOINERS: usize = 12;

/// The attempt that `loader.rs` lets the attack make.
const OVERWRITE: &str = "overwrite|100|/go";

/// Makes a copy of the launcher outside of the image, and a container whose entrypoint leads to it.
fn victim(scene: &Scene) -> PathBuf {
    let victim = scene.outside().join("launcher");
    fs::copy(env!("CARGO_BIN_EXE_contd-launch"), &victim).unwrap();
    scene.install(&programs().loader, LOADER);
    fs::write(scene.root().join("script"), "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(scene.root().join("script"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    scene.link("bin/self", "/proc/self/exe");
    victim
}

/// Starts the launcher as contd starts its own: from a read-only mount of its file.
fn start_sealed(scene: &Scene, victim: &Path, config: &Value) -> Running {
    let program = contd_launch::sealed::open(victim).unwrap();
    let mut command = scene.command(&PathBuf::from(format!("/proc/self/fd/{}", program.as_raw_fd())), config, "c");
    command.arg0(victim);
    // When this returns, the descriptor is closed here, as the exec has closed it there.
    Running::start(command)
}

#[test]
fn an_image_that_executes_us_cannot_write_our_program() {
    on_both(|scene| {
        let victim = victim(scene);
        let text = fs::read(&victim).unwrap();
        for entrypoint in ["/script", "/bin/self", "/proc/self/exe"] {
            let mut config = scene.config(&[]);
            config["process"]["args"] = json!([entrypoint]);
            fs::write(scene.root().join("go"), "").unwrap();
            let outcome = start_sealed(scene, &victim, &config).outcome();
            // The kernel finds first that the file is being executed.
            outcome.assert_refused(OVERWRITE, &[EROFS, ETXTBSY]);
            assert!(fs::read(&victim).unwrap() == text, "{entrypoint}: our program has changed");
        }
        fs::remove_file(victim).unwrap();
    });
}

/// Runs an image that executes the launcher, kills the launcher, and lets the image write.
fn write_when_we_are_gone(scene: &Scene, change: impl Fn(&mut Value)) -> Outcome {
    let victim = victim(scene);
    let text = fs::read(&victim).unwrap();
    let mut config = scene.config(&[]);
    config["process"]["args"] = json!(["/script"]);
    change(&mut config);
    let mut container = start_sealed(scene, &victim, &config);
    container.await_line("holding");
    container.kill_launcher();
    fs::write(scene.root().join("go"), "").unwrap();
    let outcome = container.outcome();
    scene.clean_up("c");
    assert!(fs::read(&victim).unwrap() == text, "our program has changed: {outcome:?}");
    fs::remove_file(victim).unwrap();
    outcome
}

#[test]
fn an_image_that_executes_us_cannot_write_our_program_when_we_are_gone() {
    on_both(|scene| write_when_we_are_gone(scene, |_| {}).assert_refused(OVERWRITE, &[EROFS]));
}

#[test]
fn the_right_to_mount_does_not_make_our_program_writable() {
    on_both(|scene| {
        let outcome = write_when_we_are_gone(scene, |config| {
            without_seccomp(config);
            add_capability(config, "CAP_SYS_ADMIN");
        });
        for attempt in ["copy the mount", "make the mount writable"] {
            outcome.assert_refused(attempt, &[EINVAL]);
        }
        outcome.assert_refused(OVERWRITE, &[EROFS]);
    });
}

#[test]
fn the_check_sees_a_program_that_was_written() {
    let scene = Scene::prepare(Start::Cold);
    let victim = victim(&scene);
    let text = fs::read(&victim).unwrap();
    let mut config = scene.config(&["write|/victim|overwritten"]);
    bind(&mut config, &victim, "/victim");
    scene.run(&config).assert_worked("write|/victim|overwritten");
    assert!(fs::read(&victim).unwrap() != text);
    fs::remove_file(victim).unwrap();
    scene.assert_untouched();
}

/// Starts container after container in the PID namespace of one that examines all that it sees there; returns its
/// report.
fn hunt(scene: &Scene, change: impl Fn(&mut Value)) -> String {
    let victim = victim(scene);
    let text = fs::read(&victim).unwrap();
    let mut config = scene.config(&["hunt|/stop"]);
    change(&mut config);
    let mut hunter = scene.start(&config, "hunter");
    hunter.await_line("hunting");
    // The launcher, which started first, may not have left the cgroup yet.
    let pid = scene.pids("hunter").into_iter().max().unwrap();
    for _ in 0..JOINERS {
        let mut config = scene.config(&["say|here"]);
        for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "pid" {
                namespace["path"] = json!(format!("/proc/{pid}/ns/pid"));
            }
        }
        start_sealed(scene, &victim, &config).outcome().assert_worked("say|here");
    }
    fs::write(scene.root().join("stop"), "").unwrap();
    let report = hunter.outcome().assert_worked("hunt|/stop").to_owned();
    assert!(!report.contains("seen 0 "), "it has seen no init at all: {report}");
    assert!(fs::read(&victim).unwrap() == text, "our program has changed");
    fs::remove_file(victim).unwrap();
    report
}

#[test]
fn a_process_in_the_same_pid_namespace_gets_at_nothing_of_another_init() {
    on_both(|scene| {
        let report = hunt(scene, |_| {});
        assert!(report.ends_with("prey {}"), "{report}");
    });
}

/// CAP_SYS_PTRACE is the right to look into a process; a container that has it must not share a PID namespace.
#[test]
fn the_hunt_sees_an_init_that_it_may_look_into() {
    let scene = Scene::prepare(Start::Cold);
    let report = hunt(&scene, |config| add_capability(config, "CAP_SYS_PTRACE"));
    assert!(report.contains("prey {\""), "{report}");
    assert!(!report.contains("writable true"), "{report}");
    scene.assert_untouched();
}
