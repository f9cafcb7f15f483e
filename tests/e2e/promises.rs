//! Every promise once, in one node, which is what `make vm-short` runs on other kernels; and many deaths of each process. The other
//! tests hold each promise alone, and harder.

use std::fs;

use crate::harness::servers::FlistServer;
use crate::harness::{Node, assert_counted, eventually, machine, said, tick};

/// Numbers lines and reads its root until it may end, then ends with code 23.
const COUNT: &str = "i=0; while [ ! -e /data/go ]; do i=$((i+1)); echo line $i; cat /etc/passwd > /dev/null || echo bad; \
    sleep TICK; done; exit 23";

/// A container that counts, and one that must not notice.
struct Stage {
    node: Node,
    flist: String,
    pid: serde_json::Value,
    bystander: serde_json::Value,
}

/// Gives a container the node's input as `/data`.
fn share(node: &Node) -> String {
    format!("{}:/data", node.root.join("input").display())
}

impl Stage {
    fn set() -> Self {
        let mut node = Node::start();
        for text in ["shim lost", "shim dead, successor started", "shim not attached yet"] {
            node.announce(text);
        }
        let flist = node.flist().arg().to_owned();
        let share = share(&node);
        let count = COUNT.replace("TICK", tick());
        node.contd(["run", "-d", "--name", "counts", "-v", &share, &flist, "/bin/sh", "-c", &count]).ok();
        node.contd(["run", "-d", "--name", "stays", &flist, "/bin/sleep", "10000"]).ok();
        let (pid, bystander) = (node.inspect("counts")["pid"].clone(), node.inspect("stays")["pid"].clone());
        Self { node, flist, pid, bystander }
    }

    /// The whole lines so far.
    fn lines(&self) -> Vec<String> {
        said(&self.node.log_file("default", "counts"))
    }

    /// Says which fault came before, and demands that both go on as the processes they were, and read their root.
    #[track_caller]
    fn goes_on(&self, fault: &str) {
        machine::drop_page_cache();
        let before = self.lines().len();
        eventually(&format!("it to go on: {fault}"), || (self.lines().len() > before + 5).then_some(()));
        assert_eq!(self.node.inspect("counts")["pid"], self.pid, "{fault}");
        assert_eq!(self.node.inspect("stays")["pid"], self.bystander, "{fault}");
    }

    #[track_caller]
    fn server(&self) -> FlistServer {
        let servers = FlistServer::all(&self.node);
        let [server] = servers.as_slice() else { panic!("one flist, one server: {servers:?}") };
        server.clone()
    }

    /// Kills the process that serves the flist, or its keeper, which has both replaced.
    #[track_caller]
    fn kill_flist_server(&self, is_keeper: bool) {
        let before = self.server();
        let dead = if is_keeper { before.keeper } else { before.serving };
        self.node.kill(dead);
        eventually("another flist server", || {
            before.now().filter(|now| now.serving != before.serving && now.keeper != dead)
        });
    }

    /// A container with limits that fits in, and one that does not.
    #[track_caller]
    fn limits_hold(&self) {
        let limits = ["run", "-m", "16m", "--cpus", "0.5", "--pids-limit", "20", "--name"];
        let run = |name: &str, script: &str| {
            self.node.contd(limits.iter().chain(&[name, &self.flist, "/bin/sh", "-c", script]))
        };
        let fits = run("fits", "i=0; while [ $i -lt 40 ]; do sleep 1000 2>/dev/null & i=$((i+1)); done; echo done");
        assert!(fits.stderr.contains("fork"), "the limit of processes does not hold: {fits:?}");
        let hog = run("hog", "x=$(yes | head -c 100000000); echo survived");
        assert!(hog.code != 0 && !hog.stdout.contains("survived"), "{hog:?}");
        let exit = &self.node.inspect("hog")["exit"];
        assert!(exit["oom_kills"].as_u64() > Some(0), "{exit}");
        self.node.contd(["rm", "-f", "-t", "0", "fits", "hog"]).ok();
    }

    /// Kills the holder under a container that still has its first shim, which alone tells how it ends. Of one whose shim has died
    /// as well, Linux before 6.15 tells nobody: so the counter has ended before.
    #[track_caller]
    fn lose_holder(&self) {
        let share = share(&self.node);
        let wait = "while [ ! -e /data/end ]; do sleep 0.1; done; exit 5";
        self.node.contd(["run", "-d", "--name", "late", "-v", &share, &self.flist, "/bin/sh", "-c", wait]).ok();
        fs::write(self.node.root.join("input/go"), "").expect("let the counter end");
        assert_eq!(self.node.contd(["wait", "counts"]).ok(), "23");
        let first = self.node.holder().expect("a holder lives");
        self.node.kill(first);
        fs::write(self.node.root.join("input/end"), "").expect("let it end");
        assert_eq!(self.node.contd(["wait", "late"]).ok(), "5");
        self.node.contd(["rm", "late"]).ok();
        eventually("another holder for the next shims", || {
            self.node.contd(["run", "--rm", &self.flist, "/bin/true"]).ok();
            self.node.holder().filter(|holder| *holder != first)
        });
    }

