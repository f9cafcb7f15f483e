//! Starts one flist server and waits until it serves: the launcher forks, and ends when the mount is ready.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use contd_lease::{ProcessError, ProcessIdentity, pidfd, wait_dead};
use contd_types::{ApiError, ErrorKind, Shortage};

use crate::provider::RootfsError;

/// How long a server may take until its mount is ready. 20,000 inodes take 30 ms, a million a second or two.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes of an error text that are read.
const MAX_STDERR_BYTES: u64 = 16 * 1024;

/// Runs the launcher for a reserved lease directory.
pub(crate) fn launch(binary: &Path, dir: &Path, flist: &str) -> Result<(), RootfsError> {
    run(binary, dir, &[], flist)
}

/// Runs the launcher for a successor of the server that lives in this lease directory.
pub(crate) fn succeed(binary: &Path, dir: &Path, flist: &str) -> Result<(), RootfsError> {
    run(binary, dir, &["--succeed"], flist)
}

fn run(binary: &Path, dir: &Path, more: &[&str], flist: &str) -> Result<(), RootfsError> {
    let failed = |source| RootfsError::Server { flist: flist.to_owned(), source };
    let mut child = Command::new(binary)
        .arg("--dir")
        .arg(dir)
        .args(more)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            let what = format!("run {}", binary.display());
            let mut source = match Shortage::of_spawn(&error) {
                Some(shortage) => ApiError::new(ErrorKind::OutOfResources, what).with_hint(shortage.hint()),
                None => ApiError::new(ErrorKind::Internal, what)
                    .with_hint("install contd-flistfs, or name it in the configuration"),
            };
            source.causes.push(error.to_string());
            failed(source)
        })?;
    match wait(&mut child) {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => Err(failed(explain(&mut child, status))),
        Ok(None) => Err(RootfsError::ServerSilent { flist: flist.to_owned(), waited: START_TIMEOUT }),
        Err(error) => Err(failed(ApiError::flatten(ErrorKind::Internal, &error, error.hint()))),
    }
}

/// Waits for the launcher; `None` when it took too long and was ended.
fn wait(child: &mut Child) -> Result<Option<ExitStatus>, ProcessError> {
    let reaped = |result: std::io::Result<ExitStatus>| result.map_err(|source| ProcessError::Wait { source });
    // It is our child and not reaped, so its pid is its own.
    let identity = i32::try_from(child.id()).ok().map(ProcessIdentity::of).transpose()?.flatten();
    let is_dead = match identity.as_ref().map(pidfd).transpose()?.flatten() {
        Some(fd) => wait_dead(&fd, START_TIMEOUT)?,
        None => true,
    };
    if is_dead {
        return reaped(child.wait()).map(Some);
    }
    // It may just have ended: then there is nothing to kill, and the wait returns at once.
    let _already_dead = child.kill();
    reaped(child.wait())?;
    Ok(None)
}

/// Reads `error: …` and `hint: …`, and takes the kind from the exit code (see `contd_flistfs::launch::exit_code`).
fn explain(child: &mut Child, status: ExitStatus) -> ApiError {
    let mut text = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // The text that can be read is passed on; the exit code is the main thing.
        let _partial = stderr.take(MAX_STDERR_BYTES).read_to_end(&mut text);
    }
    let text = String::from_utf8_lossy(&text);
    let said = |prefix: &str| text.lines().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned);
    let kind = match status.code() {
        Some(64) => ErrorKind::InvalidArgument,
        Some(65) => ErrorKind::Corrupt,
        Some(66) => ErrorKind::NotFound,
        Some(69) => ErrorKind::Unavailable,
        Some(71) => ErrorKind::OutOfResources,
        Some(75) => ErrorKind::Busy,
        Some(76) => ErrorKind::VersionMismatch,
        Some(77) => ErrorKind::PermissionDenied,
        Some(78) => ErrorKind::Unsupported,
        _ => ErrorKind::Internal,
    };
    let message = said("error: ").unwrap_or_else(|| format!("the flist server ended with {status}"));
    let hint = said("hint: ").unwrap_or_else(|| "run it by hand to see why: contd-flistfs --dir DIR".to_owned());
    ApiError::new(kind, message).with_hint(hint)
}
