//! Reads the configuration and lays flags over it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use contd_node::Config;

use crate::config::DaemonArgs;
use crate::config::place::{self, Sources};

/// Where the configuration is when nobody says otherwise.
const DEFAULT_FILE: &str = "/etc/contd/config.toml";
/// The most bytes of a configuration file.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

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
    /// A file is not TOML, a key is unknown, or a value is of the wrong type.
    #[error("parse configuration {place}")]
    Text {
        /// The file, the line and the column.
        place: String,
        /// Why.
        source: TextError,
    },
    /// The files contradict each other in their shape.
    #[error("configuration {}", files.join(", "))]
    Shape {
        /// All files that were read.
        files: Vec<String>,
        /// Why.
        source: toml::de::Error,
    },
    /// A value cannot work.
    #[error("{fault}{}", in_brackets(place.as_deref()))]
    Fault {
        /// The fault.
        fault: contd_node::ConfigError,
        /// Where it stands, unless it is the default.
        place: Option<String>,
    },
}

/// The error of the TOML parser, without the picture of the line: errors are told on one line each.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TextError(String);

impl ConfigError {
    /// Says what to do next.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Fault { fault, .. } => fault.hint(),
            _ => "see docs/configuration.md, or leave the file out for the defaults",
        }
    }
}

fn in_brackets(place: Option<&str>) -> String {
    place.map(|place| format!(" ({place})")).unwrap_or_default()
}

/// Reads the configuration that the flags name, or the default one.
///
/// # Errors
/// [`ConfigError`] with the file and key; nothing was started.
pub(crate) fn load(args: &DaemonArgs) -> Result<Config, ConfigError> {
    let mut table = toml::Table::new();
    let mut sources = Sources::default();
    let main = args.config.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    for path in files_beside(&main, args.config.is_some())? {
        let text = read(&path)?;
        merge(&mut table, parse(&path, &text)?);
        sources.add(path, text);
    }
    let named = ["state_dir", "cache_dir"].map(|key| table.contains_key(key));
    let shape = |source| ConfigError::Shape { files: sources.names(), source };
    let mut config: Config = table.try_into().map_err(shape)?;
    overlay(&mut config, named, args);
    config.check().map_err(|fault| {
        let place = fault.keys().into_iter().find_map(|key| sources.of_key(key, args));
        ConfigError::Fault { fault, place }
    })?;
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

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_path_buf(), source };
    if fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES {
        return Err(failed(io::Error::from(io::ErrorKind::FileTooLarge)));
    }
    fs::read_to_string(path).map_err(failed)
}

