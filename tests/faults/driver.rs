//! One scenario, driven as an operator would: what failed is tried again, who is dead is started again, and nothing is
//! taken for granted that was not acknowledged.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use contd_failpoint::{Failpoint, ORDER, STRUCK};

use crate::bystander::Bystander;
use crate::harness::servers::lease_pid;
use crate::harness::{Flist, Node};
use crate::points::{Provocation, Step};
use crate::script::{self, LET_GO, STOPPED};

/// The container that everything is done to.
const SUBJECT: &str = "counts";
/// The states of a container with which nothing is under way.
const SETTLED: &[&str] = &["running", "stopped", "failed", "created"];

/// How often a verb is repeated. Each fault strikes once; the rest is what its repair may need.
const MAX_TRIES: u32 = 12;
/// How long one call may take; above every deadline of ours.
const CALL: Duration = Duration::from_secs(300);
/// How long a daemon may stand still before its operator kills it.
const STANDSTILL: Duration = Duration::from_secs(2);

/// One fault: an action at a point, and the process that it strikes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Where; `None` for a scenario without a fault.
    pub(crate) point: Option<Failpoint>,
    /// The action, as an order has it; `both` for a kill of daemon and shim.
    pub(crate) action: String,
    pub(crate) skip: u64,
    /// Before which step the order is given.
    pub(crate) from: Step,
    /// Only the daemon, or only shims, for a point that both come by.
    pub(crate) only: Option<Process>,
}

/// Which process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    Daemon,
    Shim,
}

/// The result of a call.
#[derive(Debug)]
struct Said {
    code: i32,
    text: String,
}

impl Said {
    fn is_ok(&self) -> bool {
        self.code == 0
    }
}

/// A node with the two containers.
pub(crate) struct Stage {
    pub(crate) node: Node,
    flist: Flist,
    fault: Fault,
    is_created: bool,
    bystander: Bystander,
    /// The number of the run that goes on.
    run: u64,
    /// The runs whose last word must be in the log.
    ended: BTreeMap<u64, &'static str>,
    /// Whether shim and daemon have been dead at once: only then may the last output be lost.
    may_lose_output: bool,
    is_each_twice: bool,
}

impl Stage {
    /// Starts the node and the bystander.
    pub(crate) fn set(fault: Fault, has_slots: bool, is_created: bool) -> Self {
        let slots = if has_slots { 2 } else { 0 };
        let drop_in = format!("[logs]\nmax_mib = 1\nmax_files = 1000\n[runtime]\nwarm_slots = {slots}\n");
        let mut node = Node::with_drop_in("", &drop_in);
        // Faults are what this is about, and the daemon warns of each: only a panic is none of them.
        node.announce("");
        let flist = node.flist();
        let bystander = Bystander::run(&node, &flist);
        let may_lose_output = fault.action == "both";
        let ended = BTreeMap::new();
        let (run, is_each_twice) = (0, false);
        Self { node, flist, fault, is_created, bystander, run, ended, may_lose_output, is_each_twice }
    }

    /// Has each verb said twice.
    pub(crate) fn each_twice(mut self) -> Self {
        self.is_each_twice = true;
        self
    }

    /// Plays the scenario to its end and demands everything that must hold; tells whether the fault has struck.
    pub(crate) fn play(mut self, provocation: Provocation) -> bool {
        self.before(Step::Run);
        self.run();
        self.before(Step::Lines);
        self.wait_for_lines();
        self.before(Step::Provoke);
        self.provoke(provocation);
        self.before(Step::Exec);
        self.exec();
        self.before(Step::Stop);
        self.stop();
        self.before(Step::Start);
        self.start();
        self.wait_for_lines();
        self.before(Step::Upgrade);
        self.upgrade();
        self.before(Step::End);
        self.end();
        self.check_log();
        self.before(Step::Delete);
        self.delete();
        let is_struck = self.is_struck();
        self.finish();
        is_struck
    }

    /// Plays a run that cannot succeed, struck while it is rolled back: nothing of it may stay.
    pub(crate) fn play_failing(mut self) -> bool {
        self.before(Step::Run);
        let flist = self.flist.arg().to_owned();
        let said = self.call(&["run", "-d", "--name", SUBJECT, &flist, "/bin/absent"]);
        assert!(!said.is_ok(), "a program that is not there: {said:?}");
        self.revive();
        if let Some(info) = self.settled() {
            self.fail(&format!("a run that failed left {info}"));
        }
        let is_struck = self.is_struck();
        self.finish();
        is_struck
    }

