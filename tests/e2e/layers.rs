//! Where the writable layer lies, what it costs, and what is kept of it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Node, eventually};

const MIB: u64 = 1 << 20;

/// Runs of a container that fills its layer, each of which used to leave what it had written in memory. The back-off between
/// them doubles.
const RUNS: u64 = 4;

/// Where the memory of all the node's containers is told: the cgroup above theirs, which comes with the first one or a warm slot.
fn memory_file(node: &Node) -> PathBuf {
    let v1 = Path::new("/sys/fs/cgroup/memory");
    if v1.exists() {
        v1.join(&node.cgroup_parent).join("memory.usage_in_bytes")
    } else {
        Path::new("/sys/fs/cgroup").join(&node.cgroup_parent).join("memory.current")
    }
}

/// The memory that the node's containers take.
fn memory_of(node: &Node) -> u64 {
    let text = fs::read_to_string(memory_file(node)).expect("a memory controller");
    text.trim().parse().expect("a number")
}

#[test]
fn a_layer_in_memory_never_outlives_the_run_that_pays_for_it() {
    let node = Node::start();
    let flist = node.flist();
    let share = format!("{}:/data", node.root.join("input").display());
    let script = format!(
        "[ ! -e /big ] || echo kept >> /data/kept; dd if=/dev/zero of=/big bs=64k count=768 2>/dev/null; \
         echo run >> /data/runs; [ $(cat /data/runs | grep -c run) -lt {RUNS} ]"
    );
    let before = if memory_file(&node).exists() { memory_of(&node) } else { 0 };
    let run =
        ["run", "-d", "--name", "fills", "-m", "64m", "--layer", "memory", "--restart", "on-failure", "-v", &share];
    // It ends with 1 until it has filled its layer often enough: 48 MiB each time.
    let script = format!("{script} && exit 1; exit 0");
    node.contd(run.into_iter().chain([flist.arg(), "/bin/sh", "-c", &script])).ok();
    eventually("its last run", || {
        let runs = fs::read_to_string(node.root.join("input/runs")).unwrap_or_default().lines().count();
        let taken = memory_of(&node).saturating_sub(before);
        assert!(taken < 96 * MIB, "{} MiB after {runs} runs with a limit of 64", taken / MIB);
        (node.inspect("fills")["status"] == "stopped").then_some(())
    });
    assert!(!node.root.join("input/kept").exists(), "a run found what the one before had written");
    // Nor does the stopped one keep any.
    let dir = node.root.join("state/default").join(node.inspect("fills")["id"].as_str().expect("an id"));
    eventually("its layer is free", || (!dir.join("layer").exists()).then_some(()));
    assert_eq!(node.inspect("fills")["layer"], "memory");
    fs::remove_file(node.root.join("input/runs")).expect("remove");
    node.contd(["rm", "fills"]).ok();
    node.finish();
}

#[test]
fn a_layer_is_on_disk_and_outlives_stop_start_and_reboot() {
    let mut node = Node::start();
    let flist = node.flist();
    let script =
        "echo run >> /runs; cat /runs; dd if=/dev/zero of=/big bs=64k count=512 2>/dev/null; echo full; sleep 1000";
    node.contd(["run", "-d", "--name", "keeps", "--restart", "always", flist.arg(), "/bin/sh", "-c", script]).ok();
    let logged = |node: &Node, count: usize| {
        eventually("its words", || {
            let logs = node.contd(["logs", "keeps"]).stdout;
            (logs.lines().filter(|line| *line == "full").count() == count).then_some(logs)
        })
    };
    logged(&node, 1);
    let id = node.inspect("keeps")["id"].as_str().expect("an id").to_owned();
    let disk = node.root.join("state/default").join(&id).join("disk");
    assert!(fs::metadata(disk.join("upper/big")).expect("on disk").len() == 32 * MIB);
    node.contd(["stop", "-t", "0", "keeps"]).ok();
    node.contd(["start", "keeps"]).ok();
    assert_eq!(logged(&node, 2).lines().filter(|line| *line == "run").count(), 3);
    node.kill_daemon();
    node.simulate_reboot();
    node.start_daemon();
    node.wait_for_status("keeps", "running");
    assert_eq!(logged(&node, 3).lines().filter(|line| *line == "run").count(), 6);
    node.contd(["rm", "-f", "-t", "0", "keeps"]).ok();
    eventually("the layer is removed", || (!disk.exists()).then_some(()));
    node.finish();
}

#[test]
fn one_directory_under_two_containers_is_refused_with_the_name_of_the_other() {
    let mut node = Node::start();
    node.announce("run rolled back");
    let flist = node.flist();
    let upper = node.root.join("input/up");
    fs::create_dir_all(upper.join("inner")).expect("make");
    let up = upper.to_str().expect("UTF-8").to_owned();
    node.contd(["run", "-d", "--name", "owner", "--upper", &up, flist.arg(), "/bin/sleep", "1000"]).ok();
    for dir in [up.clone(), format!("{up}/inner"), node.root.join("input").display().to_string()] {
        let output = node.contd(["run", "-d", "--name", "late", "--upper", &dir, flist.arg(), "/bin/true"]);
        output.fails_with(125, "container owner of namespace default writes to it");
    }
    node.contd(["-n", "other", "run", "-d", "--name", "late", &format!("dir:{up}"), "/bin/true"])
        .fails_with(125, "owner");
    node.contd(["rm", "-f", "-t", "0", "owner"]).ok();
    assert_eq!(node.contd(["run", "--rm", "--upper", &up, flist.arg(), "/bin/echo", "hi"]).ok(), "hi");
    fs::remove_dir_all(&upper).expect("remove");
    node.finish();
}

#[test]
fn a_size_that_nothing_can_enforce_is_refused_with_the_remedy() {
    let mut node = Node::start();
    node.announce("run rolled back");
    let flist = node.flist();
    let is_enforced = contd_rootfs::survey::limits_layers(&node.root.join("state")).expect("asked");
    let output = node.contd(["run", "--rm", "--rootfs-size", "8m", flist.arg(), "/bin/echo", "hi"]);
    if is_enforced {
        assert_eq!(output.ok(), "hi");
    } else {
        output.fails_with(125, "--layer memory");
    }
    assert_eq!(node.contd(["run", "--rm", flist.arg(), "/bin/echo", "hi"]).ok(), "hi", "a default breaks no node");
    node.finish();
}
