//! contd as `make install` puts it on a machine with systemd: its restart, its death, and the socket that stands for it.
//!
//! It changes the machine, so it is run in the nodes of `make vm` only.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests: a broken assumption shall end the test, loudly, and real processes live in real time"
)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use contd_test_harness::census::{cgroups_below, command_lines, mounts};
use contd_test_harness::node::Output;
use contd_test_harness::{Flist, eventually, said};

mod package;

/// One machine, one contd.
static MACHINE: Mutex<()> = Mutex::new(());

/// Numbers lines until it may end, then ends with code 23.
const COUNT: &str = "i=0; while [ ! -e /data/go ]; do i=$((i+1)); echo line $i; sleep 0.01; done; exit 23";

/// An installed contd that runs one container, which must notice nothing.
struct Site {
    scratch: tempfile::TempDir,
    pid: serde_json::Value,
    _lock: MutexGuard<'static, ()>,
}

impl Site {
    /// Installs, starts both units, and runs the container.
    #[track_caller]
    fn set() -> Self {
        let lock = machine();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let built = Path::new(env!("CARGO_BIN_EXE_contd")).parent().expect("a directory");
        if !Path::new("/usr/local/bin/contd").exists() {
            let mut install = Command::new(root.join("contrib/install.sh"));
            Output::of(&install.arg(built).output().expect("run the script")).ok();
            systemctl(&["daemon-reload"]);
        }
        systemctl(&["start", "contd.socket", "contd.service"]);
        Self::run(lock)
    }

    /// Runs the container by the contd that is installed.
    #[track_caller]
    fn run(lock: MutexGuard<'static, ()>) -> Self {
        let scratch = tempfile::Builder::new().prefix("contd-t-").tempdir_in("/tmp").expect("make a directory");
        let flist = Flist::busybox(scratch.path());
        let share = format!("{}:/data", scratch.path().display());
        contd(&["run", "-d", "--name", "counts", "-v", &share, flist.arg(), "/bin/sh", "-c", COUNT]);
        let pid = inspect()["pid"].clone();
        Self { scratch, pid, _lock: lock }
    }

    /// Demands that the container goes on as the process it was.
    #[track_caller]
    fn goes_on(&self) {
        let before = lines().len();
        eventually("it to go on", || (lines().len() > before + 5).then_some(()));
        assert_eq!(inspect()["pid"], self.pid);
    }

    /// Lets the container end; demands every line, its true code, and that nothing is left once the daemon is stopped.
    #[track_caller]
    fn end(self) {
        self.end_container();
        systemctl(&["stop", "contd.service", "contd.socket"]);
        nothing_is_left("/usr/local/bin/contd");
    }

    /// Lets the container end; demands every line and its true code.
    #[track_caller]
    fn end_container(&self) {
        std::fs::write(self.scratch.path().join("go"), "").expect("let it end");
        assert_eq!(contd(&["wait", "counts"]), "23");
        let said = lines();
        let numbered: Vec<String> = (1..=said.len()).map(|number| format!("line {number}")).collect();
        assert_eq!(said, numbered, "lines were lost or doubled");
        contd(&["rm", "counts"]);
    }
}

/// Takes the machine for one test.
#[track_caller]
fn machine() -> MutexGuard<'static, ()> {
    assert!(std::env::var_os("CONTD_TEST_NODE").is_some(), "this changes the machine: run it by `make vm`");
    assert!(Path::new("/run/systemd/system").exists(), "this node has no systemd");
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Demands that no process of our programs is left, no mount and no container's cgroup.
#[track_caller]
fn nothing_is_left(programs: &str) {
    eventually("all processes to be gone", || {
        let is_ours = |(_, line): &(i32, String)| line.starts_with(programs);
        (!command_lines().iter().any(is_ours)).then_some(())
    });
    assert_eq!(mounts(Path::new("/run/contd")), [].into(), "mounts are left");
    assert_eq!(mounts(Path::new("/var/lib/contd")), [].into(), "mounts are left");
    let cgroups = cgroups_below("contd");
    assert!(cgroups.iter().all(|cgroup| cgroup.ends_with("contd")), "cgroups are left: {cgroups:?}");
}

#[track_caller]
fn systemctl(args: &[&str]) -> String {
    let output = Output::of(&Command::new("systemctl").args(args).output().expect("run systemctl"));
    if output.code != 0 {
        let log = Command::new("journalctl").args(["-u", "contd.service", "-n", "50", "--no-pager"]).output();
        let log = log.map(|log| String::from_utf8_lossy(&log.stdout).into_owned());
        assert_eq!(output.code, 0, "systemctl {args:?}: {output:?}\n{log:?}");
    }
    output.stdout.trim().to_owned()
}

fn command(args: &[&str]) -> Output {
    let mut command = Command::new("contd");
    Output::of(&command.args(args).stdin(Stdio::null()).output().expect("run contd"))
}

#[track_caller]
fn contd(args: &[&str]) -> String {
    command(args).ok().to_owned()
}

/// The container, once the daemon is attached to it.
#[track_caller]
fn inspect() -> serde_json::Value {
    eventually("the daemon to be attached", || {
        let info: serde_json::Value =
            serde_json::from_str(&contd(&["inspect", "counts"])).expect("inspect prints JSON");
        (info["status"] != "recovering").then_some(info)
    })
}

/// Its whole lines so far.
fn lines() -> Vec<String> {
    said(&std::fs::read_to_string("/var/log/default/counts.log").expect("read the log"))
}

/// The daemon's pid, as systemd knows it; 0 if there is none.
#[track_caller]
fn main_pid() -> i32 {
    systemctl(&["show", "-P", "MainPID", "contd.service"]).parse().expect("a pid")
}

#[test]
fn no_container_notices_that_systemd_restarts_the_daemon() {
    let site = Site::set();
    let before = main_pid();
    systemctl(&["restart", "contd.service"]);
    assert_ne!(main_pid(), before, "it is the same process");
    site.goes_on();
    site.end();
}

#[test]
fn systemd_starts_a_daemon_that_was_killed_again() {
    let site = Site::set();
    let before = main_pid();
    systemctl(&["kill", "--kill-who=main", "--signal=KILL", "contd.service"]);
    eventually("another daemon", || {
        let pid = main_pid();
        (pid != 0 && pid != before).then_some(())
    });
    site.goes_on();
    site.end();
}

#[test]
fn a_call_starts_the_daemon_whose_socket_systemd_holds() {
    let site = Site::set();
    systemctl(&["stop", "contd.service"]);
    assert_eq!(main_pid(), 0, "it is stopped");
    // A caller waits five seconds for it; on a slow node it is not there yet.
    eventually("the daemon to answer", || command(&["ps"]).stdout.contains("counts").then_some(()));
    assert_ne!(main_pid(), 0, "nobody has started it");
    site.goes_on();
    site.end();
}
