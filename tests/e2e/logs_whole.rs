//! All that a container says is in its log, line by line and run by run; where that cannot be, it is said.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Stdio;

use crate::harness::servers::lease_pid;
use crate::harness::{Node, assert_counted, eventually};

/// The code of an engine error on `run`.
const ENGINE: i32 = 125;
/// More than pipe and spool take: whoever says so much waits for the log.
const MANY: u32 = 400_000;

/// A node with little room for logs, all of it taken.
struct FullLogs {
    node: Node,
    flist: String,
    filler: PathBuf,
}

impl FullLogs {
    fn new(bytes: u64) -> Self {
        let node = Node::with_small("log", bytes);
        let flist = node.flist().arg().to_owned();
        let filler = node.root.join("log/filler");
        Self { node, flist, filler }
    }

    /// Takes all room. A run needs a directory, so there is one before.
    fn fill(&self) {
        let file = OpenOptions::new().create(true).append(true).open(&self.filler);
        let mut file = file.expect("open the filler");
        for size in [65536, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(&self.filler).expect("remove the filler");
    }

    /// Makes a container whose log has its file, and whose disk is full from then on. It says numbers once it is started.
    fn counts(&self, name: &str, lines: u32, code: u8) {
        let script = format!("seq 1 {lines}; exit {code}");
        self.node.contd(["create", "--name", name, &self.flist, "/bin/sh", "-c", &script]).ok();
    }
}

#[test]
fn a_run_whose_log_is_full_says_that_output_was_lost_and_fails() {
    let logs = FullLogs::new(4 << 20);
    // The log's own directory and file are there before the disk is full.
    for (code, expected) in [(0, ENGINE), (7, 7)] {
        let script = format!("while [ ! -e /data/go ]; do sleep 0.02; done; seq 1 20000; exit {code}");
        let share = format!("{}:/data", logs.node.root.join("input").display());
        let mut run = logs.node.command();
        let name = format!("x{code}");
        run.args(["run", "--rm", "--name", &name, "-v", &share, &logs.flist, "/bin/sh", "-c", &script]);
        let run = run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run");
        let log = logs.node.root.join(format!("log/default/{name}.log"));
        eventually("its log", || log.exists().then_some(()));
        logs.node.wait_for_status(&name, "running");
        logs.fill();
        fs::write(logs.node.root.join("input/go"), "").expect("let it go");
        let done = run.wait_with_output().expect("it ends");
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(expected), "{stderr}");
        assert!(stderr.contains("output was lost") && stderr.contains("hint: free space"), "{stderr}");
        fs::remove_file(logs.node.root.join("input/go")).expect("remove");
        logs.free();
    }
    logs.node.finish();
}

#[test]
fn a_loss_is_shown_by_inspect_and_logs_and_marked_in_the_log_once_there_is_room() {
    let logs = FullLogs::new(4 << 20);
    let node = &logs.node;
    logs.counts("x", 20_000, 0);
    logs.fill();
    node.contd(["start", "x"]).ok();
    let mut follow = node.command();
    follow.args(["logs", "-f", "x"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let follow = follow.spawn().expect("follow");
    node.contd(["wait", "x"]).ok();
    assert_eq!(node.inspect("x")["exit"]["output_complete"], false, "{}", node.inspect("x"));
    let followed = follow.wait_with_output().expect("it ends with the container");
    for stderr in [String::from_utf8_lossy(&followed.stderr).into_owned(), node.contd(["logs", "x"]).stderr] {
        assert!(stderr.contains("output after this was lost"), "{stderr}");
    }
    logs.free();
    node.contd(["start", "x"]).ok();
    node.contd(["wait", "x"]).ok();
    let log = node.contd(["logs", "x"]);
    assert!(log.stderr.contains("[contd: output before this line was lost"), "{}", log.stderr);
    assert!(log.ok().ends_with("19999\n20000"), "lines go on");
    assert_eq!(node.inspect("x")["exit"]["output_complete"], true);
    node.contd(["rm", "x"]).ok();
    logs.node.finish();
}

#[test]
fn a_container_waits_for_a_full_log_and_nothing_is_lost_when_there_is_room_again() {
    let logs = FullLogs::new(64 << 20);
    let node = &logs.node;
    let script = format!("while [ ! -e /data/go ]; do sleep 0.02; done; seq 1 {MANY}");
    let share = format!("{}:/data", node.root.join("input").display());
    let mut run = node.command();
    run.args(["run", "--name", "x", "-v", &share, &logs.flist, "/bin/sh", "-c", &script]);
    let mut run = run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run");
    let mut stdout = run.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).expect("text");
        text
    });
    eventually("its log", || node.root.join("log/default/x.log").exists().then_some(()));
    node.wait_for_status("x", "running");
    logs.fill();
    let shim_log = node.shim_dir("x").join("shim.log");
    fs::write(node.root.join("input/go"), "").expect("let it go");
    eventually("the log to refuse", || {
        fs::read_to_string(&shim_log).is_ok_and(|text| text.contains("No space left on device")).then_some(())
    });
    logs.free();
    let done = run.wait_with_output().expect("it ends");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let expected: String = (1..=MANY).map(|number| format!("{number}\n")).collect();
    assert!(reader.join().expect("read") == expected, "lines are missing, doubled or out of order");
    assert_eq!(node.inspect("x")["exit"]["output_complete"], true);
    node.contd(["rm", "x"]).ok();
    logs.node.finish();
}

