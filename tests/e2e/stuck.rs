//! Obstacles that do not go when they are told to: a process in the kernel, a frozen cgroup, a flist server that
//! stands still. Each is answered in time, with a bystander that does not notice, and goes once it can.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::harness::census::cgroups_below;
use crate::harness::dead_fuse::DeadFuse;
use crate::harness::machine::has_unified_cgroups;
use crate::harness::servers::FlistServer;
use crate::harness::{Node, SOON, eventually};

/// A node with a bystander.
struct Stage {
    node: Node,
    flist: String,
    bystander: serde_json::Value,
}

impl Stage {
    fn set() -> Self {
        let mut node = Node::start();
        for text in ["left at deletion", "not removed yet", "does not end after SIGKILL", "signal not sent"] {
            node.announce(text);
        }
        let flist = node.flist().arg().to_owned();
        node.contd(["run", "-d", "--name", "stays", &flist, "/bin/sleep", "1000"]).ok();
        let bystander = node.inspect("stays")["pid"].clone();
        Self { node, flist, bystander }
    }

    /// Removes by force, demands an answer in time that says `why`, and a name that is free.
    #[track_caller]
    fn lingers(&self, name: &str, why: &str) -> String {
        let id = self.node.inspect(name)["id"].as_str().expect("an id").to_owned();
        let begun = Instant::now();
        let removal = self.node.while_it_waits(&["rm", "-f", "-t", "0", name], || {
            assert_eq!(self.node.inspect("stays")["pid"], self.bystander);
        });
        removal.fails_with(1, why);
        assert!(begun.elapsed() < *SOON, "it took {:?}", begun.elapsed());
        let info = self.node.inspect(&id);
        assert_eq!(info["status"], "deleting");
        assert!(info["lingering"].as_str().is_some_and(|reason| reason.contains(why)), "{info}");
        let table = self.node.contd(["ps", "-a", "--no-trunc"]);
        let line = table.ok().lines().find(|line| line.contains(&id)).expect("it is listed").to_owned();
        assert!(line.contains("Deleting (") && line.contains(why), "{line}");
        id
    }

    /// Runs and removes another of the name, and demands that its log is its own.
    fn name_is_free(&self, name: &str) {
        self.node.contd(["run", "-d", "--name", name, &self.flist, "/bin/sh", "-c", "echo mine; sleep 1000"]).ok();
        eventually("its line", || self.node.contd(["logs", name]).stdout.contains("mine").then_some(()));
        assert_eq!(self.node.contd(["logs", name]).ok(), "mine");
    }

    fn is_gone(&self, id: &str) {
        eventually("it is gone", || (self.node.contd(["inspect", id]).code == 1).then_some(()));
    }

    fn end(self, also: &[&str]) {
        assert_eq!(self.node.inspect("stays")["pid"], self.bystander);
        for name in also.iter().chain(&["stays"]) {
            self.node.contd(["rm", "-f", "-t", "0", name]).ok();
        }
        self.node.finish();
    }
}

#[test]
fn a_process_that_waits_in_the_kernel_is_named_and_goes_when_it_can() {
    let stage = Stage::set();
    let point = PathBuf::from(format!("{}/input/dead", stage.node.root.display()));
    let dead = DeadFuse::mount(&point);
    let share = format!("{}:/data", point.display());
    let script = "cat /data/file; sleep 1000";
    stage.node.contd(["run", "-d", "--name", "hangs", "-v", &share, &stage.flist, "/bin/sh", "-c", script]).ok();
    dead.until_asked();
    let stopped = stage.node.contd(["stop", "-t", "0", "hangs"]);
    stopped.fails_with(1, "in D state");
    assert_eq!(stage.node.inspect("hangs")["status"], "stopping");
    let id = stage.lingers("hangs", "in D state");
    stage.name_is_free("hangs");
    dead.end();
    stage.is_gone(&id);
    assert_eq!(stage.node.contd(["logs", "hangs"]).ok(), "mine");
    stage.end(&["hangs"]);
}

