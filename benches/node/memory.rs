//! The memory of idle containers: PSS of the shims beside real conmons, and of the daemon beside a containerd with as
//! many.

use std::fs;

use serde_json::Value;

use crate::calls::{SLEEP, request_in};
use crate::conmon::{self, Conmon};
use crate::harness::census::command_lines;
use crate::setup::Setup;
use crate::stats::{Goal, ratio};
use crate::variants::{Contender, Variant};

/// The numbers of idle containers for the monitors, and for the daemons.
const MONITORED: usize = 20;
const HELD: usize = 50;

/// Returns the proportional set size of a process, in KiB (proc_pid_smaps(5)).
fn pss_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("read smaps_rollup");
    let line = text.lines().find(|line| line.starts_with("Pss:")).expect("a Pss line");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// Returns the mean PSS in MiB.
fn mean_mib(pids: &[u32]) -> f64 {
    pids.iter().map(|&pid| pss_kib(pid)).sum::<u64>() as f64 / pids.len() as f64 / 1024.0
}

/// Lists the processes of a program with this first argument whose command line names this contender's node.
fn processes(contender: &Contender, program: &str, flag: &str) -> Vec<u32> {
    let root = contender.node.root.display().to_string();
    let is_ours = |line: &str| {
        let mut words = line.split(' ');
        let is_it = words.next().is_some_and(|name| name.ends_with(program)) && words.next() == Some(flag);
        is_it && line.contains(&root)
    };
    command_lines().into_iter().filter(|(_, line)| is_ours(line)).map(|(pid, _)| pid.cast_unsigned()).collect()
}

fn sleeper(config: &Value) -> Value {
    let mut config = config.clone();
    config["process"]["args"] = SLEEP.into();
    config
}

pub(crate) fn measure() {
    let setup = Setup::new("memory");
    let sleeper = sleeper(&setup.config);
    shims(&setup, &sleeper);
    daemons(&setup, &sleeper);
    setup.finish();
}

fn fill(contender: &Contender, setup: &Setup, from: usize, to: usize) {
    for number in from..to {
        let request = request_in(&setup.netns.name, &format!("c{number}"), contender.flist.arg(), SLEEP);
        contender.caller.run(request);
    }
    // Wait until the temporary memory of the starts is released.
    std::thread::sleep(std::time::Duration::from_secs(1));
}

fn empty(contender: Contender, count: usize) {
    for number in 0..count {
        contender.caller.delete(&format!("c{number}"));
    }
    contender.finish();
}

fn shims(setup: &Setup, sleeper: &Value) {
    let monitors: Vec<Conmon> = if conmon::is_there() {
        (0..MONITORED)
            .map(|number| Conmon::create(&setup.path(&format!("m{number}")), sleeper, setup.cgroup_parent()))
            .collect()
    } else {
        Vec::new()
    };
    monitors.iter().for_each(Conmon::start);
    for variant in [Variant::NoPool, Variant::Runc] {
        let contender = Contender::start(variant);
        // The keeper is one of the processes.
        fill(&contender, setup, 1, MONITORED);
        let shims = processes(&contender, "contd-shim", "--dir");
        assert_eq!(shims.len(), MONITORED, "one shim per container");
        let shim = mean_mib(&shims);
        println!("{:44} {shim:9.3} MiB PSS", format!("shim, mean of {MONITORED} idle: {}", variant.name()));
        println!("{:44} {:9.3} MiB PSS", "their holder", mean_mib(&processes(&contender, "contd-shim", "--hold")));
        if !monitors.is_empty() {
            let pids: Vec<u32> = monitors.iter().map(Conmon::pid).collect();
            let theirs = mean_mib(&pids);
            println!("{:44} {theirs:9.3} MiB PSS", format!("conmon, mean of {MONITORED} idle"));
            let goal = if variant == Variant::NoPool { Goal::AtMost(0.5) } else { Goal::None };
            ratio("shim / conmon", shim, theirs, goal);
        }
        for number in 1..MONITORED {
            contender.caller.delete(&format!("c{number}"));
        }
        contender.finish();
    }
    monitors.into_iter().for_each(Conmon::delete);
}

fn daemons(setup: &Setup, sleeper: &Value) {
    let contender = Contender::start(Variant::Slots);
    let none = mean_mib(&[contender.node.daemon_pid()]);
    fill(&contender, setup, 0, HELD);
    let daemon = mean_mib(&[contender.node.daemon_pid()]);
    println!("{:44} {none:9.3} MiB PSS", "daemon with 1 container");
    println!("{:44} {daemon:9.3} MiB PSS", format!("daemon with {HELD} containers"));
    println!("{:44} {:9.3} MiB PSS", "flist server", mean_mib(&processes(&contender, "contd-flistfs", "--dir")));
    if let Some(containerd) = setup.containerd() {
        for number in 0..HELD {
            containerd.start_one(sleeper, &format!("h{number}"));
        }
        let theirs = mean_mib(&[containerd.pid()]);
        println!("{:44} {theirs:9.3} MiB PSS", format!("containerd with {HELD} containers"));
        ratio("daemon / containerd", daemon, theirs, Goal::AtMost(0.15));
        for number in 0..HELD {
            containerd.delete(&format!("h{number}"));
        }
    }
    empty(contender, HELD);
}
