//! The death of a shim, alone or with the daemon; its container and the bystander do not notice.

use std::fs;
use std::path::Path;

use crate::harness::{Node, assert_counted, eventually, tick};

/// Numbers lines until it may end, then ends with code 23; TICK stands for a pause.
const COUNT: &str =
    "i=0; while [ ! -e /data/go ]; do i=$((i+1)); echo line $i; sleep TICK; done; echo last $i; exit 23";

/// The daemon's messages when a shim is lost.
const LOST: [&str; 2] = ["shim lost", "shim dead, successor started"];

struct Stage {
    node: Node,
    pid: serde_json::Value,
    bystander: serde_json::Value,
}

impl Stage {
    fn set() -> Self {
        let mut node = Node::start();
        LOST.into_iter().for_each(|text| node.announce(text));
        let flist = node.flist();
        let share = format!("{}:/data", node.root.join("input").display());
        let count = COUNT.replace("TICK", tick());
        node.contd(["run", "-d", "--name", "counts", "-v", &share, flist.arg(), "/bin/sh", "-c", &count]).ok();
        node.contd(["run", "-d", "--name", "stays", flist.arg(), "/bin/sleep", "1000"]).ok();
        let (pid, bystander) = (node.inspect("counts")["pid"].clone(), node.inspect("stays")["pid"].clone());
        Self { node, pid, bystander }
    }

    fn lines(&self) -> usize {
        self.node.log_file("default", "counts").lines().count()
    }

    /// Waits until the container has gone on for a while after a fault.
    fn goes_on(&self) {
        let before = self.lines();
        eventually("it goes on", || (self.lines() > before + 20).then_some(()));
        assert_eq!(self.node.inspect("counts")["pid"], self.pid);
    }

    /// Lets it end, and demands every line and the true code.
    fn end(self) {
        let Self { node, bystander, .. } = self;
        fs::write(node.root.join("input/go"), "").expect("let it end");
        let code = node.contd(["wait", "counts"]);
        assert_eq!(code.ok(), "23");
        let log = node.log_file("default", "counts");
        let said = crate::harness::said(&log);
        let (last, lines) = said.split_last().expect("it has said something");
        assert_counted(lines);
        assert_eq!(*last, format!("last {}", lines.len()));
        assert_eq!(node.inspect("stays")["pid"], bystander);
        node.contd(["rm", "counts"]).ok();
        node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
        node.finish();
    }
}

#[test]
fn a_container_outlives_its_shim_again_and_again() {
    let stage = Stage::set();
    for _ in 0..5 {
        let shim = stage.node.shim_pid("counts");
        stage.node.kill(shim);
        stage.goes_on();
        assert_ne!(stage.node.shim_pid("counts"), shim, "who killed nobody has proven nothing");
    }
    stage.end();
}

#[test]
fn a_container_outlives_its_shim_and_the_daemon_together() {
    for is_shim_first in [true, false] {
        let mut stage = Stage::set();
        let shim = stage.node.shim_pid("counts");
        if is_shim_first {
            stage.node.kill(shim);
            stage.node.kill_daemon();
        } else {
            stage.node.kill_daemon();
            stage.node.kill(shim);
        }
        stage.node.start_daemon();
        stage.goes_on();
        stage.end();
    }
}

#[test]
fn an_end_between_the_death_of_the_shim_and_its_successor_is_known_with_all_that_was_said() {
    let mut stage = Stage::set();
    // The successor cannot be started for a while.
    let dir = stage.node.shim_dir("counts");
    stage.node.announce("shim not attached yet");
    let shim = stage.node.shim_pid("counts");
    let task = fs::read(dir.join("task.json")).expect("a task");
    fs::write(dir.join("task.json"), "{}").expect("spoil the task");
    stage.node.announce("file of a shim is not readable");
    stage.node.kill(shim);
    let init = stage.pid.as_i64().expect("pid");
    fs::write(stage.node.root.join("input/go"), "").expect("let it end");
    eventually("its end", || (!Path::new(&format!("/proc/{init}")).exists()).then_some(()));
    eventually("a first successor to fail", || stage.node.daemon_log().contains("shim not attached yet").then_some(()));
    fs::write(dir.join("task.json"), task).expect("restore the task");
    stage.end();
}

#[test]
fn a_shim_that_stands_still_does_not_keep_its_container_from_being_stopped() {
    let mut stage = Stage::set();
    stage.node.announce("signal not sent");
    stage.node.announce("silent shim replaced");
    let shim = stage.node.shim_pid("stays");
    stage.node.signal(shim, nix::sys::signal::Signal::SIGSTOP);
    stage.node.contd(["stop", "-t", "0", "stays"]).ok();
    assert_eq!(stage.node.inspect("stays")["exit_code"], 137);
    stage.node.contd(["start", "stays"]).ok();
    stage.bystander = stage.node.inspect("stays")["pid"].clone();
    stage.goes_on();
    stage.end();
}
