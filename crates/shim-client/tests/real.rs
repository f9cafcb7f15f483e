//! The promises of [`ShimClient`], kept by real `contd-shim` processes with `runc` and a busybox container. Needs root.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use contd_lease::{LeaseDir, LeaseState, ProcessIdentity};
use contd_protocol::shim::{RuntimeSpec, TASK_SPEC_VERSION, TaskSpec};
use contd_shim_client::{ProcessShimClient, ShimClient, ShimClientConfig, ShimError};
use contd_types::{ContainerId, ErrorKind, ExitCause, Explain, NamespaceId, Pid, Signal};
use serde_json::json;

fn runc() -> PathBuf {
    let path = std::env::var_os("PATH").expect("PATH");
    std::env::split_paths(&path).map(|dir| dir.join("runc")).find(|file| file.exists()).expect("runc is installed")
}

struct RealNode {
    dir: tempfile::TempDir,
    client: ProcessShimClient,
    /// Makes ids and the cgroup unlike those of every other test.
    salt: u8,
}

impl RealNode {
    fn new(salt: u8) -> Self {
        let dir = tempfile::tempdir().expect("scratch");
        let config =
            ShimClientConfig { shim_binary: contd_test_harness::built("contd-shim"), run_dir: dir.path().join("run") };
        let node = Self { dir, client: ProcessShimClient::new(config), salt };
        let rootfs = node.bundle().join("rootfs");
        for name in ["bin", "proc", "tmp"] {
            std::fs::create_dir_all(rootfs.join(name)).expect("mkdir");
        }
        std::fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("busybox-static is installed");
        for name in ["sh", "sleep", "echo"] {
            symlink("busybox", rootfs.join("bin").join(name)).expect("symlink");
        }
        node.set_entrypoint(&["/bin/sleep", "1000"]);
        node
    }

    fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    fn cgroup(&self) -> String {
        format!("contd-t-shimclient-{}-{}", std::process::id(), self.salt)
    }

    fn set_entrypoint(&self, args: &[&str]) {
        let namespaces: Vec<_> =
            ["pid", "mount", "ipc", "uts", "network"].iter().map(|kind| json!({ "type": kind })).collect();
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "args": args, "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
                "noNewPrivileges": true,
            },
            "root": { "path": "rootfs", "readonly": true },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
            "linux": { "namespaces": namespaces, "cgroupsPath": format!("/{}/c", self.cgroup()) },
        });
        std::fs::write(self.bundle().join("config.json"), config.to_string()).expect("write");
    }

    fn shim(&self, id: &ContainerId) -> Option<contd_lease::Lease> {
        match LeaseDir::new(self.client.dir_of(id)).probe().expect("probe") {
            LeaseState::Held(lease) => Some(lease),
            _ => None,
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log/c.log")).unwrap_or_default()
    }
}

impl Drop for RealNode {
    /// Ends what a failed test left, and takes its cgroup away.
    fn drop(&mut self) {
        for number in 0..10 {
            let id = self.task(number).id;
            if let Some(pidfd) = self.shim(&id).and_then(|lease| lease.pidfd().expect("pidfd")) {
                contd_lease::signal(&pidfd, 9).expect("signal");
                contd_lease::wait_dead(&pidfd, Duration::from_secs(300)).expect("wait");
            }
            if self.dir.path().join("runc").join(id.as_str()).exists() {
                let root = self.dir.path().join("runc");
                let delete = Command::new(runc()).arg("--root").arg(root).args(["delete", "-f", id.as_str()]).status();
                assert!(delete.expect("runc").success());
            }
        }
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
            // Only the parent is ours to remove, and only when it is empty.
            let _absent = std::fs::remove_dir(hierarchy.path().join(self.cgroup()));
        }
        let _absent = std::fs::remove_dir(Path::new("/sys/fs/cgroup").join(self.cgroup()));
    }
}

use crate::common::contract::Node;

impl Node for RealNode {
    fn client(&self) -> &dyn ShimClient {
        &self.client
    }

    fn task(&self, number: u8) -> TaskSpec {
        let pid = std::process::id().to_le_bytes();
        let mut bits = [number; 16];
        bits[..4].copy_from_slice(&pid);
        bits[4] = self.salt;
        let log_dir = self.dir.path().join("log");
        std::fs::create_dir_all(&log_dir).expect("mkdir");
        TaskSpec {
            version: TASK_SPEC_VERSION,
            namespace: NamespaceId::new("t").expect("valid"),
            id: ContainerId::from_random(bits),
            bundle: self.bundle(),
            runtime: RuntimeSpec::Oci { binary: runc(), root: self.dir.path().join("runc") },
            log_path: log_dir.join("c.log"),
            log_max_bytes: 1 << 20,
            log_max_files: 2,
            log_notes: None,
            log_start: None,
            drain_timeout: Duration::from_secs(2),
            runtime_timeout: Duration::from_secs(120),
            input: contd_protocol::shim::TaskInput::default(),
        }
    }

    fn lose_shim(&self, id: &ContainerId) {
        let pidfd = self.shim(id).expect("a living shim").pidfd().expect("pidfd").expect("alive");
        assert!(contd_lease::signal(&pidfd, 9).expect("signal"));
        assert!(contd_lease::wait_dead(&pidfd, Duration::from_secs(300)).expect("wait"));
    }

