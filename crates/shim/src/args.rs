//! The command line: one option, given by the daemon and not by people.

use std::ffi::OsString;
use std::path::PathBuf;

/// What the command line says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Args {
    /// Serve the task in this lease directory.
    Serve {
        /// Absolute.
        dir: PathBuf,
    },
    /// Print the version.
    Version,
}

/// Why the command line is not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgsError {
    /// Not one of the two forms.
    #[error("read the command line: not `--dir DIR` or `--version`")]
    Usage,
    /// The shim leaves its working directory.
    #[error("read the command line: the directory {dir:?} is not absolute")]
    Relative {
        /// As given.
        dir: PathBuf,
    },
}

/// Reads the arguments behind the program's name.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Args, ArgsError> {
    let mut arguments = arguments.fuse();
    match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(option), None, None) if option == "--version" => Ok(Args::Version),
        (Some(option), Some(dir), None) if option == "--dir" => {
            let dir = PathBuf::from(dir);
            if dir.is_absolute() { Ok(Args::Serve { dir }) } else { Err(ArgsError::Relative { dir }) }
        }
        _ => Err(ArgsError::Usage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Args, ArgsError> {
        parse(words.iter().map(OsString::from))
    }

    #[test]
    fn only_the_two_documented_forms_are_understood() {
        assert_eq!(parsed(&["--dir", "/run/x"]), Ok(Args::Serve { dir: "/run/x".into() }));
        assert_eq!(parsed(&["--version"]), Ok(Args::Version));
        for bad in [&[][..], &["--dir"], &["--dir", "/x", "y"], &["x"], &["--version", "x"]] {
            assert_eq!(parsed(bad), Err(ArgsError::Usage), "{bad:?}");
        }
        assert_eq!(parsed(&["--dir", "x"]), Err(ArgsError::Relative { dir: "x".into() }));
    }
}
