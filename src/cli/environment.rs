//! `-e` and `--env-file`: collects the container's environment.

use std::path::{Path, PathBuf};

use crate::cli::error::CliError;

/// Looks up a variable of this command's own environment.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Collects the environment: the files in order, then the flags; a later value of a key replaces an earlier one.
///
/// # Errors
/// [`CliError::EnvFile`], [`CliError::EnvFileLine`].
pub(crate) fn collect(files: &[PathBuf], flags: &[String], own: Lookup<'_>) -> Result<Vec<String>, CliError> {
    let mut entries = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(path).map_err(|source| CliError::EnvFile { path: path.clone(), source })?;
        read_file(path, &text, own, &mut entries)?;
    }
    for flag in flags {
        entries.extend(entry(flag, own));
    }
    Ok(last_of_each_key(entries))
}

fn read_file(path: &Path, text: &str, own: Lookup<'_>, entries: &mut Vec<String>) -> Result<(), CliError> {
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = line.split_once('=').map_or(line.trim_end(), |(key, _)| key);
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(CliError::EnvFileLine { path: path.to_owned(), line: number + 1 });
        }
        entries.extend(entry(if line.contains('=') { line } else { key }, own));
    }
    Ok(())
}

/// Returns `KEY=VALUE` unchanged, and `KEY` alone with our own value; `None` when we have none.
fn entry(text: &str, own: Lookup<'_>) -> Option<String> {
    if text.contains('=') { Some(text.to_owned()) } else { own(text).map(|value| format!("{text}={value}")) }
}

fn last_of_each_key(entries: Vec<String>) -> Vec<String> {
    let key = |entry: &str| entry.split_once('=').map_or_else(|| entry.to_owned(), |(key, _)| key.to_owned());
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<String> = entries.into_iter().rev().filter(|entry| seen.insert(key(entry))).collect();
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(key: &str) -> Option<String> {
        (key == "HOME").then(|| "/root".to_owned())
    }

    fn file(text: &str) -> Result<Vec<String>, CliError> {
        let mut entries = Vec::new();
        read_file(Path::new("f"), text, &own, &mut entries).map(|()| entries)
    }

    #[test]
    fn a_file_has_pairs_comments_and_bare_keys() {
        let text = "# comment\n\nA=1\n  B=two words # kept\nHOME\nABSENT\nC=\nD=x=y\n";
        assert_eq!(file(text).expect("valid"), ["A=1", "B=two words # kept", "HOME=/root", "C=", "D=x=y"]);
    }

    #[test]
    fn a_bad_line_is_named_by_number_and_not_shown() {
        for bad in ["A=1\n=secret", "A=1\nmy secret=1"] {
            let error = file(bad).expect_err("bad");
            assert!(matches!(error, CliError::EnvFileLine { line: 2, .. }), "got {error:?}");
            assert!(!error.to_string().contains("secret"));
        }
    }

    #[test]
    fn flags_win_over_files_and_the_last_over_all() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("env");
        std::fs::write(&path, "A=file\nB=file\n").expect("written");
        let flags = ["A=1", "A=2", "HOME", "ABSENT"].map(str::to_owned);
        assert_eq!(collect(&[path], &flags, &own).expect("valid"), ["B=file", "A=2", "HOME=/root"]);
    }

    #[test]
    fn a_missing_file_is_an_error() {
        assert!(matches!(collect(&["/nowhere/env".into()], &[], &own), Err(CliError::EnvFile { .. })));
    }
}