    fn is_init_alive(&self, _id: &ContainerId, pid: Pid) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.0)).unwrap_or_default();
        // A zombie is no longer alive: nobody of ours is its parent.
        stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.starts_with(" Z"))
    }

    fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for dir in [self.dir.path().join("run/s"), self.dir.path().join("runc")] {
            let entries =
                std::fs::read_dir(&dir).map(|entries| entries.flatten().collect()).unwrap_or_else(|_| Vec::new());
            left.extend(entries.iter().map(|entry| entry.path().display().to_string()));
        }
        let cgroups = std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten();
        let own = cgroups.map(|hierarchy| hierarchy.path().join(self.cgroup()).join("c")).filter(|path| path.exists());
        left.extend(own.map(|path| path.display().to_string()));
        left
    }
}

macro_rules! on_the_real_thing {
    ($($salt:literal $promise:ident),+ $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            crate::common::contract::$promise(&RealNode::new($salt)).await;
        })+
    };
}

on_the_real_thing!(
    1 a_life_from_spawn_to_shutdown_where_each_step_may_be_repeated,
    2 a_second_spawn_connects_to_the_living_shim,
    3 a_living_shim_is_attached_to_before_and_after_the_end,
    4 a_lost_shim_gets_a_successor_and_its_container_does_not_notice,
    11 a_shim_that_is_replaced_or_ended_for_its_silence_costs_its_container_nothing,
    5 no_shim_is_started_beside_an_orphan,
    10 an_exit_is_known_after_the_shim_has_gone_too,
);

#[tokio::test]
async fn a_program_ends_with_its_code_and_its_output_is_in_the_log() {
    let node = RealNode::new(6);
    node.set_entrypoint(&["/bin/sh", "-c", "echo hello from within; echo trouble >&2; exit 42"]);
    let shim = node.client.spawn(node.task(1)).await.expect("spawn");
    shim.create().await.expect("create");
    shim.start().await.expect("start");
    let exit = tokio::time::timeout(Duration::from_secs(300), shim.wait()).await.expect("in time").expect("exit");
    assert_eq!(exit.cause, ExitCause::Code(42));
    let log = node.log();
    assert!(log.contains(" stdout F hello from within\n") && log.contains(" stderr F trouble\n"), "{log:?}");
    shim.delete(false).await.expect("delete");
    shim.shutdown().await.expect("shutdown");
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn an_entrypoint_that_does_not_exist_is_refused_by_its_kind_and_leaves_nothing() {
    let node = RealNode::new(7);
    node.set_entrypoint(&["/bin/nothing-like-that"]);
    let shim = node.client.spawn(node.task(1)).await.expect("spawn");
    // runc finds out while it makes the container or while it starts it.
    let refused = match shim.create().await {
        Ok(_pid) => shim.start().await.expect_err("no such entrypoint"),
        Err(error) => error,
    };
    assert!(matches!(refused, ShimError::Refused { .. }), "{refused:?}");
    assert_eq!(refused.kind(), ErrorKind::EntrypointNotFound, "{refused:?}");
    shim.delete(true).await.expect("delete");
    shim.shutdown().await.expect("shutdown");
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_spawns_at_once_for_one_container_start_one_shim() {
    let node = RealNode::new(8);
    // Each lets go of its connection before the next one has its own: the shim serves few at once.
    let spawns = (0..10).map(|_| {
        let (client, task) = (node.client.clone(), node.task(1));
        tokio::spawn(async move { client.spawn(task).await.map(drop) })
    });
    for spawn in spawns.collect::<Vec<_>>() {
        spawn.await.expect("no panic").expect("spawn");
    }
    let shim = node.client.spawn(node.task(1)).await.expect("the same again");
    let lease = node.shim(&node.task(1).id).expect("one shim lives");
    let pid = lease.process.expect("claimed").pid;
    assert!(ProcessIdentity::of(pid).expect("look up").is_some());
    assert_eq!(node.client.list().await.expect("list").len(), 1);
    shim.shutdown().await.expect("shutdown");
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_shim_that_stands_still_is_silent_and_goes_on_when_it_wakes() {
    let node = RealNode::new(9);
    let shim = node.client.spawn(node.task(1)).await.expect("spawn");
    let id = node.task(1).id;
    let pidfd = node.shim(&id).expect("alive").pidfd().expect("pidfd").expect("alive");
    let number = |name: &str| name.parse::<Signal>().expect("signal").number();
    contd_lease::signal(&pidfd, number("STOP")).expect("stop");
    let silent = shim.state().await;
    assert!(matches!(silent, Err(ShimError::Silent { .. })), "{silent:?}");
    let attached = node.client.attach(&node.task(1).namespace, &id).await;
    assert!(matches!(attached, Err(ShimError::Silent { .. })), "{attached:?}");
    contd_lease::signal(&pidfd, number("CONT")).expect("continue");
    shim.state().await.expect("state");
    shim.shutdown().await.expect("shutdown");
    assert_eq!(node.leftovers(), Vec::<String>::new());
}
