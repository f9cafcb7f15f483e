//! The command line, given by the daemon and not by people.

use std::ffi::OsString;
use std::path::PathBuf;

/// The command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Args {
    /// Serve the task in this lease directory.
    Serve {
        /// Absolute.
        dir: PathBuf,
        /// The state that the shim finds.
        role: Role,
    },
    /// Be the holder of a node, the ancestor of its shims.
    Hold {
        /// Its lease directory, absolute.
        dir: PathBuf,
        /// The descriptor of the lease's lock, when this process is the holder already and has executed this program.
        lock: Option<i32>,
    },
    /// Print the version.
    Version,
}

/// The state that a shim finds when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A task, and nothing made of it.
    Fresh,
    /// No task yet: be a warm slot, on the leash that is standard input.
    Slot,
    /// The container of a predecessor that died: go on with it. Standard input may be a pidfd of its init.
    Successor,
    /// The same, in the process of the predecessor, which has executed this program and left it the lease's lock.
    Resumed {
        /// The descriptor of the lock.
        lock: i32,
    },
}

/// Why the command line is not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgsError {
    /// Not one of the forms.
    #[error(
        "read the command line: not `--dir DIR [--slot|--adopt|--resume LOCK]`, `--hold DIR [--resume LOCK]` or `--version`"
    )]
    Usage,
    /// The shim leaves its working directory.
    #[error("read the command line: the directory {dir:?} is not absolute")]
    Relative {
        /// As given.
        dir: PathBuf,
    },
}

/// The longest form has so many; one more is read to see that there is none.
const MAX_WORDS: usize = 4;

/// Reads the arguments behind the program's name.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Args, ArgsError> {
    let words: Vec<OsString> = arguments.take(MAX_WORDS + 1).collect();
    let (dir, role) = match words.as_slice() {
        [option] if option == "--version" => return Ok(Args::Version),
        [option, dir] if option == "--hold" => return absolute(dir).map(|dir| Args::Hold { dir, lock: None }),
        [option, dir, resume, lock] if option == "--hold" && resume == "--resume" => {
            let lock = Some(number(lock)?);
            return absolute(dir).map(|dir| Args::Hold { dir, lock });
        }
        [option, dir] if option == "--dir" => (dir, Role::Fresh),
        [option, dir, slot] if option == "--dir" && slot == "--slot" => (dir, Role::Slot),
        [option, dir, adopt] if option == "--dir" && adopt == "--adopt" => (dir, Role::Successor),
        [option, dir, resume, lock] if option == "--dir" && resume == "--resume" => {
            (dir, Role::Resumed { lock: number(lock)? })
        }
        _ => return Err(ArgsError::Usage),
    };
    absolute(dir).map(|dir| Args::Serve { dir, role })
}

fn number(word: &OsString) -> Result<i32, ArgsError> {
    word.to_str().and_then(|word| word.parse().ok()).ok_or(ArgsError::Usage)
}

fn absolute(dir: &OsString) -> Result<PathBuf, ArgsError> {
    let dir = PathBuf::from(dir);
    if dir.is_absolute() { Ok(dir) } else { Err(ArgsError::Relative { dir }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Args, ArgsError> {
        parse(words.iter().map(OsString::from))
    }

    #[test]
    fn only_the_documented_forms_are_understood() {
        let serve = |role| Ok(Args::Serve { dir: "/run/x".into(), role });
        assert_eq!(parsed(&["--dir", "/run/x"]), serve(Role::Fresh));
        assert_eq!(parsed(&["--dir", "/run/x", "--slot"]), serve(Role::Slot));
        assert_eq!(parsed(&["--dir", "/run/x", "--adopt"]), serve(Role::Successor));
        assert_eq!(parsed(&["--dir", "/run/x", "--resume", "7"]), serve(Role::Resumed { lock: 7 }));
        assert_eq!(parsed(&["--dir", "/run/x", "--resume", "x"]), Err(ArgsError::Usage));
        let hold = |lock| Ok(Args::Hold { dir: "/run/h".into(), lock });
        assert_eq!(parsed(&["--hold", "/run/h"]), hold(None));
        assert_eq!(parsed(&["--hold", "/run/h", "--resume", "7"]), hold(Some(7)));
        assert_eq!(parsed(&["--version"]), Ok(Args::Version));
        for bad in [&[][..], &["--dir"], &["--dir", "/x", "y"], &["--slot"], &["x"], &["--version", "x"]] {
            assert_eq!(parsed(bad), Err(ArgsError::Usage), "{bad:?}");
        }
        assert_eq!(parsed(&["--hold", "h"]), Err(ArgsError::Relative { dir: "h".into() }));
        assert_eq!(parsed(&["--dir", "x"]), Err(ArgsError::Relative { dir: "x".into() }));
    }
}
