//! A contd daemon whose directories are all in the run directory.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::census::mounts;
use crate::run_dir::{CGROUP_PARENT, RunDir};
use crate::tools::{binary, run};

/// The time limit for the daemon to answer, and for its processes to end.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A running daemon; the run directory ends it if it is not finished.
pub(crate) struct Daemon {
    child: Child,
    dir: PathBuf,
}

impl Daemon {
    /// Starts the daemon and waits until it answers.
    pub(crate) fn start(run_dir: &RunDir) -> Self {
        let dir = run_dir.dir("d");
        fs::write(dir.join("config.toml"), format!("cgroup_parent = \"{CGROUP_PARENT}\"\n")).expect("configure");
        let mut command = Command::new(binary("contd"));
        command.arg("daemon").arg("--config").arg(dir.join("config.toml")).arg("--address").arg(dir.join("s"));
        for name in ["state", "run", "log", "cache"] {
            command.arg(format!("--{name}-dir")).arg(dir.join(name));
        }
        let log = File::create(dir.join("daemon.log")).expect("make a log");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("start the daemon");
        let daemon = Self { child, dir };
        daemon.until("the daemon to answer", || {
            daemon.command().arg("version").output().is_ok_and(|o| o.status.success())
        });
        daemon
    }

    /// Returns a command for this daemon, without arguments.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(binary("contd"));
        command.arg("--address").arg(self.dir.join("s")).stdin(Stdio::null());
        command
    }

    /// Runs a command, which must succeed.
    pub(crate) fn contd(&self, args: &[&str]) {
        run(self.command().args(args));
    }

    /// Returns the directory of its block cache.
    pub(crate) fn blocks(&self) -> PathBuf {
        self.dir.join("cache/blocks")
    }

    /// Waits until no flist is mounted any more.
    pub(crate) fn wait_for_rest(&self) {
        self.until("the flist to be unmounted", || mounts(&self.dir.join("run/f")).is_empty());
    }

    /// Ends the daemon.
    pub(crate) fn finish(mut self) {
        self.wait_for_rest();
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).expect("signal the daemon");
        let status = self.child.wait().expect("reap the daemon");
        assert!(status.success(), "the daemon ended with {status}: {}", self.log());
    }

    fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < TIMEOUT, "waited in vain for {what}: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("daemon.log")).unwrap_or_default()
    }
}
