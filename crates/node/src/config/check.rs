//! The values of a configuration that can work: ranges, absolute paths, directories that are apart.

use std::path::PathBuf;

use contd_types::{CpuLimit, MIN_MEMORY_BYTES};

use crate::config::layout::{self, Clash};
use crate::config::{Config, MIB};

/// The smallest cache: what several servers write between two looks at its size is some MiB.
const MIN_CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// The smallest budget of all logs: a file that is written is not removed.
const MIN_LOGS_BYTES: u64 = MIB;

/// The longest time, as for containers.
const MAX_SECONDS: u64 = contd_types::MAX_TIMEOUT.as_secs();
/// An exbibyte: more than any node has, and far from where bytes overflow.
const MAX_MIB: u64 = 1 << 40;
/// More of anything than one daemon can look after.
const MAX_COUNT: u64 = 1_000_000;
/// Each is a process that waits.
const MAX_SLOTS: u64 = 1024;

/// Why a configuration cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value cannot work.
    #[error("configuration: {key} = {value:?} {why}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// The fault in the value.
        why: &'static str,
    },
    /// Two of the node's directories get into each other's way.
    #[error("configuration: {key} = {path:?} {} {other_key} = {other_path:?}", clash_text(*clash))]
    Overlap {
        /// The inner one.
        key: &'static str,
        /// Its path.
        path: PathBuf,
        /// The outer one.
        other_key: &'static str,
        /// Its path.
        other_path: PathBuf,
        /// How.
        clash: Clash,
    },
}

impl ConfigError {
    /// Says what to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Value { .. } => "see docs/configuration.md, or leave the file out for the defaults",
            Self::Overlap { .. } => "give each a place of its own: none may be another, or lie in it",
        }
    }

    /// Names the keys it is about, the one to blame first.
    #[must_use]
    pub fn keys(&self) -> Vec<&'static str> {
        match self {
            Self::Value { key, .. } => vec![key],
            Self::Overlap { key, other_key, .. } => vec![key, other_key],
        }
    }
}

fn clash_text(clash: Clash) -> &'static str {
    match clash {
        Clash::Same => "is the same as",
        Clash::Below => "lies in",
    }
}

/// Checks everything; makes nothing.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    if config.version != 1 {
        let value = config.version.to_string();
        return Err(ConfigError::Value { key: "version", value, why: "is not known; this contd reads version 1" });
    }
    let socket = config.socket();
    let paths = [
        ("state_dir", &config.state_dir),
        ("run_dir", &config.run_dir),
        ("log_dir", &config.log_dir),
        ("cache_dir", &config.cache_dir),
        ("netns_dir", &config.netns_dir),
        ("address", &socket),
    ];
    for (key, path) in config.root.iter().map(|root| ("root", root)).chain(paths) {
        if !path.is_absolute() {
            let (value, why) = (path.display().to_string(), "is not an absolute path");
            return Err(ConfigError::Value { key, value, why });
        }
    }
    let parent = &config.cgroup_parent;
    let is_one_component = contd_types::NamespaceId::new(parent.as_str()).is_ok();
    if !is_one_component || !parent.starts_with("contd") {
        let why = "is not one name that begins with contd";
        return Err(ConfigError::Value { key: "cgroup_parent", value: parent.clone(), why });
    }
    check_defaults(config)?;
    check_ranges(config)?;
    if config.cache.max_bytes < MIN_CACHE_BYTES {
        let value = config.cache.max_bytes.to_string();
        return Err(ConfigError::Value {
            key: "cache.max_bytes",
            value,
            why: "is less than 64m: blocks would come and go",
        });
    }
    if let Some(bytes) = config.logs.total_max.filter(|bytes| *bytes < MIN_LOGS_BYTES) {
        let (value, why) = (bytes.to_string(), "is less than 1m: little of any log would be left");
        return Err(ConfigError::Value { key: "logs.total_max", value, why });
    }
    layout::check(config)
}

/// Checks the numbers that are computed with: none can be so large that a sum or a product of it, or a thing made for each,
/// would be more than a machine has.
fn check_ranges(config: &Config) -> Result<(), ConfigError> {
    let (limits, count) = (&config.limits, |value: usize| u64::try_from(value).unwrap_or(u64::MAX));
    let ranges = [
        ("runtime.timeout_s", config.runtime.timeout_s, 1, MAX_SECONDS),
        ("runtime.warm_slots", count(config.runtime.warm_slots), 0, MAX_SLOTS),
        ("defaults.stop_timeout_s", config.defaults.stop_timeout_s, 0, MAX_SECONDS),
        ("logs.max_mib", config.logs.max_mib, 0, MAX_MIB),
        ("limits.containers_per_namespace", count(limits.containers_per_namespace), 0, MAX_COUNT),
        ("limits.runs_per_namespace", count(limits.runs_per_namespace), 1, MAX_COUNT),
        ("limits.runs", count(limits.runs), 1, MAX_COUNT),
        ("limits.connections", count(limits.connections), 1, MAX_COUNT),
        ("limits.connections_for_root", count(limits.connections_for_root), 0, MAX_COUNT),
        ("limits.connections_per_user", count(limits.connections_per_user), 1, MAX_COUNT),
        ("limits.calls_per_user", count(limits.calls_per_user), 1, MAX_COUNT),
        ("limits.followers_per_user", count(limits.followers_per_user), 0, MAX_COUNT),
        ("limits.dry_runs_per_user", count(limits.dry_runs_per_user), 0, MAX_COUNT),
        ("limits.idle_timeout_s", limits.idle_timeout_s, 1, MAX_SECONDS),
    ];
    for (key, value, least, most) in ranges {
        let why = match value {
            0 if least > 0 => "would let nothing happen",
            value if value > most => "is more than can be meant",
            _ => continue,
        };
        return Err(ConfigError::Value { key, value: value.to_string(), why });
    }
    Ok(())
}

/// Checks the limits of containers that do not say: 0 would be none, and every container has all of them
/// (docs/decisions/0018-what-is-typed.md).
fn check_defaults(config: &Config) -> Result<(), ConfigError> {
    let defaults = &config.defaults;
    let limits = [
        ("defaults.memory_mib", defaults.memory_mib, MIN_MEMORY_BYTES / MIB, MAX_MIB),
        ("defaults.cpu_millis", defaults.cpu_millis.into(), CpuLimit::LEAST_MILLIS.into(), u64::MAX),
        ("defaults.pids", defaults.pids.into(), 1, u64::MAX),
        ("defaults.rootfs_mib", defaults.rootfs_mib, 1, MAX_MIB),
    ];
    for (key, value, least, most) in limits {
        let why = match value {
            0 => "would be no limit, and every container has one: write a number above 0",
            value if value < least => "is less than a container can run with",
            value if value > most => "is more than can be meant",
            _ => continue,
        };
        return Err(ConfigError::Value { key, value: value.to_string(), why });
    }
    Ok(())
}
