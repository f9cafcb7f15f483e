//! The peers: `runc` on exactly the bundle that contd would make, and containerd with the same configuration.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A bundle with the configuration of contd's own dry run, on a plain busybox tree, and the OCI runtime that runs it.
pub(crate) struct RuncBundle {
    pub(crate) program: &'static str,
    pub(crate) dir: PathBuf,
    pub(crate) root: PathBuf,
}

impl RuncBundle {
    /// Writes the bundle into `dir`; only its cgroup differs from `config`.
    pub(crate) fn new(dir: &Path, config: &Value, cgroup_parent: &str) -> Self {
        Self::of("runc", dir, config, cgroup_parent)
    }

    /// The same for another OCI runtime.
    pub(crate) fn of(program: &'static str, dir: &Path, config: &Value, cgroup_parent: &str) -> Self {
        fs::create_dir_all(dir).expect("make a bundle");
        let mut config = config.clone();
        let name = dir.file_name().and_then(|name| name.to_str()).expect("a name");
        config["linux"]["cgroupsPath"] = format!("/{cgroup_parent}/{name}").into();
        fs::write(dir.join("config.json"), config.to_string()).expect("write the configuration");
        Self { program, dir: dir.to_owned(), root: dir.join("state") }
    }

    /// Runs the runtime with arguments.
    pub(crate) fn runc(&self, args: &[&str]) {
        // Use no pipes: the container of `create` would inherit them, and reading them to their end would wait for its
        // end.
        let mut command = Command::new(self.program);
        command.arg("--root").arg(&self.root).args(args);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let status = status.expect("run the runtime");
        assert!(status.success(), "{} {args:?}: {status}", self.program);
    }

    /// Runs the bundle from process start to removal.
    pub(crate) fn run(&self, id: &str) {
        self.runc(&["run", "--bundle", self.dir.to_str().expect("utf-8"), id]);
    }

    /// Makes and starts a container, as a daemon would; returns the time of that, then removes it.
    pub(crate) fn create_and_start(&self, id: &str) -> Duration {
        let begin = Instant::now();
        self.runc(&["create", "--bundle", self.dir.to_str().expect("utf-8"), id]);
        self.runc(&["start", id]);
        let took = begin.elapsed();
        self.delete(id);
        took
    }

    /// Ends and removes a container.
    pub(crate) fn delete(&self, id: &str) {
        self.runc(&["delete", "--force", id]);
    }
}

/// Tells whether a program is installed, and prints it if not.
pub(crate) fn is_installed(name: &str) -> bool {
    let is_there = Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there {
        println!("{name} is not installed: no comparison with it (apt-get install {name})");
    }
    is_there
}

/// Our own containerd, with directories of its own; `None` when it is not installed.
pub(crate) struct Containerd {
    child: Child,
    address: PathBuf,
    dir: PathBuf,
    cgroup_parent: String,
}

impl Containerd {
    /// Starts containerd below `dir`.
    pub(crate) fn start(dir: &Path, cgroup_parent: &str) -> Option<Self> {
        if !is_installed("containerd") {
            return None;
        }
        fs::create_dir_all(dir).expect("make a directory");
        let (config, address) = (dir.join("config.toml"), dir.join("c.sock"));
        let text = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{1}\"\n",
            dir.display(),
            address.display()
        );
        fs::write(&config, text).expect("write the configuration");
        let log = File::create(dir.join("log")).expect("make a log");
        let child = Command::new("containerd").arg("--config").arg(&config).stdout(Stdio::null()).stderr(log).spawn();
        let child = child.expect("start containerd");
        let containerd = Self { child, address, dir: dir.to_owned(), cgroup_parent: cgroup_parent.to_owned() };
        let begin = Instant::now();
        while !containerd.ctr(&["version"]).status.success() {
            assert!(begin.elapsed() < Duration::from_secs(20), "containerd does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(containerd)
    }

    fn ctr(&self, args: &[&str]) -> std::process::Output {
        Command::new("ctr")
            .arg("--address")
            .arg(&self.address)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("run ctr")
    }

    #[track_caller]
    fn must(&self, args: &[&str]) {
        let output = self.ctr(args);
        assert!(output.status.success(), "ctr {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Writes the configuration of one container, with a cgroup of its own.
    fn config(&self, config: &Value, id: &str) -> PathBuf {
        let mut config = config.clone();
        config["linux"]["cgroupsPath"] = format!("/{}/{id}", self.cgroup_parent).into();
        let path = self.dir.join(format!("{id}.json"));
        fs::write(&path, config.to_string()).expect("write the configuration");
        path
    }

    /// Calls for the version: the cost of starting `ctr` and of one call.
    pub(crate) fn version(&self) {
        self.must(&["version"]);
    }

    /// Runs a configuration from start to removal.
    pub(crate) fn run(&self, config: &Value, id: &str) {
        let config = self.config(config, id);
        self.must(&["run", "--rm", "--null-io", "--config", config.to_str().expect("utf-8"), id]);
    }

    /// Runs a configuration until it has started; returns the time of that, then removes it.
    pub(crate) fn run_detached(&self, config: &Value, id: &str) -> Duration {
        let begin = Instant::now();
        self.start_one(config, id);
        let took = begin.elapsed();
        self.delete(id);
        took
    }

    /// Starts a container and leaves it running.
    pub(crate) fn start_one(&self, config: &Value, id: &str) {
        let config = self.config(config, id);
        self.must(&["run", "--detach", "--null-io", "--config", config.to_str().expect("utf-8"), id]);
    }

    /// Ends and removes a container.
    pub(crate) fn delete(&self, id: &str) {
        self.must(&["task", "delete", "--force", id]);
        self.must(&["container", "delete", id]);
    }

    /// Returns the process id of the daemon.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}
