//! A daemon is started over one that runs; neither callers nor containers notice.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use contd_client::{Client, Deadline};
use contd_protocol::api::Target;
use contd_types::{ContainerRef, NamespaceId};
use nix::sys::signal::Signal;

use crate::harness::{Flist, Node, assert_counted, eventually};

/// Numbers lines until it may end, then ends with code 23.
pub(crate) const COUNT: &str =
    "i=0; while [ ! -e /data/go ]; do i=$((i+1)); echo line $i; sleep 0.01; done; echo last $i; exit 23";

/// A container that counts, and one that must not notice.
pub(crate) struct Stage {
    pub(crate) node: Node,
    pub(crate) flist: Flist,
    counter: serde_json::Value,
    pub(crate) bystander: serde_json::Value,
}

impl Stage {
    pub(crate) fn set(node: Node) -> Self {
        let flist = node.flist();
        let share = format!("{}:/data", node.root.join("input").display());
        node.contd(["run", "-d", "--name", "counts", "-v", &share, flist.arg(), "/bin/sh", "-c", COUNT]).ok();
        node.contd(["run", "-d", "--name", "stays", flist.arg(), "/bin/sleep", "1000"]).ok();
        let (counter, bystander) = (node.inspect("counts")["pid"].clone(), node.inspect("stays")["pid"].clone());
        Self { node, flist, counter, bystander }
    }

    /// Demands that both run on as the processes they were.
    #[track_caller]
    pub(crate) fn runs_on(&self) {
        let before = self.lines();
        eventually("the counter to go on", || (self.lines() > before + 5).then_some(()));
        assert_eq!(self.node.inspect("counts")["pid"], self.counter);
        assert_eq!(self.node.inspect("stays")["pid"], self.bystander);
    }

    /// Runs one more, which ends by SIGKILL only: to stop it takes as long as one likes.
    fn run_deaf(&self) {
        let deaf = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
        self.node.contd(["run", "-d", "--name", "deaf", self.flist.arg(), "/bin/sh", "-c", deaf]).ok();
        eventually("it to be deaf", || self.node.log_file("default", "deaf").contains("ready").then_some(()));
    }

    fn lines(&self) -> usize {
        self.node.log_file("default", "counts").lines().count()
    }

    /// Lets the counter end.
    pub(crate) fn let_end(&self) {
        fs::write(self.node.root.join("input/go"), "").expect("let it end");
    }

    /// Lets the counter end, and waits until its process is gone.
    #[track_caller]
    pub(crate) fn let_end_and_wait(&self) {
        self.let_end();
        let init = format!("/proc/{}", self.counter);
        eventually("its end", || (!Path::new(&init).exists()).then_some(()));
    }

    /// Kills the daemon and the counter's shim, and lets the container end unseen.
    #[track_caller]
    pub(crate) fn end_unseen(&mut self) {
        let shim = self.node.shim_pid("counts");
        self.node.kill_daemon();
        self.node.kill(shim);
        self.let_end_and_wait();
    }

    /// Lets the counter end, and demands every line, the true code, and an equal census.
    #[track_caller]
    pub(crate) fn end(self) {
        self.let_end();
        assert_eq!(self.node.contd(["wait", "counts"]).ok(), "23");
        demand_whole(self.node.contd(["logs", "counts"]).ok());
        assert_eq!(self.node.inspect("stays")["pid"], self.bystander);
        self.node.contd(["rm", "counts"]).ok();
        self.node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
        self.node.finish();
    }
}

/// Demands that no line is missing or doubled.
#[track_caller]
fn demand_whole(log: &str) {
    let said: Vec<&str> = log.lines().collect();
    let (last, lines) = said.split_last().expect("it has said something");
    assert_counted(lines);
    assert_eq!(*last, format!("last {}", lines.len()));
}

