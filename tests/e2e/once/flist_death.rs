//! The death of a flist's server, of its keeper, or of both, under containers that read; a bystander does not notice.

use std::fs;
use std::process::{Command, Stdio};

use crate::harness::machine::has_fuse_passthrough;
use crate::harness::servers::FlistServer;
use crate::harness::{Flist, Node, busybox_tree, eventually};

/// Containers that read at once.
const READERS: usize = 8;
/// Times that the server is killed under them.
const KILLS: usize = 100;

/// Reads and checks files until it may end; says what was wrong.
const READ: &str = "n=0; while [ ! -e /data/go ]; do \
    md5sum -c /etc/sums > /tmp/said 2>&1 || { echo bad; cat /tmp/said; }; ls -lR /etc/many > /dev/null || echo bad; \
    n=$((n+1)); echo $n > /tmp/rounds; done; [ $n -gt 1 ] && echo done";

struct Stage {
    node: Node,
    flist: String,
    bystander: serde_json::Value,
}

impl Stage {
    fn set() -> Self {
        let node = Node::start();
        let quiet = node.flist();
        node.contd(["run", "-d", "--name", "stays", quiet.arg(), "/bin/sleep", "1000"]).ok();
        let tree = node.root.join("input/read");
        busybox_tree(&tree);
        fs::create_dir_all(tree.join("etc/many")).expect("make");
        let mut sums = String::new();
        for number in 0..40_usize {
            let path = format!("etc/many/file-{number}");
            // Some are larger than a block, so that they are read by parts.
            let text = format!("{number} ").repeat(if number % 10 == 0 { 400_000 } else { 500 });
            fs::write(tree.join(&path), &text).expect("write");
            sums.push_str(&format!("{}  /{path}\n", md5(&tree.join(&path))));
        }
        fs::write(tree.join("etc/sums"), sums).expect("write");
        let flist = Flist::pack_as("read", &node.root.join("input"), &tree);
        let bystander = node.inspect("stays")["pid"].clone();
        Self { flist: flist.arg().to_owned(), node, bystander }
    }

    fn run_reader(&self, name: &str) {
        let share = format!("{}:/data", self.node.root.join("input").display());
        self.node.contd(["run", "-d", "--name", name, "-v", &share, &self.flist, "/bin/sh", "-c", READ]).ok();
    }

    /// The server that is not the bystander's: the one that comes with the readers.
    fn server(&self, before: &[FlistServer]) -> FlistServer {
        let new: Vec<_> = FlistServer::all(&self.node).into_iter().filter(|server| !before.contains(server)).collect();
        let [server] = new.as_slice() else { panic!("{new:?}") };
        server.clone()
    }

    fn end(self) {
        assert_eq!(self.node.inspect("stays")["pid"], self.bystander);
        self.node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
        self.node.finish();
    }
}

fn md5(path: &std::path::Path) -> String {
    let output = Command::new("md5sum").arg(path).output().expect("md5sum");
    String::from_utf8_lossy(&output.stdout).split(' ').next().expect("a sum").to_owned()
}

/// Has the kernel ask the server again.
fn forget_what_is_cached() {
    crate::harness::machine::drop_page_cache();
}

#[test]
fn a_hundred_deaths_of_the_server_cost_eight_containers_nothing() {
    let stage = Stage::set();
    let before = FlistServer::all(&stage.node);
    let names: Vec<String> = (0..READERS).map(|number| format!("reads-{number}")).collect();
    names.iter().for_each(|name| stage.run_reader(name));
    let mut server = stage.server(&before);
    for number in 0..KILLS {
        forget_what_is_cached();
        // Now and then it is the keeper's turn, which replaces both.
        let dead = if number % 10 == 9 { server.keeper } else { server.serving };
        stage.node.kill(dead);
        server = eventually("others are there", || {
            server.now().filter(|now| now.serving != server.serving && (now.keeper != dead))
        });
    }
    fs::write(stage.node.root.join("input/go"), "").expect("let them end");
    for name in &names {
        assert_eq!(stage.node.contd(["wait", name]).ok(), "0", "{name}");
        assert_eq!(stage.node.contd(["logs", name]).ok(), "done", "{name}");
        stage.node.contd(["rm", name]).ok();
    }
    fs::remove_file(stage.node.root.join("input/go")).expect("remove");
    stage.end();
}

