//! The process: `contd daemon`, the verbs that ask it, and `contd doctor`, which looks after its node.
#![forbid(unsafe_code)]

mod cli;
mod config;
mod daemon;
mod doctor;

use std::process::ExitCode;

/// One heap for all threads. glibc's keeps what a thread has freed for that thread alone, and the daemon has dozens of them,
/// which go on collecting for days: docs/decisions/0014-allocator.md.
#[global_allocator]
static HEAP: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    cli::main(daemon::run)
}
