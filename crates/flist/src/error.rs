//! The categories of the errors of this crate.

use contd_types::ErrorKind;

/// The category of an error, for callers that decide without reading its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlistErrorKind {
    /// The named object does not exist: a flist, a directory, or a block in all stores that were asked.
    NotFound,
    /// A server or store did not answer, or not in time. Worth a retry.
    Unreachable,
    /// A server or store refused the request, or the policy for the flist forbids it.
    Denied,
    /// The data is damaged or hostile: it does not match its hash, its length or the format.
    Corrupt,
    /// The request is invalid: a bad URL, a directory where a file is expected.
    Invalid,
    /// The request is valid, but this version does not support it: an unknown scheme.
    Unsupported,
    /// The output exists already.
    Exists,
    /// The local system refused: permissions, disk full, an I/O error.
    Io,
}

/// Maps the category to the one of the API.
impl From<FlistErrorKind> for ErrorKind {
    fn from(kind: FlistErrorKind) -> Self {
        match kind {
            FlistErrorKind::NotFound => Self::NotFound,
            FlistErrorKind::Unreachable => Self::Unavailable,
            FlistErrorKind::Denied => Self::PermissionDenied,
            FlistErrorKind::Corrupt => Self::Corrupt,
            FlistErrorKind::Invalid => Self::InvalidArgument,
            FlistErrorKind::Unsupported => Self::Unsupported,
            FlistErrorKind::Exists => Self::AlreadyExists,
            FlistErrorKind::Io => Self::Internal,
        }
    }
}
