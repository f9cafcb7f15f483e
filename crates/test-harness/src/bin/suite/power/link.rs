//! The line to the node: commands go out, each with a number, and answers come back as they are ready (tests/vm/power.sh).

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long the node may take to boot, and for an answer: emulated, beside a load.
const PATIENCE: Duration = Duration::from_secs(900);
/// Between two looks whether a machine that starts listens.
const PAUSE: Duration = Duration::from_millis(20);

/// The end of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) number: u64,
    pub(super) code: i32,
    pub(super) output: String,
}

impl Answer {
    /// Reads a line of the node; `None` for half of one, which a machine that is killed may leave.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_suffix('\n')?.splitn(3, ' ');
        let (number, code) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { number, code, output: words.next()?.replace('\u{1f}', "\n") })
    }
}

/// The line.
#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    answers: Receiver<Answer>,
    next: u64,
    answered: Vec<u64>,
    pub(super) boot_id: String,
}

impl Link {
    /// Connects to a machine that starts, and waits until the node is there. `is_alive` tells whether the machine still is.
    ///
    /// # Errors
    /// When the machine ends, or says nothing.
    pub(super) fn open(socket: &Path, mut is_alive: impl FnMut() -> bool) -> Result<Self, String> {
        let begin = Instant::now();
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if !is_alive() => return Err(format!("the machine has ended before it began ({error})")),
                Err(error) if begin.elapsed() > PATIENCE => return Err(format!("reach {}: {error}", socket.display())),
                Err(_not_yet) => std::thread::sleep(PAUSE),
            }
        };
        let reader = stream.try_clone().map_err(|error| format!("share the line: {error}"))?;
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let answer = Answer::parse(&String::from_utf8_lossy(&line));
                if answer.is_some_and(|answer| sender.send(answer).is_err()) {
                    return;
                }
                line.clear();
            }
        });
        let mut link = Self { stream, answers, next: 1, answered: Vec::new(), boot_id: String::new() };
        link.boot_id = link.wait(0)?.output;
        Ok(link)
    }

    /// Begins a command and returns its number.
    ///
    /// # Errors
    /// When the machine has ended.
    pub(super) fn send(&mut self, command: &str) -> Result<u64, String> {
        let number = self.next;
        self.next += 1;
        let line = format!("{number} {command}\n");
        self.stream.write_all(line.as_bytes()).map_err(|error| format!("tell the node {command:?}: {error}"))?;
        Ok(number)
    }

    /// Waits for the next answer to any command, so long.
    ///
    /// # Errors
    /// When the machine has ended.
    pub(super) fn next(&mut self, time: Duration) -> Result<Option<Answer>, String> {
        match self.answers.recv_timeout(time) {
            Ok(answer) => {
                self.answered.push(answer.number);
                Ok(Some(answer))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err("the machine has ended".to_owned()),
        }
    }

    fn wait(&mut self, number: u64) -> Result<Answer, String> {
        match self.next(PATIENCE)? {
            Some(answer) if answer.number == number => Ok(answer),
            Some(answer) => Err(format!("an answer to {number} was due, not {answer:?}")),
            None => Err(format!("no answer to {number} within {PATIENCE:?}")),
        }
    }

    /// Runs a command while no other runs.
    ///
    /// # Errors
    /// When the machine has ended or does not answer.
    pub(super) fn ask(&mut self, command: &str) -> Result<Answer, String> {
        let number = self.send(command)?;
        self.wait(number)
    }

    /// Runs a command that must succeed, and returns its output.
    ///
    /// # Errors
    /// As [`Self::ask`], and when it fails.
    pub(super) fn ask_well(&mut self, command: &str) -> Result<String, String> {
        match self.ask(command)? {
            Answer { code: 0, output, .. } => Ok(output),
            Answer { code, output, .. } => Err(format!("{command}: {code}\n{output}")),
        }
    }

    /// Returns the answers that a machine which has ended had still given.
    pub(super) fn rest(&mut self) -> Vec<Answer> {
        let rest: Vec<Answer> = self.answers.iter().collect();
        self.answered.extend(rest.iter().map(|answer| answer.number));
        rest
    }

    /// The numbers of all commands that were answered in this boot.
    pub(super) fn answered(&self) -> Vec<u64> {
        self.answered.iter().copied().filter(|number| *number > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_is_no_answer() {
        let answer = Answer { number: 7, code: 1, output: "two\nlines".to_owned() };
        assert_eq!(Answer::parse("7 1 two\u{1f}lines\n"), Some(answer));
        assert_eq!(Answer::parse("7 0 \n").map(|answer| answer.output), Some(String::new()));
        for half in ["7 1 two\u{1f}li", "7", "7 1\n", "\n"] {
            assert_eq!(Answer::parse(half), None, "{half:?}");
        }
    }
}