    /// Runs a job that numbers lines until it is told to end, with a code that no other has.
    #[track_caller]
    fn run_job(&self, round: u32) {
        let share = share(&self.node);
        let count = COUNT.replace("TICK", tick()).replace("/data/go", "/data/end").replace("23", &code_of(round));
        self.node.contd(["run", "-d", "--name", "job", "-v", &share, &self.flist, "/bin/sh", "-c", &count]).ok();
        eventually("the job to count", || (!self.said_by_job().is_empty()).then_some(()));
    }

    fn said_by_job(&self) -> Vec<String> {
        said(&self.node.log_file("default", "job"))
    }

    /// Lets the job end; demands its code and each line.
    #[track_caller]
    fn end_job(&self, round: u32) {
        let end = self.node.root.join("input/end");
        fs::write(&end, "").expect("let it end");
        assert_eq!(self.node.contd(["wait", "job"]).ok(), code_of(round));
        assert_counted(&self.said_by_job());
        self.node.contd(["rm", "job"]).ok();
        fs::remove_file(end).expect("remove");
    }

    /// Demands that a run is not held up, and that its exit code is true.
    #[track_caller]
    fn runs(&self, round: u32) {
        let script = format!("cat /etc/passwd > /dev/null && exit {}", code_of(round));
        let ran = self.node.contd(["run", "--rm", &self.flist, "/bin/sh", "-c", &script]);
        assert_eq!(ran.code.to_string(), code_of(round), "{ran:?}");
    }

    /// Demands every line, and an equal census.
    #[track_caller]
    fn end(self) {
        assert_counted(&self.lines());
        assert_eq!(self.node.inspect("stays")["pid"], self.bystander);
        self.node.contd(["rm", "counts"]).ok();
        self.node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
        self.node.finish();
    }
}

#[test]
fn every_promise_holds_once() {
    let mut stage = Stage::set();
    stage.goes_on("nothing");
    assert_eq!(stage.node.contd(["run", "--rm", &stage.flist, "/bin/sh", "-c", "echo said; exit 7"]).code, 7);
    stage.limits_hold();
    stage.goes_on("limits of others");
    stage.node.kill_daemon();
    stage.node.start_daemon();
    stage.goes_on("death of the daemon");
    stage.node.kill(stage.node.shim_pid("counts"));
    stage.goes_on("death of the shim");
    stage.kill_flist_server(false);
    stage.goes_on("death of the flist server");
    stage.kill_flist_server(true);
    stage.goes_on("death of the flist server's keeper");
    let shim = stage.node.shim_pid("counts");
    stage.node.kill_daemon();
    stage.node.kill(shim);
    stage.node.start_daemon();
    stage.goes_on("death of daemon and shim");
    stage.node.take_over();
    stage.goes_on("upgrade of the daemon");
    assert_eq!(stage.node.contd(["shim", "upgrade", "--all"]).ok().lines().count(), 2);
    stage.goes_on("upgrade of the shims");
    let before = stage.server();
    stage.node.flist_server(&["upgrade", "--all"]);
    assert_ne!(stage.server(), before);
    stage.goes_on("upgrade of the flist server");
    stage.lose_holder();
    stage.end();
}

/// The exit code of a round.
fn code_of(round: u32) -> String {
    (round % 100 + 1).to_string()
}

#[test]
fn many_deaths_of_each_process_cost_no_line_no_code_and_no_run() {
    // In a node of `make vm` as many as the promise was given for, since its kernel is another one.
    let rounds = if std::env::var_os("CONTD_TEST_NODE").is_some() { 40 } else { 5 };
    let mut stage = Stage::set();
    // The holder may be killed while it starts one, which may come up all the same and is removed before the next is made.
    ["warm shim not started", "warm shim not removed"].into_iter().for_each(|text| stage.node.announce(text));
    for round in 0..rounds {
        stage.run_job(round);
        stage.node.kill(stage.node.shim_pid("job"));
        stage.end_job(round);
        stage.kill_flist_server(round % 2 == 1);
        stage.runs(round);
        stage.node.kill_daemon();
        stage.node.start_daemon();
        stage.runs(round);
        // The job keeps its shim: without both, Linux before 6.15 tells nobody.
        stage.run_job(round);
        stage.node.kill(stage.node.holder().expect("a holder lives"));
        stage.end_job(round);
        stage.runs(round);
        stage.goes_on(&format!("round {round}"));
    }
    fs::write(stage.node.root.join("input/go"), "").expect("let it end");
    assert_eq!(stage.node.contd(["wait", "counts"]).ok(), "23");
    stage.end();
}
