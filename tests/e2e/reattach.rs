//! The daemon dies and comes back; its containers do not notice.

use std::fs;

use crate::harness::{Node, eventually};

#[test]
fn an_exit_while_the_daemon_was_away_is_known_with_its_true_code() {
    let mut node = Node::start();
    let flist = node.flist();
    let wait = "while [ ! -e /data/go ]; do sleep 0.05; done; echo last words; exit 23";
    let share = format!("{}:/data", node.root.join("input").display());
    node.contd(["run", "-d", "--name", "gone", "-v", &share, flist.arg(), "/bin/sh", "-c", wait]).ok();
    node.contd(["run", "-d", "--name", "stays", flist.arg(), "/bin/sleep", "1000"]).ok();
    let bystander = node.inspect("stays")["pid"].clone();
    let pid = node.inspect("gone")["pid"].as_i64().expect("pid");
    node.kill_daemon();
    fs::write(node.root.join("input/go"), "").expect("let it end");
    eventually("its end", || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    node.start_daemon();
    node.wait_for_status("gone", "stopped");
    assert_eq!(node.inspect("gone")["exit_code"], 23);
    assert!(node.log_file("default", "gone").ends_with(" stdout F last words\n"));
    assert_eq!(node.inspect("stays")["pid"], bystander);
    node.contd(["rm", "gone"]).ok();
    node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
    node.finish();
}

#[test]
fn a_daemon_that_is_killed_again_and_again_loses_nothing() {
    let mut node = Node::start();
    let flist = node.flist();
    let count = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done";
    node.contd(["run", "-d", "--name", "counter", flist.arg(), "/bin/sh", "-c", count]).ok();
    let pid = node.inspect("counter")["pid"].clone();
    for _ in 0..5 {
        node.kill_daemon();
        assert!(node.revive(), "it was dead");
    }
    node.wait_for_status("counter", "running");
    assert_eq!(node.inspect("counter")["pid"], pid);
    let log = node.contd(["logs", "counter"]);
    for (at, line) in log.ok().lines().enumerate() {
        assert_eq!(line, (at + 1).to_string());
    }
    node.contd(["rm", "-f", "-t", "0", "counter"]).ok();
    node.finish();
}

#[test]
fn half_made_containers_are_rolled_back_whenever_the_daemon_dies() {
    let mut node = Node::start();
    // A shim that was starting when the daemon died may come up while its container is rolled back: it is ended at the next try.
    ["left at deletion", "not removed yet"].into_iter().for_each(|text| node.announce(text));
    let flist = node.flist();
    node.contd(["run", "-d", "--name", "bystander", flist.arg(), "/bin/sleep", "1000"]).ok();
    let bystander = node.inspect("bystander")["pid"].clone();
    // Sweeps the moment of death over the whole of a run, from its first step to past its reply.
    for pause_ms in (0..140).step_by(10) {
        let mut run = node
            .command()
            .args(["run", "-d", "--name", "half", flist.arg(), "/bin/sleep", "1000"])
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("run");
        std::thread::sleep(std::time::Duration::from_millis(pause_ms));
        node.kill_daemon();
        let was_acknowledged = run.wait().expect("it ends").success();
        node.start_daemon();
        let settled = eventually("the container to be there or not", || {
            let output = node.contd(["inspect", "half"]);
            if output.code != 0 {
                return Some(None);
            }
            let info: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON");
            (info["status"] == "running").then_some(Some(info))
        });
        assert!(
            settled.is_some() || !was_acknowledged,
            "an acknowledged container is gone (killed after {pause_ms} ms)"
        );
        if settled.is_some() {
            node.contd(["rm", "-f", "-t", "0", "half"]).ok();
        }
    }
    assert_eq!(node.inspect("bystander")["pid"], bystander);
    node.contd(["rm", "-f", "-t", "0", "bystander"]).ok();
    node.finish();
}

#[test]
fn a_record_of_an_earlier_boot_is_handled_by_its_policy() {
    let mut node = Node::start();
    let flist = node.flist();
    node.contd(["run", "-d", "--name", "always", "--restart", "always", flist.arg(), "/bin/sleep", "1000"]).ok();
    node.contd(["run", "-d", "--name", "never", flist.arg(), "/bin/sleep", "1000"]).ok();
    node.contd(["run", "-d", "--name", "told", "--restart", "unless-stopped", flist.arg(), "/bin/sleep", "1000"]).ok();
    node.contd(["stop", "-t", "0", "told"]).ok();
    let old_pid = node.inspect("always")["pid"].as_i64().expect("pid");
    node.kill_daemon();
    node.simulate_reboot();
    node.start_daemon();
    node.wait_for_status("always", "running");
    assert_ne!(node.inspect("always")["pid"].as_i64(), Some(old_pid));
    let never = node.inspect("never");
    assert_eq!(never["status"], "stopped");
    assert_eq!((never["exit"]["reason"].as_str(), never["exit"]["code"].as_u64()), (Some("reboot"), None), "{never}");
    assert_eq!(node.inspect("told")["status"], "stopped");
    for name in ["always", "never", "told"] {
        node.contd(["rm", "-f", "-t", "0", name]).ok();
    }
    node.finish();
}

#[test]
fn an_unreadable_record_is_set_aside_and_the_others_live() {
    let mut node = Node::start();
    node.announce("record");
    let flist = node.flist();
    node.contd(["run", "--name", "broken", flist.arg(), "/bin/true"]).ok();
    node.contd(["run", "-d", "--name", "fine", flist.arg(), "/bin/sleep", "1000"]).ok();
    let id = node.inspect("broken")["id"].as_str().expect("id").to_owned();
    let pid = node.inspect("fine")["pid"].clone();
    node.kill_daemon();
    let record = node.root.join("state/default").join(&id).join("record.json");
    fs::write(&record, "{ not json").expect("damage the record");
    node.start_daemon();
    node.wait_for_status("fine", "running");
    assert_eq!(node.inspect("fine")["pid"], pid);
    node.contd(["inspect", "broken"]).fails_with(1, "broken");
    let aside = fs::read_dir(record.parent().expect("parent")).expect("its directory").flatten();
    let aside: Vec<_> = aside.filter(|entry| entry.file_name().to_string_lossy().contains("damaged")).collect();
    assert_eq!(aside.len(), 1, "the damaged record was not set aside");
    // The container's remains are spared until a person has decided; then the next start sweeps them away, but for its log.
    fs::remove_file(aside[0].path()).expect("remove what was set aside");
    fs::remove_file(node.root.join("log/default/broken.log")).expect("remove its log");
    node.kill_daemon();
    node.start_daemon();
    node.wait_for_status("fine", "running");
    assert_eq!(node.inspect("fine")["pid"], pid);
    node.contd(["rm", "-f", "-t", "0", "fine"]).ok();
    node.finish();
}
