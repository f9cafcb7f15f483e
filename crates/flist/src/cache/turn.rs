//! Lets one process of the node fetch a block, while other processes that need it wait for a short time.
//!
//! A turn is a lock on one byte of `<root>/turns`, at an offset derived from the key. No file per block has to be removed,
//! and the lock ends with its process. Turns only save fetches: a process that waits too long fetches, too.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::clock::Deadline;
use crate::hash::BlockKey;

/// The longest wait for another process's fetch. A block takes milliseconds, from a far store a second. A process that was
/// stopped, or asks a store that does not answer, must not delay others, whose store may be better.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The pauses between tries: a fetch from the same machine takes less than the first.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// The turns of a cache. If the file cannot be opened, each process fetches.
#[derive(Debug)]
pub(super) struct Turns {
    path: PathBuf,
    /// Opened at first use: not every process that opens a cache fetches blocks, and the disk may be full now.
    file: OnceLock<File>,
}

/// The right to fetch one block, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    file: &'a File,
    place: libc::off_t,
}

/// The result of asking for a turn.
#[derive(Debug)]
pub(super) enum Asked<'a> {
    /// No other process fetches the block.
    Taken(Turn<'a>),
    /// Another process was fetching it: check whether the block is in the cache now.
    Waited(Option<Turn<'a>>),
    /// Turns do not work here.
    Unknown,
}

impl Turns {
    pub(super) fn of(root: &Path) -> Self {
        Self { path: root.join("turns"), file: OnceLock::new() }
    }

    fn file(&self) -> Option<&File> {
        if self.file.get().is_none() {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&self.path).ok()?;
            // If another thread was faster, its file is used.
            let _ours_is_closed = self.file.set(file);
        }
        self.file.get()
    }

    /// Asks for the turn of a block, and waits while another process has it.
    pub(super) fn ask(&self, key: &BlockKey) -> Asked<'_> {
        let Some(file) = self.file() else { return Asked::Unknown };
        let turn = |place| Turn { file, place };
        let place = place(key);
        let (deadline, mut pause, mut waited) = (Deadline::after(MAX_WAIT), FIRST_PAUSE, false);
        loop {
            match fcntl(file, FcntlArg::F_OFD_SETLK(&byte(libc::F_WRLCK, place))) {
                Ok(_) if waited => return Asked::Waited(Some(turn(place))),
                Ok(_) => return Asked::Taken(turn(place)),
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => {}
                Err(_no_locks_here) => return Asked::Unknown,
            }
            waited = true;
            if deadline.has_passed() {
                return Asked::Waited(None);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // After a failure, other processes wait for their deadline.
        let _they_wait = fcntl(self.file, FcntlArg::F_OFD_SETLK(&byte(libc::F_UNLCK, self.place)));
    }
}

/// Returns the byte of a block. Blocks that share a byte wait for each other, which is harmless.
fn place(key: &BlockKey) -> libc::off_t {
    key.as_bytes().iter().take(7).fold(0, |place, byte| (place << 8) | libc::off_t::from(*byte))
}

#[expect(clippy::cast_possible_truncation, reason = "the constants are 0 to 2; the fields of the struct are shorts")]
fn byte(lock_type: libc::c_int, place: libc::off_t) -> libc::flock {
    libc::flock {
        l_type: lock_type as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: place,
        l_len: 1,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn the_second_asks_until_the_first_has_ended_and_other_blocks_do_not_wait() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (Turns::of(dir.path()), Turns::of(dir.path()));
        let key = |n| BlockKey::new([n; 32]);
        let Asked::Taken(first) = one.ask(&key(1)) else { panic!("nobody has it") };
        assert!(matches!(other.ask(&key(2)), Asked::Taken(_)));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| matches!(other.ask(&key(1)), Asked::Waited(Some(_))));
            std::thread::sleep(Duration::from_millis(20));
            drop(first);
            assert!(second.join().unwrap());
        });
        assert!(matches!(one.ask(&key(1)), Asked::Taken(_)), "the second has ended, too");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "measures a wait")]
    fn a_holder_that_never_ends_costs_a_bounded_wait() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (Turns::of(dir.path()), Turns::of(dir.path()));
        let key = BlockKey::new([9; 32]);
        let _held = one.ask(&key);
        let begin = Instant::now();
        assert!(matches!(other.ask(&key), Asked::Waited(None)));
        assert!(begin.elapsed() >= MAX_WAIT);
    }

    #[test]
    fn without_a_file_nobody_waits() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("turns")).unwrap();
        assert!(matches!(Turns::of(dir.path()).ask(&BlockKey::new([1; 32])), Asked::Unknown));
    }
}
