//! The output of a test binary: libtest's JSON events.

use std::collections::BTreeSet;

use serde_json::Value;

/// One test that was run and passed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Passed {
    pub(crate) test: String,
    pub(crate) seconds: f64,
}

/// One test that was run and did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) test: String,
    /// The text that it printed.
    pub(crate) output: String,
}

/// The events of one job, counted.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Events {
    pub(crate) passed: Vec<Passed>,
    pub(crate) failed: Vec<Failed>,
    pub(crate) ignored: Vec<String>,
    /// Tests that the command line left out.
    pub(crate) filtered: u64,
    /// Tests that began and did not end.
    pub(crate) unfinished: BTreeSet<String>,
    /// Whether the binary came to its own end.
    pub(crate) is_complete: bool,
    /// Lines that are not events: output of the tests' own processes.
    pub(crate) other: String,
}

impl Events {
    /// Reads the events of one binary of libtest.
    pub(crate) fn of_json(text: &str) -> Self {
        let mut events = Self::default();
        for line in text.lines() {
            match serde_json::from_str::<Value>(line) {
                Ok(event) if event["type"] == "test" => events.add_test(&event),
                Ok(event) if event["type"] == "suite" => events.add_suite(&event),
                _ => events.add_other(line),
            }
        }
        events
    }

    fn add_test(&mut self, event: &Value) {
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let test = text("name");
        match event["event"].as_str() {
            Some("started") => {
                self.unfinished.insert(test);
                return;
            }
            Some("ok") => {
                let seconds = event["exec_time"].as_f64().unwrap_or_default();
                self.passed.push(Passed { test: test.clone(), seconds });
            }
            Some("ignored") => self.ignored.push(test.clone()),
            // It says so after a minute, and goes on.
            Some("timeout") => return,
            _ => {
                let output = [text("stdout"), text("message")].concat();
                self.failed.push(Failed { test: test.clone(), output });
            }
        }
        self.unfinished.remove(&test);
    }

    fn add_suite(&mut self, event: &Value) {
        if event["event"] == "started" {
            return;
        }
        self.filtered = event["filtered_out"].as_u64().unwrap_or_default();
        self.is_complete = true;
    }

    fn add_other(&mut self, line: &str) {
        if !line.is_empty() {
            self.other.push_str(line);
            self.other.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passed, failed, ignored.
    fn counts(events: &Events) -> [usize; 3] {
        [events.passed.len(), events.failed.len(), events.ignored.len()]
    }

    #[test]
    fn each_test_is_counted_once_and_one_that_did_not_end_is_named() {
        let text = r#"{ "type": "suite", "event": "started", "test_count": 4 }
{ "type": "test", "event": "started", "name": "a" }
{ "type": "test", "event": "started", "name": "b" }
a line of a daemon
{ "type": "test", "name": "a", "event": "ok", "exec_time": 1.5 }
{ "type": "test", "name": "b", "event": "failed", "exec_time": 0.1, "stdout": "boom\n" }
{ "type": "test", "name": "c", "event": "ignored" }
{ "type": "test", "event": "started", "name": "d" }
{ "type": "test", "event": "timeout", "name": "d" }
"#;
        let events = Events::of_json(text);
        assert_eq!(counts(&events), [1, 1, 1]);
        assert_eq!(events.passed[0], Passed { test: "a".to_owned(), seconds: 1.5 });
        assert_eq!(events.failed[0].output, "boom\n");
        assert_eq!(events.unfinished, ["d".to_owned()].into());
        assert_eq!(events.other, "a line of a daemon\n");
        assert!(!events.is_complete, "it has not said how it ended");
        let end = r#"{ "type": "suite", "event": "ok", "passed": 1, "failed": 0, "filtered_out": 7 }"#;
        let events = Events::of_json(end);
        assert_eq!((events.is_complete, events.filtered), (true, 7));
    }
}
