//! The errors of a spec.

use std::time::Duration;

use super::{MAX_LIST_LEN, MAX_SPEC_BYTES};

/// The reason why a spec is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A required field is missing.
    #[error("spec: {field} is missing or empty")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A list has more than [`MAX_LIST_LEN`] entries.
    #[error("spec: {field} has {len} entries, more than {MAX_LIST_LEN}")]
    TooMany {
        /// The field.
        field: &'static str,
        /// The number of entries.
        len: usize,
    },
    /// The spec has more text than [`MAX_SPEC_BYTES`].
    #[error("spec: {bytes} bytes of text are more than {MAX_SPEC_BYTES}")]
    TooLarge {
        /// The number of bytes.
        bytes: usize,
    },
    /// A string is longer than the kernel accepts.
    #[error(
        "spec: {what} has {bytes} bytes, more than the {} that the kernel takes in one string",
        crate::exec::MAX_STRING_BYTES
    )]
    StringTooLong {
        /// The string; the value of a variable may be a secret and is not shown.
        what: String,
        /// Its length in bytes.
        bytes: usize,
    },
    /// Command and environment are longer than the kernel accepts.
    #[error("spec: command and environment take {bytes} bytes, more than the {limit} that the kernel takes")]
    ExecTooLarge {
        /// The number of bytes that they take.
        bytes: usize,
        /// The most bytes.
        limit: usize,
    },
    /// A text is too long or has a control character.
    #[error("spec: {field} {given:?} is too long or holds a control character")]
    BadText {
        /// The field.
        field: &'static str,
        /// The beginning of the text.
        given: String,
    },
    /// A path is not absolute, or has `..` in it.
    #[error("spec: {field} {given:?} is not an absolute path without `..`")]
    BadPath {
        /// The field.
        field: &'static str,
        /// The given path.
        given: String,
    },
    /// A mount's target is the root of the container.
    #[error("spec: a mount may not cover the container's root")]
    MountOverRoot,
    /// Two mounts have the same target.
    #[error("spec: {target:?} is the target of two mounts")]
    MountTwice {
        /// The target.
        target: String,
    },
    /// The mount's type does not have the option.
    #[error("spec: mount on {target:?}: {option:?} is no option of a {fs_type} mount{nearest}")]
    MountOption {
        /// The mount's target.
        target: String,
        /// The mount's type.
        fs_type: String,
        /// The option.
        option: String,
        /// The option that was probably meant, with the words around it; or empty.
        nearest: String,
    },
    /// contd does not support the option, or its value is invalid.
    #[error("spec: mount on {target:?}: option {option:?} is refused: {why}")]
    MountOptionRefused {
        /// The mount's target.
        target: String,
        /// The option.
        option: String,
        /// The reason.
        why: &'static str,
    },
    /// Two options exclude each other.
    #[error("spec: mount on {target:?}: options {one:?} and {other:?} contradict each other")]
    MountContradiction {
        /// The mount's target.
        target: String,
        /// One of them.
        one: String,
        /// The other.
        other: String,
    },
    /// An entry of the environment has no key.
    #[error("spec: environment entry {key:?} is not KEY=VALUE")]
    BadEnv {
        /// The part before the `=`; the value may be a secret and is not shown.
        key: String,
    },
    /// A text is not a user.
    #[error("spec: user {given:?} is not user[:group] or uid[:gid]")]
    BadUser {
        /// The given text.
        given: String,
    },
    /// Both `upper_dir` and `layer` say where the writable layer is.
    #[error("spec: layer and upper_dir both say where the writable layer lies")]
    TwoLayers,
    /// A text is not a restart policy.
    #[error("spec: {given:?} is not a restart policy")]
    BadRestartPolicy {
        /// The given text.
        given: String,
    },
    /// A time is longer than accepted.
    #[error("spec: {field} of {} seconds is more than {} seconds", given.as_secs(), most.as_secs())]
    TooLong {
        /// The field.
        field: &'static str,
        /// The given time.
        given: Duration,
        /// The longest time that is accepted.
        most: Duration,
    },
    /// A limit is too small for any process to run.
    #[error("spec: {field} limit {given} is less than {least}")]
    LimitTooSmall {
        /// The field.
        field: &'static str,
        /// The given limit.
        given: u64,
        /// The smallest limit that is accepted.
        least: u64,
    },
}

impl SpecError {
    /// Returns the accepted form.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing { field: "entrypoint" } => "name a command, or use a flist that has one",
            Self::Missing { .. } => "give a value",
            Self::TooMany { .. } | Self::TooLarge { .. } | Self::StringTooLong { .. } => {
                "pass large inputs by a mounted file"
            }
            Self::ExecTooLarge { .. } => {
                "pass large inputs by a mounted file, or run the daemon with a larger stack limit (ulimit -s)"
            }
            Self::BadText { .. } => "use a shorter text without control characters",
            Self::BadPath { .. } => "write the path from / on, without `..`",
            Self::MountOverRoot => "use the flist for the root, and mount below it",
            Self::MountTwice { .. } => "mount one of them elsewhere, or leave it out",
            Self::MountOption { fs_type, .. } if fs_type == "tmpfs" => {
                "a tmpfs takes ro, size=, mode=, uid=, gid=, nr_inodes=, nosuid, nodev, noexec, noatime"
            }
            Self::MountOption { .. } => {
                "a bind takes ro, rw, norecursive (with ro), bind, rbind, nosuid, nodev, noexec, noatime, rprivate, rslave, rshared"
            }
            Self::MountOptionRefused { .. } => "leave the option out",
            Self::MountContradiction { .. } => "keep one of the two",
            Self::BadEnv { .. } => "write KEY=VALUE; the key may not be empty and neither may hold a NUL",
            Self::BadUser { .. } => "for example 1000:1000, nobody, or www-data:www-data",
            Self::BadRestartPolicy { .. } => "use no, on-failure, on-failure:N, always or unless-stopped",
            Self::TooLong { .. } => "use at most a year: nothing waits longer",
            Self::TwoLayers => "give only one of them",
            Self::LimitTooSmall { .. } => "raise the limit, or leave it out for the node's default",
        }
    }
}
