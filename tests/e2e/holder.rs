//! The holder of the shims: it learns the exit of a container whose shim and daemon are dead, and its own death costs nothing.

use std::path::Path;

use crate::harness::{Node, eventually};
use crate::takeover::Stage;

/// From Linux 6.15 on the kernel tells it as well, and may be faster than the holder.
const ANY: [&str; 2] = ["reaped", "pidfd"];

fn set() -> Stage {
    let mut stage = Stage::set(Node::start());
    ["shim dead", "shim lost"].into_iter().for_each(|text| stage.node.announce(text));
    stage
}

/// The bystander has not noticed, and the counter has ended with its own code, which one of these has told.
#[track_caller]
fn end(stage: Stage, known_by: &[&str]) {
    let Stage { node, bystander, .. } = stage;
    node.wait_for_status("counts", "stopped");
    let info = node.inspect("counts");
    assert_eq!(info["exit_code"].as_i64(), Some(23), "{info}");
    assert!(info["exit"]["known_by"].as_str().is_some_and(|told| known_by.contains(&told)), "{info}");
    assert_eq!(node.inspect("stays")["pid"], bystander);
    node.contd(["rm", "-f", "-t", "0", "counts", "stays"]).ok();
    node.finish();
}

#[test]
fn an_end_while_shim_and_daemon_are_dead_is_known_to_the_holder() {
    let mut stage = set();
    let holder = stage.node.holder().expect("a holder lives");
    stage.end_unseen();
    stage.node.start_daemon();
    assert_eq!(stage.node.holder(), Some(holder), "it has outlived the daemon");
    end(stage, &["reaped"]);
}

#[test]
fn an_end_after_the_death_of_the_shim_is_known_to_the_holder() {
    let stage = set();
    stage.node.kill(stage.node.shim_pid("counts"));
    eventually("a successor", || stage.node.daemon_log().contains("successor started").then_some(()));
    stage.let_end_and_wait();
    end(stage, &ANY);
}

#[test]
fn the_death_of_the_holder_costs_nothing_and_another_one_starts_the_next_shims() {
    let stage = set();
    let first = stage.node.holder().expect("a holder lives");
    stage.node.kill(first);
    let run = ["run", "-d", "--name", "new", stage.flist.arg(), "/bin/sleep", "1000"];
    stage.node.contd(run).ok();
    // The first one's pid is in its lease, and its name in /proc, until init has reaped it.
    eventually("another holder", || stage.node.holder().filter(|holder| *holder != first));
    stage.node.contd(["rm", "-f", "-t", "0", "new"]).ok();
    stage.let_end_and_wait();
    end(stage, &ANY);
}

#[test]
fn a_holder_that_stands_still_is_replaced_by_the_next_start() {
    let mut stage = set();
    stage.node.announce("the holder of shims stands still, it is replaced");
    for restarts in [false, true] {
        let first = stage.node.holder().expect("a holder lives");
        stage.node.signal(first, nix::sys::signal::Signal::SIGSTOP);
        if restarts {
            stage.node.kill_daemon();
            stage.node.start_daemon();
        }
        stage.node.contd(["run", "--rm", stage.flist.arg(), "/bin/true"]).ok();
        eventually("another holder", || stage.node.holder().filter(|holder| *holder != first));
        eventually("the first to be gone", || (!Path::new(&format!("/proc/{first}")).exists()).then_some(()));
    }
    stage.let_end_and_wait();
    end(stage, &ANY);
}

#[test]
fn a_holder_of_another_version_becomes_ours_in_its_own_process() {
    const VERSION: [&str; 2] = ["contd-shim/", "contd-shim/0.0.0-"];
    let mut stage = set();
    let holder = stage.node.holder().expect("a holder lives");
    let lease = stage.node.root.join("run/h/lease.json");
    let text = || std::fs::read_to_string(&lease).expect("read its lease");
    stage.node.kill_daemon();
    std::fs::write(&lease, text().replace(VERSION[0], VERSION[1])).expect("write its lease");
    assert!(text().contains(VERSION[1]));
    stage.node.start_daemon();
    eventually("its upgrade", || (!text().contains(VERSION[1])).then_some(()));
    eventually("the daemon to know", || stage.node.daemon_log().contains("holder of shims upgraded").then_some(()));
    // It is still the parent of what a dead shim leaves.
    stage.end_unseen();
    stage.node.start_daemon();
    assert_eq!(stage.node.holder(), Some(holder), "it is the same process");
    end(stage, &["reaped"]);
}

#[test]
fn a_holder_without_daemon_and_shims_ends_and_leaves_nothing() {
    let mut node = Node::start();
    node.rest();
    let holder = node.holder().expect("a holder lives");
    node.stop_daemon();
    eventually("its end", || (!Path::new(&format!("/proc/{holder}")).exists()).then_some(()));
    eventually("its directory to be gone", || (!node.root.join("run/h").exists()).then_some(()));
    node.start_daemon();
    node.finish();
}
