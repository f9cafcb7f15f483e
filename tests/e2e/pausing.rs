//! Pause, unpause and restart, as seen from the container.

use crate::harness::{Flist, Node, eventually, said};

/// Numbers lines until it is told to end.
const COUNT: &str = "i=0; trap 'echo bye; exit 7' TERM; while :; do i=$((i+1)); echo line $i; sleep 0.05; done";

/// A container that counts, and one that must not notice.
struct Stage {
    node: Node,
    _flist: Flist,
    bystander: serde_json::Value,
}

impl Stage {
    fn set() -> Self {
        let node = Node::start();
        let flist = node.flist();
        for name in ["web", "stays"] {
            node.contd(["run", "-d", "--name", name, flist.arg(), "/bin/sh", "-c", COUNT]).ok();
        }
        let bystander = node.inspect("stays")["pid"].clone();
        Self { node, _flist: flist, bystander }
    }

    fn end(self) {
        assert_eq!(self.node.inspect("stays")["pid"], self.bystander);
        self.node.contd(["rm", "-f", "-t", "0", "web", "stays"]).ok();
        self.node.finish();
    }

    fn lines(&self, name: &str) -> usize {
        said(&self.node.log_file("default", name)).len()
    }

    #[track_caller]
    fn goes_on(&self, name: &str) {
        let before = self.lines(name);
        eventually("it to go on", || (self.lines(name) > before + 3).then_some(()));
    }

    /// It says nothing more, while the other one says much.
    #[track_caller]
    fn stands_still(&self) {
        // A line that was on its way is there when the other one has said the next few.
        self.goes_on("stays");
        let before = self.lines("web");
        self.goes_on("stays");
        self.goes_on("stays");
        assert_eq!(self.lines("web"), before);
    }
}

#[test]
fn a_paused_container_stands_still_whoever_dies_and_goes_on_when_it_is_told_to() {
    let mut stage = Stage::set();
    stage.goes_on("web");
    assert_eq!(stage.node.contd(["pause", "web"]).ok(), "web");
    stage.node.contd(["pause", "web"]).ok();
    assert_eq!(stage.node.inspect("web")["status"], "paused");
    stage.stands_still();
    stage.node.contd(["exec", "web", "true"]).fails_with(125, "paused");

    stage.node.announce("shim dead, successor started");
    let shim = stage.node.shim_pid("web");
    stage.node.kill_daemon();
    stage.node.signal(shim, nix::sys::signal::Signal::SIGKILL);
    stage.node.start_daemon();
    eventually("it to be found paused", || (stage.node.inspect("web")["status"] == "paused").then_some(()));
    stage.stands_still();

    stage.node.contd(["unpause", "web"]).ok();
    stage.node.contd(["unpause", "web"]).ok();
    stage.goes_on("web");
    stage.end();
}

#[test]
fn a_paused_container_hears_its_stop_signal() {
    let stage = Stage::set();
    stage.node.contd(["pause", "web"]).ok();
    stage.node.contd(["stop", "-t", "300", "web"]).ok();
    assert_eq!(stage.node.inspect("web")["exit_code"], 7);
    stage.node.contd(["pause", "web"]).fails_with(1, "stopped");
    stage.end();
}

#[test]
fn a_restart_ends_and_starts_and_the_log_has_both_runs() {
    let stage = Stage::set();
    stage.goes_on("web");
    let before = stage.node.inspect("web");
    assert_eq!(stage.node.contd(["restart", "-t", "300", "web"]).ok(), "web");
    let after = stage.node.inspect("web");
    assert_eq!((&after["status"], &after["restart_count"]), (&"running".into(), &0.into()));
    assert_eq!((&after["id"], &after["last_exit"]["code"]), (&before["id"], &7.into()));
    assert_ne!(after["pid"], before["pid"]);
    stage.goes_on("web");
    let lines = said(&stage.node.log_file("default", "web"));
    let runs = lines.split(|line| line == "bye").map(|run| run.first().map(String::as_str));
    assert_eq!(runs.collect::<Vec<_>>(), [Some("line 1"), Some("line 1")]);
    // One that has ended is started.
    stage.node.contd(["stop", "-t", "300", "web"]).ok();
    stage.node.contd(["restart", "web"]).ok();
    assert_eq!(stage.node.inspect("web")["status"], "running");
    stage.end();
}
