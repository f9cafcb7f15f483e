//! Each verb does what its users expect, on one container.

use std::io::Read;
use std::process::Stdio;

use crate::harness::{Node, eventually};

#[test]
fn a_container_runs_and_its_output_and_exit_code_come_back() {
    let node = Node::start();
    let flist = node.flist();
    let output = node.contd(["run", "--rm", flist.arg(), "/bin/sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (42, "out\n", "err\n"));
    node.finish();
}

#[test]
fn a_detached_container_is_listed_inspected_logged_stopped_and_removed() {
    let node = Node::start();
    let flist = node.flist();
    let script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let id = node.contd(["run", "-d", "--name", "web", "--tag", "a", flist.arg(), "/bin/sh", "-c", script]);
    let id = id.ok().to_owned();
    assert_eq!(id.len(), 32, "{id}");

    eventually("the first line", || node.contd(["logs", "web"]).stdout.contains("ready").then_some(()));
    let line: serde_json::Value = serde_json::from_str(node.contd(["ps", "--format", "json"]).ok()).expect("one line");
    assert_eq!((line["name"].as_str(), line["id"].as_str()), (Some("web"), Some(id.as_str())));
    for reference in ["web", &id, &id[..6]] {
        let info = node.inspect(reference);
        assert_eq!(info["id"].as_str(), Some(id.as_str()));
        assert_eq!(info["status"], "running");
        assert_eq!(info["tags"][0], "a");
        let pid = info["pid"].as_i64().expect("a pid");
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    node.contd(["stop", "-t", "10", "web"]).ok();
    let info = node.inspect("web");
    assert_eq!((info["status"].as_str(), info["exit_code"].as_i64()), (Some("stopped"), Some(3)));
    assert!(node.log_file("default", "web").contains(" stdout F bye\n"));
    assert_eq!(node.contd(["wait", "web"]).ok(), "3");
    node.contd(["rm", "web"]).ok();
    node.contd(["inspect", "web"]).fails_with(1, "web");
    node.finish();
}

#[test]
fn the_log_has_the_cri_form_and_tail_and_follow_read_it() {
    let node = Node::start();
    let flist = node.flist();
    let script = "for n in 1 2 3 4 5; do echo line $n; done; echo oops >&2; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo last";
    node.contd([
        "run",
        "-d",
        "--name",
        "l",
        "-v",
        &format!("{}:/tmp", node.root.join("input").display()),
        flist.arg(),
        "/bin/sh",
        "-c",
        script,
    ])
    .ok();
    eventually("the sixth line", || (node.log_file("default", "l").lines().count() == 6).then_some(()));
    for line in node.log_file("default", "l").lines() {
        let parts: Vec<&str> = line.splitn(4, ' ').collect();
        assert!(humantime::parse_rfc3339(parts[0]).is_ok(), "{line}");
        assert_eq!(parts[2], "F", "{line}");
        assert_eq!(parts[1], if parts[3] == "oops" { "stderr" } else { "stdout" }, "{line}");
    }
    assert_eq!(node.contd(["logs", "--tail", "2", "l"]).stdout, "line 5\n");
    assert_eq!(node.contd(["logs", "--tail", "2", "l"]).stderr, "oops\n");

    let follow = node.command().args(["logs", "-f", "l"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let follow = follow.expect("start logs -f");
    std::fs::write(node.root.join("input/go"), "").expect("let it end");
    let output = follow.wait_with_output().expect("logs -f ends with the container");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("line 5\nlast\n"));
    node.contd(["rm", "l"]).ok();
    node.finish();
}

#[test]
fn a_container_that_ignores_its_stop_signal_is_killed_after_the_time_out() {
    let node = Node::start();
    let flist = node.flist();
    node.contd([
        "run",
        "-d",
        "--name",
        "deaf",
        flist.arg(),
        "/bin/sh",
        "-c",
        "trap '' TERM; while :; do sleep 0.1; done",
    ])
    .ok();
    node.contd(["stop", "-t", "1", "deaf"]).ok();
    assert_eq!(node.inspect("deaf")["exit_code"], 137);
    node.contd(["rm", "deaf"]).ok();
    node.finish();
}

#[test]
fn a_running_container_is_removed_only_by_force() {
    let node = Node::start();
    let flist = node.flist();
    node.contd(["run", "-d", "--name", "busy", flist.arg(), "/bin/sleep", "1000"]).ok();
    node.contd(["rm", "busy"]).fails_with(1, "running");
    assert_eq!(node.inspect("busy")["status"], "running");
    node.contd(["rm", "-f", "-t", "0", "busy"]).ok();
    node.finish();
}

#[test]
fn kill_sends_the_named_signal() {
    let node = Node::start();
    let flist = node.flist();
    let script = "trap 'echo usr1; exit 7' USR1; echo ready; while :; do sleep 0.05; done";
    node.contd(["run", "-d", "--name", "k", flist.arg(), "/bin/sh", "-c", script]).ok();
    eventually("ready", || node.log_file("default", "k").contains("ready").then_some(()));
    node.contd(["kill", "-s", "USR1", "k"]).ok();
    assert_eq!(node.contd(["wait", "k"]).ok(), "7");
    node.contd(["rm", "k"]).ok();
    node.finish();
}

#[test]
fn a_stopped_container_starts_again_with_its_files_and_its_log() {
    let node = Node::start();
    let flist = node.flist();
    let script = "echo run >> /data/count; cat /data/count | wc -l";
    assert_eq!(node.contd(["run", "--name", "again", flist.arg(), "/bin/sh", "-c", script]).ok().trim(), "1");
    node.contd(["start", "again"]).ok();
    assert_eq!(node.contd(["wait", "again"]).ok(), "0");
    let log = node.contd(["logs", "again"]);
    let counts: Vec<&str> = log.ok().lines().map(str::trim).collect();
    assert_eq!(counts, ["1", "2"]);
    node.contd(["rm", "again"]).ok();
    node.finish();
}

#[test]
fn a_failing_container_is_restarted_by_its_policy_and_counted() {
    let node = Node::start();
    let flist = node.flist();
    let run =
        ["run", "-d", "--name", "crash", "--restart", "on-failure:2", flist.arg(), "/bin/sh", "-c", "echo try; exit 5"];
    node.contd(run).ok();
    eventually("two restarts and the end", || {
        let info = node.inspect("crash");
        (info["status"] == "stopped" && info["restart_count"] == 2).then_some(())
    });
    assert_eq!(node.inspect("crash")["exit_code"], 5);
    assert_eq!(node.contd(["logs", "crash"]).ok(), "try\ntry\ntry");
    node.contd(["rm", "crash"]).ok();
    node.finish();
}

#[test]
fn an_auto_removed_container_is_gone_after_its_end_and_its_output_was_seen() {
    let node = Node::start();
    let flist = node.flist();
    for _ in 0..3 {
        assert_eq!(node.contd(["run", "--rm", "--name", "once", flist.arg(), "/bin/echo", "hello"]).ok(), "hello");
        eventually("its removal", || (node.contd(["inspect", "once"]).code == 1).then_some(()));
    }
    node.contd(["run", "-d", "--rm", "--name", "once", flist.arg(), "/bin/true"]).ok();
    eventually("its removal", || (node.contd(["inspect", "once"]).code == 1).then_some(()));
    node.finish();
}

#[test]
fn a_dry_run_prints_the_configuration_and_leaves_nothing() {
    let node = Node::start();
    let flist = node.flist();
    let output = node.contd(["run", "--dry-run", "--name", "plan", "-u", "app", "-m", "64m", flist.arg(), "/bin/id"]);
    let config: serde_json::Value = serde_json::from_str(output.ok()).expect("a config.json");
    assert_eq!(config["process"]["args"][0], "/bin/id");
    assert_eq!(config["process"]["user"]["uid"], 1000);
    assert_eq!(config["linux"]["resources"]["memory"]["limit"], 64 * 1024 * 1024);
    assert_eq!(node.contd(["ps", "-a", "-q"]).ok(), "");
    node.finish();
}

#[test]
fn a_signal_to_an_attached_run_reaches_the_container() {
    let node = Node::start();
    let flist = node.flist();
    let script = "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let run = node
        .command()
        .args(["run", "--rm", "--name", "fg", flist.arg(), "/bin/sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut run = run.expect("start run");
    // By its own words: until it has shown output it may still give the run up.
    let mut said = [0; 6];
    run.stdout.as_mut().expect("piped").read_exact(&mut said).expect("its first line");
    assert_eq!(&said, b"ready\n");
    let pid = nix::unistd::Pid::from_raw(run.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signal the command");
    let output = run.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(9));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "got it\n");
    eventually("its removal", || (node.contd(["inspect", "fg"]).code == 1).then_some(()));
    node.finish();
}

#[test]
fn a_plain_directory_is_a_root_too() {
    let node = Node::start();
    let tree = node.root.join("input/plain");
    crate::harness::busybox_tree(&tree);
    let arg = format!("dir:{}", tree.display());
    assert_eq!(node.contd(["run", "--rm", &arg, "/bin/sh", "-c", "echo x > /data/new; cat /data/new"]).ok(), "x");
    assert!(!tree.join("data/new").exists(), "the container wrote into the caller's directory");
    node.finish();
}

#[test]
fn version_and_namespaces_speak_json() {
    let node = Node::start();
    let flist = node.flist();
    let version: serde_json::Value =
        serde_json::from_str(node.contd(["version", "--format", "json"]).ok()).expect("JSON");
    assert_eq!(version["daemon"]["pid"].as_u64(), Some(u64::from(node.daemon_pid())), "{version}");
    node.contd(["-n", "namespace", "run", "-d", "--name", "a", flist.arg(), "/bin/sleep", "1000"]).ok();
    let line: serde_json::Value =
        serde_json::from_str(node.contd(["namespaces", "--format", "json"]).ok()).expect("JSON");
    assert_eq!((line["namespace"].as_str(), line["containers"].as_u64()), (Some("namespace"), Some(1)), "{line}");
    node.contd(["-n", "namespace", "rm", "-f", "-t", "0", "a"]).ok();
    node.finish();
}
