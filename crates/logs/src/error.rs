//! The errors around a log file.

use std::io;
use std::path::PathBuf;

use contd_types::{ErrorKind, Explain, Shortage};

/// An operation on a log file that failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file could not be opened or made.
    #[error("open log {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bytes of this call could not be written; none of them is in the file, and the call may be repeated.
    #[error("write log {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The files could not be shifted by one; the writer goes on in the file it has.
    #[error("rotate log {}", path.display())]
    Rotate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file could not be read.
    #[error("read log {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of ours could not be removed or moved.
    #[error("remove log {}", path.display())]
    Remove {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or directory that contd did not make is in the way. It is left alone.
    #[error("use {} for a log: {what}", path.display())]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// The kind of file found there.
        what: &'static str,
    },
}

impl LogError {
    /// Returns the system's error, if the operation failed by one.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Open { source, .. }
            | Self::Write { source, .. }
            | Self::Rotate { source, .. }
            | Self::Remove { source, .. }
            | Self::Read { source, .. } => Some(source),
            Self::Foreign { .. } => None,
        }
    }
}

impl Explain for LogError {
    fn kind(&self) -> ErrorKind {
        let Some(source) = self.io() else { return ErrorKind::AlreadyExists };
        match source.kind() {
            _ if Shortage::of(source).is_some() => ErrorKind::OutOfResources,
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self.io() {
            None => {
                "choose another name or namespace for the container, or move that away: contd writes to, moves and \
                 removes only what it has made"
            }
            Some(source) => match (Shortage::of(source), source.kind()) {
                (Some(shortage), _) => shortage.hint(),
                (None, io::ErrorKind::PermissionDenied) => "the log directory must belong to the user that runs contd",
                (None, io::ErrorKind::NotFound) => "make the log directory of this namespace",
                _ => "look at the disk of the logs and at the kernel log; repeating is safe",
            },
        };
        Some(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_runs_out_under_a_log_is_named_with_its_path() {
        for (number, limit) in [(28, "space"), (122, "quota"), (24, "open files"), (23, "fs.file-max"), (12, "memory")]
        {
            let error = LogError::Write { path: "/log/a/x.log".into(), source: io::Error::from_raw_os_error(number) };
            assert_eq!(error.kind(), ErrorKind::OutOfResources, "{number}");
            assert!(error.hint().is_some_and(|hint| hint.contains(limit)), "{number}: {:?}", error.hint());
            assert!(error.to_string().contains("/log/a/x.log"));
        }
    }
}
