//! The job of a node: a script that runs the chosen tests, and the machine that runs the script.

use std::path::Path;

use super::choice::Choice;
use super::expected::Expected;
use super::{package, zinit};
use crate::build::{Built, TestBinary};
use crate::plan::{Job, SILENCE};

/// Makes what the tests of a module find beside the programs, in a directory of theirs, for another machine if that is named; its path.
type Make = fn(&Path, Option<&str>) -> Result<String, String>;

/// The modules of `tests/vm/` that need more than the programs.
const NEEDS: [(&str, Make); 2] = [("package::", package::make), ("zinit::", zinit::make)];

/// How a node runs its tests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeJob<'a> {
    /// The repository.
    pub(crate) root: &'a Path,
    pub(crate) name: &'a str,
    /// The target that cargo builds for, if its machine is not ours.
    pub(crate) target: Option<&'a str>,
    /// How many times longer its tests wait.
    pub(crate) slowness: u32,
    /// How many of them run at once.
    pub(crate) threads: usize,
}

impl NodeJob<'_> {
    /// Writes the script and says how the machine is started.
    ///
    /// # Errors
    /// When the script cannot be written, or what a test needs cannot be made.
    pub(crate) fn prepare(
        self,
        built: &Built,
        binaries: &[&TestBinary],
        choice: &Choice,
        expected: &Expected,
    ) -> Result<Job, String> {
        let dir = self.root.join("target/suite").join(format!("vm-{}", self.name));
        let path = dir.join("job");
        let script = self.script(binaries, choice, expected);
        std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::write(&path, script))
            .map_err(|error| format!("write {}: {error}", path.display()))?;
        let mut args = vec![self.name.to_owned(), dir.display().to_string(), path.display().to_string()];
        let programs = built.programs.iter().chain(binaries.iter().map(|binary| &binary.program));
        args.extend(programs.map(|program| program.display().to_string()));
        let contd = built.programs.iter().find(|program| program.ends_with("contd"));
        let programs = contd.and_then(|contd| contd.parent()).ok_or("cargo has not built contd")?;
        // A test that cannot pass here has no use for it, and the root of a Zero-OS node no room.
        let is_run = |module: &str| {
            choice.tests.iter().any(|test| test.name.starts_with(module) && !expected.contains(&test.name))
        };
        for (_, make) in NEEDS.iter().filter(|(module, _)| is_run(module)) {
            args.push(make(programs, self.target)?);
        }
        Ok(Job {
            name: format!("vm {}", self.name),
            program: self.root.join("tests/vm/run.sh"),
            args,
            dir: self.root.to_path_buf(),
            env: Vec::new(),
            threads: self.threads,
            again: format!("target/debug/suite vm --node {} --only", self.name),
            patience: SILENCE * self.slowness,
        })
    }

    /// Runs the tests that must pass, and then those that must not: what they leave behind disturbs no other.
    fn script(self, binaries: &[&TestBinary], choice: &Choice, expected: &Expected) -> String {
        let mut text = format!(
            "cd {}\nexport CONTD_BINARIES_ARE_BUILT=1 RUSTC_BOOTSTRAP=1 CONTD_TEST_SLOWNESS={} CONTD_TEST_NODE={}\n",
            self.root.display(),
            self.slowness,
            self.name
        );
        let flags = format!("-Z unstable-options --format json --report-time --test-threads {}", self.threads);
        for must_fail in [false, true] {
            for (number, binary) in binaries.iter().enumerate() {
                let is_now = |name: &str| expected.contains(name) == must_fail;
                let tests = choice.tests.iter().filter(|test| test.binary == number && is_now(&test.name));
                let names: Vec<&str> = tests.map(|test| test.name.as_str()).collect();
                if !names.is_empty() {
                    text.push_str(&format!("{} {flags} --exact {}\n", binary.program.display(), names.join(" ")));
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::choice::Test;

    #[test]
    fn tests_that_must_fail_are_run_behind_all_others() {
        let binary = |name: &str| TestBinary {
            name: name.to_owned(),
            selection: Vec::new(),
            program: format!("/t/{name}").into(),
            dir: "/src".into(),
        };
        let (one, two) = (binary("one"), binary("two"));
        let test = |binary: usize, name: &str| Test { binary, name: name.to_owned() };
        let choice = Choice { tests: vec![test(0, "a"), test(0, "b"), test(1, "c")] };
        let expected: Expected = toml::from_str("a = { says = \"x\", why = \"y\" }").expect("a table");
        let node = NodeJob { root: Path::new("/src"), name: "debian", target: None, slowness: 4, threads: 2 };
        let script = node.script(&[&one, &two], &choice, &expected);
        let run: Vec<(&str, &str)> = script
            .lines()
            .filter_map(|line| Some((line.split(' ').next()?, line.split_once(" --exact ")?.1)))
            .collect();
        assert_eq!(run, [("/t/one", "b"), ("/t/two", "c"), ("/t/one", "a")]);
        assert!(script.contains("CONTD_TEST_SLOWNESS=4 CONTD_TEST_NODE=debian\n"), "{script}");
    }
}
