//! Exec in running containers: rights and view of the program, and the reasons why it was not executed.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests end loudly")]

mod hostile;
mod restrictions;
mod scene;

use std::io::{BufRead, Write};
use std::process::{Output, Stdio};

use scene::{Container, Start};

/// Returns exit code, output and error output.
#[track_caller]
pub(crate) fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[track_caller]
pub(crate) fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let (found, out, error) = told(output);
    assert!(found == code && out.is_empty(), "code {found}, output {out:?}: {error}");
    let missing: Vec<_> = words.iter().filter(|word| !error.contains(**word)).collect();
    assert!(missing.is_empty(), "{missing:?} is not in: {error}");
}

#[test]
fn exec_gives_the_programs_output_and_exit_code() {
    for start in [Start::Cold, Start::Warm] {
        let container = Container::start(start);
        let output = container.exec(&["/bin/sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!(told(&output), (7, "out".into(), "err".into()));
        assert_eq!(told(&container.exec(&["sh", "-c", "kill -9 $$"])).0, 137);
        container.finish();
    }
}

#[test]
fn exec_gives_the_program_the_callers_input() {
    let container = Container::start(Start::Cold);
    let mut command = container.command(container.pid);
    let mut child = command.args(["--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through\n").unwrap();
    assert_eq!(told(&child.wait_with_output().unwrap()).1, "through");
    container.finish();
}

#[test]
fn a_missing_program_gives_127_and_one_that_cannot_be_executed_126() {
    let container = Container::start(Start::Cold);
    assert_refused(&container.exec(&["/no/such"]), 127, &["process.args", "\"/no/such\""]);
    assert_refused(&container.exec(&["nosuch"]), 127, &["process.args", "\"nosuch\""]);
    assert_refused(&container.exec(&["/bin/plain"]), 126, &["process.args", "/bin/plain", "Permission denied"]);
    assert_refused(&container.exec(&["/etc"]), 126, &["process.args", "/etc"]);
    // Only the kernel finds that out, after "go".
    assert_refused(&container.exec(&["/bin/orphan"]), 127, &["process.args", "/bin/orphan by /no/interpreter"]);
    container.finish();
}

#[test]
fn exec_adds_to_the_environment_and_the_last_value_counts() {
    let container = Container::start(Start::Cold);
    let output = container.exec_with(&["--env", "A=2", "--env", "B=3"], &["env"]);
    let (_, out, _) = told(&output);
    let mut lines: Vec<_> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A=2", "B=3", "HOME=/root", "PATH=/bin"]);
    assert_refused(&container.exec_with(&["--env", "nonsense"], &["env"]), 125, &["process.env", "nonsense"]);
    container.finish();
}

#[test]
fn exec_begins_in_the_directory_that_is_asked_for_inside_of_the_root() {
    let container = Container::start(Start::Cold);
    assert_eq!(told(&container.exec_with(&["--cwd", "/etc"], &["pwd"])).1, "/etc");
    assert_eq!(told(&container.exec_with(&["--cwd", "/../../tmp"], &["pwd"])).1, "/tmp");
    assert_refused(&container.exec_with(&["--cwd", "/nowhere"], &["pwd"]), 125, &["process.cwd", "/nowhere"]);
    assert_refused(&container.exec_with(&["--cwd", "etc"], &["pwd"]), 125, &["process.cwd", "not absolute"]);
    assert!(!container.root().join("nowhere").exists(), "a missing directory was made");
    container.finish();
}

#[test]
fn the_process_is_a_child_of_the_caller_and_leads_its_own_session() {
    let container = Container::start(Start::Warm);
    let running = container.run(&[]);
    let stat = running.read("stat");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let own = running.pid.to_string();
    assert_eq!(fields[1..4], [running.launcher().to_string().as_str(), &own, &own]);
    running.finish();
    container.finish();
}

#[test]
fn exec_in_a_container_that_has_ended_says_so() {
    let mut container = Container::start(Start::Cold);
    // A zombie still has its pid.
    container.stop_launcher(true);
    container.kill();
    scene::await_level("init is a zombie", || scene::read_of(container.pid, "stat").contains(") Z "));
    assert_refused(&container.exec(&["true"]), 125, &["it has ended"]);
    container.stop_launcher(false);
    container.await_end();
    assert_refused(&container.exec(&["true"]), 125, &["No such process"]);
    container.finish();
}

#[test]
fn a_pid_that_is_not_the_containers_init_is_refused() {
    let container = Container::start(Start::Cold);
    let other = Container::start(Start::Cold);
    let exec = |pid: i32| container.command(pid).args(["--", "true"]).output().unwrap();
    assert_refused(&exec(other.pid), 125, &["linux.cgroupsPath", "another cgroup"]);
    assert_refused(&exec(std::process::id().cast_signed()), 125, &["linux.cgroupsPath", "another cgroup"]);
    let running = container.run(&[]);
    assert_refused(&exec(running.pid), 125, &["not the container's first"]);
    running.finish();
    container.finish();
    other.finish();
}

#[test]
fn exec_in_a_paused_container_is_refused_at_once() {
    let container = Container::start(Start::Warm);
    let freezer = container.cgroups().into_iter().map(|dir| dir.join("c/freezer.state")).find(|file| file.exists());
    let (file, on, off) = match freezer {
        Some(file) => (file, "FROZEN", "THAWED"),
        None => (container.cgroups()[0].join("c/cgroup.freeze"), "1", "0"),
    };
    std::fs::write(&file, on).unwrap();
    let output = container.exec(&["true"]);
    std::fs::write(&file, off).unwrap();
    assert_refused(&output, 125, &["it is paused"]);
    assert_eq!(told(&container.exec(&["true"])).0, 0);
    container.finish();
}

#[test]
fn a_container_without_room_for_a_process_refuses_it() {
    let container = Container::with(Start::Cold, |config| config["linux"]["resources"]["pids"]["limit"] = 1.into());
    assert_refused(&container.exec(&["true"]), 125, &["begin a process in the c", "temporarily unavailable"]);
    container.finish();
}

#[test]
fn one_process_executes_again_and_again_and_keeps_nothing() {
    let container = Container::start(Start::Cold);
    let mut command = container.command(container.pid);
    command.args(["--each-line", "--", "sh", "-c", "exit 3"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut answers = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mut open = Vec::new();
    for _ in 0..20 {
        input.write_all(b"\n").unwrap();
        assert_eq!(answers.next().unwrap().unwrap(), "3");
        open.push(std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().count());
    }
    drop(input);
    assert!(child.wait().unwrap().success());
    assert!(open.iter().all(|count| *count == open[0]), "descriptors: {open:?}");
    container.finish();
}
