//! The spec of a container: its program and settings, as callers give them and as they are stored.
//!
//! Fields are plain, so that a caller can fill them in; `Run` first checks them by [`ContainerSpec::validate`]. A field
//! that is `None` gets the node's default from its configuration, never from here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::layer::LayerKind;
use crate::mount::MountSpec;
use crate::name::{ContainerName, NetnsName};
use crate::signal::Signal;

mod error;
mod names;
mod resources;
mod rights;

pub use error::SpecError;
pub use names::{HostEntry, NameService};
pub use resources::{MemorySwap, Resources};
pub use rights::{Capability, DeviceSpec, IPC_SYSCTLS, Rights, Seccomp, Ulimit, UlimitKind};

/// The longest path that Linux accepts (`PATH_MAX` less the NUL).
pub const MAX_PATH_BYTES: usize = 4095;
/// The most entries in any list of a spec; far above real use, and still harmless.
pub const MAX_LIST_LEN: usize = 1024;
/// The most bytes of all texts of a spec together, so that a spec fits into one frame with room for the rest.
pub const MAX_SPEC_BYTES: usize = 256 * 1024;
/// The longest stop time-out: a year. A longer one means "never", and sums of it with other times and clocks must not
/// overflow.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(366 * 24 * 3600);
/// The smallest memory limit under which a process can start, in bytes.
pub const MIN_MEMORY_BYTES: u64 = 4 * 1024 * 1024;

/// The smallest file of a log: one piece of output is at most 16 KiB.
pub const MIN_LOG_BYTES: u64 = 64 * 1024;
/// The beginning of the annotations that contd sets itself.
pub const OWN_ANNOTATIONS: &str = "tech.contd.";
/// The longest name of a host (`HOST_NAME_MAX`).
const MAX_HOSTNAME_BYTES: usize = 64;

/// The description of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The name, unique in the namespace.
    pub name: ContainerName,
    /// The root: a path or URL of a `.fl` file, or `dir:/path` for a plain directory.
    pub flist: String,
    /// The caller's tags, kept and shown.
    pub tags: Vec<String>,
    /// Environment, each `KEY=VALUE`.
    pub env: Vec<String>,
    /// The network that the container joins.
    pub network: Network,
    /// The mounts, each with a target of its own; deeper targets are mounted later.
    pub mounts: Vec<MountSpec>,
    /// The command to run; `None` takes the flist's, and so it is for working directory, user and stop signal.
    pub entrypoint: Option<Entrypoint>,
    /// Absolute working directory inside the root; `None` is `/`.
    pub working_dir: Option<String>,
    /// The user and group to run as; `None` is root.
    pub user: Option<UserSpec>,
    /// Memory limit in bytes; `None` is the node's default.
    pub memory_bytes: Option<u64>,
    /// CPU limit; `None` is the node's default.
    pub cpu: Option<CpuLimit>,
    /// The most processes and threads; `None` is the node's default.
    pub pids_limit: Option<u32>,
    /// Whether the root file system is read-only.
    pub is_read_only: bool,
    /// The size limit of the writable layer in bytes, refused if it cannot be enforced; `None` is the node's default,
    /// applied where it can be enforced.
    pub rootfs_size_bytes: Option<u64>,
    /// The caller's own directory for the writable layer; kept when the container is removed.
    pub upper_dir: Option<String>,
    /// The restart policy for an end that was not requested.
    pub restart: RestartPolicy,
    /// The signal that asks the container to end; `None` is SIGTERM.
    pub stop_signal: Option<Signal>,
    /// The time between that signal and SIGKILL; `None` is the node's default.
    pub shutdown_timeout: Option<Duration>,
    /// Adds `CAP_SYS_ADMIN` and `/dev/fuse`, as 0-OS's own services need.
    pub is_elevated: bool,
    /// The propagation of mounts between the container's root and the host.
    pub rootfs_propagation: Propagation,
    /// The caller's key and value pairs, kept, shown and used in filters.
    pub labels: BTreeMap<String, String>,
    /// Whether the container is deleted as soon as it has ended.
    pub is_auto_removed: bool,
    /// The name of the node's runtime to use (`native`, `runc`, ...); `None` is the node's default.
    pub runtime: Option<String>,
    /// The place of the writable layer; `None` is the node's default. Not together with `upper_dir`.
    #[serde(default)]
    pub layer: Option<LayerKind>,
    /// Whether its standard input is open for callers; otherwise it is `/dev/null`.
    #[serde(default)]
    pub is_interactive: bool,
    /// Whether its process has a terminal, which all it says goes through.
    #[serde(default)]
    pub has_terminal: bool,
    /// The rights of its processes, beyond the defaults or less.
    #[serde(default)]
    pub rights: Rights,
    /// Shares and limits beyond memory, CPU and processes.
    #[serde(default)]
    pub resources: Resources,
    /// Its host name; `None` is its name.
    #[serde(default)]
    pub hostname: Option<String>,
    /// The names that it resolves.
    #[serde(default)]
    pub names: NameService,
    /// The caller's annotations, for the runtime and its hooks; not of the prefix `tech.contd.`.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The size from which on the next file of its log is begun, in bytes; `None` is the node's.
    #[serde(default)]
    pub log_max_bytes: Option<u64>,
    /// How many files of its log are kept; `None` is the node's.
    #[serde(default)]
    pub log_max_files: Option<u32>,
}

