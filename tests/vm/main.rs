//! contd installed on a machine, as its users have it: started by systemd, by zinit, and as a Debian package.
//!
//! It changes the machine, so it is run in the nodes of `make vm` only.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests: a broken assumption shall end the test, loudly, and real processes live in real time"
)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use contd_test_harness::census::{cgroups_below, command_lines, mounts};
use contd_test_harness::node::Output;
use contd_test_harness::{Flist, assert_counted, eventually, said};

mod package;
mod systemd;
mod zinit;

/// Where `contrib/install.sh` puts the program.
const INSTALLED: &str = "/usr/local/bin/contd";

/// One machine, one contd.
static MACHINE: Mutex<()> = Mutex::new(());

/// Numbers lines until it may end, then ends with code 23.
const COUNT: &str = "i=0; while [ ! -e /data/go ]; do i=$((i+1)); echo line $i; sleep 0.01; done; exit 23";

/// A container of the contd that is installed, which must notice nothing.
struct Site {
    scratch: tempfile::TempDir,
    flist: Flist,
    pid: serde_json::Value,
    _lock: MutexGuard<'static, ()>,
}

impl Site {
    /// Runs the container by the contd that is installed.
    #[track_caller]
    fn run(lock: MutexGuard<'static, ()>) -> Self {
        let scratch = tempfile::Builder::new().prefix("contd-t-").tempdir_in("/tmp").expect("make a directory");
        let flist = Flist::busybox(scratch.path());
        let share = format!("{}:/data", scratch.path().display());
        contd(&["run", "-d", "--name", "counts", "-v", &share, flist.arg(), "/bin/sh", "-c", COUNT]);
        let pid = inspect("counts")["pid"].clone();
        Self { scratch, flist, pid, _lock: lock }
    }

    /// Demands that the container goes on as the process it was.
    #[track_caller]
    fn goes_on(&self) {
        let before = lines().len();
        eventually("it to go on", || (lines().len() > before + 5).then_some(()));
        assert_eq!(inspect("counts")["pid"], self.pid);
    }

    /// Lets the container end; demands every line and its true code.
    #[track_caller]
    fn end_container(&self) {
        std::fs::write(self.scratch.path().join("go"), "").expect("let it end");
        assert_eq!(contd(&["wait", "counts"]), "23");
        assert_counted(&lines());
        contd(&["rm", "counts"]);
    }
}

/// Takes the machine for one test.
#[track_caller]
fn machine() -> MutexGuard<'static, ()> {
    assert!(std::env::var_os("CONTD_TEST_NODE").is_some(), "this changes the machine: run it by `make vm`");
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Installs the programs that are tested as `make install` does, unless they are.
#[track_caller]
fn install() {
    let built = Path::new(env!("CARGO_BIN_EXE_contd")).parent().expect("a directory");
    if !Path::new(INSTALLED).exists() {
        let mut install = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/install.sh"));
        Output::of(&install.arg(built).output().expect("run the script")).ok();
    }
}

/// Demands that no process of the programs that begin so is left, no mount below `dirs`, and no cgroup at the top.
#[track_caller]
fn nothing_is_left(programs: &str, dirs: &[&str]) {
    eventually("all processes to be gone", || {
        let is_ours = |(_, line): &(i32, String)| line.starts_with(programs);
        (!command_lines().iter().any(is_ours)).then_some(())
    });
    for dir in dirs {
        assert_eq!(mounts(Path::new(dir)), [].into(), "mounts are left");
    }
    assert_eq!(cgroups_below("contd"), [].into(), "cgroups at the top");
}

#[track_caller]
fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("kill it");
}

fn command(args: &[&str]) -> Output {
    let mut command = Command::new("contd");
    Output::of(&command.args(args).stdin(Stdio::null()).output().expect("run contd"))
}

#[track_caller]
fn contd(args: &[&str]) -> String {
    command(args).ok().to_owned()
}

/// A container, once the daemon is attached to it.
#[track_caller]
fn inspect(name: &str) -> serde_json::Value {
    eventually("the daemon to be attached", || {
        let info: serde_json::Value = serde_json::from_str(&contd(&["inspect", name])).expect("inspect prints JSON");
        (info["status"] != "recovering").then_some(info)
    })
}

/// Its whole lines so far.
fn lines() -> Vec<String> {
    said(&std::fs::read_to_string("/var/log/default/counts.log").expect("read the log"))
}
