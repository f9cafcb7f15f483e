//! Where something of the configuration stands: file, line and column, or the flag that says it.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::config::DaemonArgs;

/// The texts that a configuration was made from, in their order: the later wins.
#[derive(Debug, Default)]
pub(super) struct Sources {
    files: Vec<(PathBuf, String)>,
}

impl Sources {
    /// Adds a file.
    pub(super) fn add(&mut self, path: PathBuf, text: String) {
        self.files.push((path, text));
    }

    /// Names the files.
    pub(super) fn names(&self) -> Vec<String> {
        self.files.iter().map(|(path, _)| path.display().to_string()).collect()
    }

    /// Says where a key, written with dots, has its value from; `None` is the default.
    pub(super) fn of_key(&self, key: &str, args: &DaemonArgs) -> Option<String> {
        let flags = [
            ("root", &args.root, "--root"),
            ("state_dir", &args.state_dir, "--state-dir"),
            ("run_dir", &args.run_dir, "--run-dir"),
            ("log_dir", &args.log_dir, "--log-dir"),
            ("cache_dir", &args.cache_dir, "--cache-dir"),
            ("address", &args.address, "--address"),
        ];
        if let Some((_, _, flag)) = flags.iter().find(|(name, value, _)| *name == key && value.is_some()) {
            return Some((*flag).to_owned());
        }
        self.files.iter().rev().find_map(|(path, text)| Some(position(path, text, offset_of(text, key)?)))
    }
}

/// Writes a position for people; lines and columns count from 1.
pub(super) fn position(path: &Path, text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{}, line {line}, column {column}", path.display())
}

/// Finds the value of a key in a text.
fn offset_of(text: &str, key: &str) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let mut table = root.get_ref();
    let mut parts = key.split('.').peekable();
    loop {
        let part = parts.next()?;
        let (_, value) = table.iter().find(|(name, _)| name.get_ref() == part)?;
        match (parts.peek(), value.get_ref()) {
            (None, _) => return Some(value.span().start),
            (Some(_), DeValue::Table(inner)) => table = inner,
            (Some(_), _) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_file_that_says_it_is_named_and_a_flag_before_all() {
        let mut sources = Sources::default();
        sources.add("/a".into(), "run_dir = '/r'\n[limits]\n  runs = 1\n".to_owned());
        sources.add("/b".into(), "# é\nlimits.runs = 2".to_owned());
        let none = DaemonArgs::default();
        assert_eq!(sources.of_key("run_dir", &none).as_deref(), Some("/a, line 1, column 11"));
        assert_eq!(sources.of_key("limits.runs", &none).as_deref(), Some("/b, line 2, column 15"));
        assert_eq!(sources.of_key("limits.connections", &none), None);
        let flags = DaemonArgs { run_dir: Some("/x".into()), ..none };
        assert_eq!(sources.of_key("run_dir", &flags).as_deref(), Some("--run-dir"));
    }
}
