//! Logs of removed containers: kept for a while, found by name and id, and never too many. All logs together: never too much.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use crate::harness::{Node, assert_counted, eventually};

/// The event of a container whose log lost files.
const TRIMMED: &str = "log-trimmed";

/// The files of removed containers of a node.
fn kept(node: &Node) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for namespace in fs::read_dir(node.root.join("log")).expect("read the logs").flatten() {
        for file in fs::read_dir(namespace.path().join(".removed")).into_iter().flatten().flatten() {
            found.push((file.path(), file.metadata().expect("look").len()));
        }
    }
    found.sort();
    found
}

/// Sets how they are kept from now on.
fn set_rule(node: &mut Node, rule: &str) {
    node.stop_daemon();
    fs::write(node.root.join("conf.d/logs.toml"), format!("[logs]\n{rule}\n")).expect("write the configuration");
    node.start_daemon();
}

#[test]
fn why_a_job_failed_is_read_after_it_was_removed_and_until_it_is_old() {
    let mut node = Node::start();
    let flist = node.flist();
    let job = |text: &str| format!("echo {text}; echo why >&2; exit 3");
    let failed = node.contd(["run", "--rm", "--name", "job", flist.arg(), "/bin/sh", "-c", &job("first")]);
    assert_eq!(failed.code, 3);
    eventually("it is gone", || (node.contd(["inspect", "job"]).code == 1).then_some(()));
    assert_eq!(node.contd(["logs", "job"]).ok(), "first");
    assert_eq!(node.contd(["logs", "-f", "job"]).stderr, "why\n");
    // Another one of the name: each has its own.
    node.contd(["run", "--name", "job", flist.arg(), "/bin/sh", "-c", &job("second")]);
    assert_eq!(node.contd(["logs", "job"]).ok(), "second");
    let id = node.inspect("job")["id"].as_str().expect("an id").to_owned();
    node.contd(["rm", "job"]).ok();
    assert_eq!(node.contd(["logs", &id[..8]]).ok(), "second");
    assert_eq!(node.contd(["logs", "--tail", "1", "job"]).stderr, "why\n");
    let names: Vec<_> = kept(&node).into_iter().map(|(path, _)| path).collect();
    assert!(names.contains(&node.root.join(format!("log/default/.removed/job.{}.log", &id[..12]))), "{names:?}");
    assert_eq!(names.len(), 2);
    node.contd(["-n", "other", "logs", "job"]).fails_with(1, "job");
    // One that said nothing leaves nothing, and so does one that never ran.
    node.contd(["run", "--rm", "--name", "silent", flist.arg(), "/bin/true"]).ok();
    node.announce("run rolled back");
    node.contd(["run", "--name", "absent", flist.arg(), "/no/such/program"]).fails_with(127, "/no/such/program");
    eventually("it is gone", || (node.contd(["inspect", "silent"]).code == 1).then_some(()));
    assert_eq!(kept(&node).len(), 2);

    // A restart changes nothing; age does, without any new removal.
    node.kill_daemon();
    node.start_daemon();
    assert_eq!(node.contd(["logs", "job"]).ok(), "second");
    set_rule(&mut node, "keep_removed = \"1s\"");
    eventually("the old ones to go", || kept(&node).is_empty().then_some(()));
    eventually("their directory to go", || (!node.root.join("log/default").exists()).then_some(()));
    node.contd(["logs", "job"]).fails_with(1, "job");
    node.finish();
}

#[test]
fn nothing_is_kept_when_nothing_shall_be_and_what_was_kept_goes() {
    let mut node = Node::start();
    let flist = node.flist();
    let run = |node: &Node| {
        node.contd(["run", "--rm", "--name", "x", flist.arg(), "/bin/echo", "hi"]).ok();
        eventually("it is gone", || (node.contd(["inspect", "x"]).code == 1).then_some(()));
    };
    run(&node);
    assert_eq!(kept(&node).len(), 1);
    set_rule(&mut node, "keep_removed = \"0\"");
    eventually("what was kept to go", || kept(&node).is_empty().then_some(()));
    run(&node);
    assert_eq!(kept(&node), []);
    assert!(!node.root.join("log/default").exists());
    node.finish();
}

