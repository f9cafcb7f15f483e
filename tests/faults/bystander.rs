//! The container beside it all: it must keep its process and its output, whatever is done to the others.

use std::fs;

use crate::harness::{Flist, Node, eventually};
use crate::script::{self, BEAT};

const NAME: &str = "stays";

/// One that counts for ever.
pub(crate) struct Bystander {
    /// Pid and start time of its init.
    identity: (i64, String),
    /// Its shim, which no fault is meant for.
    pub(crate) shim: i32,
}

impl Bystander {
    pub(crate) fn run(node: &Node, flist: &Flist) -> Self {
        node.contd(["run", "-d", "--name", NAME, flist.arg(), "/bin/sh", "-c", BEAT]).ok();
        Self { identity: identity(node, NAME), shim: node.shim_pid(NAME) }
    }

    /// Demands an unbroken sequence, and returns how far it is.
    #[track_caller]
    pub(crate) fn beats(node: &Node) -> usize {
        let path = node.root.join("log/default").join(format!("{NAME}.log"));
        let lines = script::read_log(&path).expect("the bystander's log");
        script::check_beats(&lines, "beat").expect("the bystander's output")
    }

    /// Demands that it has not noticed, and removes it.
    #[track_caller]
    pub(crate) fn check_and_remove(self, node: &Node) {
        node.wait_for_status(NAME, "running");
        assert_eq!(identity(node, NAME), self.identity, "the bystander is another process");
        let beats = Self::beats(node);
        eventually("the bystander to go on", || (Self::beats(node) > beats).then_some(()));
        node.contd(["rm", "-f", "-t", "0", NAME]).ok();
    }
}

/// Returns the pid of a container and when its init was started.
fn identity(node: &Node, name: &str) -> (i64, String) {
    let pid = node.inspect(name)["pid"].as_i64().expect("it runs");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("its init lives");
    let ticks = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)).expect("a start time");
    (pid, ticks.to_owned())
}
