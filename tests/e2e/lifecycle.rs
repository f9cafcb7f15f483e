//! Containers that are created and started later, policies that change, shims that are replaced.

use std::fs;

use crate::harness::{Node, assert_counted, eventually, tick};

#[test]
fn a_created_container_waits_over_the_death_of_the_daemon_and_starts_when_it_is_told() {
    let mut node = Node::start();
    let flist = node.flist();
    let id =
        node.contd(["create", "--name", "later", flist.arg(), "/bin/sh", "-c", "echo now; exit 7"]).ok().to_owned();
    assert_eq!(node.inspect("later")["status"], "created");
    assert!(!node.contd(["ps", "-q"]).ok().contains(&id[..12]), "ps shows what lives");
    assert!(node.contd(["ps", "-aq"]).ok().contains(&id[..12]));
    node.contd(["stop", "later"]).fails_with(1, "created");
    node.kill_daemon();
    node.start_daemon();
    assert_eq!(node.inspect("later")["status"], "created");
    node.contd(["start", "later"]).ok();
    assert_eq!(node.contd(["wait", "later"]).ok(), "7");
    assert!(node.log_file("default", "later").ends_with(" stdout F now\n"));
    node.contd(["rm", "later"]).ok();
    node.contd(["create", "--name", "never", flist.arg(), "/bin/true"]).ok();
    node.contd(["rm", "never"]).ok();
    node.finish();
}

#[test]
fn a_changed_policy_counts_at_the_next_end_and_a_stop_is_remembered() {
    let mut node = Node::start();
    let flist = node.flist();
    let share = format!("{}:/data", node.root.join("input").display());
    let script = "while [ ! -e /data/go ]; do sleep 0.02; done; exit 1";
    node.contd(["run", "-d", "--name", "web", "-v", &share, flist.arg(), "/bin/sh", "-c", script]).ok();
    node.contd(["update", "--restart", "unless-stopped", "web"]).ok();
    fs::write(node.root.join("input/go"), "").expect("let it end");
    eventually("it is restarted", || (node.inspect("web")["restart_count"].as_u64() > Some(0)).then_some(()));
    let nonsense = node.contd(["update", "--restart", "nonsense", "web"]);
    assert!(nonsense.code == 2 && nonsense.stderr.contains("unless-stopped"), "{nonsense:?}");
    node.contd(["stop", "-t", "0", "web"]).ok();
    let count = node.inspect("web")["restart_count"].clone();
    node.kill_daemon();
    node.start_daemon();
    assert_eq!(node.inspect("web")["status"], "stopped", "who was told to stop stays so");
    assert_eq!(node.inspect("web")["restart_count"], count);
    node.contd(["rm", "web"]).ok();
    node.finish();
}

#[test]
fn the_shims_of_all_containers_are_replaced_and_no_container_notices() {
    let node = Node::start();
    let flist = node.flist();
    let share = format!("{}:/data", node.root.join("input").display());
    let tick = tick();
    let count = format!("i=0; while [ ! -e /data/go ]; do i=$((i+1)); echo line $i; sleep {tick}; done; exit 5");
    for name in ["one", "two"] {
        node.contd(["run", "-d", "--name", name, "-v", &share, flist.arg(), "/bin/sh", "-c", &count]).ok();
    }
    let seen = |name: &str| (node.inspect(name)["pid"].clone(), node.shim_pid(name));
    let before = ["one", "two"].map(seen);
    for _ in 0..3 {
        let replaced = node.contd(["shim", "upgrade", "--all"]);
        assert_eq!(replaced.ok().lines().count(), 2, "{replaced:?}");
    }
    assert_eq!(["one", "two"].map(seen), before, "the shims are the same processes");
    let shim_log = fs::read_to_string(node.shim_dir("one").join("shim.log")).expect("a log");
    assert_eq!(shim_log.matches("handing over to").count(), 3, "{shim_log}");
    fs::write(node.root.join("input/go"), "").expect("let them end");
    for name in ["one", "two"] {
        assert_eq!(node.contd(["wait", name]).ok(), "5");
        let log = node.log_file("default", name);
        assert_counted(&crate::harness::said(&log));
        node.contd(["rm", name]).ok();
    }
    node.contd(["shim", "upgrade", "one"]).fails_with(1, "one");
    node.finish();
}