impl ContainerSpec {
    /// Makes a spec with all optional fields left out and a new, empty network namespace.
    pub fn new(name: ContainerName, flist: impl Into<String>) -> Self {
        Self {
            name,
            flist: flist.into(),
            tags: Vec::new(),
            env: Vec::new(),
            network: Network::Private,
            mounts: Vec::new(),
            entrypoint: None,
            working_dir: None,
            user: None,
            memory_bytes: None,
            cpu: None,
            pids_limit: None,
            is_read_only: false,
            rootfs_size_bytes: None,
            upper_dir: None,
            restart: RestartPolicy::No,
            stop_signal: None,
            shutdown_timeout: None,
            is_elevated: false,
            rootfs_propagation: Propagation::Private,
            labels: BTreeMap::new(),
            is_auto_removed: false,
            runtime: None,
            layer: None,
            is_interactive: false,
            has_terminal: false,
            rights: Rights::default(),
            resources: Resources::default(),
            hostname: None,
            names: NameService::default(),
            annotations: BTreeMap::new(),
            log_max_bytes: None,
            log_max_files: None,
        }
    }

    /// Checks all that can be checked without the machine.
    ///
    /// # Errors
    /// The first [`SpecError`] found; nothing was changed.
    pub fn validate(&self) -> Result<(), SpecError> {
        self.check_strings()?;
        self.check_sizes()?;
        check_text("flist", &self.flist, MAX_PATH_BYTES)?;
        if self.flist.is_empty() {
            return Err(SpecError::Missing { field: "flist" });
        }
        for entry in &self.env {
            check_env(entry)?;
        }
        self.check_mounts()?;
        if let Some(entrypoint) = &self.entrypoint {
            entrypoint.validate()?;
        }
        if let Some(dir) = &self.working_dir {
            check_absolute("working_dir", dir)?;
        }
        if let Some(dir) = &self.upper_dir {
            check_absolute("upper_dir", dir)?;
            if self.layer.is_some() {
                return Err(SpecError::TwoLayers);
            }
        }
        self.rights.validate(self.network == Network::Private)?;
        self.resources.validate(self.memory_bytes, self.cpu.is_some())?;
        self.check_names()?;
        self.check_limits()
    }

    fn check_names(&self) -> Result<(), SpecError> {
        if let Some(name) = self.hostname.as_deref().filter(|name| !is_hostname(name)) {
            return Err(SpecError::BadHostname { given: shorten(name) });
        }
        self.names.validate()?;
        let own = self.annotations.keys().find(|key| key.is_empty() || key.starts_with(OWN_ANNOTATIONS));
        if let Some(key) = own {
            return Err(SpecError::BadAnnotation { key: shorten(key) });
        }
        match self.log_max_bytes {
            Some(given) if given < MIN_LOG_BYTES => {
                Err(SpecError::LimitTooSmall { field: "log size", given, least: MIN_LOG_BYTES })
            }
            _ if self.log_max_files == Some(0) => {
                Err(SpecError::LimitTooSmall { field: "log files", given: 0, least: 1 })
            }
            _ => Ok(()),
        }
    }

    fn check_sizes(&self) -> Result<(), SpecError> {
        let lists = [
            ("tags", self.tags.len()),
            ("env", self.env.len()),
            ("mounts", self.mounts.len()),
            ("labels", self.labels.len()),
            ("annotations", self.annotations.len()),
        ];
        for (field, len) in lists {
            if len > MAX_LIST_LEN {
                return Err(SpecError::TooMany { field, len });
            }
        }
        let texts = self.tags.iter().chain(&self.env).map(String::len).sum::<usize>()
            + self.labels.iter().chain(&self.annotations).map(|(key, value)| key.len() + value.len()).sum::<usize>()
            + self.mounts.iter().map(MountSpec::text_bytes).sum::<usize>()
            + self.entrypoint.as_ref().map_or(0, Entrypoint::text_bytes);
        if texts > MAX_SPEC_BYTES { Err(SpecError::TooLarge { bytes: texts }) } else { Ok(()) }
    }

