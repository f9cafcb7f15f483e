//! The process: `contd daemon`, the verbs that call it, and `contd doctor`, which checks its node.
#![forbid(unsafe_code)]

mod cli;
mod config;
mod daemon;
mod doctor;
mod flist_places;

use std::process::ExitCode;

/// One heap for all threads. glibc's allocator keeps memory that a thread has freed for that thread alone; the daemon
/// has dozens of threads, and its memory would grow for days: docs/decisions/0014-allocator.md.
#[global_allocator]
static HEAP: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    cli::main(daemon::run)
}