    /// Gives the order when its time has come.
    fn before(&mut self, step: Step) {
        let Some(point) = self.fault.point.filter(|_| self.fault.from == step) else { return };
        let daemon = self.node.daemon_pid();
        let mut order = match self.fault.action.as_str() {
            // The process that comes by dies last; a shim that is not there yet when the daemon dies is killed by `revive`.
            "both" => {
                let shims = self.shims();
                let others = if crate::points::is_of_daemon(point) { shims } else { vec![daemon.cast_signed()] };
                format!("{} kill {}", point.name(), join(&others))
            }
            action => format!("{} {action}", point.name()),
        };
        order.push_str(&format!(" skip {}", self.fault.skip));
        match self.fault.only {
            Some(Process::Daemon) => order.push_str(&format!(" only {daemon}")),
            Some(Process::Shim) => order.push_str(&format!(" except {daemon} {}", self.bystander.shim)),
            None => order.push_str(&format!(" except {}", self.bystander.shim)),
        }
        let run_dir = self.node.root.join("run");
        let next = self.node.root.join("input/order");
        fs::write(&next, order).expect("write the order");
        fs::rename(next, run_dir.join(ORDER)).expect("give the order");
    }

    fn is_struck(&self) -> bool {
        self.node.root.join("run").join(STRUCK).exists()
    }