    fn check_mounts(&self) -> Result<(), SpecError> {
        let mut places = BTreeSet::new();
        for mount in &self.mounts {
            mount.validate()?;
            let place = mount.place();
            if !places.insert(place.clone()) {
                return Err(SpecError::MountTwice { target: shorten(&place) });
            }
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), SpecError> {
        if let Some(given) = self.shutdown_timeout.filter(|timeout| *timeout > MAX_TIMEOUT) {
            return Err(SpecError::TooLong { field: "stop timeout", given, most: MAX_TIMEOUT });
        }
        match self.memory_bytes {
            Some(bytes) if bytes < MIN_MEMORY_BYTES => {
                return Err(SpecError::LimitTooSmall { field: "memory", given: bytes, least: MIN_MEMORY_BYTES });
            }
            _ => {}
        }
        if self.pids_limit == Some(0) {
            return Err(SpecError::LimitTooSmall { field: "pids", given: 0, least: 1 });
        }
        match self.rootfs_size_bytes {
            Some(0) => Err(SpecError::LimitTooSmall { field: "rootfs size", given: 0, least: 1 }),
            _ => Ok(()),
        }
    }
}

/// The network that a container joins. contd makes and configures none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// A new, empty network namespace: loopback only.
    Private,
    /// The network namespace of this name, which must exist.
    Named(NetnsName),
}

/// The command of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entrypoint {
    /// One line, split by the shell's rules (quotes, backslash), never expanded.
    Line(String),
    /// A program and its arguments. If the flist is of an image with an entrypoint, these are its arguments, in place
    /// of the image's own.
    Args(Vec<String>),
    /// A program and its arguments, in place of any entrypoint of the image.
    Exact(Vec<String>),
}

impl Entrypoint {
    /// Returns how many bytes its texts have.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Line(line) => line.len(),
            Self::Args(args) | Self::Exact(args) => args.iter().map(String::len).sum(),
        }
    }

    fn validate(&self) -> Result<(), SpecError> {
        let first = match self {
            Self::Line(line) => {
                check_nul("entrypoint", line)?;
                line.trim()
            }
            Self::Args(args) | Self::Exact(args) => {
                for arg in args {
                    check_nul("entrypoint", arg)?;
                }
                args.first().map_or("", String::as_str)
            }
        };
        if first.is_empty() { Err(SpecError::Missing { field: "entrypoint" }) } else { Ok(()) }
    }
}

/// The user that a container runs as: `user`, `user:group`, `uid` or `uid:gid`; names are looked up in its own root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserSpec(String);

impl UserSpec {
    /// Parses a user.
    ///
    /// # Errors
    /// [`SpecError::BadUser`] for an empty part, a second colon, or a character that no passwd file can hold.
    pub fn new(text: impl Into<String>) -> Result<Self, SpecError> {
        let text = text.into();
        let mut parts = text.split(':');
        let good = |part: &str| {
            !part.is_empty()
                && part.len() <= 64
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '$'))
        };
        let is_valid = parts.next().is_some_and(good) && parts.next().is_none_or(good) && parts.next().is_none();
        if is_valid { Ok(Self(text)) } else { Err(SpecError::BadUser { given: text }) }
    }

    /// Returns the part before the colon: a name or a uid.
    pub fn user(&self) -> &str {
        self.0.split_once(':').map_or(self.0.as_str(), |(user, _)| user)
    }

    /// Returns the part after the colon: a name or a gid.
    pub fn group(&self) -> Option<&str> {
        self.0.split_once(':').map(|(_, group)| group)
    }
}

impl TryFrom<String> for UserSpec {
    type Error = SpecError;
    fn try_from(text: String) -> Result<Self, SpecError> {
        Self::new(text)
    }
}

impl From<UserSpec> for String {
    fn from(user: UserSpec) -> String {
        user.0
    }
}

impl fmt::Display for UserSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A CPU limit in thousandths of one CPU: 1500 is one and a half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct CpuLimit(u32);

impl CpuLimit {
    /// All of one CPU.
    pub const ONE: Self = Self(1000);
    /// The least limit: the kernel refuses a quota under 1 ms per 100 ms period.
    pub const LEAST_MILLIS: u32 = 10;

