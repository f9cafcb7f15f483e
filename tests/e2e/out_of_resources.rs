//! A node that has run out of something: what is new is refused with the path or the limit, what runs goes on, what would
//! free it works, and once there is room all is well again, without a restart.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::machine::make_pids_cgroup;
use crate::harness::{Flist, Node, assert_counted, eventually};

/// The code of an engine error on `run`.
const ENGINE: i32 = 125;
/// Says a number every few milliseconds.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.005; done";
/// The messages of the daemon and its programs about a full file system.
const ANNOUNCED: [&str; 9] = [
    "No space left on device",
    "run rolled back",
    "exit not written down",
    "left at deletion",
    "not removed yet",
    "warm shim not usable",
    "shim that did not come up",
    "record not written",
    "warm shim",
];

/// Fills a file system, its inodes included, with files that can be removed again.
struct Filler(PathBuf);

impl Filler {
    fn fill(dir: &Path) -> Self {
        let place = dir.join("filler");
        fs::create_dir(&place).expect("make the filler");
        let filler = Self(place);
        filler.top_up();
        filler
    }

    /// Takes what has become free.
    fn top_up(&self) {
        let mut file =
            OpenOptions::new().create(true).append(true).open(self.0.join("bytes")).expect("open the filler");
        for size in [65536, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        for number in 0.. {
            match OpenOptions::new().create_new(true).write(true).open(self.0.join(number.to_string())) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(_full) => return,
            }
        }
    }

    fn clear(self) {
        fs::remove_dir_all(self.0).expect("remove the filler");
    }
}

struct Stage {
    node: Node,
    flist: String,
    pid: serde_json::Value,
}

impl Stage {
    fn set(mut node: Node) -> Self {
        ANNOUNCED.into_iter().for_each(|text| node.announce(text));
        let flist = node.flist().arg().to_owned();
        node.contd(["run", "-d", "--name", "counts", &flist, "/bin/sh", "-c", COUNT]).ok();
        for name in ["stops", "goes"] {
            node.contd(["run", "-d", "--name", name, &flist, "/bin/sleep", "1000"]).ok();
        }
        let pid = node.inspect("counts")["pid"].clone();
        // The daemon's own work takes and frees what is to run out.
        node.rest();
        Self { node, flist, pid }
    }

    fn lines(&self) -> usize {
        self.node.log_file("default", "counts").lines().count()
    }

    fn goes_on(&self) {
        let before = self.lines();
        eventually("the bystander goes on", || (self.lines() > before + 20).then_some(()));
        assert_eq!(self.node.inspect("counts")["pid"], self.pid);
    }

    /// Demands that no line was lost or doubled, and that the node ends well.
    fn end(self) {
        self.goes_on();
        let log = self.node.log_file("default", "counts");
        assert_counted(&crate::harness::said(&log));
        self.node.contd(["rm", "-f", "-t", "0", "counts"]).ok();
        self.node.finish();
    }
}

/// Fills one directory of the node while containers run.
fn while_full(dir: &str, bytes: u64) {
    let mut stage = Stage::set(Node::with_small(dir, bytes));
    let other = Flist::another(&stage.node.root.join("input"), "other");
    let place = stage.node.root.join(dir);
    let filler = Filler::fill(&place);
    if dir == "cache" {
        // Blocks would make room for a flist; here there is nothing but what others have.
        fs::remove_dir_all(place.join("blocks")).expect("remove the blocks");
        filler.top_up();
    }
    let refused = stage.node.contd(["run", "-d", "--name", "new", other.arg(), "/bin/sleep", "1000"]);
    refused.fails_with(ENGINE, "No space left on device");
    assert!(refused.stderr.contains(&place.display().to_string()), "no path in: {}", refused.stderr);
    assert!(refused.stderr.contains("hint: free space"), "{}", refused.stderr);
    stage.node.contd(["inspect", "new"]).fails_with(1, "new");
    assert_eq!(stage.node.inspect("counts")["pid"], stage.pid);
    if !matches!(dir, "log" | "run") {
        stage.goes_on();
    }
    stage.node.contd(["stop", "-t", "0", "stops"]).ok();
    assert_eq!(stage.node.inspect("stops")["exit_code"], 137);
    stage.node.contd(["rm", "stops"]).ok();
    stage.node.contd(["rm", "-f", "-t", "0", "goes"]).ok();
    filler.top_up();
    stage.node.kill_daemon();
    stage.node.start_daemon();
    stage.node.wait_for_status("counts", "running");
    assert_eq!(stage.node.inspect("counts")["pid"], stage.pid);
    stage.node.contd(["inspect", "stops"]).fails_with(1, "stops");
    filler.clear();
    eventually("a run to succeed again", || {
        (stage.node.contd(["run", "-d", "--name", "new", other.arg(), "/bin/sleep", "1000"]).code == 0).then_some(())
    });
    stage.node.contd(["rm", "-f", "-t", "0", "new"]).ok();
    stage.end();
}

#[test]
fn a_full_state_directory() {
    while_full("state", 8 << 20);
}

#[test]
fn a_full_log_directory() {
    while_full("log", 2 << 20);
}

#[test]
fn a_full_run_directory() {
    while_full("run", 8 << 20);
}

#[test]
fn a_full_cache_directory() {
    while_full("cache", 24 << 20);
}

