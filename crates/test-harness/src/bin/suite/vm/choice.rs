//! Which tests are run in a node: all, those of a promise each, or those with a part of a name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::TestBinary;

/// Says which tests hold which promise: the short form.
const PROMISES: &str = "tests/vm/promises.toml";

/// The promises that no edit of that file may lose.
const NAMES: [&str; 14] = [
    "a container runs, its output and its exit code come back",
    "limits hold",
    "a memory hog is killed, and its exit says so",
    "death of the daemon",
    "death of a shim",
    "death of the holder",
    "death of a flist server",
    "death of daemon and shim at once",
    "upgrade of the daemon",
    "upgrade of a shim",
    "upgrade of a flist server",
    "restart by systemd",
    "activation by a socket of systemd",
    "nothing leaks",
];

/// One test of a binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Test {
    /// The position of its binary.
    pub(crate) binary: usize,
    pub(crate) name: String,
}

/// The tests that are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) tests: Vec<Test>,
}

impl Choice {
    /// Chooses those of the promises or all, and of them those whose name contains one of `only`.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn make(all: &[Test], promises: &[String], is_short: bool, only: &[String]) -> Result<Self, String> {
        let is_chosen = |test: &&Test| {
            let is_named = only.is_empty() || only.iter().any(|part| test.name.contains(part));
            is_named && (!is_short || promises.contains(&test.name))
        };
        let tests: Vec<Test> = all.iter().filter(is_chosen).cloned().collect();
        if tests.is_empty() {
            return Err(format!("no test has a name with one of {only:?}"));
        }
        Ok(Self { tests })
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tests.iter().any(|test| test.name == name)
    }
}

/// Asks binaries of this machine for their tests.
///
/// # Errors
/// When one cannot be run.
pub(crate) fn list(binaries: &[&TestBinary]) -> Result<Vec<Test>, String> {
    let mut tests = Vec::new();
    for (number, binary) in binaries.iter().enumerate() {
        let failed = |why: String| format!("list the tests of {}: {why}", binary.name);
        let mut command = Command::new(&binary.program);
        let output =
            command.args(["--list", "--format", "terse"]).output().map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(output.status.to_string()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
        tests.extend(names.map(|name| Test { binary: number, name: name.to_owned() }));
    }
    Ok(tests)
}

/// Reads which tests hold the promises.
///
/// # Errors
/// When the file is not as it should be, a promise has no test, or a test is none.
pub(crate) fn promises(root: &Path, tests: &[Test]) -> Result<Vec<String>, String> {
    let path: PathBuf = root.join(PROMISES);
    let text = std::fs::read_to_string(&path).map_err(|error| format!("read {PROMISES}: {error}"))?;
    let table: BTreeMap<String, Vec<String>> =
        toml::from_str(&text).map_err(|error| format!("read {PROMISES}: {error}"))?;
    if let Some(promise) = NAMES.iter().find(|name| table.get(**name).is_none_or(Vec::is_empty)) {
        return Err(format!("{PROMISES}: no test holds \"{promise}\""));
    }
    if let Some(promise) = table.keys().find(|promise| !NAMES.contains(&promise.as_str())) {
        return Err(format!("{PROMISES}: \"{promise}\" is no promise"));
    }
    let names: Vec<String> = table.into_values().flatten().collect();
    match names.iter().find(|name| !tests.iter().any(|test| test.name == **name)) {
        Some(name) => Err(format!("{PROMISES}: there is no test {name}")),
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(binary: usize, name: &str) -> Test {
        Test { binary, name: name.to_owned() }
    }

    #[test]
    fn all_are_chosen_or_those_of_promises_or_by_a_part_of_the_name() {
        let all = [test(0, "verbs::runs"), test(0, "verbs::stops"), test(1, "restarts")];
        let promises = ["verbs::runs".to_owned(), "restarts".to_owned()];
        let choose = |is_short: bool, only: &[&str]| {
            let only: Vec<String> = only.iter().map(|part| (*part).to_owned()).collect();
            Choice::make(&all, &promises, is_short, &only).map(|choice| choice.tests)
        };
        assert_eq!(choose(false, &[]), Ok(all.to_vec()));
        assert_eq!(choose(true, &[]), Ok(vec![all[0].clone(), all[2].clone()]));
        assert_eq!(choose(true, &["verbs"]), Ok(vec![all[0].clone()]));
        assert_eq!(choose(false, &["stop", "restart"]), Ok(all[1..].to_vec()));
        assert!(choose(true, &["stop"]).is_err());
    }
}
