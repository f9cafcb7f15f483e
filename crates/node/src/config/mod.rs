//! The configuration of a node: every key with its default. `contd daemon` reads it from TOML, an embedder fills it in.
//!
//! Keys that the actors know too have their defaults there ([`contd_actors::Defaults`] and its neighbours): there is one table.

mod access;
mod api;
mod check;
mod layout;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use contd_actors::{DEFAULT_CGROUP_PARENT, DEFAULT_NETNS_DIR, DEFAULT_RUNTIME_TIMEOUT};
use contd_flist::CacheLimits;
use contd_types::LayerKind;
use contd_types::amount::size as parse_size;
use serde::{Deserialize, Deserializer};

pub use access::{Access, AllowedPath, BindRule, FlistRule};
pub use api::Api;
pub use check::ConfigError;
pub use layout::Clash;

use crate::programs::NATIVE;

pub(crate) const MIB: u64 = 1024 * 1024;

/// The configuration file. Every key has a default.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// The version of this layout; 1.
    pub version: u32,
    /// The directory below which `contd daemon` puts `state` and `cache` where they are not named themselves.
    pub root: Option<PathBuf>,
    /// Records, writable layers, bundles; survives a reboot.
    pub state_dir: PathBuf,
    /// Sockets, FIFOs, leases; should be a tmpfs.
    pub run_dir: PathBuf,
    /// Container logs, at `<log_dir>/<namespace>/<name>.log`.
    pub log_dir: PathBuf,
    /// Fetched flists and blocks.
    pub cache_dir: PathBuf,
    /// The API socket, with or without `unix://`; `<run_dir>/contd.sock` when left out.
    #[serde(deserialize_with = "address")]
    pub address: Option<PathBuf>,
    /// Where network namespaces have their names.
    pub netns_dir: PathBuf,
    /// The cgroup under which every container has its own; must begin with `contd`.
    pub cgroup_parent: String,
    /// The runtime.
    pub runtime: Runtime,
    /// The values for containers that do not ask for others.
    pub defaults: Defaults,
    /// Container logs.
    pub logs: Logs,
    /// The cache of flists and blocks.
    pub cache: Cache,
    /// Bounds.
    pub limits: Limits,
    /// The API socket.
    pub api: Api,
    /// The users other than root that may use the API, and their rights.
    pub access: Vec<Access>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: 1,
            root: None,
            state_dir: "/var/lib/contd".into(),
            run_dir: "/run/contd".into(),
            log_dir: "/var/log".into(),
            cache_dir: "/var/cache/contd".into(),
            address: None,
            netns_dir: DEFAULT_NETNS_DIR.into(),
            cgroup_parent: DEFAULT_CGROUP_PARENT.into(),
            runtime: Runtime::default(),
            defaults: Defaults::default(),
            logs: Logs::default(),
            cache: Cache::default(),
            limits: Limits::default(),
            api: Api::default(),
            access: Vec::new(),
        }
    }
}

impl Config {
    /// Makes a configuration whose four directories lie below `root`, apart from any other node's. Cgroups are not in
    /// directories: give a node beside another its own `cgroup_parent`, too.
    #[must_use]
    pub fn below(root: impl AsRef<Path>) -> Self {
        let at = |name: &str| root.as_ref().join(name);
        Self {
            state_dir: at("state"),
            run_dir: at("run"),
            log_dir: at("log"),
            cache_dir: at("cache"),
            ..Self::default()
        }
    }

    /// Checks everything that can be wrong with it: ranges, paths, directories that overlap. Makes nothing.
    ///
    /// # Errors
    /// The first key that cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        check::check(self)
    }

    /// Returns the path of the API socket.
    pub fn socket(&self) -> PathBuf {
        self.address.clone().unwrap_or_else(|| self.run_dir.join("contd.sock"))
    }
}

/// The runtimes and our own helper programs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Runtime {
    /// Which runtime makes a container that does not ask for one: `native`, or the name of an OCI runtime.
    pub default: String,
    /// How many shims of the native runtime wait ready for containers to come; 0 is none.
    pub warm_slots: usize,
    /// The OCI runtime: a name looked up in `PATH`, or an absolute path; `None` takes the first of runc, crun, youki.
    pub binary: Option<PathBuf>,
    /// How long one operation of the runtime may take, in seconds.
    pub timeout_s: u64,
    /// `contd-shim`; beside `contd` when left out.
    pub shim: Option<PathBuf>,
    /// `contd-flistfs`; beside `contd` when left out.
    pub flistfs: Option<PathBuf>,
    /// `contd-seccomp`; beside `contd` when left out.
    pub seccomp: Option<PathBuf>,
}