#[test]
fn the_servers_of_all_flists_are_replaced_and_no_container_notices() {
    let stage = Stage::set();
    stage.run_reader("reads");
    let before = FlistServer::all(&stage.node);
    assert_eq!(before.len(), 2);
    for _ in 0..3 {
        forget_what_is_cached();
        let replaced = stage.node.flist_server(&["upgrade", "--all"]);
        assert_eq!(replaced.lines().count(), 2, "{replaced}");
    }
    let listed = stage.node.flist_server(&["ls", "--json"]);
    for (server, line) in FlistServer::all(&stage.node).iter().zip(listed.lines()) {
        let view: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!((&view["state"], view["keeper_pid"].as_i64()), (&"serving".into(), Some(i64::from(server.keeper))));
        assert_eq!(view["containers"].as_array().map(Vec::len), Some(1));
        assert!(before.iter().all(|old| old.keeper != server.keeper && old.serving != server.serving));
    }
    fs::write(stage.node.root.join("input/go"), "").expect("let it end");
    assert_eq!(stage.node.contd(["wait", "reads"]).ok(), "0");
    assert_eq!(stage.node.contd(["logs", "reads"]).ok(), "done");
    stage.node.contd(["rm", "reads"]).ok();
    fs::remove_file(stage.node.root.join("input/go")).expect("remove");
    stage.end();
}

#[test]
fn when_server_and_keeper_die_together_only_their_containers_fail_and_an_event_says_why() {
    let mut stage = Stage::set();
    stage.node.announce("rootfs server lost");
    stage.node.announce("the flist server of this root died, making it anew");
    stage.node.announce("clearing away a dead flist server");
    let before = FlistServer::all(&stage.node);
    let share = format!("{}:/data", stage.node.root.join("input").display());
    let script = "while [ ! -e /data/go ]; do sleep 0.05; done; exit 7";
    stage.node.contd(["run", "-d", "--name", "loses", "-v", &share, &stage.flist, "/bin/sh", "-c", script]).ok();
    let server = stage.server(&before);
    let mut events = stage.node.command();
    let mut events = events
        .args(["events", "--format", "json", "--from", "1"])
        .stdout(fs::File::create(stage.node.root.join("input/events")).expect("create"))
        .stdin(Stdio::null())
        .spawn()
        .expect("events");
    // Stopped first, so that neither has the time to replace the other.
    for pid in [server.keeper, server.serving] {
        stage.node.signal(pid, nix::sys::signal::Signal::SIGSTOP);
    }
    for pid in [server.keeper, server.serving] {
        stage.node.kill(pid);
    }
    let lost = eventually("the event", || {
        let text = fs::read_to_string(stage.node.root.join("input/events")).ok()?;
        text.lines().find(|line| line.contains("root-lost")).map(str::to_owned)
    });
    events.kill().expect("end our events");
    events.wait().expect("reap");
    fs::remove_file(stage.node.root.join("input/events")).expect("remove");
    assert!(lost.contains("\"loses\"") && lost.contains("both killed"), "{lost}");
    // It lives, and is told nothing, as long as it reads only files that the kernel reads by itself.
    let info = stage.node.inspect("loses");
    if has_fuse_passthrough() {
        assert_eq!(info["status"], "running", "{info}");
    } else {
        assert!(info["status"] == "running" || info["exit"]["signal"] == "SIGBUS", "{info}");
    }
    // Made anew, it gets a root that works.
    stage.node.contd(["rm", "-f", "-t", "0", "loses"]).ok();
    assert_eq!(stage.node.contd(["run", "--rm", &stage.flist, "/bin/cat", "/etc/passwd"]).ok().lines().count(), 2);
    stage.end();
}
