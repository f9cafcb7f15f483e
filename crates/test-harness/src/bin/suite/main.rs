//! Runs the whole test suite: one build for all of it, then the test binaries beside each other.
//!
//! ```text
//! cargo build --all-targets ──> test binaries ──> plan (once, or once per variant) ──> schedule ──> report
//! ```
//!
//! `suite vm` runs the end-to-end tests in virtual machines instead: [`vm`]. `suite vm-power` takes the power of one: [`power`].
//!
//! A red test stops nothing: all is run, then the exit code is 1. A failure is printed with the command that repeats it. An ignored
//! test is a failure too: a suite that leaves something out is not green. Output of each job: `target/suite/`.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a tool for people that prints its report, lives in real time, and indexes JSON, which never panics"
)]

mod build;
mod events;
mod job;
mod load;
mod plan;
mod power;
mod report;
mod schedule;
mod vm;

use std::process::ExitCode;

use load::Load;

/// How the suite is run.
#[derive(Debug)]
struct Options {
    /// How often.
    count: usize,
    /// During which of the runs the machine is loaded.
    load: Load,
    /// Only jobs whose name contains one of these; all if empty.
    only: Vec<String>,
}

const USAGE: &str = "usage: suite [--repeat COUNT] [--load none|half|all] [--only PART-OF-A-JOB'S-NAME]...";

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { count: 1, load: Load::None, only: Vec::new() };
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("{flag} wants a value"))?;
            match flag.as_str() {
                "--repeat" => options.count = value.parse().map_err(|error| format!("--repeat {value}: {error}"))?,
                "--load" => options.load = value.parse()?,
                "--only" => options.only.push(value),
                _ => return Err(format!("{flag} is not known")),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    let verb = args.next_if(|word| word == "vm" || word == "vm-power");
    let result = match verb.as_deref() {
        Some("vm") => vm::Options::parse(args).map(|options| vm::run(&options)),
        Some(_) => power::Options::parse(args).map(|options| power::run(&options)),
        None => Options::parse(args).map(|options| run(&options)),
    };
    let result = match result {
        Ok(result) => result,
        Err(error) => {
            eprintln!("error: {error}\n{USAGE}\n{}\n{}", vm::USAGE, power::USAGE);
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether all runs were green.
fn run(options: &Options) -> Result<bool, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("the tests make containers and want root".to_owned());
    }
    let built = build::build(None)?;
    vm::check(&built)?;
    let binaries = built.tests;
    let mut summaries = Vec::new();
    for number in 0..options.count {
        let is_loaded = options.load.is_on(number);
        if options.count > 1 {
            let with = if is_loaded { "beside a load on all cores" } else { "alone" };
            println!("\n== run {} of {}, {with}", number + 1, options.count);
        }
        let burner = if is_loaded { Some(load::Burner::start()?) } else { None };
        let jobs = plan::plan(&binaries, &options.only)?;
        let summary = report::Summary::of(schedule::run_all(jobs, |_job| {})?);
        drop(burner);
        summary.print();
        summaries.push(summary);
    }
    if options.count > 1 {
        report::print_runs(&summaries);
    }
    Ok(summaries.iter().all(report::Summary::is_green))
}
