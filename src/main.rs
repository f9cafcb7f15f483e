//! The process: `contd daemon` and the verbs that ask it.
#![forbid(unsafe_code)]

mod cli;
mod config;
mod daemon;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(daemon::run)
}
