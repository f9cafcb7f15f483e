//! From the command line to a server that stands on its own: fork, wait for its word, pass it on.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use contd_process::{Side, Word, detach, fork_and_wait};
use contd_types::{ApiError, ErrorKind};
use nix::sys::stat::Mode;

use crate::keeper;

/// The umask of a server: only root may use its files.
const MASK: Mode = Mode::from_bits_truncate(0o077);

/// The command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Serve what this lease directory says.
    Serve(PathBuf, Start),
    /// Print the version.
    Version,
}

/// How a server begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Mount anew.
    Fresh,
    /// Go on with the mount of the server that lives, in its place.
    Succeed,
}

/// Why the command line makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("usage: contd-flistfs --dir <lease directory> [--succeed] | --version")]
pub struct Usage;

/// Reads the arguments, without the program's name.
///
/// # Errors
/// [`Usage`].
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Usage> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match arguments.as_slice() {
        [flag, dir] if flag == "--dir" => Ok(Command::Serve(PathBuf::from(dir), Start::Fresh)),
        [flag, dir, succeed] if flag == "--dir" && succeed == "--succeed" => {
            Ok(Command::Serve(PathBuf::from(dir), Start::Succeed))
        }
        [flag] if flag == "--version" => Ok(Command::Version),
        _ => Err(Usage),
    }
}

/// Starts a server for a lease directory, or a successor of the one that lives there, and returns once it serves.
///
/// In the parent it returns what the child reported. In the child it returns when the server has ended.
///
/// # Errors
/// An [`ApiError`] of the step that failed, with kind and hint.
pub fn launch(dir: &Path, start: Start) -> Result<(), ApiError> {
    let failed = |what: &str, error: io::Error| {
        ApiError::new(ErrorKind::Internal, format!("start the flist server of {}: {what}: {error}", dir.display()))
    };
    // The child leaves the working directory.
    let dir = std::path::absolute(dir).map_err(|error| failed("find the directory", error))?;
    match fork_and_wait().map_err(|error| failed("fork", error))? {
        Side::Parent(Ok(Word::Ready)) => Ok(()),
        Side::Parent(Ok(Word::Failed(words))) => Err(serde_json::from_slice(&words).unwrap_or_else(|_not_json| {
            ApiError::new(ErrorKind::Internal, "the flist server ended without a word")
                .with_hint("see flistfs.log in its directory")
        })),
        Side::Parent(Err(error)) => Err(failed("wait for the server", error)),
        Side::Child(pipe) => detach(MASK)
            .map_err(|error| failed("detach", error))
            .and_then(|()| keeper::run(&dir, start, &pipe))
            .inspect_err(|error| pipe.failed(&serde_json::to_vec(error).unwrap_or_default())),
    }
}

/// The exit code of the launcher for a kind of failure, as `sysexits.h` has them, so that a caller need not read text.
pub fn exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Corrupt => 65,
        ErrorKind::NotFound => 66,
        ErrorKind::Unavailable | ErrorKind::Timeout => 69,
        ErrorKind::OutOfResources => 71,
        ErrorKind::Busy | ErrorKind::Conflict | ErrorKind::AlreadyExists => 75,
        ErrorKind::VersionMismatch => 76,
        ErrorKind::PermissionDenied => 77,
        ErrorKind::InvalidArgument => 64,
        ErrorKind::Unsupported => 78,
        _ => 70,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_documented_forms_are_accepted() {
        let parse_all = |words: &[&str]| parse(words.iter().map(OsString::from));
        let serve = |start| Ok(Command::Serve(PathBuf::from("/x"), start));
        assert_eq!(parse_all(&["--dir", "/x"]), serve(Start::Fresh));
        assert_eq!(parse_all(&["--dir", "/x", "--succeed"]), serve(Start::Succeed));
        assert_eq!(parse_all(&["--version"]), Ok(Command::Version));
        for bad in [&[][..], &["--dir"], &["/x"], &["--dir", "/x", "more"], &["--help"]] {
            assert_eq!(parse_all(bad), Err(Usage), "{bad:?}");
        }
    }
}
