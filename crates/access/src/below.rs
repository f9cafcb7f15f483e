//! A path that a caller names, split at the directory that an access rule allows.

use std::fmt;
use std::path::{Component, Path, PathBuf};

/// A place at or below an allowed directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Below {
    /// The directory that the rule names; absolute.
    pub base: PathBuf,
    /// The rest of the path: relative, without `..`; `.` for the directory itself.
    pub rest: PathBuf,
}

impl Below {
    /// Splits a path by its components; `None` when it is not at or below `base`. Does not touch the file system.
    #[must_use]
    pub fn split(base: &Path, path: &Path) -> Option<Self> {
        let rest = path.strip_prefix(base).ok()?;
        if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
            return None;
        }
        let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
        Some(Self { base: base.to_owned(), rest: rest.to_owned() })
    }

    /// Returns the whole path, for display.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        if self.rest == Path::new(".") { self.base.clone() } else { self.base.join(&self.rest) }
    }
}

impl fmt::Display for Below {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path().display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_below_by_its_components_and_not_by_its_letters() {
        let split = |path: &str| Below::split(Path::new("/srv/a"), Path::new(path)).map(|below| below.rest);
        assert_eq!(split("/srv/a/b/c"), Some("b/c".into()));
        assert_eq!(split("/srv/a"), Some(".".into()));
        assert_eq!(split("/srv//a/./b"), Some("b".into()));
        for outside in ["/srv/ab", "/srv", "/", "/srv/a/../b", "/srv/a/b/../../c", "srv/a/b", "/srv/../srv/a"] {
            assert_eq!(split(outside), None, "{outside}");
        }
        assert_eq!(Below::split(Path::new("/"), Path::new("/etc")).unwrap().rest, Path::new("etc"));
    }
}
