//! `contd-seccomp < section.json > filter`: writes the filter's flags (u32, little-endian), then its instructions.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, Read, Write};
use std::process::ExitCode;

/// The most bytes of a section; a profile that names every system call has about 100 KiB.
const MAX_SECTION_BYTES: u64 = 4 * 1024 * 1024;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == "--version") {
        return say(&mut io::stdout(), concat!("contd-seccomp/", env!("CARGO_PKG_VERSION")), ExitCode::SUCCESS);
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => say(&mut io::stderr(), &contd_types::one_line(&*error), ExitCode::FAILURE),
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut section = Vec::new();
    io::stdin().take(MAX_SECTION_BYTES).read_to_end(&mut section)?;
    let filter = contd_seccomp::compile(&section)?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(&filter.flags.to_le_bytes())?;
    stdout.write_all(&filter.program)?;
    stdout.flush()?;
    Ok(())
}

fn say(to: &mut dyn Write, words: &str, code: ExitCode) -> ExitCode {
    // If standard error is closed, the exit code must do.
    let _nobody_listens = writeln!(to, "{words}");
    code
}
