//! The error that callers of the API get, whichever module failed.
//!
//! Inside, every module has its own enum with sources; [`ApiError::from_error`] converts the chain once, at the edge.
//! `message` is the step that failed and its object, `causes` are the reasons (outermost first), `hint` is the next
//! step for a person.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::shortage::Shortage;

/// The most causes in an [`ApiError`]; a longer chain is a bug, not an explanation.
const MAX_CAUSES: usize = 16;

/// The kind of a failure, for programs. Append only: the order is the wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The request itself is wrong; repeating it does not help.
    InvalidArgument,
    /// The named object does not exist.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The container's state forbids it.
    Conflict,
    /// A bound on work in flight is reached; try again.
    Busy,
    /// The operation took longer than its deadline.
    Timeout,
    /// A store, a shim or a server that is needed does not answer.
    Unavailable,
    /// The caller may not do this.
    PermissionDenied,
    /// Data that was read is damaged: a flist, a block, a frame.
    Corrupt,
    /// The entrypoint does not exist in the root file system (a shell's 127).
    EntrypointNotFound,
    /// The entrypoint exists but cannot be executed (a shell's 126).
    EntrypointNotExecutable,
    /// The peers speak different versions.
    VersionMismatch,
    /// A resource of the node is used up: disk, memory, descriptors, pids.
    OutOfResources,
    /// This version, or this node, does not support the request.
    Unsupported,
    /// A bug of contd.
    Internal,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidArgument => "invalid argument",
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::PermissionDenied => "permission denied",
            Self::Corrupt => "corrupt",
            Self::EntrypointNotFound => "entrypoint not found",
            Self::EntrypointNotExecutable => "entrypoint not executable",
            Self::VersionMismatch => "version mismatch",
            Self::OutOfResources => "out of resources",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal error",
        })
    }
}

/// An error with a kind and a hint. Every error enum that can reach a caller implements it.
pub trait Explain: Error {
    /// Returns the kind, for programs.
    fn kind(&self) -> ErrorKind;

    /// Returns the next step for a person, if there is one.
    fn hint(&self) -> Option<String>;
}

/// A failure in the form that crosses a socket or an actor's edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// The kind, for programs.
    pub kind: ErrorKind,
    /// The step that failed, and its object.
    pub message: String,
    /// The reasons, outermost first.
    pub causes: Vec<String>,
    /// The next step for a person.
    pub hint: Option<String>,
}

impl ApiError {
    /// Makes an error without a cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// Adds the next step for a person.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Flattens an error and its sources.
    pub fn from_error(error: &(impl Explain + ?Sized)) -> Self {
        let causes = walk(error.source()).take(MAX_CAUSES).map(ToString::to_string).collect();
        Self { kind: error.kind(), message: error.to_string(), causes, hint: error.hint() }
    }

    /// Flattens an error without an [`Explain`] implementation. If a shortage is behind it, that decides kind and hint.
    pub fn flatten(kind: ErrorKind, error: &(dyn Error + 'static), hint: impl Into<String>) -> Self {
        let (kind, hint) = match Shortage::behind(error) {
            Some(shortage) => (ErrorKind::OutOfResources, shortage.hint().to_owned()),
            None => (kind, hint.into()),
        };
        let causes = causes(error).take(MAX_CAUSES).map(ToString::to_string).collect();
        Self { kind, message: error.to_string(), causes, hint: Some(hint) }
    }

    /// Returns message and causes on one line, for people.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        for cause in &self.causes {
            text.push_str(": ");
            text.push_str(cause);
        }
        text
    }
}

/// Walks over the sources of an error, nearest first; the error itself is not among them.
pub fn causes(error: &dyn Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    walk(error.source())
}

fn walk<'a>(first: Option<&'a (dyn Error + 'static)>) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = first;
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// Returns an error with its sources on one line.
pub fn one_line(error: &dyn Error) -> String {
    causes(error).fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Shows the whole chain, because an `ApiError` has no sources.
impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain())
    }
}

impl Error for ApiError {}

impl Explain for ApiError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

impl From<crate::spec::SpecError> for ApiError {
    fn from(error: crate::spec::SpecError) -> Self {
        Self::new(ErrorKind::InvalidArgument, error.to_string()).with_hint(error.hint())
    }
}

impl From<crate::name::NameError> for ApiError {
    fn from(error: crate::name::NameError) -> Self {
        Self::new(ErrorKind::InvalidArgument, error.to_string()).with_hint(error.hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("open the door")]
    struct Outer {
        source: Inner,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the key is missing")]
    struct Inner;

    impl Explain for Outer {
        fn kind(&self) -> ErrorKind {
            ErrorKind::NotFound
        }
        fn hint(&self) -> Option<String> {
            Some("look under the mat".into())
        }
    }

    #[test]
    fn the_chain_keeps_every_cause_once() {
        let flat = ApiError::from_error(&Outer { source: Inner });
        assert_eq!(flat.to_string(), "open the door: the key is missing");
        assert_eq!(flat.hint.as_deref(), Some("look under the mat"));
        assert_eq!(flat.kind, ErrorKind::NotFound);
    }
}
