//! Reads orders and carries them out. Uses none of our crates, so that a fault cannot hit the code that causes it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

use crate::points::Failpoint;
use crate::{ORDER, STRUCK};

static RUN_DIR: OnceLock<PathBuf> = OnceLock::new();

/// How often this process has passed the failpoint of the order that it saw last.
static PASSED: Mutex<Passed> = Mutex::new(Passed { order: (0, 0), count: 0 });

struct Passed {
    /// Inode and modification time of the order's file: they tell one order from the next.
    order: (u64, i64),
    count: u64,
}

/// The fault that an order asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Kill(Vec<i32>),
    Stop,
    Delay(Duration),
    Error(i32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Order {
    name: String,
    action: Action,
    skip: u64,
    only: Vec<i32>,
    except: Vec<i32>,
}

impl Order {
    /// Parses an order; `None` when the text is not an order, which a test notices because its order is never carried
    /// out.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace().peekable();
        let name = words.next()?.to_owned();
        let number = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok());
        let mut order = Self { name, action: Action::Stop, skip: 0, only: Vec::new(), except: Vec::new() };
        let mut has_action = false;
        while let Some(word) = words.next() {
            let mut pids = || -> Vec<i32> {
                std::iter::from_fn(|| words.next_if(|word| word.parse::<i32>().is_ok())?.parse().ok()).collect()
            };
            let action = match word {
                "kill" => Some(Action::Kill(pids())),
                "stop" => Some(Action::Stop),
                "delay" => Some(Action::Delay(Duration::from_millis(number(words.next())?))),
                "error" => Some(Action::Error(words.next()?.parse().ok()?)),
                "skip" => {
                    order.skip = number(words.next())?;
                    None
                }
                "only" => {
                    order.only = pids();
                    None
                }
                "except" => {
                    order.except = pids();
                    None
                }
                _ => return None,
            };
            if let Some(action) = action {
                order.action = action;
                has_action = true;
            }
        }
        has_action.then_some(order)
    }

    fn applies_to(&self, point: Failpoint, pid: i32) -> bool {
        self.name == point.name() && !self.except.contains(&pid) && (self.only.is_empty() || self.only.contains(&pid))
    }
}

pub(crate) fn arm(run_dir: &Path) {
    // Only a test starts a second daemon in one process; the first call stays in force.
    let _armed_already = RUN_DIR.set(run_dir.to_owned());
}

pub(crate) fn reach(point: Failpoint) -> io::Result<()> {
    match RUN_DIR.get().and_then(|run_dir| take_order(run_dir, point)) {
        Some(action) => carry_out(action),
        None => Ok(()),
    }
}

/// Takes the order for this failpoint, if there is one and it is for this process: no other process carries it out
/// then.
fn take_order(run_dir: &Path, point: Failpoint) -> Option<Action> {
    let path = run_dir.join(ORDER);
    let mut file = File::open(&path).ok()?;
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let order = Order::parse(&text).filter(|order| order.applies_to(point, getpid().as_raw()))?;
    let metadata = file.metadata().ok()?;
    {
        let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
        let this = (metadata.ino(), metadata.mtime_nsec());
        if passed.order != this {
            *passed = Passed { order: this, count: 0 };
        }
        if passed.count < order.skip {
            passed.count += 1;
            return None;
        }
    }
    // If two processes get here at once, one of the renames fails.
    fs::rename(&path, run_dir.join(STRUCK)).ok()?;
    Some(order.action)
}

fn carry_out(action: Action) -> io::Result<()> {
    match action {
        Action::Kill(pids) => {
            for pid in pids.into_iter().map(Pid::from_raw).chain([getpid()]) {
                // A process that has ended already cannot be killed; we still end ourselves.
                let _gone = kill(pid, Signal::SIGKILL);
            }
            Ok(())
        }
        Action::Stop => Ok(kill(getpid(), Signal::SIGSTOP)?),
        Action::Delay(time) => {
            std::thread::sleep(time);
            Ok(())
        }
        Action::Error(errno) => Err(io::Error::from_raw_os_error(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_says_what_where_when_and_to_whom() {
        let order = Order::parse("fs.operation kill 4 5 skip 3 only 7 8 except 9\n").expect("an order");
        assert_eq!((order.action.clone(), order.skip), (Action::Kill(vec![4, 5]), 3));
        assert!(order.applies_to(Failpoint::FsOperation, 7) && !order.applies_to(Failpoint::FsOperation, 6));
        assert!(!order.applies_to(Failpoint::SpoolNoted, 7));
        let order = Order::parse("shim.spool.noted delay 20 except 9").expect("an order");
        assert_eq!(order.action, Action::Delay(Duration::from_millis(20)));
        assert!(order.applies_to(Failpoint::SpoolNoted, 7) && !order.applies_to(Failpoint::SpoolNoted, 9));
        for nonsense in ["", "shim.spool.noted", "shim.spool.noted error", "shim.spool.noted kill x", "a delay -1"] {
            assert_eq!(Order::parse(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn an_order_is_carried_out_once_after_what_it_skips_and_leaves_a_mark() {
        let dir = tempfile::tempdir().expect("scratch");
        fs::write(dir.path().join(ORDER), "fs.operation error 28 skip 2").expect("order");
        let taken = |point| take_order(dir.path(), point);
        assert_eq!([Failpoint::FsOperation; 2].map(taken), [None, None]);
        assert_eq!(taken(Failpoint::EndSeen), None, "another point");
        assert_eq!(taken(Failpoint::FsOperation), Some(Action::Error(28)));
        assert!(dir.path().join(STRUCK).exists());
        assert_eq!(taken(Failpoint::FsOperation), None);
    }
}
