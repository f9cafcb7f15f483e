//! Reads the configuration and lays flags over it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cli::DaemonArgs;
use crate::config::Config;

/// Where the configuration is when nobody says otherwise.
const DEFAULT_FILE: &str = "/etc/contd/config.toml";
/// The most bytes of a configuration file.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The smallest cache: what several servers write between two looks at its size is some MiB.
const MIN_CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// The longest time, as for containers.
const MAX_SECONDS: u64 = contd_types::MAX_TIMEOUT.as_secs();
/// An exbibyte: more than any node has, and far from where bytes overflow.
const MAX_MIB: u64 = 1 << 40;
/// More of anything than one daemon can look after.
const MAX_COUNT: u64 = 1_000_000;
/// Each is a process that waits.
const MAX_SLOTS: u64 = 1024;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A file cannot be read.
    #[error("read configuration {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not TOML.
    #[error("parse configuration {}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Why.
        source: toml::de::Error,
    },
    /// A key is unknown, or a value is of the wrong type.
    #[error("configuration {}", files.join(", "))]
    Shape {
        /// All files that were read.
        files: Vec<String>,
        /// Why.
        source: toml::de::Error,
    },
    /// A value cannot work.
    #[error("configuration: {key} = {value:?} {why}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Reads the configuration that the flags name, or the default one.
///
/// # Errors
/// [`ConfigError`] with the file and key; nothing was started.
pub(crate) fn load(args: &DaemonArgs) -> Result<Config, ConfigError> {
    let mut table = toml::Table::new();
    let mut files = Vec::new();
    let main = args.config.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    for path in files_beside(&main, args.config.is_some())? {
        merge(&mut table, read(&path)?);
        files.push(path.display().to_string());
    }
    let mut config: Config = table.try_into().map_err(|source| ConfigError::Shape { files, source })?;
    overlay(&mut config, args);
    check(&config)?;
    Ok(config)
}

/// Lists the main file, if it is there, then its drop-ins by name.
fn files_beside(main: &Path, is_required: bool) -> Result<Vec<PathBuf>, ConfigError> {
    let mut files = Vec::new();
    match fs::metadata(main) {
        Ok(_) => files.push(main.to_path_buf()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_required => {}
        Err(source) => return Err(ConfigError::Read { path: main.to_path_buf(), source }),
    }
    let dir = main.with_file_name("conf.d");
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(source) => return Err(ConfigError::Read { path: dir, source }),
    };
    let mut drop_ins = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| ConfigError::Read { path: dir.clone(), source })?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            drop_ins.push(path);
        }
    }
    drop_ins.sort();
    files.extend(drop_ins);
    Ok(files)
}

fn read(path: &Path) -> Result<toml::Table, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_path_buf(), source };
    if fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES {
        return Err(failed(io::Error::from(io::ErrorKind::FileTooLarge)));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    text.parse().map_err(|source| ConfigError::Syntax { path: path.to_path_buf(), source })
}

/// Lays `over` on `base`: tables are merged, everything else is replaced.
fn merge(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(value)) => merge(inner, value),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn overlay(config: &mut Config, args: &DaemonArgs) {
    let pairs = [
        (&mut config.state_dir, &args.state_dir),
        (&mut config.run_dir, &args.run_dir),
        (&mut config.log_dir, &args.log_dir),
        (&mut config.cache_dir, &args.cache_dir),
    ];
    for (value, flag) in pairs {
        if let Some(flag) = flag {
            value.clone_from(flag);
        }
    }
    if args.address.is_some() {
        config.address.clone_from(&args.address);
    }
}

fn check(config: &Config) -> Result<(), ConfigError> {
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
    for (key, path) in paths {
        if !path.is_absolute() {
            return Err(ConfigError::Value { key, value: path.display().to_string(), why: "is not an absolute path" });
        }
    }
    let parent = &config.cgroup_parent;
    let is_one_component = contd_types::NamespaceId::new(parent.as_str()).is_ok();
    if !is_one_component || !parent.starts_with("contd") {
        let why = "is not one name that begins with contd";
        return Err(ConfigError::Value { key: "cgroup_parent", value: parent.clone(), why });
    }
    check_ranges(config)?;
    if config.cache.max_bytes < MIN_CACHE_BYTES {
        let value = config.cache.max_bytes.to_string();
        return Err(ConfigError::Value {
            key: "cache.max_bytes",
            value,
            why: "is less than 64m: blocks would come and go",
        });
    }
    Ok(())
}

