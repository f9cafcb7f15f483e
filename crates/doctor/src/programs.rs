//! The programs that the daemon starts: found, executable, of this version.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use contd_lease::{ProcessIdentity, pidfd, wait_dead};

use crate::error::LookError;
use crate::finding::Finding;
use crate::node::Node;
use contd_node::programs::{NATIVE, find};

/// How long a program may take to say its version.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// More than any of them says; the rest is not read.
const MAX_ANSWER_BYTES: u64 = 4096;
const OUR_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Checks them.
pub(crate) fn check(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let programs = match find(node.config) {
        Ok(programs) => programs,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            return Ok(vec![
                Finding::problem(format!("{error}{cause}"))
                    .because("contd daemon does not start without it")
                    .remedy(error.hint()),
            ]);
        }
    };
    let mut findings: Vec<Finding> =
        [&programs.shim, &programs.flistfs, &programs.seccomp].into_iter().map(|path| ours(path)).collect();
    findings.extend(programs.oci.iter().map(|(name, path)| runtime(name, path, &node.config.runtime.default)));
    if programs.oci.is_empty() {
        findings.push(Finding::ok(format!("no OCI runtime in PATH; containers are made by {NATIVE}")));
    }
    Ok(findings)
}

fn ours(path: &Path) -> Finding {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match version(path) {
        Ok(answer) if is_ours(&answer) => Finding::ok(answer).at(path),
        Ok(answer) => Finding::problem(format!("{name} is of another version: {answer}, not {OUR_VERSION}"))
            .at(path)
            .because("the programs of one contd are tested together only")
            .remedy("install all programs of one version, or correct its path under [runtime]"),
        Err(why) => cannot_run(&name, path, &why),
    }
}

fn runtime(name: &str, path: &Path, default: &str) -> Finding {
    match version(path) {
        Ok(answer) => Finding::ok(answer).at(path),
        Err(why) if name == default => cannot_run(name, path, &why),
        Err(why) => Finding::warning(format!("{name} does not work: {why}"))
            .at(path)
            .because("containers that ask for it cannot be run")
            .remedy("install it anew, or take it out of PATH"),
    }
}

fn cannot_run(name: &str, path: &Path, why: &str) -> Finding {
    Finding::problem(format!("{name} does not say its version: {why}"))
        .at(path)
        .because("containers cannot be run without it")
        .remedy(format!("install it anew, and try {} --version", path.display()))
}

fn is_ours(answer: &str) -> bool {
    answer.split(['/', ' ']).nth(1) == Some(OUR_VERSION)
}

/// Returns the first line that a program says to `--version`.
fn version(path: &Path) -> Result<String, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let mut command = Command::new(path);
    command.arg("--version").current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| text(&error))?;
    // Our child, not reaped: its pid is its own.
    let identity = ProcessIdentity::of(i32::try_from(child.id()).unwrap_or(-1)).map_err(|error| text(&error))?;
    let fd = identity.as_ref().map(pidfd).transpose().map_err(|error| text(&error))?.flatten();
    let is_done = fd.map_or(Ok(true), |fd| wait_dead(&fd, ANSWER_TIMEOUT)).map_err(|error| text(&error))?;
    // A program that has ended cannot be killed.
    let _gone = child.kill();
    let status = child.wait().map_err(|error| text(&error))?;
    if !is_done {
        return Err(format!("no answer within {ANSWER_TIMEOUT:?}"));
    }
    if !status.success() {
        return Err(format!("it ended with {status}"));
    }
    let mut answer = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_ANSWER_BYTES).read_to_string(&mut answer).map_err(|error| text(&error))?;
    }
    let line = answer.lines().next().unwrap_or_default().trim();
    if line.is_empty() { Err("it says nothing".to_owned()) } else { Ok(line.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;
    use std::os::unix::fs::PermissionsExt;

    fn script(dir: &Path, text: &str) -> std::path::PathBuf {
        let path = dir.join("contd-shim");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("made executable");
        path
    }

    #[test]
    fn a_program_is_judged_by_what_it_says() {
        let dir = tempfile::tempdir().expect("a directory");
        for (text, severity) in [
            (format!("echo contd-shim/{OUR_VERSION}"), Severity::Ok),
            (format!("echo contd-flistfs {OUR_VERSION}; echo more"), Severity::Ok),
            ("echo contd-shim/0.0.1".to_owned(), Severity::Problem),
            ("exit 3".to_owned(), Severity::Problem),
            ("true".to_owned(), Severity::Problem),
        ] {
            assert_eq!(ours(&script(dir.path(), &text)).severity, severity, "{text}");
        }
        assert_eq!(ours(&dir.path().join("none")).severity, Severity::Problem);
    }

    #[test]
    fn a_broken_runtime_is_a_problem_only_when_it_is_the_default() {
        let dir = tempfile::tempdir().expect("a directory");
        let broken = script(dir.path(), "exit 1");
        assert_eq!(runtime("crun", &broken, "native").severity, Severity::Warning);
        assert_eq!(runtime("crun", &broken, "crun").severity, Severity::Problem);
    }
}