#[test]
fn a_frozen_process_lingers_until_it_is_thawed_and_our_own_freezer_is_no_obstacle() {
    let stage = Stage::set();
    let run = |name: &str| {
        stage.node.contd(["run", "-d", "--name", name, &stage.flist, "/bin/sleep", "1000"]).ok();
        let info = stage.node.inspect(name);
        (info["id"].as_str().expect("id").to_owned(), info["pid"].as_i64().expect("pid"))
    };
    let top = Path::new("/sys/fs/cgroup");
    if has_unified_cgroups() {
        // On v2 SIGKILL reaches what is frozen, by whomever.
        let (id, _pid) = run("frozen");
        fs::write(top.join(&stage.node.cgroup_parent).join(id).join("cgroup.freeze"), "1").expect("freeze");
        stage.node.contd(["rm", "-f", "-t", "0", "frozen"]).ok();
        return stage.end(&[]);
    }
    let freezer = top.join("freezer").join(&stage.node.cgroup_parent);
    // Somebody else has frozen the container's own cgroup: a kill thaws it.
    let (id, _pid) = run("frozen");
    fs::write(freezer.join(&id).join("freezer.state"), "FROZEN").expect("freeze");
    stage.node.contd(["rm", "-f", "-t", "0", "frozen"]).ok();
    // One below it is nobody's that we know.
    let (id, pid) = run("frozen");
    let inner = freezer.join(&id).join("inner");
    fs::create_dir(&inner).expect("make a cgroup");
    fs::write(inner.join("cgroup.procs"), pid.to_string()).expect("move the process");
    fs::write(inner.join("freezer.state"), "FROZEN").expect("freeze");
    eventually("it is frozen", || {
        fs::read_to_string(inner.join("freezer.state")).is_ok_and(|state| state.trim() == "FROZEN").then_some(())
    });
    assert_eq!(stage.lingers("frozen", "1 process does not end"), id);
    stage.name_is_free("frozen");
    fs::write(inner.join("freezer.state"), "THAWED").expect("thaw");
    stage.is_gone(&id);
    let left: Vec<PathBuf> =
        cgroups_below(&stage.node.cgroup_parent).into_iter().filter(|path| path.ends_with(&id)).collect();
    assert_eq!(left, Vec::<PathBuf>::new());
    stage.end(&["frozen"]);
}

#[test]
fn a_flist_server_that_stands_still_delays_nobody_else_and_goes_with_its_last_container() {
    let mut stage = Stage::set();
    stage.node.announce("run rolled back");
    let tree = stage.node.root.join("input/other");
    crate::harness::busybox_tree(&tree);
    fs::write(tree.join("etc/large"), vec![b'x'; 4 << 20]).expect("write");
    let other = stage.node.root.join("input/other.fl");
    let store = format!("dir://{}", stage.node.root.join("input/store").display());
    let packed = std::process::Command::new(env!("CARGO_BIN_EXE_contd"))
        .args(["flist", "pack"])
        .args([&tree, &other])
        .args(["--store", &store])
        .output()
        .expect("pack");
    assert!(packed.status.success(), "{packed:?}");
    let other = other.to_str().expect("utf-8");
    let script = "echo go; while [ ! -e /tmp/x ]; do sleep 0.05; done; cat /etc/large > /dev/null; sleep 1000";
    let share = format!("{}:/tmp", stage.node.root.join("input").display());
    let before = servers(&stage.node);
    stage.node.contd(["run", "-d", "--name", "reads", "-v", &share, other, "/bin/sh", "-c", script]).ok();
    eventually("it runs", || stage.node.contd(["logs", "reads"]).stdout.contains("go").then_some(()));
    let new: Vec<i32> = servers(&stage.node).difference(&before).copied().collect();
    // The server and its keeper, which would replace a server that alone stands still.
    assert_eq!(new.len(), 2, "{new:?}");
    for pid in new {
        stage.node.signal(pid, Signal::SIGSTOP);
    }
    fs::write(stage.node.root.join("input/x"), "").expect("let it read");
    // Another one of this flist is refused in time, and one of another flist runs meanwhile.
    let begun = Instant::now();
    let late = stage.node.while_it_waits(&["run", "-d", "--name", "late", other, "/bin/true"], || {
        stage.node.contd(["run", "--rm", &stage.flist, "/bin/true"]).ok();
    });
    late.fails_with(125, "did not answer within");
    assert!(begun.elapsed() < *SOON, "it took {:?}", begun.elapsed());
    let removed = stage.node.contd(["rm", "-f", "-t", "0", "reads"]);
    if removed.code != 0 {
        removed.fails_with(1, "its removal goes on by itself");
    }
    eventually("the last of it", || (stage.node.contd(["ps", "-aq"]).ok().lines().count() == 1).then_some(()));
    fs::remove_file(stage.node.root.join("input/x")).expect("remove");
    stage.end(&[]);
}

/// Returns the processes that serve flists, and their keepers.
fn servers(node: &Node) -> BTreeSet<i32> {
    FlistServer::all(node).into_iter().flat_map(|server| [server.keeper, server.serving]).collect()
}
