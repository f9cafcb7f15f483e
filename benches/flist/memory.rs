//! Measures a server's memory: before any read, and after everything was read, by one reader and by four.

use std::fs;

use crate::report::{Table, bytes, mib};
use crate::server::Server;
use crate::setup::Setup;
use crate::stats::{Goal, Samples};
use crate::tools::tar;

/// The goal: a base, and a size per entry.
const GOAL_BYTES: u64 = 10 << 20;
const GOAL_BYTES_PER_ENTRY: u64 = 200;
const MIB: f64 = 1_048_576.0;

pub(crate) fn measure(setup: &Setup, table: &mut Table) {
    let cache = setup.run_dir.path("empty");
    let server = Server::start(&setup.run_dir, &setup.flist, &cache);
    let fresh = Memory::of(&server);
    tar(&server.root);
    setup.lists.cat(&server.root);
    let after = Memory::of(&server);
    server.stop();
    fs::remove_dir_all(&cache).expect("remove the cache");
    let goal = (GOAL_BYTES + GOAL_BYTES_PER_ENTRY * setup.tree.entries as u64) as f64 / MIB;
    table.value("server RSS, mounted", &one(fresh.rss / MIB), mib, Goal::None);
    table.value("server RSS, after a full read", &one(after.rss / MIB), mib, Goal::AtMost(goal));
    table.value("server PSS, after a full read", &one(after.pss / MIB), mib, Goal::None);
    table.value("server, its own memory, after a full read", &one(after.own / MIB), mib, Goal::None);
    table.value("server, highest RSS", &one(after.peak / MIB), mib, Goal::None);
    let per_entry = after.rss / setup.tree.entries as f64;
    table.value("server RSS per entry, after a full read", &one(per_entry), bytes, Goal::None);
}

fn one(value: f64) -> Samples {
    let mut samples = Samples::default();
    samples.push_value(value);
    samples
}

/// The bytes of all processes of a server.
#[derive(Debug, Default)]
struct Memory {
    rss: f64,
    pss: f64,
    own: f64,
    peak: f64,
}

impl Memory {
    fn of(server: &Server) -> Self {
        let mut memory = Self::default();
        let pids = server.processes();
        assert!(!pids.is_empty(), "the server is gone");
        for pid in pids {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("read smaps_rollup");
            let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("read the status");
            memory.rss += field(&text, "Rss:");
            memory.pss += field(&text, "Pss:");
            memory.own += field(&text, "Anonymous:");
            memory.peak += field(&status, "VmHWM:");
        }
        memory
    }
}

/// Returns the value of a line `Name:  123 kB`, in bytes.
fn field(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(name)).expect("the field");
    let kib: f64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib * 1024.0
}
