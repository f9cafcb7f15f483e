//! Runs the compiler `contd-seccomp`, which links libseccomp so that no other program has to.
//!
//! It gets the section on standard input and answers on standard output with the filter's flags (u32, little-endian) and
//! its instructions as they lie in memory.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{FilterError, Program, file};

/// The most bytes of its error output that are kept.
const MAX_WORDS_BYTES: u64 = 4096;

/// Compiles a section.
pub(super) fn run(compiler: &Path, section: &[u8]) -> Result<Program, FilterError> {
    let failed = |source| FilterError::Run { path: compiler.to_owned(), source };
    let mut child = Command::new(compiler)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // It reads all of its input before it answers, and its answer and its error output fit into a pipe each.
    if let Some(mut stdin) = child.stdin.take() {
        let _told_by_its_status = stdin.write_all(section);
    }
    let (mut answer, mut words) = (Vec::new(), Vec::new());
    if let Some(stdout) = child.stdout.take() {
        stdout.take(file::MAX_BYTES as u64).read_to_end(&mut answer).map_err(failed)?;
    }
    if let Some(stderr) = child.stderr.take() {
        stderr.take(MAX_WORDS_BYTES).read_to_end(&mut words).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        let words = String::from_utf8_lossy(&words).trim().to_owned();
        let words = if words.is_empty() { format!("it ended with {status}") } else { words };
        return Err(FilterError::Refused { words });
    }
    decode(&answer).ok_or_else(|| FilterError::Damaged { path: compiler.to_owned() })
}

fn decode(answer: &[u8]) -> Option<Program> {
    let (flags, code) = answer.split_at_checked(4)?;
    let (chunks, rest) = code.as_chunks::<8>();
    if chunks.is_empty() || !rest.is_empty() {
        return None;
    }
    let instructions = chunks.iter().map(|chunk| u64::from_ne_bytes(*chunk)).collect();
    Some(Program { instructions, flags: u32::from_le_bytes(flags.try_into().ok()?) })
}
