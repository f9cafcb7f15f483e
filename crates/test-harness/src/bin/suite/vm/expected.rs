//! The tests that a node does not pass, with what their failures say and why that is so; and whether a run was as expected.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::choice::{Choice, Test};
use crate::events::{Events, Failed};

/// One test that does not pass.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Failure {
    /// Its output contains this.
    says: String,
    /// The reason, for people.
    why: String,
    /// It passes now and then: the node decides it by a race. Otherwise a pass is a failure.
    #[serde(default)]
    luck: bool,
}

/// All of a node, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Expected(BTreeMap<String, Failure>);

impl Expected {
    /// Reads the file of a node.
    ///
    /// # Errors
    /// When it is not as it should be, or names a test that is none.
    pub(crate) fn read(root: &Path, node: &str, tests: &[Test]) -> Result<Self, String> {
        let name = file(node);
        let text = std::fs::read_to_string(root.join(&name)).map_err(|error| format!("read {name}: {error}"))?;
        let expected: Self = toml::from_str(&text).map_err(|error| format!("read {name}: {error}"))?;
        match expected.0.keys().find(|key| !tests.iter().any(|test| test.name == **key)) {
            Some(key) => Err(format!("{name}: there is no test {key}")),
            None => Ok(expected),
        }
    }

    pub(crate) fn contains(&self, test: &str) -> bool {
        self.0.contains_key(test)
    }

    /// Takes the failures that are as expected out of what was seen, and puts in what else is wrong.
    pub(crate) fn judge(&self, node: &str, events: &mut Events, choice: &Choice) {
        let is_expected = |failed: &Failed| self.0.get(&failed.test).is_some_and(|it| failed.output.contains(&it.says));
        let was_run = |name: &str| {
            let passed = events.passed.iter().any(|test| test.test == name);
            passed || events.failed.iter().any(|test| test.test == name) || events.unfinished.contains(name)
        };
        let fail = |test: &str, output: String| Failed { test: test.to_owned(), output };
        let not_run: Vec<Failed> = choice
            .tests
            .iter()
            .filter(|test| !was_run(&test.name))
            .map(|test| fail(&test.name, "it was not run".to_owned()))
            .collect();
        events.failed.retain(|failed| !is_expected(failed));
        for failed in &mut events.failed {
            if let Some(Failure { says, .. }) = self.0.get(&failed.test) {
                failed.output.push_str(&format!("\n{} expects it to say {says:?}", file(node)));
            }
        }
        events.failed.extend(not_run);
        let (passed, surprising) = std::mem::take(&mut events.passed)
            .into_iter()
            .partition::<Vec<_>, _>(|passed| self.0.get(&passed.test).is_none_or(|failure| failure.luck));
        events.passed = passed;
        let why = || format!("it passes: remove it from {}", file(node));
        events.failed.extend(surprising.iter().map(|passed| fail(&passed.test, why())));
    }

    /// Prints those that were run.
    pub(crate) fn print(&self, node: &str, choice: &Choice) {
        let run: Vec<_> = self.0.iter().filter(|(test, _)| choice.contains(test)).collect();
        println!("\n{node}: {} of {} tests cannot pass there", run.len(), choice.tests.len());
        for (test, failure) in run {
            println!("  {test}: {}{}", failure.why, if failure.luck { " (or by luck)" } else { "" });
        }
    }
}

/// The file of a node.
fn file(node: &str) -> String {
    format!("tests/vm/expected/{node}.toml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Passed;

    fn judged(passed: &[&str], failed: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let entry = |says: &str, luck: bool| Failure { says: says.to_owned(), why: "for a reason".to_owned(), luck };
        let entries = [("a".to_owned(), entry("no nginx", false)), ("lucky".to_owned(), entry("no luck", true))];
        let expected = Expected(entries.into());
        let tests = ["a", "b"].map(|name| Test { binary: 0, name: name.to_owned() }).to_vec();
        let mut events = Events {
            passed: passed.iter().map(|test| Passed { test: (*test).to_owned(), seconds: 1.0 }).collect(),
            failed: failed
                .iter()
                .map(|(test, says)| Failed { test: (*test).to_owned(), output: (*says).to_owned() })
                .collect(),
            ..Events::default()
        };
        expected.judge("n", &mut events, &Choice { tests });
        let names = events.passed.into_iter().map(|passed| passed.test).collect();
        (names, events.failed.into_iter().map(|failed| failed.test).collect())
    }

    #[test]
    fn a_failure_is_expected_by_what_it_says_and_a_pass_where_none_is() {
        let none = Vec::<String>::new();
        let own = |name: &str| vec![name.to_owned()];
        assert_eq!(judged(&["b"], &[("a", "there is no nginx here")]), (own("b"), none.clone()));
        assert_eq!(judged(&["b"], &[("a", "another reason")]), (own("b"), own("a")));
        assert_eq!(judged(&["a", "b"], &[]), (own("b"), own("a")));
        assert_eq!(judged(&[], &[("a", "no nginx"), ("b", "no nginx")]), (none.clone(), own("b")));
        let nginx = ("a", "no nginx");
        assert_eq!(judged(&["b", "lucky"], &[nginx]), (["b", "lucky"].map(str::to_owned).to_vec(), none.clone()));
        assert_eq!(judged(&["b"], &[nginx, ("lucky", "no luck today")]), (own("b"), none));
        assert_eq!(judged(&["b"], &[nginx, ("lucky", "another reason")]).1, own("lucky"));
    }

    #[test]
    fn a_test_that_was_not_run_has_failed() {
        assert_eq!(judged(&["b"], &[]), (vec!["b".to_owned()], vec!["a".to_owned()]));
        assert_eq!(judged(&[], &[("a", "no nginx")]).1, ["b".to_owned()]);
    }
}
