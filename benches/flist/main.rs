//! Measures the cost of serving a flist as ratios: each figure beside ext4 and EROFS on the same tree in the same run.
//!
//! `make bench-flist`, or a part of it: `cargo bench -p contd --bench flist -- --only walk`. Needs root, `/dev/fuse`,
//! and for the comparisons `mkfs.erofs`; missing parts are reported. Drops the machine's page cache often.
//!
//! ```text
//! the machine's /usr ── copy, bounded ──► tree (ext4) ── mkfs.erofs ──► image, mounted from its file
//!                                          └ contd flist pack ──► .fl + dir store ── contd-flistfs ──► FUSE mount
//! ```
//! Cold is a dropped page cache. For contd there are two kinds: with the block cache kept, as after a restart, and with
//! an empty one, so that every block is fetched from the store, verified and kept. The goals are about the first.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a measurement ends loudly when something is wrong, and lives in real time"
)]

use contd_test_harness::{census, stats};

mod container;
mod contents;
mod control;
mod daemon;
mod failover;
mod first_byte;
mod forms;
mod latency;
mod memory;
mod native;
mod packing;
mod report;
mod rfs;
mod run_dir;
mod server;
mod setup;
mod tools;
mod tree;
mod walk;

use report::Table;
use setup::Setup;

type Measure = fn(&Setup, &mut Table);

fn main() {
    let chosen = chosen();
    let benches: [(&str, Measure); 8] = [
        ("walk", walk::measure),
        ("contents", contents::measure),
        ("latency", latency::measure),
        ("first-byte", first_byte::measure),
        ("memory", memory::measure),
        ("pack", packing::measure),
        ("failover", failover::measure),
        ("container", container::measure),
    ];
    let known: Vec<&str> = benches.iter().map(|(name, _)| *name).collect();
    for name in &chosen {
        assert!(known.contains(&name.as_str()), "--only {name}: there is {}", known.join(", "));
    }
    let begin = std::time::Instant::now();
    let setup = Setup::prepare();
    let mut table = Table::default();
    for (name, measure) in benches {
        if chosen.is_empty() || chosen.iter().any(|only| only == name) {
            eprintln!("## {name} (after {:.0} s)", begin.elapsed().as_secs_f64());
            measure(&setup, &mut table);
        }
    }
    let about = setup.describe();
    setup.finish();
    println!("{about}\n\n{table}\n\n{:.0} s in all.", begin.elapsed().as_secs_f64());
}

/// Parses `--only NAME`, which may be repeated; skips the flag that cargo adds (`--bench`).
fn chosen() -> Vec<String> {
    let mut chosen = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => {}
            "--only" => chosen.push(args.next().expect("--only wants a name")),
            other => panic!("what is {other}? Usage: --only NAME"),
        }
    }
    chosen
}