impl Default for Runtime {
    fn default() -> Self {
        // Four slots cover a burst of starts; each holds about half a megabyte while it waits.
        Self {
            default: NATIVE.to_owned(),
            warm_slots: 4,
            binary: None,
            timeout_s: DEFAULT_RUNTIME_TIMEOUT.as_secs(),
            shim: None,
            flistfs: None,
            seccomp: None,
        }
    }
}

/// The defaults of containers; limits are always set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Defaults {
    /// Memory in MiB.
    pub memory_mib: u64,
    /// CPUs, in thousandths.
    pub cpu_millis: u32,
    /// Processes and threads.
    pub pids: u32,
    /// The writable layer in MiB; enforced where its file system can.
    pub rootfs_mib: u64,
    /// Where it lies.
    pub layer: LayerKind,
    /// How long a container may take to stop before SIGKILL, in seconds.
    pub stop_timeout_s: u64,
}

impl Default for Defaults {
    fn default() -> Self {
        let contd_actors::Defaults { limits, rootfs_size_bytes, layer, shutdown_timeout } = Default::default();
        Self {
            memory_mib: limits.memory_bytes / MIB,
            cpu_millis: limits.cpu.millis(),
            pids: limits.pids_limit,
            rootfs_mib: rootfs_size_bytes / MIB,
            layer,
            stop_timeout_s: shutdown_timeout.as_secs(),
        }
    }
}

impl Defaults {
    /// Returns the stop time-out.
    pub fn stop_timeout(&self) -> Duration {
        Duration::from_secs(self.stop_timeout_s)
    }
}

/// Container logs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Logs {
    /// A new file is begun above this size, in MiB.
    pub max_mib: u64,
    /// How many files are kept per container, the current one included.
    pub max_files: u32,
    /// How long the log of a removed container is kept; nothing when it is zero.
    #[serde(deserialize_with = "duration")]
    pub keep_removed: Duration,
    /// How much the logs of removed containers may take, all together; at most a tenth of their file system counts.
    #[serde(deserialize_with = "size")]
    pub keep_removed_max: u64,
    /// How much all logs may take together; a quarter of their file system if it is not set and that is in memory.
    #[serde(deserialize_with = "some_size")]
    pub total_max: Option<u64>,
}

impl Default for Logs {
    fn default() -> Self {
        let rotation = contd_actors::LogRotation::default();
        let retention = contd_actors::LogRetention::default();
        Self {
            max_mib: rotation.max_bytes / MIB,
            max_files: rotation.max_files,
            keep_removed: retention.keep_for,
            keep_removed_max: retention.removed_max_bytes,
            total_max: retention.all_max_bytes,
        }
    }
}

/// The cache of flists and blocks.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Cache {
    /// The most bytes of disk that it may take.
    #[serde(deserialize_with = "size")]
    pub max_bytes: u64,
    /// The space that must stay free on its file system; at most a tenth of it counts.
    #[serde(deserialize_with = "size")]
    pub min_free: u64,
}

impl Default for Cache {
    fn default() -> Self {
        let CacheLimits { max_bytes, min_free_bytes } = CacheLimits::default();
        Self { max_bytes, min_free: min_free_bytes }
    }
}

impl Cache {
    /// Returns them as the flist library has them.
    pub fn limits(&self) -> CacheLimits {
        CacheLimits { max_bytes: self.max_bytes, min_free_bytes: self.min_free }
    }
}

/// Reads a size as people type it.
fn size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    parse_size(&String::deserialize(from)?).map_err(serde::de::Error::custom)
}

/// Reads a size that may be left out.
fn some_size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    size(from).map(Some)
}

/// Reads a duration as people type it: `24h`, `1h 30m`, `90s`; 0 needs no unit.
fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(&text).map_err(|error| {
        let text = format!("{text:?} is not a duration such as \"24h\", \"90s\" or \"0\": {error}");
        serde::de::Error::custom(text)
    })
}

