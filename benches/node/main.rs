//! What contd promises to be fast, measured as ratios: each figure beside a peer or the floor in the same run.
//!
//! `make bench`, or one of them: `cargo bench -p contd -- run|inspect|memory|reattach`. Wants root, `runc`, and for the
//! comparison with containerd its `ctr` and a running or startable `containerd`; what is missing is said, not passed over.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    reason = "a measurement ends loudly when something is wrong, and lives in real time"
)]

#[path = "../../tests/e2e/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "shared with the end-to-end tests, which use more of it")]
mod harness;
mod inspect;
mod memory;
mod peers;
mod reattach;
mod run_to_removed;
mod stats;

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wants = |name: &str| chosen.is_empty() || chosen.iter().any(|arg| arg == name);
    let benches: [(&str, fn()); 4] = [
        ("run", run_to_removed::measure),
        ("inspect", inspect::measure),
        ("memory", memory::measure),
        ("reattach", reattach::measure),
    ];
    for (name, measure) in benches {
        if wants(name) {
            println!("\n## {name}");
            measure();
        }
    }
}
