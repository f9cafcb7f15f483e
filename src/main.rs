//! The process: the command line, and `contd daemon`. The two do not know each other; both read the same configuration.
#![forbid(unsafe_code)]

mod cli;
mod config;
mod daemon;

use std::process::ExitCode;

/// One heap for all threads. glibc's keeps what a thread has freed for that thread alone, and the daemon has dozens of them,
/// which go on collecting for days: docs/decisions/0014-allocator.md.
#[global_allocator]
static HEAP: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    cli::main(daemon::run)
}
