//! Runs a bundle by both launchers, in directories and cgroups of its own.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use crate::bundle::Case;
use contd_test_harness::built;

/// The outcome of a container.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The container ran, and the probe has reported.
    Ran { code: i32, report: String },
    /// The container was refused.
    Refused { code: i32, words: String },
}

/// The setting: a root with the probe, and the compiler of filters.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    compiler: PathBuf,
    pub(crate) parent: String,
    number: Cell<u32>,
    mounts_before: BTreeSet<String>,
}

/// Lists the mounts of this thread's mount namespace by number and path. Copies of other processes' mounts may
/// disappear at any time: with the mount point, when that is removed.
fn mounts() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let named = table.lines().map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        format!("{} {}", fields[0], fields[4])
    });
    named.collect()
}

/// Moves this thread, and the processes that it starts, to a new mount namespace: mounts made meanwhile by other
/// processes do not count, and mounts left behind disappear with the thread.
fn leave_the_hosts_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>).unwrap();
}

impl Bench {
    pub(crate) fn prepare() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this makes containers and wants root");
        leave_the_hosts_mounts();
        let dir = tempfile::Builder::new().prefix("contd-diff-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let probe = dir.path().join("probe");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/differential/probe.rs");
        let rustc = Command::new("rustc")
            .args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-A", "warnings", "-o"])
            .args([probe.as_os_str(), source.as_ref()])
            .status()
            .unwrap();
        assert!(rustc.success(), "compile the probe");
        let name = dir.path().file_name().unwrap().to_string_lossy();
        let parent = format!("{name}-{}", std::process::id());
        let compiler = built("contd-seccomp");
        Self { dir, compiler, parent, number: Cell::new(0), mounts_before: mounts() }
    }

    /// Makes a fresh bundle, so that both get the same, untouched.
    pub(crate) fn bundle(&self, case: &Case) -> (PathBuf, String) {
        let number = self.number.get();
        self.number.set(number + 1);
        let bundle = self.dir.path().join("bundle");
        let _absent = fs::remove_dir_all(&bundle);
        let root = bundle.join("root");
        for sub in ["bin", "etc", "tmp", "work", "data/sub", "private"] {
            fs::create_dir_all(root.join(sub)).unwrap();
        }
        fs::create_dir_all(bundle.join("source/sub")).unwrap();
        fs::write(bundle.join("source/file"), "content\n").unwrap();
        for dir in ["tmp", "work", "data"] {
            fs::set_permissions(root.join(dir), fs::Permissions::from_mode(0o777)).unwrap();
        }
        fs::set_permissions(root.join("private"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::hard_link(self.dir.path().join("probe"), root.join("bin/probe")).unwrap();
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:\n").unwrap();
        fs::write(root.join("etc/hosts"), "").unwrap();
        fs::write(root.join("bin/plain"), "text").unwrap();
        std::os::unix::fs::symlink("/data", root.join("link")).unwrap();
        std::os::unix::fs::symlink("../../../../../../etc", root.join("climb")).unwrap();
        std::os::unix::fs::symlink("../../srv/later/file", root.join("dangling")).unwrap();
        std::os::unix::fs::symlink("/srv/dir", root.join("dangling.d")).unwrap();
        let mut config = case.config.clone();
        config["linux"]["cgroupsPath"] = json!(format!("/{}/c{number}", self.parent));
        let env = config["process"]["env"].as_array_mut().unwrap();
        env.push(json!(format!("HOST_NAMESPACES={}", host_namespaces())));
        fs::write(bundle.join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
        (bundle, format!("c{number}"))
    }

    pub(crate) fn runc(&self, case: &Case) -> Outcome {
        let (bundle, id) = self.bundle(case);
        let id = format!("{}-{id}", self.parent);
        let output = self.runc_command().args(["run", "--bundle"]).arg(bundle).arg(&id).output();
        let outcome = outcome(&output.unwrap());
        // Only a container that failed is still there.
        let _absent = self.runc_command().args(["delete", "--force", &id]).output();
        outcome
    }

    pub(crate) fn native(&self, case: &Case) -> Outcome {
        let (bundle, id) = self.bundle(case);
        let cgroup = format!("/{}/{id}", self.parent);
        let mut native = self.launch("run", &bundle, &cgroup);
        // Every other container starts in a warm slot: it must be the same container.
        if self.number.get().is_multiple_of(4) {
            native.arg("--warm");
        }
        outcome(&native.output().unwrap())
    }

    /// Returns a command of `contd-launch` on a bundle.
    pub(crate) fn launch(&self, verb: &str, bundle: &Path, cgroup: &str) -> Command {
        let mut native = command(env!("CARGO_BIN_EXE_contd-launch"));
        native.arg(verb).arg("--bundle").arg(bundle).arg("--cgroup").arg(cgroup);
        native.arg("--filters").arg(self.dir.path().join("filters")).arg("--compiler").arg(&self.compiler);
        native
    }

    /// Returns a command of `runc`.
    pub(crate) fn runc_command(&self) -> Command {
        let mut runc = command("runc");
        runc.arg("--root").arg(self.dir.path().join("runc"));
        runc
    }

    /// Lists everything that all runs have left, after removing the parents of the cgroups.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for entry in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let dir = entry.path().join(&self.parent);
            if dir.exists() && fs::remove_dir(&dir).is_err() {
                left.push(dir.display().to_string());
            }
        }
        left.extend(mounts().difference(&self.mounts_before).map(|mount| format!("mount {mount}")));
        left
    }
}

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    command
}

fn host_namespaces() -> String {
    let link = |name: &str| {
        let id = fs::read_link(format!("/proc/thread-self/ns/{name}")).unwrap();
        format!("{name}={}", id.display())
    };
    ["pid", "mnt", "uts", "ipc", "net", "cgroup", "user"].map(link).join(",")
}

pub(crate) fn outcome(output: &Output) -> Outcome {
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let code = output.status.code().unwrap_or(-1);
    if report.contains("status ") {
        Outcome::Ran { code, report }
    } else {
        Outcome::Refused { code, words: String::from_utf8_lossy(&output.stderr).into_owned() }
    }
}
