//! Reasons to refuse a spec.

use std::time::Duration;

use super::{MAX_LIST_LEN, MAX_SPEC_BYTES};

/// Why a spec is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A field that cannot be left out.
    #[error("spec: {field} is missing or empty")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A list with more than [`MAX_LIST_LEN`] entries.
    #[error("spec: {field} has {len} entries, more than {MAX_LIST_LEN}")]
    TooMany {
        /// The field.
        field: &'static str,
        /// How many there are.
        len: usize,
    },
    /// More text than [`MAX_SPEC_BYTES`].
    #[error("spec: {bytes} bytes of text are more than {MAX_SPEC_BYTES}")]
    TooLarge {
        /// How much there is.
        bytes: usize,
    },
    /// A string that the kernel does not take.
    #[error(
        "spec: {what} has {bytes} bytes, more than the {} that the kernel takes in one string",
        crate::exec::MAX_STRING_BYTES
    )]
    StringTooLong {
        /// Which; the value of a variable may be a secret and is not shown.
        what: String,
        /// How long it is.
        bytes: usize,
    },
    /// More of a command and its environment than the kernel takes.
    #[error("spec: command and environment take {bytes} bytes, more than the {limit} that the kernel takes")]
    ExecTooLarge {
        /// How much they take.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// A text that is too long or holds a control character.
    #[error("spec: {field} {given:?} is too long or holds a control character")]
    BadText {
        /// The field.
        field: &'static str,
        /// Its beginning.
        given: String,
    },
    /// A path that must be absolute and without `..`.
    #[error("spec: {field} {given:?} is not an absolute path without `..`")]
    BadPath {
        /// The field.
        field: &'static str,
        /// What was given.
        given: String,
    },
    /// A mount over the root of the container.
    #[error("spec: a mount may not cover the container's root")]
    MountOverRoot,
    /// Two mounts at one place.
    #[error("spec: {target:?} is the target of two mounts")]
    MountTwice {
        /// The place.
        target: String,
    },
    /// An option that the mount's type does not have.
    #[error("spec: mount on {target:?}: {option:?} is no option of a {fs_type} mount{nearest}")]
    MountOption {
        /// Where it was to go.
        target: String,
        /// The mount's type.
        fs_type: String,
        /// The option.
        option: String,
        /// What may have been meant, with the words around it; or nothing.
        nearest: String,
    },
    /// An option that contd does not support, or whose value makes no sense.
    #[error("spec: mount on {target:?}: option {option:?} is refused: {why}")]
    MountOptionRefused {
        /// Where it was to go.
        target: String,
        /// The option.
        option: String,
        /// Why.
        why: &'static str,
    },
    /// Two options of which only one can hold.
    #[error("spec: mount on {target:?}: options {one:?} and {other:?} contradict each other")]
    MountContradiction {
        /// Where it was to go.
        target: String,
        /// One of them.
        one: String,
        /// The other.
        other: String,
    },
    /// An environment entry without a key.
    #[error("spec: environment entry {key:?} is not KEY=VALUE")]
    BadEnv {
        /// The part before the `=`; the value may be a secret and is not shown.
        key: String,
    },
    /// Not a user.
    #[error("spec: user {given:?} is not user[:group] or uid[:gid]")]
    BadUser {
        /// What was given.
        given: String,
    },
    /// A directory of the caller's, and another place for the same layer.
    #[error("spec: layer and upper_dir both say where the writable layer lies")]
    TwoLayers,
    /// Not a restart policy.
    #[error("spec: {given:?} is not a restart policy")]
    BadRestartPolicy {
        /// What was given.
        given: String,
    },
    /// A time that is longer than anybody waits.
    #[error("spec: {field} of {} seconds is more than {} seconds", given.as_secs(), most.as_secs())]
    TooLong {
        /// Which time.
        field: &'static str,
        /// What was given.
        given: Duration,
        /// The most that is accepted.
        most: Duration,
    },
    /// A limit under which nothing can run.
    #[error("spec: {field} limit {given} is less than {least}")]
    LimitTooSmall {
        /// Which limit.
        field: &'static str,
        /// What was given.
        given: u64,
        /// The least that is accepted.
        least: u64,
    },
}

impl SpecError {
    /// Says what would be accepted.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing { field: "entrypoint" } => "name a command, or use an flist that has one",
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
