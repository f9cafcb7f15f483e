//! A load on all cores beside the tests: numbers, synced writes, and processes that are made and end.

use std::fs::File;
use std::io::{Seek, Write};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// In which of several runs there is a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    None,
    /// In every second one.
    Half,
    All,
}

impl Load {
    /// Tells whether the run with this number, from 0, is loaded.
    pub(crate) fn is_on(self, number: usize) -> bool {
        match self {
            Self::None => false,
            Self::Half => number % 2 == 1,
            Self::All => true,
        }
    }
}

impl FromStr for Load {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "half" => Ok(Self::Half),
            "all" => Ok(Self::All),
            _ => Err(format!("--load {text}: it is none, half or all")),
        }
    }
}

/// Threads that keep the machine busy until it is dropped.
#[derive(Debug)]
pub(crate) struct Burner {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Burner {
    /// Starts, per core, one thread that computes; and one that syncs and one that makes processes.
    ///
    /// # Errors
    /// When the file to sync cannot be made.
    pub(crate) fn start() -> Result<Self, String> {
        let is_over = Arc::new(AtomicBool::new(false));
        let file = tempfile::tempfile().map_err(|error| format!("make a file to sync: {error}"))?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let run = |step: Box<dyn FnMut() + Send>| {
            let (is_over, mut step) = (Arc::clone(&is_over), step);
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    step();
                }
            })
        };
        let mut threads: Vec<_> = (0..cores).map(|_| run(Box::new(compute))).collect();
        let mut file = file;
        threads.push(run(Box::new(move || sync(&mut file))));
        threads.push(run(Box::new(fork)));
        Ok(Self { is_over, threads })
    }
}

impl Drop for Burner {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _panicked = thread.join().is_err();
        }
    }
}

fn compute() {
    let sum = (0..1_000_000_u64).fold(1, |sum: u64, number| sum.wrapping_mul(31).wrapping_add(number));
    std::hint::black_box(sum);
}

/// Writes a megabyte and waits for the disk. An error is no reason to end: a full disk is a load, too.
fn sync(file: &mut File) {
    let _refused = file.rewind().and_then(|()| file.write_all(&[7; 1 << 20])).and_then(|()| file.sync_all());
}

fn fork() {
    let mut command = Command::new("/bin/true");
    let _refused = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_run_is_loaded() {
        let half: Load = "half".parse().expect("known");
        assert_eq!([0, 1, 2, 3].map(|number| half.is_on(number)), [false, true, false, true]);
        assert!("some".parse::<Load>().is_err());
    }

    #[test]
    fn a_load_ends_when_it_is_dropped() {
        drop(Burner::start().expect("a burner"));
    }
}
