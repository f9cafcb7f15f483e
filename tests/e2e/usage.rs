//! Usage of containers, as `stats` and `top` show it, and that looking holds nothing.

use std::path::Path;

use crate::harness::{Node, eventually};

/// Computes and writes until it is told to end.
const WORK: &str = "echo $$; while :; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo x >/tmp/x; done";

/// The lines of JSON that a command prints.
fn lines(node: &Node, args: &[&str]) -> Vec<serde_json::Value> {
    let output = node.contd(args);
    output.ok().lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn what_a_container_uses_is_shown_beside_one_that_does_nothing_and_nothing_stays_open_of_what_has_ended() {
    let node = Node::start();
    let flist = node.flist();
    let open = || std::fs::read_dir(format!("/proc/{}/fd", node.daemon_pid())).expect("it runs").count();
    for (name, words) in [("works", WORK), ("rests", "exec sleep 1000")] {
        node.contd(["run", "-d", "--name", name, "-m", "64m", flist.arg(), "/bin/sh", "-c", words]).ok();
    }
    let before = open();
    let of = |name: &str| {
        let all = lines(&node, &["stats", "--no-stream", "-i", "0.5", "--format", "json"]);
        all.into_iter().find(|line| line["name"] == name).unwrap_or_default()
    };
    // On a loaded machine it may have had no turn in half a second.
    let works = eventually("it to have used a processor", || {
        Some(of("works")).filter(|line| line["cpu_percent"].as_f64() > Some(1.0))
    });
    let rests = of("rests");
    assert!(works["cpu_seconds"].as_f64() > rests["cpu_seconds"].as_f64(), "{works} {rests}");
    for line in [&works, &rests] {
        assert_eq!((&line["memory_limit_bytes"], &line["oom_kills"]), (&(64 << 20).into(), &0.into()), "{line}");
        assert!(line["memory_bytes"].as_u64() > Some(0) && line["pids"].as_u64() >= Some(1), "{line}");
        assert_eq!((&line["network_sent_bytes"], line["block_read_bytes"].is_u64()), (&0.into(), true), "{line}");
    }
    let table = node.contd(["stats", "--no-stream", "works"]);
    assert!(table.ok().contains(" / 64.0MiB"), "{table:?}");
    node.contd(["stats", "--no-stream", "none"]).fails_with(1, "none");

    assert!(open() > before, "files of containers that are looked at stay open");
    for name in ["works", "rests"] {
        node.contd(["stop", "-t", "0", name]).ok();
    }
    eventually("them to be closed", || (open() <= before).then_some(()));
    node.contd(["stats", "--no-stream", "works"]).fails_with(1, "stopped");
    assert_eq!(lines(&node, &["stats", "--no-stream", "-i", "0.1", "--format", "json"]), [] as [serde_json::Value; 0]);
    node.contd(["rm", "works", "rests"]).ok();
    node.finish();
}

#[test]
fn processes_are_listed_with_their_ids_on_both_sides() {
    let node = Node::start();
    let flist = node.flist();
    node.contd(["run", "-d", "--name", "web", flist.arg(), "/bin/sh", "-c", "sleep 1000 & exec sleep 2000"]).ok();
    let init = node.inspect("web")["pid"].clone();
    let list = eventually("both to run", || {
        let list = lines(&node, &["top", "--format", "json", "web"]);
        let run = |seconds: &str| list.iter().any(|one| one["command"] == serde_json::json!(["sleep", seconds]));
        (run("1000") && run("2000")).then(|| list.clone())
    });
    assert_eq!(list.len(), 2, "{list:?}");
    assert_eq!((&list[0]["pid"], &list[0]["container_pid"]), (&init, &1.into()));
    assert_eq!(list[1]["parent"], init);
    // An OCI runtime used up some ids in there.
    assert!(list[1]["container_pid"].as_u64().is_some_and(|pid| (2..100).contains(&pid)), "{list:?}");
    assert!(Path::new(&format!("/proc/{}", list[1]["pid"])).exists());
    // Others of this node are not its own.
    node.contd(["run", "-d", "--name", "other", flist.arg(), "/bin/sleep", "3000"]).ok();
    assert_eq!(lines(&node, &["top", "--format", "json", "web"]).len(), 2);
    node.contd(["rm", "-f", "-t", "0", "web", "other"]).ok();
    node.finish();
}
