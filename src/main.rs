//! The process: `contd daemon`, the verbs that ask it, and `contd doctor`, which looks after its node.
#![forbid(unsafe_code)]

mod cli;
mod config;
mod daemon;
mod doctor;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(daemon::run)
}
