//! No failure of ours can kill a container: every failpoint, every file operation, and what the world does to a node.
//!
//! `cargo test -p contd --test faults` runs a short form with a fixed selection; `make faults` runs the whole
//! (`CONTD_FAULTS=full`). `make soak` runs the cycles. What is promised by which test is in docs/reliability.md.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests: a broken assumption shall end the test, loudly, and real processes live in real time"
)]

use contd_test_harness as harness;

mod bystander;
mod driver;
mod form;
mod leaks;
mod mass;
mod misfortune;
mod points;
mod script;
mod soak;
mod strikes;
