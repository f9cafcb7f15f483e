//! The command line, given by the daemon and not by people.

use std::ffi::OsString;
use std::path::PathBuf;

/// What the command line says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Args {
    /// Serve the task in this lease directory.
    Serve {
        /// Absolute.
        dir: PathBuf,
        /// There is no task yet: be a warm slot, on the leash that is standard input.
        is_slot: bool,
    },
    /// Print the version.
    Version,
}

/// Why the command line is not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgsError {
    /// Not one of the forms.
    #[error("read the command line: not `--dir DIR [--slot]` or `--version`")]
    Usage,
    /// The shim leaves its working directory.
    #[error("read the command line: the directory {dir:?} is not absolute")]
    Relative {
        /// As given.
        dir: PathBuf,
    },
}

/// The longest form has so many; one more is read to see that there is none.
const MAX_WORDS: usize = 3;

/// Reads the arguments behind the program's name.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Args, ArgsError> {
    let words: Vec<OsString> = arguments.take(MAX_WORDS + 1).collect();
    let (dir, is_slot) = match words.as_slice() {
        [option] if option == "--version" => return Ok(Args::Version),
        [option, dir] if option == "--dir" => (dir, false),
        [option, dir, slot] if option == "--dir" && slot == "--slot" => (dir, true),
        _ => return Err(ArgsError::Usage),
    };
    let dir = PathBuf::from(dir);
    if dir.is_absolute() { Ok(Args::Serve { dir, is_slot }) } else { Err(ArgsError::Relative { dir }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Args, ArgsError> {
        parse(words.iter().map(OsString::from))
    }

    #[test]
    fn only_the_documented_forms_are_understood() {
        assert_eq!(parsed(&["--dir", "/run/x"]), Ok(Args::Serve { dir: "/run/x".into(), is_slot: false }));
        assert_eq!(parsed(&["--dir", "/run/x", "--slot"]), Ok(Args::Serve { dir: "/run/x".into(), is_slot: true }));
        assert_eq!(parsed(&["--version"]), Ok(Args::Version));
        for bad in [&[][..], &["--dir"], &["--dir", "/x", "y"], &["--slot"], &["x"], &["--version", "x"]] {
            assert_eq!(parsed(bad), Err(ArgsError::Usage), "{bad:?}");
        }
        assert_eq!(parsed(&["--dir", "x"]), Err(ArgsError::Relative { dir: "x".into() }));
    }
}