/// Checks the numbers that are computed with: none can be so large that a sum or a product of it, or a thing made for each,
/// would be more than a machine has.
fn check_ranges(config: &Config) -> Result<(), ConfigError> {
    let (limits, count) = (&config.limits, |value: usize| u64::try_from(value).unwrap_or(u64::MAX));
    let ranges = [
        ("runtime.timeout_s", config.runtime.timeout_s, 1, MAX_SECONDS),
        ("runtime.warm_slots", count(config.runtime.warm_slots), 0, MAX_SLOTS),
        ("defaults.stop_timeout_s", config.defaults.stop_timeout_s, 0, MAX_SECONDS),
        ("defaults.memory_mib", config.defaults.memory_mib, 0, MAX_MIB),
        ("defaults.rootfs_mib", config.defaults.rootfs_mib, 0, MAX_MIB),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn args(config: &Path) -> DaemonArgs {
        DaemonArgs { config: Some(config.to_path_buf()), ..DaemonArgs::default() }
    }

    fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("has a parent")).expect("make the directory");
        fs::write(&path, text).expect("write");
        path
    }

    #[test]
    fn drop_ins_win_over_the_file_and_flags_over_both() {
        let dir = tempfile::tempdir().expect("temp");
        let main =
            write(dir.path(), "config.toml", "state_dir = '/a'\nrun_dir = '/a'\n[defaults]\npids = 5\nmemory_mib = 7");
        write(dir.path(), "conf.d/10.toml", "run_dir = '/b'\n[defaults]\npids = 6");
        let flags = DaemonArgs { state_dir: Some("/c".into()), ..args(&main) };
        let config = load(&flags).expect("valid");
        assert_eq!(config.state_dir, Path::new("/c"));
        assert_eq!(config.run_dir, Path::new("/b"));
        assert_eq!((config.defaults.pids, config.defaults.memory_mib), (6, 7));
        assert_eq!(config.socket(), Path::new("/b/contd.sock"));
    }

    #[test]
    fn sizes_of_the_cache_are_written_as_people_do() {
        let dir = tempfile::tempdir().expect("temp");
        let main = write(dir.path(), "config.toml", "[cache]\nmax_bytes = '1.5g'\nmin_free = '0'");
        let limits = load(&args(&main)).expect("valid").cache.limits();
        assert_eq!((limits.max_bytes, limits.min_free_bytes), (3 << 29, 0));
        let default = Config::default().cache.limits();
        assert_eq!((default.max_bytes, default.min_free_bytes), (16 << 30, 1 << 30), "as docs/configuration.md says");
        let main = write(dir.path(), "config.toml", "[cache]\nmax_bytes = 'much'");
        assert!(matches!(load(&args(&main)), Err(ConfigError::Shape { .. })));
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().expect("temp");
        let main = write(dir.path(), "config.toml", "stat_dir = '/a'");
        let error = load(&args(&main)).expect_err("unknown key");
        assert!(error.to_string().contains("config.toml"), "{error}");
    }

    #[test]
    fn a_file_that_was_asked_for_must_exist() {
        let dir = tempfile::tempdir().expect("temp");
        assert!(matches!(load(&args(&dir.path().join("none.toml"))), Err(ConfigError::Read { .. })));
    }

    #[test]
    fn values_that_cannot_work_are_refused() {
        let dir = tempfile::tempdir().expect("temp");
        for bad in [
            "version = 2",
            "run_dir = 'rel'",
            "cgroup_parent = 'system.slice'",
            "cgroup_parent = 'contd/../x'",
            "[cache]\nmax_bytes = '63m'",
            "[limits]\nruns = 9223372036854775807",
            "[limits]\nconnections = 0",
            "[limits]\nidle_timeout_s = 0",
            "[defaults]\nstop_timeout_s = 9223372036854775807",
            "[defaults]\nmemory_mib = 9223372036854775807",
            "[runtime]\ntimeout_s = 0",
            "[runtime]\nwarm_slots = 1025",
            "[logs]\nmax_mib = 9223372036854775807",
        ] {
            let main = write(dir.path(), "config.toml", bad);
            assert!(matches!(load(&args(&main)), Err(ConfigError::Value { .. })), "{bad} was accepted");
        }
    }
}
