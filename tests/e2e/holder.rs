//! The holder of the shims: it learns the exit of a container whose shim and daemon are dead, and its own death costs nothing.

use std::fs;
use std::path::Path;

use crate::harness::{Flist, Node, eventually};

/// Counts until it is told to end, and then ends with 23.
const COUNT: &str = "i=0; while [ ! -e /in/go ]; do i=$((i+1)); echo line $i; sleep 0.02; done; exit 23";

struct Stage {
    node: Node,
    flist: Flist,
    counter: serde_json::Value,
    bystander: serde_json::Value,
}

impl Stage {
    fn set() -> Self {
        let mut node = Node::start();
        ["shim dead", "shim lost"].into_iter().for_each(|text| node.announce(text));
        let flist = node.flist();
        let share = format!("{}:/in", node.root.join("input").display());
        node.contd(["run", "-d", "--name", "counts", "-v", &share, flist.arg(), "/bin/sh", "-c", COUNT]).ok();
        node.contd(["run", "-d", "--name", "stays", flist.arg(), "/bin/sleep", "1000"]).ok();
        let (counter, bystander) = (node.inspect("counts")["pid"].clone(), node.inspect("stays")["pid"].clone());
        Self { node, flist, counter, bystander }
    }

    fn let_end(&self) {
        fs::write(self.node.root.join("input/go"), "").expect("let it end");
        let init = format!("/proc/{}", self.counter);
        eventually("its end", || (!Path::new(&init).exists()).then_some(()));
    }

    /// The bystander has not noticed, and the counter has ended with its own code.
    #[track_caller]
    fn end(self) {
        self.node.wait_for_status("counts", "stopped");
        let info = self.node.inspect("counts");
        assert_eq!((info["exit_code"].as_i64(), &info["exit"]["known_by"]), (Some(23), &"reaped".into()), "{info}");
        assert_eq!(self.node.inspect("stays")["pid"], self.bystander);
        self.node.contd(["rm", "-f", "-t", "0", "counts", "stays"]).ok();
        self.node.finish();
    }

    fn holder(&self) -> i32 {
        self.node.holder().expect("a holder lives")
    }
}

#[test]
fn an_end_while_shim_and_daemon_are_dead_is_known_to_the_holder() {
    let mut stage = Stage::set();
    let (shim, holder) = (stage.node.shim_pid("counts"), stage.holder());
    stage.node.kill_daemon();
    stage.node.kill(shim);
    stage.let_end();
    stage.node.start_daemon();
    assert_eq!(stage.holder(), holder, "it has outlived the daemon");
    stage.end();
}

#[test]
fn an_end_after_the_death_of_the_shim_is_known_to_the_holder() {
    let stage = Stage::set();
    stage.node.kill(stage.node.shim_pid("counts"));
    eventually("a successor", || stage.node.daemon_log().contains("successor started").then_some(()));
    stage.let_end();
    stage.end();
}

#[test]
fn the_death_of_the_holder_costs_nothing_and_another_one_starts_the_next_shims() {
    let stage = Stage::set();
    let first = stage.holder();
    stage.node.kill(first);
    let run = ["run", "-d", "--name", "new", stage.flist.arg(), "/bin/sleep", "1000"];
    stage.node.contd(run).ok();
    let second = eventually("another holder", || stage.node.holder());
    assert_ne!(first, second);
    stage.node.contd(["rm", "-f", "-t", "0", "new"]).ok();
    stage.let_end();
    stage.end();
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