#[test]
fn a_full_upper_directory() {
    let node = Node::with_small("upper", 1 << 20);
    let stage = Stage::set(node);
    let place = stage.node.root.join("upper");
    let filler = Filler::fill(&place);
    let upper = place.display().to_string();
    let run = ["run", "-d", "--name", "new", "--upper", &upper, &stage.flist, "/bin/sleep", "1000"];
    let refused = stage.node.contd(run);
    refused.fails_with(ENGINE, "No space left on device");
    assert!(refused.stderr.contains("hint: free space"), "{}", refused.stderr);
    filler.clear();
    stage.node.contd(run).ok();
    for name in ["new", "stops", "goes"] {
        stage.node.contd(["rm", "-f", "-t", "0", name]).ok();
    }
    for left in ["upper", "work"] {
        let _none = fs::remove_dir_all(place.join(left));
    }
    stage.end();
}

/// Waits until the daemon holds the output of a container for whoever comes after its shim.
fn until_held(node: &Node, container: &str) {
    let dir = node.shim_dir(container);
    let open = format!("/proc/{}/fd", node.daemon_pid());
    eventually("the daemon to hold its output", || {
        let links: Vec<PathBuf> =
            fs::read_dir(&open).ok()?.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
        ["stdout", "stderr"].iter().all(|name| links.contains(&dir.join(name))).then_some(())
    });
}

/// The lowest number that no descriptor of a process has: with it as the limit, no further one can be opened until one
/// below it is closed.
fn lowest_free(pid: u32) -> u32 {
    let open: Vec<u32> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its descriptors")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    (0..).find(|number| !open.contains(number)).expect("a free number")
}

#[test]
fn descriptors() {
    // No warm slots: the daemon that is at rest opens and closes nothing by itself.
    let stage = Stage::set(Node::with_drop_in("", "[runtime]\nwarm_slots = 0\n"));
    let mut node = stage.node;
    for text in
        ["open files", "no second holder", "accepting a connection failed", "Too many open files", "os error 24"]
    {
        node.announce(text);
    }
    let pid = node.daemon_pid();
    let limit = |limit: &str| {
        let done = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--nofile={limit}")]).status();
        assert!(done.expect("prlimit").success());
    };
    let log = node.daemon_log();
    assert!(log.contains("limit of open files"), "{log}");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("its limits");
    let usual = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    let usual = format!("{}:", usual.expect("a limit"));
    for name in ["counts", "stops", "goes"] {
        until_held(&node, name);
    }
    node.rest();
    limit(&format!("{}:", lowest_free(pid)));
    let stage = Stage { node, ..stage };
    let refused = stage.node.contd(["run", "-d", "--name", "new", &stage.flist, "/bin/sleep", "1000"]);
    refused.fails_with(ENGINE, "Too many open files");
    assert!(refused.stderr.contains("hint: contd has reached its limit of open files"), "{}", refused.stderr);
    stage.goes_on();
    // Without a descriptor a removal may not come to its end; then it says so, and ends when there are some. One call after the
    // other: two connections may be one too many.
    for name in ["goes", "stops"] {
        let removed = stage.node.contd(["rm", "-f", "-t", "0", name]);
        assert!(removed.code == 0 || removed.stderr.contains("its removal goes on by itself"), "{removed:?}");
    }
    limit(&usual);
    eventually("what was removed is gone", || {
        let left = stage.node.contd(["ps", "-a", "--format", "json"]);
        (left.code == 0 && !left.stdout.contains("\"goes\"") && !left.stdout.contains("\"stops\"")).then_some(())
    });
    eventually("a run to succeed again", || {
        (stage.node.contd(["run", "-d", "--name", "new", &stage.flist, "/bin/sleep", "1000"]).code == 0).then_some(())
    });
    stage.node.contd(["rm", "-f", "-t", "0", "new"]).ok();
    stage.end();
}

#[test]
fn processes() {
    let mut stage = Stage::set(Node::start());
    for text in ["there is no thread", "get a thread", "Resource temporarily unavailable", "os error 11", "not started"]
    {
        stage.node.announce(text);
    }
    let cgroup = make_pids_cgroup(&format!("{}-daemon", stage.node.cgroup_parent));
    let pid = stage.node.daemon_pid().to_string();
    fs::write(cgroup.join("cgroup.procs"), &pid).expect("move the daemon");
    let limit = |limit: &str| fs::write(cgroup.join("pids.max"), limit).expect("limit");
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads").count().to_string();
    // Below what there is, so that no thread that ends makes room for another.
    limit("1");
    let other = Flist::another(&stage.node.root.join("input"), "other");
    let refused = stage.node.contd(["run", "-d", "--name", "new", other.arg(), "/bin/sleep", "1000"]);
    refused.fails_with(ENGINE, "hint: a limit of processes is reached");
    stage.node.contd(["inspect", "new"]).fails_with(1, "new");
    stage.goes_on();
    // One that was idle for too long may be replaced; there are never more.
    limit(&threads);
    stage.node.contd(["stop", "-t", "0", "stops"]).ok();
    limit("max");
    eventually("a run to succeed again", || {
        (stage.node.contd(["run", "-d", "--name", "new", other.arg(), "/bin/sleep", "1000"]).code == 0).then_some(())
    });
    for name in ["new", "stops", "goes"] {
        stage.node.contd(["rm", "-f", "-t", "0", name]).ok();
    }
    stage.node.stop_daemon();
    stage.node.start_daemon();
    // Warm shims were started by the daemon of before: they end with it.
    eventually("its cgroup to be empty", || fs::remove_dir(&cgroup).is_ok().then_some(()));
    stage.end();
}
