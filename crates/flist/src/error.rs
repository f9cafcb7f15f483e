//! The classes that every error of this crate falls in.

use contd_types::ErrorKind;

/// Says what sort of trouble an error is, so that a caller can map it without reading text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlistErrorKind {
    /// The thing named does not exist: a flist, a directory, a block in every store that was asked.
    NotFound,
    /// A server or store did not answer, or not in time. Worth a retry.
    Unreachable,
    /// A server or store answered that we may not, or the policy for the flist says so.
    Denied,
    /// What is there is damaged or hostile: it does not match its hash, its length or the format.
    Corrupt,
    /// What was asked makes no sense: a bad URL, a directory where a file is meant.
    Invalid,
    /// Valid, but this version does not do it: an unknown scheme.
    Unsupported,
    /// What shall be made is there already.
    Exists,
    /// The local system refused: permissions, disk full, an I/O error.
    Io,
}

/// The kind in which it travels.
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
