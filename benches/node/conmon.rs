//! Runs conmon, the monitor of podman and CRI-O, with `runc` below it, to measure its memory and its log.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::eventually;
use crate::peers::{RuncBundle, is_installed};

/// A container with its own conmon.
pub(crate) struct Conmon {
    bundle: RuncBundle,
    id: String,
    monitor: u32,
    exits: PathBuf,
}

/// Tells whether conmon is installed, and prints it if not.
pub(crate) fn is_there() -> bool {
    is_installed("conmon")
}

impl Conmon {
    /// Makes a container in `dir` without starting it, with its log in CRI form at `dir/log`.
    pub(crate) fn create(dir: &Path, config: &Value, cgroup_parent: &str) -> Self {
        let bundle = RuncBundle::new(dir, config, cgroup_parent);
        let id = dir.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let (monitor_file, exits) = (dir.join("conmon.pid"), dir.join("exits"));
        fs::create_dir_all(&exits).expect("make a directory");
        let runc = ["/usr/sbin/runc", "/usr/bin/runc"].into_iter().find(|path| Path::new(path).exists());
        let mut command = Command::new("conmon");
        command.args(["--api-version", "1", "--cid", &id, "--cuuid", &id, "--name", &id]);
        command.args(["--runtime", runc.expect("runc is installed"), "--runtime-arg", "--root"]);
        command.arg("--runtime-arg").arg(&bundle.root);
        command.arg("--bundle").arg(dir).arg("--container-pidfile").arg(dir.join("init.pid"));
        command.arg("--conmon-pidfile").arg(&monitor_file).arg("--exit-dir").arg(&exits).arg("--full-attach");
        command.arg("--log-path").arg(format!("k8s-file:{}", dir.join("log").display()));
        command.arg("--no-sync-log").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().expect("run conmon");
        assert!(status.success(), "conmon: {status}");
        let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse().ok();
        let monitor = eventually("conmon to say its pid", || number(&monitor_file));
        eventually("conmon to have made its container", || number(&dir.join("init.pid")).map(|_: u32| ()));
        Self { bundle, id, monitor, exits }
    }

    /// Starts the container.
    pub(crate) fn start(&self) {
        // runc writes the state after the pid file, and conmon waits only for that.
        let state = self.bundle.root.join(&self.id).join("state.json");
        eventually("runc to have written its state", || state.exists().then_some(()));
        self.bundle.runc(&["start", &self.id]);
    }

    /// Waits until the container has ended and conmon has reported it, which it does after its last line of log.
    pub(crate) fn wait(&self) {
        let exit = self.exits.join(&self.id);
        // Poll faster than `eventually`: the measured time ends here.
        let begin = std::time::Instant::now();
        while !exit.exists() {
            assert!(begin.elapsed() < *crate::harness::SOON, "conmon does not announce the exit");
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    }

    /// Returns the path of the log.
    pub(crate) fn log(&self) -> PathBuf {
        self.bundle.dir.join("log")
    }

    /// Returns the process id of the monitor.
    pub(crate) fn pid(&self) -> u32 {
        self.monitor
    }

    /// Ends and removes the container, and waits until its conmon is gone.
    pub(crate) fn delete(self) {
        self.bundle.delete(&self.id);
        let process = PathBuf::from(format!("/proc/{}", self.monitor));
        let is_gone = || {
            // It is not our child: as an orphan in a container without an init it may stay a zombie.
            let status = fs::read_to_string(process.join("stat")).unwrap_or_default();
            status.is_empty() || status.contains(") Z ")
        };
        eventually("conmon to end", || is_gone().then_some(()));
        fs::remove_dir_all(&self.bundle.dir).expect("remove the bundle");
    }
}
