//! The process: the command line, and `contd daemon`. The two do not know each other; both read the same configuration.
#![forbid(unsafe_code)]

mod cli;
mod config;
mod daemon;

use std::process::ExitCode;

/// One heap for all threads. glibc's allocator keeps memory that a thread has freed for that thread alone; the daemon
/// has dozens of threads, and its memory would grow for days: docs/decisions/0014-allocator.md.
#[global_allocator]
static HEAP: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    cli::main(daemon::run)
}
