//! What can be configured, with its defaults and their reasons.

use std::path::PathBuf;
use std::time::Duration;

use contd_flist::CacheLimits;
use contd_types::LayerKind;
use serde::{Deserialize, Deserializer};

use crate::cli::{parse_address, parse_size};
use crate::config::access::Access;
use crate::config::api::Api;

/// The configuration file. Every key has a default.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The version of this layout; 1.
    pub(crate) version: u32,
    /// Records, writable layers, bundles; survives a reboot.
    pub(crate) state_dir: PathBuf,
    /// Sockets, FIFOs, leases; should be a tmpfs.
    pub(crate) run_dir: PathBuf,
    /// Container logs, at `<log_dir>/<namespace>/<name>.log`.
    pub(crate) log_dir: PathBuf,
    /// Fetched flists and blocks.
    pub(crate) cache_dir: PathBuf,
    /// The API socket, with or without `unix://`; `<run_dir>/contd.sock` when left out.
    #[serde(deserialize_with = "address")]
    pub(crate) address: Option<PathBuf>,
    /// Where network namespaces have their names.
    pub(crate) netns_dir: PathBuf,
    /// The cgroup under which every container has its own; must begin with `contd`.
    pub(crate) cgroup_parent: String,
    /// The runtime.
    pub(crate) runtime: Runtime,
    /// What a container gets that does not ask for anything else.
    pub(crate) defaults: Defaults,
    /// Container logs.
    pub(crate) logs: Logs,
    /// The cache of flists and blocks.
    pub(crate) cache: Cache,
    /// Bounds.
    pub(crate) limits: Limits,
    /// The API socket.
    pub(crate) api: Api,
    /// Who else than root may use the API, and for what.
    pub(crate) access: Vec<Access>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: 1,
            state_dir: "/var/lib/contd".into(),
            run_dir: "/run/contd".into(),
            log_dir: "/var/log".into(),
            cache_dir: "/var/cache/contd".into(),
            address: None,
            netns_dir: "/run/netns".into(),
            cgroup_parent: "contd".into(),
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
    /// Returns the path of the API socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.address.clone().unwrap_or_else(|| self.run_dir.join("contd.sock"))
    }
}

/// The runtimes and our own helper programs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Runtime {
    /// Which runtime makes a container that does not ask for one: `native`, or the name of an OCI runtime.
    pub(crate) default: String,
    /// How many shims of the native runtime wait ready for containers to come; 0 is none.
    pub(crate) warm_slots: usize,
    /// The OCI runtime: a name looked up in `PATH`, or an absolute path; `None` takes the first of runc, crun, youki.
    pub(crate) binary: Option<PathBuf>,
    /// How long one operation of the runtime may take, in seconds.
    pub(crate) timeout_s: u64,
    /// `contd-shim`; beside `contd` when left out.
    pub(crate) shim: Option<PathBuf>,
    /// `contd-flistfs`; beside `contd` when left out.
    pub(crate) flistfs: Option<PathBuf>,
    /// `contd-seccomp`; beside `contd` when left out.
    pub(crate) seccomp: Option<PathBuf>,
}

impl Default for Runtime {
    fn default() -> Self {
        // runc needs 50 ms; a node under heavy load a hundred times that. 20 s is a hang.
        // Four slots cover a burst of starts; each holds about half a megabyte while it waits.
        Self {
            default: "native".to_owned(),
            warm_slots: 4,
            binary: None,
            timeout_s: 20,
            shim: None,
            flistfs: None,
            seccomp: None,
        }
    }
}

/// What a container gets by default; limits are always set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Defaults {
    /// Memory in MiB.
    pub(crate) memory_mib: u64,
    /// CPUs, in thousandths.
    pub(crate) cpu_millis: u32,
    /// Processes and threads.
    pub(crate) pids: u32,
    /// The writable layer in MiB; enforced where its file system can.
    pub(crate) rootfs_mib: u64,
    /// Where it lies.
    pub(crate) layer: LayerKind,
    /// How long a container may take to stop before SIGKILL, in seconds.
    pub(crate) stop_timeout_s: u64,
}