    /// Makes a limit from thousandths of a CPU.
    ///
    /// # Errors
    /// [`SpecError::LimitTooSmall`] under [`Self::LEAST_MILLIS`].
    pub fn from_millis(millis: u32) -> Result<Self, SpecError> {
        if millis < Self::LEAST_MILLIS {
            let (given, least) = (u64::from(millis), u64::from(Self::LEAST_MILLIS));
            return Err(SpecError::LimitTooSmall { field: "cpu (thousandths)", given, least });
        }
        Ok(Self(millis))
    }

    /// Returns thousandths of a CPU.
    pub fn millis(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for CpuLimit {
    type Error = SpecError;
    fn try_from(millis: u32) -> Result<Self, SpecError> {
        Self::from_millis(millis)
    }
}

impl From<CpuLimit> for u32 {
    fn from(limit: CpuLimit) -> u32 {
        limit.0
    }
}

/// The reaction to an end that was not requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// The container is not started again.
    #[default]
    No,
    /// The container is started again unless it returned 0, at most this often (`None`: without limit).
    OnFailure {
        /// The most restarts in a row.
        max_attempts: Option<u32>,
    },
    /// The container is started again, also after a reboot, even if a stop was requested before that reboot.
    Always,
    /// The container is started again, also after a reboot, unless a stop was requested.
    UnlessStopped,
}

impl RestartPolicy {
    /// Decides after an end that was not requested; `restarts` is the number of restarts in a row so far.
    pub fn wants_restart(self, is_success: bool, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure { max_attempts } => !is_success && max_attempts.is_none_or(|max| restarts < max),
            Self::Always | Self::UnlessStopped => true,
        }
    }

    /// Decides for a record of an earlier boot: was a stop requested, and did the container run when the node went
    /// down?
    pub fn wants_start_at_boot(self, was_told_to_stop: bool, was_running: bool) -> bool {
        match self {
            Self::No => false,
            // A reboot is neither a success nor a failure of the container: a running one is started again.
            Self::OnFailure { .. } => was_running && !was_told_to_stop,
            Self::Always => true,
            Self::UnlessStopped => !was_told_to_stop,
        }
    }
}

