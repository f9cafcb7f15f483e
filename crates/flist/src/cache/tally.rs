//! Keeps the total size of the cache in the file `<root>/usage`, shared by all processes of the node, without a scan.
//!
//! The header holds the result of a scan. One byte is appended for each [`QUANTUM`] written since then: appending needs no
//! lock, and a process that is stopped during it does not block others. Objects that are removed by hand, replaced or lost
//! in a crash make the sum wrong until the next scan; no read depends on it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::atomic::TempFile;

/// The bytes that one process writes before it adds them and checks the sum: small beside any limit; costs 20 µs per MiB.
pub(super) const QUANTUM: u64 = 1 << 20;

/// The length of the header in bytes.
const HEAD_LEN: usize = 64;

/// The first word and version of a header.
const MARK: &str = "contd-cache 1";

/// The most appended bytes: 1 TiB is never written between two scans, so a longer file is damaged.
const MAX_POSTS: u64 = 1 << 20;

/// The content of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    /// The size found by the scan, in bytes.
    pub(super) scanned_bytes: u64,
    /// The wall-clock time of the scan, since 1970.
    pub(super) scanned_at: Duration,
    /// The number of quanta written since.
    pub(super) posts: u64,
}

impl Tally {
    /// Returns the size of the cache, as far as known.
    pub(super) fn total(&self) -> u64 {
        self.scanned_bytes.saturating_add(self.posts.saturating_mul(QUANTUM))
    }

    /// Reads the file. `None` if it is missing or damaged: then a scan is needed.
    pub(super) fn read(root: &Path) -> Option<Self> {
        let file = OpenOptions::new().read(true).custom_flags(FLAGS).open(path(root)).ok()?;
        let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let posts = metadata.size().checked_sub(HEAD_LEN as u64).filter(|posts| *posts <= MAX_POSTS)?;
        let mut head = [0; HEAD_LEN];
        { &file }.read_exact(&mut head).ok()?;
        let numbers = std::str::from_utf8(&head).ok()?.strip_prefix(MARK)?.strip_suffix('\n')?;
        let mut numbers = numbers.split_ascii_whitespace().map(str::parse::<u64>);
        let (scanned_bytes, seconds) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        let is_whole = numbers.next().is_none();
        is_whole.then_some(Self { scanned_bytes, scanned_at: Duration::from_secs(seconds), posts })
    }

    /// Replaces the file by the result of a scan.
    pub(super) fn write(root: &Path, scanned_bytes: u64, scanned_at: Duration) -> io::Result<()> {
        let head = format!("{MARK} {scanned_bytes} {}", scanned_at.as_secs());
        let mut temp = TempFile::create_in(root)?;
        temp.file().write_all(format!("{head:<width$}\n", width = HEAD_LEN - 1).as_bytes())?;
        temp.rename(&path(root))
    }

    /// Adds bytes written. A missing file is no error: the scan that creates it finds the objects.
    pub(super) fn post(root: &Path, bytes: u64) -> io::Result<()> {
        let posts = usize::try_from(bytes.div_ceil(QUANTUM)).unwrap_or(usize::MAX).min(1 << 16);
        let file = OpenOptions::new().append(true).custom_flags(FLAGS).open(path(root));
        match file {
            Ok(mut file) => file.write_all(&vec![b'+'; posts]),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Neither follow a symbolic link in place of the file nor wait for a pipe.
const FLAGS: i32 = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;

fn path(root: &Path) -> PathBuf {
    root.join("usage")
}

/// The lock of a whole cache. It locks the root directory, so that a full disk needs no new file.
#[derive(Debug)]
pub(super) struct CacheLock(File);

impl CacheLock {
    /// Takes the lock; `None` if it is held.
    pub(super) fn try_take(root: &Path) -> io::Result<Option<Self>> {
        let folder = File::open(root)?;
        match folder.try_lock() {
            Ok(()) => Ok(Some(Self(folder))),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for CacheLock {
    fn drop(&mut self) {
        // Unlock explicitly: a child process that is being started has a copy of the descriptor until its exec.
        let _closed_anyway = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Duration = Duration::from_secs(1_700_000_000);

    #[test]
    fn bytes_written_by_all_processes_are_added_up() {
        let dir = tempfile::tempdir().unwrap();
        Tally::post(dir.path(), QUANTUM).unwrap();
        assert_eq!(Tally::read(dir.path()), None, "nobody has scanned");
        Tally::write(dir.path(), 12_345, AT).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| Tally::post(dir.path(), QUANTUM).unwrap()));
            }
        });
        Tally::post(dir.path(), 1).unwrap();
        let tally = Tally::read(dir.path()).unwrap();
        assert_eq!(tally, Tally { scanned_bytes: 12_345, scanned_at: AT, posts: 401 });
        assert_eq!(tally.total(), 12_345 + 401 * QUANTUM);
        Tally::write(dir.path(), u64::MAX, AT).unwrap();
        assert_eq!(Tally::read(dir.path()).unwrap().total(), u64::MAX);
    }

    #[test]
    fn a_damaged_file_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = path(dir.path());
        Tally::write(dir.path(), 5, AT).unwrap();
        let good = std::fs::read(&file).unwrap();
        let broken = |change: fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            bytes
        };
        let cases = [
            vec![],
            broken(|bytes| bytes.truncate(63)),
            broken(|bytes| bytes[0] = b'X'),
            broken(|bytes| bytes[14] = b'-'),
            broken(|bytes| bytes[40] = b'7'),
            broken(|bytes| bytes[63] = 0xff),
            broken(|bytes| bytes.resize(70 << 20, b'+')),
        ];
        for (number, bytes) in cases.iter().enumerate() {
            std::fs::write(&file, bytes).unwrap();
            assert_eq!(Tally::read(dir.path()), None, "case {number}");
        }
        std::fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(Tally::read(dir.path()), None);
        Tally::write(dir.path(), 5, AT).unwrap();
        assert_eq!(Tally::read(dir.path()).unwrap().scanned_bytes, 5, "and is replaced");
    }

    #[test]
    fn a_cache_has_one_lock() {
        let dir = tempfile::tempdir().unwrap();
        let lock = CacheLock::try_take(dir.path()).unwrap();
        assert!(lock.is_some() && CacheLock::try_take(dir.path()).unwrap().is_none());
        drop(lock);
        assert!(CacheLock::try_take(dir.path()).unwrap().is_some());
    }
}
