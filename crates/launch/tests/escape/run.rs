//! A running container, and its outcome.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

/// The time limit of silence: no container here works for longer.
const SILENCE: Duration = Duration::from_secs(300);

/// A container that was started.
pub(crate) struct Running {
    child: Child,
    /// The output of the container and the launcher: standard output by lines, then all of standard error.
    lines: Receiver<Said>,
    said: Vec<String>,
}

enum Said {
    Line(String),
    Words(String),
}

/// The outcome of a container.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    /// The outcome of each attempt.
    attempts: BTreeMap<String, String>,
    lines: Vec<String>,
    /// The error output of the launcher.
    pub(crate) words: String,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = loop {
            match command.spawn() {
                // Another test has forked while our copy of the program was being written; its exec ends that.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => thread::yield_now(),
                spawned => break spawned.unwrap(),
            }
        };
        let (stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        let other = sender.clone();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _test_has_ended = sender.send(Said::Line(line));
            }
        });
        thread::spawn(move || {
            let mut words = String::new();
            let _not_text = stderr.read_to_string(&mut words);
            let _test_has_ended = other.send(Said::Words(words));
        });
        Self { child, lines, said: Vec::new() }
    }

    /// Waits for a line of output that begins like this.
    #[track_caller]
    pub(crate) fn await_line(&mut self, beginning: &str) -> String {
        loop {
            match self.lines.recv_timeout(SILENCE) {
                Ok(Said::Line(line)) => {
                    self.said.push(line.clone());
                    if line.starts_with(beginning) {
                        return line;
                    }
                }
                Ok(Said::Words(words)) => panic!("the launcher said {words:?}, the container {:?}", self.said),
                Err(error) => self.give_up(&format!("no {beginning:?}: {error}")),
            }
        }
    }

    /// Kills the launcher alone, as the kernel does when memory is short.
    pub(crate) fn kill_launcher(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end of the container and of its output.
    #[track_caller]
    pub(crate) fn outcome(mut self) -> Outcome {
        let mut words = String::new();
        loop {
            match self.lines.recv_timeout(SILENCE) {
                Ok(Said::Line(line)) => self.said.push(line),
                Ok(Said::Words(text)) => words = text,
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => self.give_up("it hangs"),
            }
        }
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        let pairs = self.said.iter().filter_map(|line| line.split_once(" => "));
        let attempts = pairs.map(|(attempt, result)| (attempt.to_owned(), result.to_owned())).collect();
        Outcome { code, attempts, lines: std::mem::take(&mut self.said), words }
    }

    #[track_caller]
    fn give_up(&mut self, why: &str) -> ! {
        let _has_ended = self.child.kill();
        panic!("{why}; the container said {:?}", self.said);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed must not leave the container; one that has ended is no longer there.
        let _has_ended = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Outcome {
    /// Returns the outcome of an attempt: `ok …` or `errno N`.
    #[track_caller]
    pub(crate) fn of(&self, attempt: &str) -> &str {
        match self.attempts.get(attempt) {
            Some(result) => result,
            None => panic!("{attempt:?} was not made: {self:?}"),
        }
    }

    /// Asserts that an attempt failed with one of these errors.
    #[track_caller]
    pub(crate) fn assert_refused(&self, attempt: &str, errors: &[i32]) {
        let result = self.of(attempt);
        let number = result.strip_prefix("errno ").and_then(|number| number.parse().ok());
        assert!(number.is_some_and(|number| errors.contains(&number)), "{attempt}: {result}, not one of {errors:?}");
    }

    /// Asserts that an attempt worked, and returns its output.
    #[track_caller]
    pub(crate) fn assert_worked(&self, attempt: &str) -> &str {
        let result = self.of(attempt);
        match result.strip_prefix("ok ") {
            Some(words) => words,
            None => panic!("{attempt}: {result}; {self:?}"),
        }
    }

    /// Asserts that no container was made, because of this field.
    #[track_caller]
    pub(crate) fn assert_no_container(&self, field: &str) {
        assert!(self.lines.is_empty() && self.code == 125, "there was a container: {self:?}");
        assert!(self.words.contains(field), "not because of {field}: {}", self.words);
    }
}
