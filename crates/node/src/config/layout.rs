//! The daemon's directories are apart: what one of them holds is never taken for, swept or removed as what another does.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::config::{Config, ConfigError};

/// How two directories get into each other's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clash {
    /// They are one, by whatever names.
    Same,
    /// The one is somewhere below the other.
    Below,
}

/// Checks the directories and the socket. Looks at what is there, and makes nothing.
///
/// # Errors
/// [`ConfigError::Overlap`] with both keys, [`ConfigError::Value`] for the root of the file system.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let socket = config.socket();
    let dirs = [
        Dir::of("state_dir", &config.state_dir),
        Dir::of("run_dir", &config.run_dir),
        Dir::of("log_dir", &config.log_dir),
        Dir::of("cache_dir", &config.cache_dir),
    ];
    for dir in &dirs {
        if dir.real == Path::new("/") {
            let value = dir.given.display().to_string();
            let why = "is the root of the file system: give it a directory of its own";
            return Err(ConfigError::Value { key: dir.key, value, why });
        }
    }
    let pairs = dirs.iter().enumerate().flat_map(|(at, one)| dirs.iter().skip(at + 1).map(move |other| (one, other)));
    for (one, other) in pairs {
        for (inner, outer) in [(one, other), (other, one)] {
            if let Some(clash) = inner.clash(outer) {
                return Err(overlap(inner, outer, clash));
            }
        }
    }
    let socket = Dir::of("address", &socket);
    for dir in &dirs {
        match socket.clash(dir) {
            None => {}
            // The socket's own place by default.
            Some(Clash::Below) if dir.key == "run_dir" => {}
            Some(clash) => return Err(overlap(&socket, dir, clash)),
        }
    }
    Ok(())
}

fn overlap(inner: &Dir, outer: &Dir, clash: Clash) -> ConfigError {
    let (path, other_path) = (inner.given.to_owned(), outer.given.to_owned());
    ConfigError::Overlap { key: inner.key, path, other_key: outer.key, other_path, clash }
}

/// A path of the configuration, and what it is.
#[derive(Debug)]
struct Dir {
    key: &'static str,
    given: PathBuf,
    /// Without links and dots, as far as it is there.
    real: PathBuf,
}

impl Dir {
    fn of(key: &'static str, given: &Path) -> Self {
        Self { key, given: given.to_owned(), real: real(given) }
    }

    /// Tells how this one is in the way of another that should not hold it.
    fn clash(&self, other: &Self) -> Option<Clash> {
        let other_identity = identity(&other.real);
        // By name, or by another name of the same directory: a bind mount has no link to resolve.
        let is_other =
            |path: &Path| path == other.real || (other_identity.is_some() && identity(path) == other_identity);
        if is_other(&self.real) {
            return Some(Clash::Same);
        }
        self.real.ancestors().skip(1).any(is_other).then_some(Clash::Below)
    }
}

/// Resolves links and dots as the kernel will, as far as there is something to resolve.
fn real(path: &Path) -> PathBuf {
    let mut real = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::ParentDir => {
                real.pop();
            }
            Component::Normal(name) => {
                real.push(name);
                if let Ok(resolved) = fs::canonicalize(&real) {
                    real = resolved;
                }
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    real
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(root: &Path, changes: &[(&str, &str)]) -> Config {
        let mut config = Config {
            state_dir: root.join("state"),
            run_dir: root.join("run"),
            log_dir: root.join("log"),
            cache_dir: root.join("cache"),
            ..Config::default()
        };
        for (key, path) in changes {
            let path = root.join(path);
            match *key {
                "state_dir" => config.state_dir = path,
                "run_dir" => config.run_dir = path,
                "log_dir" => config.log_dir = path,
                "cache_dir" => config.cache_dir = path,
                "address" => config.address = Some(path),
                other => panic!("no key {other}"),
            }
        }
        config
    }

    fn clash(root: &Path, changes: &[(&str, &str)]) -> Option<(&'static str, &'static str, Clash)> {
        match check(&config(root, changes)) {
            Ok(()) => None,
            Err(ConfigError::Overlap { key, other_key, clash, .. }) => Some((key, other_key, clash)),
            Err(other) => panic!("{changes:?}: {other}"),
        }
    }

    #[test]
    fn the_defaults_and_directories_beside_each_other_are_apart() {
        assert!(check(&Config::default()).is_ok());
        let root = tempfile::tempdir().expect("temp");
        assert_eq!(clash(root.path(), &[]), None);
        // Names that begin alike are no paths that do.
        assert_eq!(clash(root.path(), &[("cache_dir", "state-cache"), ("log_dir", "state.log")]), None);
        assert_eq!(clash(root.path(), &[("address", "contd.sock")]), None);
        assert_eq!(clash(root.path(), &[("address", "run/deep/contd.sock")]), None);
    }

    #[test]
    fn every_two_that_are_one_or_in_each_other_are_refused_with_both_keys() {
        let root = tempfile::tempdir().expect("temp");
        let keys = ["state_dir", "run_dir", "log_dir", "cache_dir"];
        for one in keys {
            for other in keys.into_iter().filter(|other| *other != one) {
                let same = clash(root.path(), &[(one, "x"), (other, "x")]).expect("the same");
                assert!([same.0, same.1].contains(&one) && [same.0, same.1].contains(&other), "{same:?}");
                assert_eq!(same.2, Clash::Same);
                for inner in ["x/y", "x/y/z", "x/./y", "q/../x/y"] {
                    assert_eq!(
                        clash(root.path(), &[(one, inner), (other, "x")]),
                        Some((one, other, Clash::Below)),
                        "{inner}"
                    );
                }
            }
            let root_itself = config(Path::new("/"), &[(one, "/")]);
            assert!(matches!(check(&root_itself), Err(ConfigError::Value { key, .. }) if key == one));
        }
        assert_eq!(clash(root.path(), &[("address", "state/s")]), Some(("address", "state_dir", Clash::Below)));
        assert_eq!(clash(root.path(), &[("address", "run")]), Some(("address", "run_dir", Clash::Same)));
    }

    #[test]
    fn links_are_seen_through_whether_their_ends_are_there_or_not() {
        let root = tempfile::tempdir().expect("temp");
        fs::create_dir(root.path().join("state")).expect("made");
        std::os::unix::fs::symlink("state", root.path().join("link")).expect("linked");
        assert_eq!(clash(root.path(), &[("cache_dir", "link")]), Some(("state_dir", "cache_dir", Clash::Same)));
        assert_eq!(clash(root.path(), &[("cache_dir", "link/c")]), Some(("cache_dir", "state_dir", Clash::Below)));
        assert_eq!(clash(root.path(), &[("log_dir", "link/../state/l")]), Some(("log_dir", "state_dir", Clash::Below)));
        std::os::unix::fs::symlink("/", root.path().join("top")).expect("linked");
        let top = config(root.path(), &[("log_dir", "top")]);
        assert!(matches!(check(&top), Err(ConfigError::Value { key: "log_dir", .. })));
    }
}