/// Parses the address of a daemon: the path of its socket, with or without `unix://` before it.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn parse_address(text: &OsStr) -> Result<PathBuf, String> {
    let bytes = text.as_bytes();
    let path = match bytes.strip_prefix(b"unix://") {
        Some(path) => path,
        None => bytes.strip_prefix(b"unix:").filter(|path| path.starts_with(b"/")).unwrap_or(bytes),
    };
    if path.is_empty() {
        return Err("it is empty: write the path of a socket, or leave it out for the default".to_owned());
    }
    if let Some((scheme, _)) = String::from_utf8_lossy(path).split_once("://")
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    {
        return Err(format!(
            "contd has no {scheme}:// addresses: write the path of a socket, for example unix:///run/contd/contd.sock"
        ));
    }
    Ok(PathBuf::from(OsString::from_vec(path.to_vec())))
}

/// Reads an address as people type it.
fn address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    parse_address(String::deserialize(from)?.as_ref()).map(Some).map_err(serde::de::Error::custom)
}

/// Bounds on what the daemon takes on.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Containers per namespace.
    pub containers_per_namespace: usize,
    /// `Run`s under way per namespace.
    pub runs_per_namespace: usize,
    /// `Run`s under way on the node.
    pub runs: usize,
    /// Connections to the API.
    pub connections: usize,
    /// Those of them that only root can have; at most half of them.
    pub connections_for_root: usize,
    /// Connections of one user. Root has no limit of its own, here and below.
    pub connections_per_user: usize,
    /// Calls of one user under way, over all its connections, but those that follow.
    pub calls_per_user: usize,
    /// Calls of one user that last as long as it wants: logs and events that are followed, waits, attached runs.
    pub followers_per_user: usize,
    /// Dry runs of one user under way.
    pub dry_runs_per_user: usize,
    /// How long a connection may be open without a call under way, in seconds.
    pub idle_timeout_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let node = contd_actors::Limits::default();
        // A call holds at most 1 MiB of request and 1 MiB of reply, a follower at most 2 MiB of output: with these a user
        // can have the daemon hold some 300 MiB at the very worst.
        Self {
            containers_per_namespace: node.containers_per_namespace,
            runs_per_namespace: node.runs_in_flight_per_namespace,
            runs: node.runs_in_flight,
            connections: 256,
            connections_for_root: 32,
            connections_per_user: 32,
            calls_per_user: 64,
            followers_per_user: 64,
            dry_runs_per_user: 4,
            idle_timeout_s: 600,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_path_with_or_without_unix() {
        let of = |text: &str| parse_address(text.as_ref()).map(|path| path.display().to_string());
        for (text, path) in [
            ("/run/c.sock", "/run/c.sock"),
            ("unix:///run/c.sock", "/run/c.sock"),
            ("unix:/run/c.sock", "/run/c.sock"),
            ("unix://run/c.sock", "run/c.sock"),
            ("c.sock", "c.sock"),
            ("unix:c", "unix:c"),
        ] {
            assert_eq!(of(text).as_deref(), Ok(path), "{text}");
        }
        for bad in
            ["", "unix://", "tcp://h:1", "http://h", "ssh://u@h", "fd://", "npipe:////./pipe/x", "unix://tcp://x"]
        {
            assert!(of(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(of("tcp://h:1").is_err_and(|error| error.contains("tcp://") && error.contains("unix://")));
    }

    #[test]
    fn the_defaults_are_those_of_the_actors_and_of_the_documentation() {
        let (config, node) = (Config::default(), contd_actors::Defaults::default());
        let settings = crate::assembly::changeable(&config).expect("the defaults can be");
        assert_eq!(
            (settings.defaults.limits.memory_bytes, settings.defaults.limits.cpu),
            (1 << 30, contd_types::CpuLimit::ONE)
        );
        assert_eq!(settings.defaults.limits.memory_bytes, node.limits.memory_bytes);
        assert_eq!(settings.log_retention, Some(contd_actors::LogRetention::default()));
        config.check().expect("the defaults can work");
        let text = include_str!("../../../../docs/configuration.md");
        for line in [
            "memory_mib = 1024",
            "cpu_millis = 1000",
            "pids = 1024",
            "timeout_s = 20",
            "containers_per_namespace = 1024",
        ] {
            assert!(text.lines().any(|found| found.starts_with(line)), "docs/configuration.md has no {line:?}");
        }
    }
}