    /// Returns the shims that live, but for the bystander's and the warm slots.
    fn shims(&self) -> Vec<i32> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.node.root.join("run/s")).into_iter().flatten().flatten() {
            let Some(pid) = lease_pid(&entry.path()) else { continue };
            let is_slot = entry.path().join("slot.json").exists() && !entry.path().join("task.json").exists();
            let is_mine = pid != self.bystander.shim && is_alive(pid, self.node.root.to_str());
            found.extend((!is_slot && is_mine).then_some(pid));
        }
        found
    }

    /// Does what whoever supervises the daemon does: starts a dead one again, and kills one that stands still.
    fn revive(&mut self) -> bool {
        if !self.node.is_daemon_dead() {
            return false;
        }
        if self.fault.action == "both" && self.is_struck() {
            for shim in self.shims() {
                self.node.kill(shim);
            }
        }
        self.node.revive()
    }

    fn relieve(&mut self, stands_since: &mut Option<Instant>) {
        if self.node.is_daemon_dead() {
            return;
        }
        let pid = self.node.daemon_pid();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let stands = stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T"));
        if !stands {
            *stands_since = None;
        } else if stands_since.get_or_insert_with(Instant::now).elapsed() > STANDSTILL {
            self.node.kill_daemon();
        }
    }

    /// Runs the command to its end, whatever happens to the daemon meanwhile; then there is a daemon again.
    fn call(&mut self, args: &[&str]) -> Said {
        self.revive();
        let mut command = self.node.command();
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("run contd");
        let (begin, mut stands_since) = (Instant::now(), None);
        while child.try_wait().expect("wait for contd").is_none() {
            self.relieve(&mut stands_since);
            let log = || self.node.daemon_log();
            assert!(begin.elapsed() < CALL, "contd {args:?} has not ended after {CALL:?}\n{}", log());
            std::thread::sleep(Duration::from_millis(3));
        }
        let output = child.wait_with_output().expect("read what contd said");
        let code = output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Said { code, text }
    }

    /// Returns what is known of the subject once nothing is under way; `None` when there is no such container.
    fn settled(&mut self) -> Option<serde_json::Value> {
        self.settled_in(SETTLED)
    }

    fn settled_in(&mut self, states: &[&str]) -> Option<serde_json::Value> {
        let begin = Instant::now();
        loop {
            let said = self.call(&["inspect", SUBJECT]);
            if self.revive() {
                continue;
            }
            if !said.is_ok() && said.text.contains("there is none") {
                return None;
            }
            if said.is_ok() {
                let info: serde_json::Value = serde_json::from_str(&said.text).expect("inspect prints JSON");
                let is_settled = states.iter().any(|status| info["status"] == *status);
                if is_settled {
                    return Some(info);
                }
            }
            assert!(begin.elapsed() < CALL, "not settled after {CALL:?}: {said:?}\n{}", self.node.daemon_log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn status(&mut self) -> Option<String> {
        self.settled().map(|info| info["status"].as_str().unwrap_or_default().to_owned())
    }

    fn fail(&self, what: &str) -> ! {
        let dirs = fs::read_dir(self.node.root.join("run/s")).into_iter().flatten().flatten();
        let logs: Vec<String> =
            dirs.map(|dir| fs::read_to_string(dir.path().join("shim.log")).unwrap_or_default()).collect();
        panic!("{what}\nthe daemon's log:\n{}\nthe shims' logs:\n{}", self.node.daemon_log(), logs.join("\n--\n"));
    }

    fn run(&mut self) {
        let share = format!("{}:/data", self.node.root.join("input").display());
        let (flist, count) = (self.flist.arg().to_owned(), script::count());
        let rest = ["--name", SUBJECT, "-v", &share, &flist, "/bin/sh", "-c", &count];
        let args: Vec<&str> =
            if self.is_created { vec!["create"] } else { vec!["run", "-d"] }.into_iter().chain(rest).collect();
        for _ in 0..MAX_TRIES {
            let said = self.call(&args);
            let has_died = self.revive();
            // One that was not acknowledged may be seen as failed while it is rolled back, but does not stay so.
            let states: &[&str] = if said.is_ok() { SETTLED } else { &["running", "stopped", "created"] };
            let status = self.settled_in(states).map(|info| info["status"].as_str().unwrap_or_default().to_owned());
            match status.as_deref() {
                Some("created") if self.is_created => return self.start(),
                Some("running") => {
                    if self.is_each_twice {
                        assert!(!self.call(&args).is_ok(), "a second run of the same name");
                    }
                    return;
                }
                None if said.is_ok() => self.fail("a run was acknowledged and is lost"),
                None => {}
                Some(status) if has_died || said.is_ok() => self.fail(&format!("after a death, a run is {status}")),
                Some(status) => self.fail(&format!("a run that failed left a container that is {status}: {said:?}")),
            }
        }
        self.fail("it could not be run");
    }

    /// Waits until the burst of the run is over and it goes on; which run that is, is known then. One that was rolled back
    /// has a number of its own and does not go on.
    fn wait_for_lines(&mut self) {
        let input = self.node.root.join("input");
        let read = |name: &str| -> Option<u64> { fs::read_to_string(input.join(name)).ok()?.trim().parse().ok() };
        let begin = Instant::now();
        let mut seen = None;
        let run = loop {
            // Without a shim its output waits, and it with that.
            self.revive();
            let now = read("gen").and_then(|run| Some((run, read(&format!("at.{run}"))?)));
            match (seen, now) {
                (Some((run, then)), Some((same, now))) if run == same && now > then => break Some(run),
                (None, now) => seen = now,
                (Some((run, _)), Some((other, _))) if run != other => seen = now,
                _ => {}
            }
            if begin.elapsed() > CALL {
                break None;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        match run {
            Some(run) => self.run = run,
            None => self.fail("it does not go on"),
        }
    }

    fn provoke(&mut self, provocation: Provocation) {
        match provocation {
            Provocation::Nobody => return,
            Provocation::Daemon => {
                self.node.kill_daemon();
                self.revive();
            }
            Provocation::Shim => {
                for shim in self.shims() {
                    self.node.kill(shim);
                }
            }
        }
        // The process that is started now has come by the point, or has died there and was started again.
        let begin = Instant::now();
        loop {
            self.revive();
            let is_done = self.fault.point.is_none() || self.is_struck();
            if is_done && self.status().as_deref() == Some("running") && !self.shims().is_empty() {
                return;
            }
            if begin.elapsed() > CALL {
                self.fail("after a death, it does not go on");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Executes a process until one is told to have ended, with its code and no other; then none is left.
    fn exec(&mut self) {
        let is_told = (0..MAX_TRIES).any(|_| {
            let said = self.call(&["exec", SUBJECT, "/bin/sh", "-c", "exit 9"]);
            self.revive();
            match said.code {
                9 => true,
                125 => false,
                _ => self.fail(&format!("an executed process ended with 9: {said:?}")),
            }
        });
        if !is_told {
            self.fail("no process could be executed");
        }
        let begin = Instant::now();
        while self.settled().unwrap_or_default()["execs"] != serde_json::json!([]) {
            if begin.elapsed() > CALL {
                self.fail("an executed process is still there");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn stop(&mut self) {
        for _ in 0..MAX_TRIES {
            let said = self.call(&["stop", "-t", "60", SUBJECT]);
            self.revive();
            match self.status().as_deref() {
                Some("stopped") => {
                    self.check_exit(STOPPED, "end");
                    if self.is_each_twice {
                        assert!(self.call(&["stop", SUBJECT]).is_ok(), "a second stop");
                    }
                    return;
                }
                Some("running") if !said.is_ok() => {}
                other => self.fail(&format!("after {said:?} it is {other:?}")),
            }
        }
        self.fail("it could not be stopped");
    }

    /// Demands the code, which the holder knows when shim and daemon are dead, and all output. Where both were dead when it
    /// ended, what lay in the FIFO went with its last reader, and the exit says that the output is not complete.
    fn check_exit(&mut self, code: u64, word: &'static str) {
        let info = self.settled().unwrap_or_default();
        let exit = &info["exit"];
        if exit["code"].as_u64() != Some(code) || exit["known_by"] == "unknown" {
            self.fail(&format!("the exit is not {code}: {exit}"));
        }
        if exit["output_complete"] == true {
            self.ended.insert(self.run, word);
        } else if !(self.may_lose_output && self.is_struck()) {
            self.fail(&format!("its output is not complete: {exit}"));
        }
    }

    fn start(&mut self) {
        for _ in 0..MAX_TRIES {
            let said = self.call(&["start", SUBJECT]);
            self.revive();
            match self.status().as_deref() {
                Some("running") => {
                    if self.is_each_twice {
                        assert!(self.call(&["start", SUBJECT]).is_ok(), "a second start");
                    }
                    return;
                }
                Some("stopped" | "failed" | "created") if !said.is_ok() => {}
                other => self.fail(&format!("after {said:?} it is {other:?}")),
            }
        }
        self.fail("it could not be started again");
    }

    fn upgrade(&mut self) {
        let pid = self.settled().unwrap_or_default()["pid"].clone();
        let times = if self.is_each_twice { 2 } else { 1 };
        for _ in 0..times {
            let is_done = (0..MAX_TRIES).any(|_| {
                let said = self.call(&["shim", "upgrade", SUBJECT]);
                self.revive();
                let info = self.settled().unwrap_or_default();
                if info["status"] != "running" || info["pid"] != pid {
                    self.fail(&format!("its shim was to be replaced, and it is {info}"));
                }
                said.is_ok()
            });
            if !is_done {
                self.fail("its shim could not be replaced");
            }
        }
    }

    fn end(&mut self) {
        fs::write(self.node.root.join("input/go"), "").expect("let it end");
        for _ in 0..MAX_TRIES {
            let said = self.call(&["wait", SUBJECT]);
            self.revive();
            match self.status().as_deref() {
                Some("stopped") => {
                    self.check_exit(LET_GO, "last");
                    return;
                }
                Some("running") if !said.is_ok() => {}
                other => self.fail(&format!("after {said:?} it is {other:?}")),
            }
        }
        self.fail("its end is not known");
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.node.root.join("log/default").join(format!("{name}.log"))
    }

    /// Demands every line of every run, once.
    fn check_log(&mut self) {
        let checked = script::read_log(&self.log_path(SUBJECT)).and_then(|lines| script::check_count(&lines));
        let runs = match checked {
            Ok(runs) => runs,
            Err(error) => self.fail(&error),
        };
        for (run, word) in &self.ended {
            let last = runs.get(run).and_then(|generation| generation.last.as_ref());
            if last.is_none_or(|(found, _)| found != word) {
                self.fail(&format!("run {run} shall end with {word:?}, and does with {last:?}"));
            }
        }
        if !PathBuf::from(format!("{}.1", self.log_path(SUBJECT).display())).exists() {
            self.fail("the log was not rotated");
        }
    }

    fn delete(&mut self) {
        for _ in 0..MAX_TRIES {
            let said = self.call(&["rm", SUBJECT]);
            self.revive();
            // A part that resists keeps it as it is, to be removed again.
            let info = self.settled_in(&["running", "stopped", "failed", "created", "deleting"]);
            match info.as_ref().and_then(|info| info["status"].as_str()) {
                None => {
                    if self.is_each_twice {
                        assert!(!self.call(&["rm", SUBJECT]).is_ok(), "a second rm");
                    }
                    return;
                }
                Some("stopped" | "failed" | "deleting") if !said.is_ok() => {}
                other => self.fail(&format!("after {said:?} it is {other:?}")),
            }
        }
        self.fail("it could not be removed");
    }

    /// Deleted stays deleted, the bystander has not noticed, and nothing is left.
    fn finish(mut self) {
        self.node.kill_daemon();
        self.revive();
        assert_eq!(self.status(), None, "it was deleted");
        let log = self.node.daemon_log();
        assert!(!log.contains("panicked"), "the daemon panicked:\n{log}");
        for name in [ORDER, STRUCK] {
            // One of the two is there, or none.
            let _absent = fs::remove_file(self.node.root.join("run").join(name));
        }
        self.bystander.check_and_remove(&self.node);
        self.node.finish();
    }
}

fn join(pids: &[i32]) -> String {
    pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Tells whether a process of this node has the pid.
fn is_alive(pid: i32, root: Option<&str>) -> bool {
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    root.is_some_and(|root| command.contains(root))
}