impl FromStr for RestartPolicy {
    type Err = SpecError;
    fn from_str(text: &str) -> Result<Self, SpecError> {
        match text.split_once(':') {
            None => match text {
                // "never" is podman's word.
                "no" | "never" => Ok(Self::No),
                "on-failure" => Ok(Self::OnFailure { max_attempts: None }),
                "always" => Ok(Self::Always),
                "unless-stopped" => Ok(Self::UnlessStopped),
                _ => Err(SpecError::BadRestartPolicy { given: text.to_owned() }),
            },
            Some(("on-failure", max)) => match max.parse() {
                Ok(max) => Ok(Self::OnFailure { max_attempts: Some(max) }),
                Err(_) => Err(SpecError::BadRestartPolicy { given: text.to_owned() }),
            },
            Some(_) => Err(SpecError::BadRestartPolicy { given: text.to_owned() }),
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure { max_attempts: None } => f.write_str("on-failure"),
            Self::OnFailure { max_attempts: Some(max) } => write!(f, "on-failure:{max}"),
            Self::Always => f.write_str("always"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

/// The propagation of mounts between a container's root and the host (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Propagation {
    /// No propagation.
    #[default]
    Private,
    /// From the host into the container.
    Slave,
    /// In both directions.
    Shared,
}

/// Tells whether it is a name of a host (RFC 1123), with or without a domain.
fn is_hostname(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.bytes().all(is_good) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= MAX_HOSTNAME_BYTES && text.split('.').all(is_label)
}

fn check_nul(field: &'static str, text: &str) -> Result<(), SpecError> {
    if text.contains('\0') { Err(SpecError::BadText { field, given: shorten(text) }) } else { Ok(()) }
}

pub(crate) fn check_text(field: &'static str, text: &str, max: usize) -> Result<(), SpecError> {
    let is_bad = text.len() > max || text.chars().any(char::is_control);
    if is_bad { Err(SpecError::BadText { field, given: shorten(text) }) } else { Ok(()) }
}

/// Checks a path. Any character of a file name is allowed, because paths are only shown in quotes.
pub(crate) fn check_path(field: &'static str, text: &str) -> Result<(), SpecError> {
    if text.len() > MAX_PATH_BYTES || text.contains('\0') {
        return Err(SpecError::BadText { field, given: shorten(text) });
    }
    let is_good = text.starts_with('/') && text.split('/').all(|part| part != "..");
    if is_good { Ok(()) } else { Err(SpecError::BadPath { field, given: shorten(text) }) }
}

fn check_absolute(field: &'static str, text: &str) -> Result<(), SpecError> {
    check_text(field, text, MAX_PATH_BYTES)?;
    check_path(field, text)
}

fn check_env(entry: &str) -> Result<(), SpecError> {
    let key = entry.split_once('=').map(|(key, _)| key);
    let is_good = key.is_some_and(|key| !key.is_empty()) && !entry.contains('\0');
    if is_good { Ok(()) } else { Err(SpecError::BadEnv { key: shorten(key.unwrap_or(entry)) }) }
}

/// Shortens a text of any length for an error message.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ContainerSpec {
        ContainerSpec::new(ContainerName::new("web").expect("valid"), "/x.fl")
    }

    fn bind(source: &str, target: &str) -> MountSpec {
        MountSpec { source: source.into(), target: target.into(), fs_type: "bind".into(), options: vec![] }
    }

    #[test]
    fn a_plain_spec_is_valid() {
        assert_eq!(spec().validate(), Ok(()));
    }

    #[test]
    fn mounts_must_be_absolute_and_below_the_root() {
        for (source, target) in [("rel", "/a"), ("/a", "rel"), ("/a", "/x/../../y"), ("/../a", "/b"), ("/a", "/")] {
            let mut bad = spec();
            bad.mounts.push(bind(source, target));
            assert!(bad.validate().is_err(), "{source}:{target} was accepted");
        }
    }

    #[test]
    fn one_place_is_the_target_of_one_mount() {
        let mut bad = spec();
        bad.mounts = vec![bind("/a", "/data"), bind("/b", "/data/sub"), bind("/c", "//data/.")];
        assert_eq!(bad.validate(), Err(SpecError::MountTwice { target: "/data".into() }));
        bad.mounts.pop();
        assert_eq!(bad.validate(), Ok(()));
    }

    #[test]
    fn an_error_about_the_environment_never_shows_a_value() {
        let mut bad = spec();
        bad.env.push("=secret".into());
        assert_eq!(bad.validate(), Err(SpecError::BadEnv { key: String::new() }));
    }

    #[test]
    fn an_empty_entrypoint_is_missing() {
        for empty in [Entrypoint::Line("  ".into()), Entrypoint::Args(vec![]), Entrypoint::Args(vec![String::new()])] {
            let mut bad = spec();
            bad.entrypoint = Some(empty);
            assert_eq!(bad.validate(), Err(SpecError::Missing { field: "entrypoint" }));
        }
    }

    #[test]
    fn an_oversize_environment_is_refused() {
        let mut bad = spec();
        bad.env = (0..MAX_LIST_LEN).map(|n| format!("K{n}={}", "x".repeat(300))).collect();
        assert!(matches!(bad.validate(), Err(SpecError::TooLarge { .. })));
    }

    #[test]
    fn a_layer_lies_in_one_place_only() {
        let mut bad = spec();
        (bad.layer, bad.upper_dir) = (Some(LayerKind::Memory), Some("/up".into()));
        assert_eq!(bad.validate(), Err(SpecError::TwoLayers));
        bad.upper_dir = None;
        assert_eq!(bad.validate(), Ok(()));
    }

    #[test]
    fn users_parse_by_parts() {
        let user = UserSpec::new("1000:www-data").expect("valid");
        assert_eq!((user.user(), user.group()), ("1000", Some("www-data")));
        for bad in ["", ":", "a:", ":a", "a:b:c", "a/b", "a b"] {
            assert!(UserSpec::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn restart_policies_parse_and_print_the_same() {
        for text in ["no", "on-failure", "on-failure:3", "always", "unless-stopped"] {
            assert_eq!(text.parse::<RestartPolicy>().expect(text).to_string(), text);
        }
        assert_eq!("never".parse(), Ok(RestartPolicy::No));
        for bad in ["", "on-failure:x", "sometimes", "always:3", "never:1"] {
            assert!(bad.parse::<RestartPolicy>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn on_failure_stops_at_its_maximum_and_after_success() {
        let policy = RestartPolicy::OnFailure { max_attempts: Some(2) };
        assert!(policy.wants_restart(false, 1));
        assert!(!policy.wants_restart(false, 2));
        assert!(!policy.wants_restart(true, 0));
    }

    #[test]
    fn told_to_stop_is_remembered_over_a_reboot_unless_the_policy_is_always() {
        assert!(!RestartPolicy::UnlessStopped.wants_start_at_boot(true, false));
        assert!(RestartPolicy::UnlessStopped.wants_start_at_boot(false, true));
        assert!(RestartPolicy::Always.wants_start_at_boot(true, false));
        assert!(!RestartPolicy::No.wants_start_at_boot(false, true));
    }
}