/// Callers who connect anew for every call, without a pause, until they are told to end.
struct Callers {
    is_over: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Callers {
    fn begin(count: usize, socket: &Path) -> Self {
        let (is_over, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..count).map(|number| {
            let (is_over, calls, socket) = (Arc::clone(&is_over), Arc::clone(&calls), socket.to_owned());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                while !is_over.load(Ordering::SeqCst) {
                    runtime.block_on(call(&socket, number)).unwrap_or_else(|error| {
                        panic!("caller {number}: {error}, caused by {:?}", std::error::Error::source(&error))
                    });
                    calls.fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        Self { threads: threads.collect(), is_over, calls }
    }

    /// Waits until so many more calls were answered.
    #[track_caller]
    fn go_on(&self, more: u64) {
        let before = self.calls.load(Ordering::SeqCst);
        eventually("more calls to be answered", || {
            assert!(self.threads.iter().all(|thread| !thread.is_finished()), "a caller has failed: see above");
            (self.calls.load(Ordering::SeqCst) >= before + more).then_some(())
        });
    }

    /// Ends them and demands that none has failed.
    #[track_caller]
    fn end(self) {
        self.is_over.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("a caller has failed: see above");
        }
    }
}

async fn call(socket: &Path, number: usize) -> Result<(), contd_client::ClientError> {
    let client = Client::connect(socket, Deadline::Usual).await?;
    if number.is_multiple_of(2) {
        client.version(Deadline::Usual).await.map(drop)
    } else {
        let container = ContainerRef::new("stays").expect("valid");
        let target = Target { namespace: NamespaceId::new("default").expect("valid"), container };
        client.inspect(target, Deadline::Usual).await.map(drop)
    }
}

/// A command that goes on in the background.
fn begin(node: &Node, args: &[&str]) -> Child {
    let mut command = node.command();
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("run contd")
}

/// Waits for a command, which must end well, and returns what it said.
#[track_caller]
fn outcome(child: Child) -> String {
    let output = child.wait_with_output().expect("wait");
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("utf-8")
}

/// Waits until a daemon has logged something.
#[track_caller]
fn logged(node: &Node, text: &str) {
    eventually(&format!("the log to say {text:?}"), || node.daemon_log().contains(text).then_some(()));
}

#[test]
fn sixteen_callers_are_never_refused_while_ten_daemons_take_over() {
    let mut stage = Stage::set(Node::start());
    let callers = Callers::begin(16, &stage.node.socket());
    for _ in 0..10 {
        stage.node.take_over();
        callers.go_on(100);
    }
    callers.end();
    stage.runs_on();
    stage.end();
}

#[test]
fn who_waits_or_follows_goes_on_with_the_next_daemon() {
    let mut stage = Stage::set(Node::start());
    let wait = begin(&stage.node, &["wait", "counts", "counts"]);
    let logs = begin(&stage.node, &["logs", "-f", "counts"]);
    let tail = begin(&stage.node, &["logs", "-f", "--tail", "0", "counts"]);
    let mut events = begin(&stage.node, &["events", "--format", "json"]);
    stage.runs_on();
    for _ in 0..3 {
        stage.node.take_over();
        stage.runs_on();
    }
    // Also over one that was killed, and came back a moment later.
    stage.node.kill_daemon();
    stage.node.start_daemon();
    stage.runs_on();
    stage.let_end();
    assert_eq!(outcome(wait), "23\n23\n");
    demand_whole(&outcome(logs));
    let tail = outcome(tail);
    let numbers: Vec<u64> = tail.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "lines were lost or doubled: {numbers:?}");
    assert!(tail.lines().count() == numbers.len() + 1 && tail.contains("last "), "{tail}");
    stage.node.contd(["rm", "-f", "counts"]).ok();
    let mut said = String::new();
    let mut pipe = events.stdout.take().expect("a pipe");
    let mut buffer = [0; 4096];
    while !said.contains("\"deleted\"") {
        let count = pipe.read(&mut buffer).expect("read the events");
        assert!(count > 0, "the events ended: {said}");
        said.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    events.kill().expect("end the events");
    events.wait().expect("reap");
    let seqs: Vec<u64> = said
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .map(|event| event["seq"].as_u64().unwrap_or_else(|| panic!("a gap: {event}")))
        .collect();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "events were lost or doubled: {said}");
    stage.node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
    stage.node.finish();
}

#[test]
fn what_is_under_way_is_finished_and_answered_by_the_daemon_that_began_it() {
    let mut stage = Stage::set(Node::start());
    stage.run_deaf();
    let stop = begin(&stage.node, &["stop", "-t", "2", "deaf"]);
    stage.node.wait_for_status("deaf", "stopping");
    let callers = Callers::begin(2, &stage.node.socket());
    stage.node.take_over();
    assert_eq!(outcome(stop).trim(), "deaf");
    callers.go_on(2);
    callers.end();
    assert_eq!(stage.node.inspect("deaf")["exit_code"], 137);
    stage.node.contd(["rm", "deaf"]).ok();
    stage.end();
}

#[test]
fn a_daemon_that_stands_still_is_replaced_and_its_callers_are_served() {
    let mut stage = Stage::set(Node::start());
    stage.node.announce("does not let go, it is killed");
    let old = stage.node.daemon_pid().cast_signed();
    stage.node.signal(old, Signal::SIGSTOP);
    let mut child = stage.node.spawn_successor();
    // It waits in the backlog of a process that will never accept it. Its connection must not be lost with that one.
    let early = begin(&stage.node, &["wait", "counts"]);
    let status = eventually("the old daemon to be killed", || child.try_wait().expect("wait"));
    assert!(!status.success(), "{status}");
    stage.node.wait_for_own_answer();
    stage.runs_on();
    stage.let_end();
    assert_eq!(outcome(early), "23\n");
    stage.end();
}

#[test]
fn a_new_daemon_that_cannot_work_does_not_touch_the_one_that_runs() {
    let stage = Stage::set(Node::start());
    let config = stage.node.root.join("config.toml");
    let whole = fs::read_to_string(&config).expect("read");
    let refused = |what: &str, extra: &[&str]| {
        let output = stage.node.daemon_command().args(extra).output().expect("run contd daemon");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(what) && said.contains("hint: "), "{said}");
        let version = stage.node.contd(["version", "--format", "json"]);
        let version: serde_json::Value = serde_json::from_str(version.ok()).expect("JSON");
        assert_eq!(version["daemon"]["pid"], stage.node.daemon_pid(), "another daemon answers");
    };
    for (broken, what) in [
        ("no_such_key = 1\n", "no_such_key"),
        ("[runtime]\nshim = \"/no/such/shim\"\n", "/no/such/shim"),
        ("address = \"/tmp/\n", "config.toml"),
    ] {
        fs::write(&config, broken).expect("break the configuration");
        refused(what, &[]);
    }
    fs::write(&config, whole).expect("mend the configuration");
    refused("another contd daemon runs", &["--no-takeover"]);
    assert!(!stage.node.daemon_log().contains("successor"), "{}", stage.node.daemon_log());
    stage.runs_on();
    stage.end();
}

#[test]
fn the_death_of_the_new_daemon_with_the_socket_in_its_hand_is_mended_by_a_third() {
    let mut stage = Stage::set(Node::start());
    stage.run_deaf();
    // Keeps the old one busy, so that the new one has to wait with the socket in its hand.
    let stop = begin(&stage.node, &["stop", "-t", "3", "deaf"]);
    stage.node.wait_for_status("deaf", "stopping");
    let mut first = stage.node.spawn_successor();
    logged(&stage.node, "the API socket is here");
    stage.node.kill_daemon();
    assert!(first.try_wait().expect("wait").is_none(), "the first daemon was too fast for this test");
    assert!(stage.node.socket().exists(), "the socket's path is gone");
    // The third comes while the first still holds the lock, and nobody listens any more.
    stage.node.start_daemon();
    let status = first.wait().expect("wait");
    assert!(status.success(), "{status}");
    stage.node.wait_for_own_answer();
    assert_eq!(outcome(stop).trim(), "deaf");
    let deaf = stage.node.inspect("deaf");
    assert_eq!(deaf["exit_code"], 137, "{deaf}\n{}", stage.node.daemon_log());
    stage.node.contd(["rm", "deaf"]).ok();
    stage.runs_on();
    stage.end();
}

#[test]
fn two_that_come_at_once_take_over_one_after_the_other() {
    let mut stage = Stage::set(Node::start());
    let callers = Callers::begin(2, &stage.node.socket());
    let mut first = stage.node.spawn_successor();
    let mut second = stage.node.spawn_successor();
    let ended = |child: &mut Child| child.try_wait().expect("wait");
    assert!(eventually("the first to end", || ended(&mut first)).success());
    // Which of the two is the last one is not decided by who was started first.
    let (old, is_swapped) = eventually("one of the two to end", || match ended(&mut second) {
        Some(status) => Some((status, false)),
        None => stage.node.daemon_end().map(|status| (status, true)),
    });
    assert!(old.success(), "{old}");
    if is_swapped {
        stage.node.adopt_daemon(second);
    }
    stage.node.wait_for_own_answer();
    callers.go_on(10);
    callers.end();
    stage.end();
}
