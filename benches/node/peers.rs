//! The peers: `runc` on the very bundle that contd would make, and containerd's `ctr` where it is installed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Node, busybox_tree};

/// A bundle with the configuration that contd's own plan names, on a plain busybox tree.
pub(crate) struct RuncBundle {
    dir: PathBuf,
    root: PathBuf,
}

impl RuncBundle {
    /// Takes the `config.json` from `contd run --dry-run`; only the root and the cgroup differ.
    pub(crate) fn new(node: &Node, flist: &str) -> Self {
        let dir = node.root.join("input/bundle");
        let tree = dir.join("rootfs");
        busybox_tree(&tree);
        let plan = node.contd(["run", "--dry-run", "--name", "peer", flist, "/bin/true"]);
        let mut config: serde_json::Value = serde_json::from_str(plan.ok()).expect("a config.json");
        config["root"]["path"] = tree.display().to_string().into();
        config["linux"]["cgroupsPath"] = format!("/{}/peer", node.cgroup_parent).into();
        fs::write(dir.join("config.json"), config.to_string()).expect("write the configuration");
        Self { dir, root: node.root.join("input/runc") }
    }

    fn runc(&self, args: &[&str]) {
        // No pipes: the container of `create` would inherit them, and reading them to their end would wait for its end.
        let mut command = Command::new("runc");
        command.arg("--root").arg(&self.root).args(args);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let status = status.expect("run runc");
        assert!(status.success(), "runc {args:?}: {status}");
    }

    /// Runs the bundle from process start to removal.
    pub(crate) fn run(&self, id: &str) {
        self.runc(&["run", "--bundle", self.dir.to_str().expect("utf-8"), id]);
    }

    /// Makes and starts it, as a daemon would; returns how long that took, then removes it.
    pub(crate) fn create_and_start(&self, id: &str) -> Duration {
        let begin = Instant::now();
        self.runc(&["create", "--bundle", self.dir.to_str().expect("utf-8"), id]);
        self.runc(&["start", id]);
        let took = begin.elapsed();
        self.runc(&["delete", "--force", id]);
        took
    }
}

/// A containerd of our own, with directories of its own; `None` when it is not installed.
pub(crate) struct Containerd {
    child: Child,
    address: PathBuf,
    rootfs: PathBuf,
}

impl Containerd {
    /// Starts it below `dir`.
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        let is_there = |name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
        if !is_there("containerd") || !is_there("ctr") {
            println!("containerd is not installed: no comparison with it (apt-get install containerd)");
            return None;
        }
        fs::create_dir_all(dir).expect("make a directory");
        let rootfs = dir.join("rootfs");
        busybox_tree(&rootfs);
        let (config, address) = (dir.join("config.toml"), dir.join("c.sock"));
        let text = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{1}\"\n",
            dir.display(),
            address.display()
        );
        fs::write(&config, text).expect("write the configuration");
        let log = File::create(dir.join("log")).expect("make a log");
        let child = Command::new("containerd").arg("--config").arg(&config).stdout(Stdio::null()).stderr(log).spawn();
        let containerd = Self { child: child.expect("start containerd"), address, rootfs };
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

    /// Runs `/bin/true` on a plain root from start to removal.
    pub(crate) fn run(&self, id: &str) {
        let rootfs = self.rootfs.to_str().expect("utf-8");
        let output = self.ctr(&["run", "--rm", "--null-io", "--rootfs", rootfs, id, "/bin/true"]);
        assert!(output.status.success(), "ctr run: {}", String::from_utf8_lossy(&output.stderr));
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
