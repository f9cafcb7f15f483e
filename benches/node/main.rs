//! Measures what contd promises to be fast, as ratios: each figure beside a peer or the floor in the same run.
//!
//! `make bench`, or a part of it: `cargo bench -p contd --bench node -- launch logs`. Needs root and `runc`; for the
//! comparisons `containerd` (with `ctr`) and `conmon`; missing programs are reported.
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

use contd_test_harness::{self as harness, stats};

mod calls;
mod conmon;
mod exec;
mod floor;
mod idle_start;
mod inspect;
mod launch;
mod logs;
mod memory;
mod peers;
mod reattach;
mod setup;
mod slope;
mod throughput;
mod variants;

fn main() {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if let [_, flag, dir] = args.as_slice()
        && flag == floor::SERVER
    {
        return floor::serve(std::path::Path::new(dir));
    }
    let chosen: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wants = |name: &str| chosen.is_empty() || chosen.iter().any(|arg| arg == name);
    let benches: [(&str, fn()); 9] = [
        ("launch", launch::measure),
        ("exec", exec::measure),
        ("idle-start", idle_start::measure),
        ("throughput", throughput::measure),
        ("slope", slope::measure),
        ("memory", memory::measure),
        ("logs", logs::measure),
        ("reattach", reattach::measure),
        ("inspect", inspect::measure),
    ];
    for (name, measure) in benches {
        if wants(name) {
            println!("\n## {name}");
            measure();
        }
    }
}