/// Waits until another shim than this has the lease of the container `c`.
#[track_caller]
fn await_successor(node: &Node, shim: i32) {
    let dir = node.shim_dir("c");
    eventually("a successor", || lease_pid(&dir).is_some_and(|pid| pid != shim).then_some(()));
}

#[test]
fn two_runs_never_share_a_line_whoever_died_between_them() {
    let mut node = Node::start();
    for text in ["shim lost", "shim dead, successor started"] {
        node.announce(text);
    }
    let flist = node.flist();
    let share = format!("{}:/data", node.root.join("input").display());
    let script = "printf half; while [ ! -e /data/go ]; do sleep 0.02; done; printf ' more'";
    node.contd(["run", "-d", "--name", "c", "-v", &share, flist.arg(), "/bin/sh", "-c", script]).ok();
    eventually("the half", || node.log_file("default", "c").contains("half").then_some(()));
    let pid = node.shim_pid("c");
    node.kill(pid);
    await_successor(&node, pid);
    node.wait_for_status("c", "running");
    fs::write(node.root.join("input/go"), "").expect("let it go");
    node.contd(["wait", "c"]).ok();
    assert_eq!(node.contd(["logs", "c"]).stdout, "half more", "the bytes of a run are its own");
    for _ in 0..2 {
        node.contd(["start", "c"]).ok();
        node.contd(["wait", "c"]).ok();
        node.kill_daemon();
        node.start_daemon();
    }
    assert_eq!(node.contd(["logs", "c"]).stdout, "half more\nhalf more\nhalf more");
    node.contd(["rm", "c"]).ok();
    node.finish();
}

#[test]
fn a_run_never_ends_before_it_began() {
    let mut node = Node::start();
    let flist = node.flist();
    let times = |node: &Node, name: &str| {
        let info = node.inspect(name);
        let of = |key: &str| info[key].as_str().map(|time| humantime::parse_rfc3339(time).expect("a time"));
        (of("started"), of("finished"))
    };
    #[track_caller]
    fn ordered((started, finished): (Option<std::time::SystemTime>, Option<std::time::SystemTime>)) {
        assert!(started.expect("started") <= finished.expect("finished"), "{started:?} {finished:?}");
    }
    for number in 0..5 {
        let name = format!("short{number}");
        node.contd(["run", "--name", &name, flist.arg(), "/bin/true"]).ok();
        ordered(times(&node, &name));
    }
    let share = format!("{}:/data", node.root.join("input").display());
    let script = "[ -e /data/go ] && exec sleep 1000; exit 1";
    node.contd(["run", "--name", "c", "-v", &share, flist.arg(), "/bin/sh", "-c", script]);
    let first = times(&node, "c");
    ordered(first);
    fs::write(node.root.join("input/go"), "").expect("let it stay");
    node.contd(["start", "c"]).ok();
    let (started, finished) = times(&node, "c");
    assert!(
        started > first.1 && finished.is_none(),
        "{started:?} {finished:?}: the end of the run before is not its own"
    );
    node.kill_daemon();
    node.start_daemon();
    node.wait_for_status("c", "running");
    assert_eq!(times(&node, "c"), (started, None));
    node.contd(["stop", "-t", "0", "c"]).ok();
    assert_eq!(times(&node, "c").0, started);
    ordered(times(&node, "c"));
    for number in 0..5 {
        node.contd(["rm", &format!("short{number}")]).ok();
    }
    node.contd(["rm", "c"]).ok();
    node.finish();
}

#[test]
fn a_successor_whose_log_has_the_place_of_others_looks_after_the_container_and_waits() {
    let mut node = Node::start();
    for text in ["shim lost", "shim dead, successor started"] {
        node.announce(text);
    }
    let flist = node.flist();
    let share = format!("{}:/data", node.root.join("input").display());
    let script = "i=0; while [ ! -e /data/go ]; do i=$((i+1)); echo line $i; sleep 0.02; done; exit 5";
    node.contd(["run", "-d", "--name", "c", "-v", &share, flist.arg(), "/bin/sh", "-c", script]).ok();
    eventually("a line", || node.log_file("default", "c").contains("line 1\n").then_some(()));
    let (log, away) = (node.root.join("log/default/c.log"), node.root.join("log/default/c.away"));
    let (pid, shim) = (node.inspect("c")["pid"].clone(), node.shim_pid("c"));
    fs::rename(&log, &away).expect("move the log away");
    fs::write(&log, "precious").expect("take its place");
    node.kill(shim);
    await_successor(&node, shim);
    node.wait_for_status("c", "running");
    assert_eq!(node.inspect("c")["pid"], pid);
    let shim_log = node.shim_dir("c").join("shim.log");
    eventually("it to say so", || {
        fs::read_to_string(&shim_log).is_ok_and(|text| text.contains("contd has not made it")).then_some(())
    });
    assert_eq!(fs::read_to_string(&log).expect("it is there"), "precious");
    fs::rename(&away, &log).expect("move the log back");
    let before = node.log_file("default", "c").lines().count();
    eventually("it to go on", || (node.log_file("default", "c").lines().count() > before + 10).then_some(()));
    fs::write(node.root.join("input/go"), "").expect("let it end");
    assert_eq!(node.contd(["wait", "c"]).ok(), "5");
    assert_counted(&node.contd(["logs", "c"]).ok().lines().collect::<Vec<_>>());
    assert_eq!(node.inspect("c")["exit"]["output_complete"], true);
    node.contd(["rm", "c"]).ok();
    node.finish();
}
