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
    /// A text is not a group.
    #[error("spec: group {given:?} is neither a name nor a number")]
    BadGroup {
        /// The given text.
        given: String,
    },
    /// The kernel has no such capability.
    #[error("spec: {given:?} is no capability")]
    BadCapability {
        /// The given text.
        given: String,
    },
    /// A text is not a device.
    #[error("spec: device {given:?} is not SOURCE[:TARGET][:rwm] with absolute paths")]
    BadDevice {
        /// The given text.
        given: String,
    },
    /// A text is not a limit of processes.
    #[error("spec: ulimit {given:?} is not KIND=SOFT[:HARD], or its soft limit is above the hard one")]
    BadUlimit {
        /// The given text.
        given: String,
    },
    /// A sysctl cannot be set for one container.
    #[error("spec: sysctl {name:?} is refused: {why}")]
    SysctlRefused {
        /// The sysctl.
        name: String,
        /// The reason.
        why: &'static str,
    },
    /// The kernel takes no such adjustment.
    #[error("spec: oom score adjustment {given} is not between -1000 and 1000")]
    BadOomScore {
        /// The given number.
        given: i16,
    },
    /// A text is not the name of a host.
    #[error("spec: {given:?} is no host name")]
    BadHostname {
        /// The given text.
        given: String,
    },
    /// A text is not a host and its address.
    #[error("spec: host {given:?} is not NAME:ADDRESS")]
    BadHost {
        /// The given text.
        given: String,
    },
    /// A text is not an option of a resolver.
    #[error("spec: {given:?} is no option of a resolver")]
    BadDnsOption {
        /// The given text.
        given: String,
    },
    /// An annotation is contd's own, or has no key.
    #[error("spec: annotation {key:?} cannot be set")]
    BadAnnotation {
        /// The key.
        key: String,
    },
    /// A number is not between those that the kernel takes.
    #[error("spec: {field} {given} is not between {least} and {most}")]
    OutOfBounds {
        /// The field.
        field: &'static str,
        /// The given number.
        given: u64,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// Both the CPU limit and the quota say how much CPU time it has.
    #[error("spec: the CPU limit and the CPU quota both say how much CPU time it has")]
    TwoCpuLimits,
    /// A text is no set of processors or memory nodes.
    #[error("spec: {field} {given:?} is not a list such as 0-3,7")]
    BadCpuset {
        /// The field.
        field: &'static str,
        /// The given text.
        given: String,
    },
    /// A setting is fixed when the container is made.
    #[error("spec: {field} cannot be changed")]
    Unchangeable {
        /// The setting.
        field: &'static str,
    },
    /// A limit of memory and swap together says nothing without one of memory.
    #[error("spec: a limit of memory and swap together takes a memory limit")]
    SwapWithoutMemory,
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
            Self::BadGroup { .. } => "for example 27, or audio",
            Self::BadCapability { .. } => "for example NET_ADMIN, or ALL; capabilities(7) lists them",
            Self::BadDevice { .. } => "for example /dev/ttyUSB0, or /dev/sda:/dev/xvda:r",
            Self::BadUlimit { .. } => "for example nofile=1024:4096 or core=-1; setrlimit(2) lists the kinds",
            Self::SysctlRefused { .. } => {
                "only those of the IPC namespace (kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*) and, in an own network, net.* can be set"
            }
            Self::BadOomScore { .. } => "use a number between -1000 (never) and 1000 (first)",
            Self::BadHostname { .. } => "use letters, digits and dashes, with dots between, at most 64",
            Self::BadHost { .. } => "for example db:192.0.2.1; contd knows no host-gateway, since it makes no networks",
            Self::BadDnsOption { .. } => "one word without blanks, for example ndots:2; resolv.conf(5) lists them",
            Self::BadAnnotation { .. } => "use a key that does not begin with tech.contd.",
            Self::OutOfBounds { .. } => "use a number between these, or leave it out",
            Self::TwoCpuLimits => "give only one of them",
            Self::BadCpuset { .. } => "write numbers and ranges, for example 0-3,7",
            Self::Unchangeable { .. } => "remove the container and run it with another value",
            Self::SwapWithoutMemory => "give a memory limit, too",
            Self::BadRestartPolicy { .. } => "use no, on-failure, on-failure:N, always or unless-stopped",
            Self::TooLong { .. } => "use at most a year: nothing waits longer",
            Self::TwoLayers => "give only one of them",
            Self::LimitTooSmall { .. } => "raise the limit, or leave it out for the node's default",
        }
    }
}