#[test]
fn many_namespaces_have_one_bound_and_a_small_one_does_not_pay_for_a_large_one() {
    let node = Node::with_config("[logs]\nkeep_removed_max = \"100k\"\n");
    let flist = node.flist();
    let run = |namespace: &str, name: &str, lines: u32| {
        let script = format!("seq {lines}");
        node.contd(["-n", namespace, "run", "--rm", "--name", name, flist.arg(), "/bin/sh", "-c", &script]).ok();
        eventually("it is gone", || (node.contd(["-n", namespace, "inspect", name]).code == 1).then_some(()));
    };
    run("small", "first", 10);
    for number in 0..6 {
        run(if number % 2 == 0 { "large" } else { "other" }, &format!("c{number}"), 800);
    }
    eventually("the bound to hold", || {
        let sum: u64 = kept(&node).iter().map(|(_, bytes)| bytes.max(&4096)).sum();
        (sum <= 100 * 1024).then_some(())
    });
    assert!(node.contd(["-n", "small", "logs", "first"]).ok().ends_with("10"));
    assert!(node.contd(["-n", "other", "logs", "c5"]).ok().ends_with("800"), "the youngest is there");
    node.finish();
}

#[test]
fn a_removal_that_cannot_keep_the_log_removes_it() {
    let mut node = Node::start();
    node.announce("log of a removed container not kept");
    let flist = node.flist();
    node.contd(["run", "--name", "x", flist.arg(), "/bin/echo", "hi"]).ok();
    fs::write(node.root.join("log/default/.removed"), "precious").expect("take the name");
    node.contd(["rm", "x"]).ok();
    assert!(!node.root.join("log/default/x.log").exists());
    assert_eq!(fs::read_to_string(node.root.join("log/default/.removed")).expect("it is there"), "precious");
    fs::remove_file(node.root.join("log/default/.removed")).expect("remove it");
    node.finish();
}

#[test]
fn all_logs_together_stay_within_their_budget_and_what_was_said_last_is_there() {
    let node = Node::with_config("[logs]\nmax_mib = 1\ntotal_max = \"1m\"\n");
    let flist = node.flist();
    let share = format!("{}:/data", node.root.join("input").display());
    let stays = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.2; done";
    node.contd(["run", "-d", "--name", "stays", flist.arg(), "/bin/sh", "-c", stays]).ok();
    // Four files of 1 MiB, and one that is written of a third: these alone are more than the budget.
    let flood =
        |name: &str| format!("seq 100000; : >/data/said.{name}; while [ ! -e /data/go ]; do sleep 0.05; done; exit 4");
    let names: Vec<String> = (0..4).map(|number| format!("loud{number}")).collect();
    for name in &names {
        node.contd(["run", "-d", "--name", name, "-v", &share, flist.arg(), "/bin/sh", "-c", &flood(name)]).ok();
    }
    let dir = node.root.join("log/default");
    let size = || -> u64 {
        let files = fs::read_dir(&dir).expect("list the logs").flatten();
        files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
    };
    for name in &names {
        eventually("it has said all", || node.root.join(format!("input/said.{name}")).exists().then_some(()));
    }
    eventually("the budget to hold", || (size() <= 1 << 20).then_some(()));
    let trimmed: Vec<String> = {
        let told = node.root.join("input/events");
        let mut events = node.command();
        let events = events.args(["events", "--from", "1"]).stdin(Stdio::null());
        let mut events = events.stdout(fs::File::create(&told).expect("create")).spawn().expect("follow the events");
        let lines = eventually("the events", || {
            let text = fs::read_to_string(&told).expect("read");
            let is_all =
                names.iter().all(|name| text.lines().any(|line| line.contains(name) && line.contains(TRIMMED)));
            is_all.then(|| text.lines().filter(|line| line.contains(TRIMMED)).map(str::to_owned).collect())
        });
        events.kill().expect("end our events");
        events.wait().expect("reap");
        fs::remove_file(told).expect("remove");
        lines
    };
    assert!(trimmed.iter().all(|line| line.contains(" loud")), "{trimmed:?}");
    fs::write(node.root.join("input/go"), "").expect("let them end");
    for name in &names {
        assert_eq!(node.contd(["wait", name]).ok(), "4");
    }
    assert_counted(&crate::harness::said(&node.log_file("default", "stays")));
    for name in names.iter().map(String::as_str).chain(["stays"]) {
        node.contd(["rm", "-f", "-t", "0", name]).ok();
    }
    node.finish();
}