impl Default for Defaults {
    fn default() -> Self {
        // One CPU as 0-OS gives; memory and layer so that a small service runs and a runaway one does not take the node.
        // The layer on disk, as every engine has it: memory is what a node has least of.
        let layer = LayerKind::Disk;
        Self { memory_mib: 1024, cpu_millis: 1000, pids: 1024, rootfs_mib: 512, layer, stop_timeout_s: 10 }
    }
}

impl Defaults {
    /// Returns the stop time-out.
    pub(crate) fn stop_timeout(&self) -> Duration {
        Duration::from_secs(self.stop_timeout_s)
    }
}

/// Container logs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Logs {
    /// A new file is begun above this size, in MiB.
    pub(crate) max_mib: u64,
    /// How many files are kept per container, the current one included.
    pub(crate) max_files: u32,
    /// How long the log of a removed container is kept; nothing when it is zero.
    #[serde(deserialize_with = "duration")]
    pub(crate) keep_removed: Duration,
    /// How much the logs of removed containers may take, all together; at most a tenth of their file system counts.
    #[serde(deserialize_with = "size")]
    pub(crate) keep_removed_max: u64,
}

impl Default for Logs {
    fn default() -> Self {
        // As the kubelet: 10 MiB, 5 files. A failed job is looked at on the next day; where logs are in memory, not much is kept.
        Self {
            max_mib: 10,
            max_files: 5,
            keep_removed: Duration::from_secs(24 * 60 * 60),
            keep_removed_max: 256 * 1024 * 1024,
        }
    }
}

/// The cache of flists and blocks.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cache {
    /// The most bytes of disk that it may take.
    #[serde(deserialize_with = "size")]
    pub(crate) max_bytes: u64,
    /// What must stay free on its file system; at most a tenth of it counts.
    #[serde(deserialize_with = "size")]
    pub(crate) min_free: u64,
}

impl Default for Cache {
    fn default() -> Self {
        let CacheLimits { max_bytes, min_free_bytes } = CacheLimits::default();
        Self { max_bytes, min_free: min_free_bytes }
    }
}

impl Cache {
    /// Returns them as the flist library has them.
    pub(crate) fn limits(&self) -> CacheLimits {
        CacheLimits { max_bytes: self.max_bytes, min_free_bytes: self.min_free }
    }
}

/// Reads a size as people type it.
fn size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    parse_size(&String::deserialize(from)?).map_err(serde::de::Error::custom)
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

/// Reads an address as people type it.
fn address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    parse_address(String::deserialize(from)?.as_ref()).map(Some).map_err(serde::de::Error::custom)
}

/// Bounds on what the daemon takes on.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Containers per namespace.
    pub(crate) containers_per_namespace: usize,
    /// `Run`s under way per namespace.
    pub(crate) runs_per_namespace: usize,
    /// `Run`s under way on the node.
    pub(crate) runs: usize,
    /// Connections to the API.
    pub(crate) connections: usize,
    /// Those of them that only root can have; at most half of them.
    pub(crate) connections_for_root: usize,
    /// Connections of one user. Root has no limit of its own, here and below.
    pub(crate) connections_per_user: usize,
    /// Calls of one user under way, over all its connections, but those that follow.
    pub(crate) calls_per_user: usize,
    /// Calls of one user that last as long as it wants: logs and events that are followed, waits, attached runs.
    pub(crate) followers_per_user: usize,
    /// Dry runs of one user under way.
    pub(crate) dry_runs_per_user: usize,
    /// How long a connection may be open without a call under way, in seconds.
    pub(crate) idle_timeout_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        // A run waits mostly for the runtime's process: more than a few per core only adds memory.
        // A call holds at most 1 MiB of request and 1 MiB of reply, a follower at most 2 MiB of output: with these a user
        // can have the daemon hold some 300 MiB at the very worst.
        Self {
            containers_per_namespace: 1024,
            runs_per_namespace: 64,
            runs: 128,
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
