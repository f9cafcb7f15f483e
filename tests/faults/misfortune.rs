//! The harm that containers do to a node: they eat its memory, its processes, its disk. Their neighbours must not notice.

use std::fs;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};

use crate::bystander::Bystander;
use crate::form;
use crate::harness::census::{cgroups_below, members};
use crate::harness::{Node, eventually};
use crate::script::{self, LET_GO};

#[test]
fn whoever_eats_too_much_memory_is_killed_alone() {
    let (rounds, hogs) = if form::is_full() { (10, 8) } else { (1, 3) };
    let node = Node::start();
    let flist = node.flist();
    let bystander = Bystander::run(&node, &flist);
    for round in 0..rounds {
        let names: Vec<String> = (0..hogs).map(|hog| format!("hog{round}-{hog}")).collect();
        for name in &names {
            let args = ["--memory", "16m", flist.arg(), "/bin/tail", "/dev/zero"];
            node.contd(["run", "-d", "--name", name].into_iter().chain(args)).ok();
        }
        for name in &names {
            assert_eq!(node.contd(["wait", name]).ok(), "137", "{name}");
            let exit = node.inspect(name)["exit"].clone();
            assert!(exit["oom_kills"].as_u64() >= Some(1), "{name}: {exit}");
            node.contd(["rm", name]).ok();
        }
    }
    println!("oom: {rounds} rounds of {hogs}");
    bystander.check_and_remove(&node);
    node.finish();
}

/// The time that an answer may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// On a machine that is slow for everybody: how many times the answer of a node without a bomb.
const SLOWER: u32 = 4;

#[test]
fn a_fork_bomb_delays_no_answer() {
    let (node, quiet) = (Node::start(), Node::start());
    let flist = node.flist();
    let bystander = Bystander::run(&node, &flist);
    let bomb = "BEGIN { while (1) system(\"sleep 1000 &\") }";
    let args = ["--pids-limit", "64", flist.arg(), "/bin/awk", bomb];
    node.contd(["run", "-d", "--name", "bomb"].into_iter().chain(args)).ok();
    let id = node.inspect("bomb")["id"].as_str().expect("an id").to_owned();
    let population = || {
        let all = cgroups_below(&node.cgroup_parent);
        all.iter().filter(|path| path.ends_with(&id)).map(|path| members(path).len()).max().unwrap_or(0)
    };
    eventually("the bomb to be at its limit", || (population() >= 60).then_some(()));
    let took = |node: &Node, verb: &[&str]| {
        let begin = Instant::now();
        node.contd(verb).ok();
        begin.elapsed()
    };
    // In turn, so that both meet the same load of the machine.
    let (mut answers, mut quiet_answers) = (Vec::new(), Vec::new());
    for _ in 0..if form::is_full() { 50 } else { 10 } {
        for verb in [&["inspect", "bomb"][..], &["ps"], &["inspect", "stays"]] {
            answers.push(took(&node, verb));
            quiet_answers.push(took(&quiet, &["ps"]));
        }
    }
    let [median, usual] = [answers, quiet_answers].map(|mut all| {
        all.sort();
        all[all.len() / 2]
    });
    println!("fork bomb: {} processes, an answer takes {median:.3?}, without one {usual:.3?}", population());
    assert!(median < ANSWERS_WITHIN.max(usual * SLOWER), "an answer takes {median:?}, without a bomb {usual:?}");
    quiet.finish();
    node.contd(["rm", "-f", "-t", "0", "bomb"]).ok();
    bystander.check_and_remove(&node);
    node.finish();
}

#[test]
fn a_full_disk_stops_only_who_writes_to_it_and_loses_nothing() {
    let node = Node::with_drop_in("", "[logs]\nmax_mib = 1\nmax_files = 1000\n");
    let flist = node.flist();
    let bystander = Bystander::run(&node, &flist);
    let dir = node.root.join("log/flood");
    fs::create_dir_all(&dir).expect("make the directory of its logs");
    let tmpfs = |flags, size: &str| {
        mount(Some("none"), &dir, Some("tmpfs"), flags, Some(format!("size={size}").as_str())).expect("mount a tmpfs");
    };
    tmpfs(MsFlags::empty(), "1m");
    let share = format!("{}:/data", node.root.join("input").display());
    let count = script::count();
    let args = ["--name", "floods", "-v", &share, flist.arg(), "/bin/sh", "-c", &count];
    node.contd(["-n", "flood", "run", "-d"].into_iter().chain(args)).ok();
    // The shim writes up to a quarter of a mebibyte at once, and cuts off what did not fit whole.
    let free = || {
        let space = nix::sys::statvfs::statvfs(&dir).expect("its space");
        space.blocks_available() * space.fragment_size()
    };
    eventually("the disk to be full", || (free() < 256 << 10).then_some(()));
    // It has more to say than the disk and the pipe hold: it waits, and the bystander does not.
    let beats = Bystander::beats(&node);
    eventually("the bystander to go on", || (Bystander::beats(&node) > beats + 20).then_some(()));
    assert!(!node.root.join("input/at.1").exists(), "it has said what could not be written");
    assert_eq!(node.inspect_in("flood", "floods")["status"], "running");
    tmpfs(MsFlags::MS_REMOUNT, "64m");
    eventually("it goes on", || node.root.join("input/at.1").exists().then_some(()));
    fs::write(node.root.join("input/go"), "").expect("let it end");
    assert_eq!(node.contd(["-n", "flood", "wait", "floods"]).ok(), LET_GO.to_string());
    let lines = script::read_log(&dir.join("floods.log")).expect("a log");
    let runs = script::check_count(&lines).expect("every line once");
    assert_eq!(runs[&1].last.as_ref().map(|(word, _)| word.as_str()), Some("last"));
    println!("full disk: {} lines, none lost", lines.len());
    node.contd(["-n", "flood", "rm", "floods"]).ok();
    crate::harness::mounted::unmount(&dir);
    fs::remove_dir(&dir).expect("remove the directory of its logs");
    bystander.check_and_remove(&node);
    node.finish();
}
