//! Many containers: the death of their daemon, and of their shims, one after the other in random order.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::form;
use crate::harness::servers::lease_pid;
use crate::harness::{Node, eventually};
use crate::script;

/// How many make and remove containers at once.
const HANDS: usize = 4;

/// Calls `work` for each number, a few at once.
fn for_each(count: usize, work: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for hand in 0..HANDS {
            let work = &work;
            scope.spawn(move || (hand..count).step_by(HANDS).for_each(work));
        }
    });
}

/// Returns status, pid and exit code of every container.
fn all(node: &Node) -> BTreeMap<String, (String, i64, i64)> {
    let listed = node.contd(["ps", "-a", "--format", "json"]);
    let lines = listed.ok().lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &serde_json::Value| value.as_i64().unwrap_or(-1);
    lines.map(|it| (text(&it["name"]), (text(&it["status"]), number(&it["pid"]), number(&it["exit_code"])))).collect()
}

#[test]
fn a_full_node_is_the_same_after_the_death_of_its_daemon() {
    let (running, created, stopped) = if form::is_full() { (100, 20, 20) } else { (8, 3, 3) };
    let mut node = Node::start();
    let flist = node.flist();
    let mut kinds = Vec::new();
    kinds.extend((0..running).map(|number| (format!("run{number}"), 0)));
    kinds.extend((0..created).map(|number| (format!("new{number}"), 1)));
    kinds.extend((0..stopped).map(|number| (format!("old{number}"), 2)));
    for_each(kinds.len(), |at| {
        let (name, kind) = &kinds[at];
        match kind {
            0 => node.contd(["run", "-d", "--name", name, flist.arg(), "/bin/sleep", "100000"]).ok(),
            1 => node.contd(["create", "--name", name, flist.arg(), "/bin/sleep", "100000"]).ok(),
            _ => {
                let program = format!("exit {}", 1 + at % 100);
                node.contd(["run", "-d", "--name", name, flist.arg(), "/bin/sh", "-c", &program]).ok();
                node.contd(["wait", name]).ok();
                ""
            }
        };
    });
    let before = all(&node);
    assert_eq!(before.len(), kinds.len());
    node.kill_daemon();
    let begin = Instant::now();
    node.start_daemon();
    let after = eventually("all to be known again", || {
        let now = all(&node);
        now.values().all(|(status, ..)| status != "recovering").then_some(now)
    });
    println!("{} containers are known again {:.2} s after the start", after.len(), begin.elapsed().as_secs_f32());
    assert_eq!(after, before);
    for_each(kinds.len(), |at| {
        node.contd(["rm", "-f", "-t", "0", &kinds[at].0]).ok();
    });
    node.finish();
}

/// Marsaglia's xorshift: the same seed, the same order.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("below a usize")
    }
}

fn seed() -> u64 {
    match std::env::var("CONTD_FAULTS_SEED") {
        Ok(seed) => seed.parse().expect("CONTD_FAULTS_SEED is a number"),
        Err(_) => u64::from(std::time::UNIX_EPOCH.elapsed().expect("after 1970").subsec_nanos()) | 1,
    }
}

/// Returns the living shim of a lease directory; `None` while there is none.
fn shim_of(dir: &Path) -> Option<i32> {
    let pid = lease_pid(dir)?;
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    command.contains(dir.to_str()?).then_some(pid)
}

#[test]
fn a_thousand_shims_die_one_by_one_and_no_container_notices() {
    let (containers, deaths) = if form::is_full() { (100, 1000) } else { (6, 40) };
    let seed = seed();
    println!("CONTD_FAULTS_SEED={seed}");
    let mut node = Node::start();
    for text in ["shim lost", "shim dead, successor started", "shim not attached yet"] {
        node.announce(text);
    }
    let flist = node.flist();
    let share = format!("{}:/data", node.root.join("input").display());
    let count = "i=0; while [ ! -e /data/go ]; do i=$((i+1)); echo line $i; sleep 0.5; done; echo last $i; exit $CODE";
    let name = |number: usize| format!("c{number}");
    for_each(containers, |at| {
        let code = format!("CODE={}", 1 + at);
        let args = ["-e", &code, "-v", &share, flist.arg(), "/bin/sh", "-c", count];
        node.contd(["run", "-d", "--name", &name(at)].into_iter().chain(args)).ok();
    });
    let before = all(&node);
    let dirs: Vec<PathBuf> = (0..containers).map(|at| node.shim_dir(&name(at))).collect();
    let (mut dice, begin) = (Dice(seed), Instant::now());
    for _ in 0..deaths {
        let dir = &dirs[dice.below(containers)];
        let shim = eventually("a shim to kill", || shim_of(dir));
        node.kill(shim);
    }
    let killed = begin.elapsed().as_secs_f32();
    eventually("every container to have a shim again", || dirs.iter().all(|dir| shim_of(dir).is_some()).then_some(()));
    eventually("every container to be running", || {
        all(&node).values().all(|(status, ..)| status == "running").then_some(())
    });
    assert_eq!(all(&node), before, "all run on, as the same processes");
    fs::write(node.root.join("input/go"), "").expect("let them end");
    let lines = std::sync::atomic::AtomicUsize::new(0);
    for_each(containers, |at| {
        assert_eq!(node.contd(["wait", &name(at)]).ok(), (1 + at).to_string(), "the exit code of {}", name(at));
        let path = node.root.join("log/default").join(format!("{}.log", name(at)));
        let log = script::read_log(&path).expect("a log");
        let (last, numbered) = log.split_last().expect("it has said something");
        assert_eq!(script::check_beats(numbered, "line"), Ok(numbered.len()), "{}", name(at));
        assert_eq!(*last, format!("last {}", numbered.len()), "{}", name(at));
        lines.fetch_add(numbered.len(), std::sync::atomic::Ordering::Relaxed);
        node.contd(["rm", &name(at)]).ok();
    });
    println!("{deaths} shims of {containers} containers killed in {killed:.1} s; {} lines", lines.into_inner());
    node.finish();
}