/// Parses one file, and checks its keys and types while it is known where they stand: merged values do not know that.
fn parse(path: &Path, text: &str) -> Result<toml::Table, ConfigError> {
    let failed = |error: toml::de::Error| {
        let offset = error.span().map_or(0, |span| span.start);
        let source = TextError(error.message().to_owned());
        ConfigError::Text { place: place::position(path, text, offset), source }
    };
    let _complete: Config = toml::from_str(text).map_err(failed)?;
    text.parse().map_err(failed)
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

/// Lays the flags over the files. `named` tells whether these name the state directory and the cache directory.
fn overlay(config: &mut Config, named: [bool; 2], args: &DaemonArgs) {
    if args.root.is_some() {
        config.root.clone_from(&args.root);
    }
    if let Some(root) = &config.root {
        let places = [(&mut config.state_dir, "state"), (&mut config.cache_dir, "cache")];
        for ((dir, name), _) in places.into_iter().zip(named).filter(|(_, is_named)| !is_named) {
            *dir = root.join(name);
        }
    }
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
    fn state_and_cache_lie_below_a_root_unless_they_are_named() {
        let dir = tempfile::tempdir().expect("temp");
        let of = |text: &str, flags: DaemonArgs| {
            let main = write(dir.path(), "config.toml", text);
            let config = load(&DaemonArgs { config: Some(main), ..flags }).expect(text);
            [config.state_dir, config.cache_dir, config.log_dir].map(|dir| dir.display().to_string())
        };
        let none = DaemonArgs::default;
        assert_eq!(of("root = '/r'", none()), ["/r/state", "/r/cache", "/var/log"]);
        assert_eq!(of("root = '/r'\ncache_dir = '/c'", none()), ["/r/state", "/c", "/var/log"]);
        let flag = || DaemonArgs { root: Some("/f".into()), ..none() };
        assert_eq!(of("root = '/r'\nstate_dir = '/s'", flag()), ["/s", "/f/cache", "/var/log"]);
        assert_eq!(of("", DaemonArgs { state_dir: Some("/x".into()), ..flag() }), ["/x", "/f/cache", "/var/log"]);
        let main = write(dir.path(), "config.toml", "root = 'relative'");
        let error = load(&args(&main)).expect_err("it is relative").to_string();
        assert!(error.contains("root") && error.contains("line 1"), "{error}");
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
        assert!(matches!(load(&args(&main)), Err(ConfigError::Text { .. })));
    }

    #[test]
    fn what_is_wrong_with_a_text_is_told_with_file_line_and_column() {
        let dir = tempfile::tempdir().expect("temp");
        for (text, line, column, word) in [
            ("# a\nstat_dir = '/a'", 2, 1, "stat_dir"),
            ("version = 1\n\n[limits]\n  runs = 'many'", 4, 10, "invalid type"),
            ("[defaults]\npids = 5\nmemory = 1\n", 3, 1, "memory"),
            ("run_dir = '/r\n", 1, 14, "string"),
            ("[cache]\nmax_bytes = 'much'", 2, 13, "not a size"),
            ("address = 'tcp://h'", 1, 11, "tcp://"),
            ("[[access]]\nuid = 1\n[[access]]\nuid = -1", 4, 7, "-1"),
            ("[defaults]\npids = 1\npids = 2", 3, 1, "duplicate key"),
        ] {
            // In the file itself, and in a drop-in that is merged over a good one.
            for name in ["config.toml", "conf.d/50.toml"] {
                let main = write(dir.path(), "config.toml", "version = 1");
                let file = write(dir.path(), name, text);
                let error = load(&args(&main)).expect_err(text);
                let place = format!("{}, line {line}, column {column}", file.display());
                assert!(error.to_string().contains(&place), "{text:?}: {error}");
                let cause = std::error::Error::source(&error).expect("a cause").to_string();
                assert!(cause.contains(word), "{text:?}: {cause}");
                fs::remove_file(&file).expect("removed");
            }
        }
    }

    #[test]
    fn a_value_that_cannot_work_is_told_with_where_it_stands() {
        let dir = tempfile::tempdir().expect("temp");
        let main = write(dir.path(), "config.toml", "[limits]\nruns = 1");
        let drop_in = write(dir.path(), "conf.d/1.toml", "[limits]\n\nruns = 0");
        let error = load(&args(&main)).expect_err("no runs").to_string();
        assert!(
            error.contains(&format!(
                "limits.runs = \"0\" would let nothing happen ({}, line 3, column 8)",
                drop_in.display()
            )),
            "{error}"
        );
        fs::remove_file(&drop_in).expect("removed");
        let flags = DaemonArgs { state_dir: Some("rel".into()), ..args(&main) };
        assert!(load(&flags).expect_err("relative").to_string().ends_with("(--state-dir)"));
        let main = write(dir.path(), "config.toml", "state_dir = '/s'\nlog_dir = '/s/log'");
        let error = load(&args(&main)).expect_err("overlap").to_string();
        assert!(
            error.contains("log_dir = \"/s/log\" lies in state_dir = \"/s\"") && error.contains("line 2"),
            "{error}"
        );
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
            "[defaults]\nmemory_mib = 0",
            "[defaults]\nmemory_mib = 3",
            "[defaults]\ncpu_millis = 0",
            "[defaults]\ncpu_millis = 9",
            "[defaults]\npids = 0",
            "[defaults]\nrootfs_mib = 0",
            "[limits]\nruns = 9223372036854775807",
            "[limits]\nconnections = 0",
            "[limits]\nidle_timeout_s = 0",
            "[defaults]\nstop_timeout_s = 9223372036854775807",
            "[defaults]\nmemory_mib = 9223372036854775807",
            "[runtime]\ntimeout_s = 0",
            "[runtime]\nwarm_slots = 1025",
            "[logs]\nmax_mib = 9223372036854775807",
            "[logs]\ntotal_max = '1023k'",
        ] {
            let main = write(dir.path(), "config.toml", bad);
            assert!(matches!(load(&args(&main)), Err(ConfigError::Fault { .. })), "{bad} was accepted");
        }
    }
}
