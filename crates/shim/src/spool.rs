//! Output between a FIFO and the log, where no death of ours can lose or double a byte.
//!
//! ```text
//! FIFO ── splice ──► spool               a byte that has left the FIFO is in the file: one step of the kernel's
//!                        │ read, encode    the journal notes which bytes, their time, and their place in the log
//!                        └──────► log      one write at that place
//! ```
//!
//! Bytes that a successor finds behind the journal's last entry were never written to the log. The last entry's bytes were
//! written in whole, in part or not at all: it writes them again, the same bytes at the same place ([`LogWriter::redo`]).
//! The kernel ends a killed process only between the steps: `splice` grows the file by exactly what it takes from the pipe,
//! and a small write into the journal is whole or absent.
//!
//! [`LogWriter::redo`]: contd_logs::LogWriter::redo

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use contd_failpoint::Failpoint;
use contd_logs::Position;
use contd_types::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{OFlag, SpliceFFlags, splice};

/// Above this size a spool whose bytes are all in the log is emptied: cheap enough per byte, and little memory for each
/// container that has said something.
const EMPTIED_ABOVE_BYTES: u64 = 64 * 1024;

/// The journal's entry, eight numbers, at the beginning of the file.
const ENTRY_BYTES: usize = 64;
/// Where the bytes begin.
const BEGIN: u64 = 64;

/// In the flags of an entry: it is one, and not a hole of a new file.
const IS_ENTRY: u64 = 1;
/// In the flags of an entry: [`Position::begins_anew`].
const BEGINS_ANEW: u64 = 2;

/// The bytes that are on their way to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where its bytes begin in the spool.
    pub(crate) from: u64,
    /// Behind them.
    pub(crate) to: u64,
    /// When they were read.
    pub(crate) at: Timestamp,
    /// Where they go.
    pub(crate) position: Position,
}

impl Entry {
    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let flags = IS_ENTRY | if self.position.begins_anew { BEGINS_ANEW } else { 0 };
        let Position { device, inode, offset, .. } = self.position;
        let mut bytes = [0; ENTRY_BYTES];
        let numbers = [flags, self.from, self.to, self.at.0, device, inode, offset];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let mut numbers = bytes.chunks_exact(8).map(|place| {
            let mut number = [0; 8];
            number.copy_from_slice(place);
            u64::from_le_bytes(number)
        });
        let mut next = || numbers.next();
        let (flags, from, to, at) = (next()?, next()?, next()?, next()?);
        let (device, inode, offset) = (next()?, next()?, next()?);
        let position = Position { device, inode, offset, begins_anew: flags & BEGINS_ANEW != 0 };
        (flags & IS_ENTRY != 0 && BEGIN <= from && from <= to).then_some(Self { from, to, at: Timestamp(at), position })
    }
}

/// The state of the FIFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Bytes, which are in the spool now.
    Some,
    /// There is nothing now.
    Nothing,
    /// No writer is left, and all was taken.
    End,
}

/// The spool of one stream: the journal's entry, then the bytes. There is no file before there is output.
#[derive(Debug)]
pub(crate) struct Spool {
    path: PathBuf,
    file: Option<File>,
    /// Behind the last byte that is in the log.
    done: u64,
    /// Behind the last byte that was taken.
    end: u64,
    /// The last entry of a predecessor, which it perhaps did not finish.
    unfinished: Option<Entry>,
}

impl Spool {
    /// Names a spool; what a predecessor left in it is there.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let file = match options().open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path, file: None, done: BEGIN, end: BEGIN, unfinished: None });
            }
            Err(error) => return Err(error),
        };
        let end = file.metadata()?.len().max(BEGIN);
        // A spool that is shorter than its entry was emptied after it, and has only new bytes.
        let unfinished = read_entry(&file)?.filter(|entry| entry.to <= end);
        if unfinished.is_none() {
            // Before a byte is taken: it would be mistaken for what the entry is about.
            forget_entry(&file)?;
        }
        let done = unfinished.map_or(BEGIN, |entry| entry.from);
        Ok(Self { path, file: Some(file), done, end, unfinished })
    }

    /// Takes what is in the FIFO, at most so much. Only legal when nothing is waiting.
    pub(crate) fn take(&mut self, fifo: BorrowedFd<'_>, most: usize) -> io::Result<Taken> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(options().create_new(true).open(&self.path)?),
        };
        let mut place = i64::try_from(self.end).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        match splice(fifo, None, file, Some(&mut place), most, SpliceFFlags::SPLICE_F_NONBLOCK) {
            Ok(0) => Ok(Taken::End),
            Ok(length) => {
                self.end = self.end.saturating_add(u64::try_from(length).unwrap_or_default());
                contd_failpoint::hit(Failpoint::SpoolTaken);
                Ok(Taken::Some)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Taken::Nothing),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Tells whether bytes wait for the log, or are to be written there again.
    pub(crate) fn has_waiting(&self) -> bool {
        self.done < self.end || self.unfinished.is_some()
    }

    /// Returns what is to be written again before anything else.
    pub(crate) fn unfinished(&self) -> Option<Entry> {
        self.unfinished
    }

    /// Reads the bytes that come next into the buffer: those of the unfinished entry, or all that wait.
    pub(crate) fn read(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let to = self.unfinished.map_or(self.end, |entry| entry.to);
        let length = usize::try_from(to.saturating_sub(self.done)).map_err(io::Error::other)?;
        buffer.resize(length, 0);
        self.file()?.read_exact_at(buffer, self.done)
    }

    /// Notes that what [`Self::read`] gave is about to be written there.
    pub(crate) fn note(&self, at: Timestamp, position: Position) -> io::Result<()> {
        let entry = Entry { from: self.done, to: self.end, at, position };
        self.file()?.write_all_at(&entry.to_bytes(), 0)?;
        contd_failpoint::hit(Failpoint::SpoolNoted);
        Ok(())
    }

    /// The bytes that were read are in the log.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.done = self.unfinished.take().map_or(self.end, |entry| entry.to);
        if self.done == self.end && self.end > EMPTIED_ABOVE_BYTES { self.clear() } else { Ok(()) }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        (self.done, self.end, self.unfinished) = (BEGIN, BEGIN, None);
        let Some(file) = &self.file else { return Ok(()) };
        file.set_len(BEGIN)?;
        contd_failpoint::hit(Failpoint::SpoolCut);
        // Last: an entry that is longer than its spool says that the spool was emptied.
        forget_entry(file)
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
    options
}

fn read_entry(file: &File) -> io::Result<Option<Entry>> {
    let mut bytes = [0; ENTRY_BYTES];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => Ok(Entry::from_bytes(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn forget_entry(file: &File) -> io::Result<()> {
    file.write_all_at(&[0; ENTRY_BYTES], 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::path::Path;

    const POSITION: Position = Position { device: 1, inode: 2, offset: 3, begins_anew: true };

    fn open(dir: &Path) -> Spool {
        Spool::open(dir.join("spool")).unwrap()
    }

    fn waiting(spool: &Spool) -> String {
        let mut buffer = Vec::new();
        spool.read(&mut buffer).unwrap();
        String::from_utf8(buffer).unwrap()
    }

    #[test]
    fn an_entry_survives_its_encoding_and_a_hole_is_none() {
        let entry = Entry { from: 65, to: 67, at: Timestamp(9), position: POSITION };
        assert_eq!(Entry::from_bytes(&entry.to_bytes()), Some(entry));
        assert_eq!(Entry::from_bytes(&[0; ENTRY_BYTES]), None);
        let backwards = Entry { from: 68, ..entry };
        assert_eq!(Entry::from_bytes(&backwards.to_bytes()), None);
    }

    #[test]
    fn a_successor_finds_what_was_taken_and_what_was_perhaps_written_at_each_step() {
        let dir = tempfile::tempdir().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let mut spool = open(dir.path());
        assert_eq!(spool.take(reader.as_fd(), 100).unwrap(), Taken::Nothing);
        writer.write_all(b"one").unwrap();
        assert_eq!(spool.take(reader.as_fd(), 100).unwrap(), Taken::Some);
        // Taken, not noted.
        let successor = open(dir.path());
        assert_eq!((waiting(&successor).as_str(), successor.unfinished()), ("one", None));
        spool.note(Timestamp(9), POSITION).unwrap();
        // Noted, perhaps written.
        let mut successor = open(dir.path());
        assert_eq!((waiting(&successor).as_str(), successor.unfinished().unwrap().position), ("one", POSITION));
        successor.finish().unwrap();
        assert!(!successor.has_waiting());
        spool.finish().unwrap();
        writer.write_all(b"two").unwrap();
        spool.take(reader.as_fd(), 100).unwrap();
        // The next was taken: the last is repeated, then comes what was not noted.
        let mut successor = open(dir.path());
        assert_eq!((waiting(&successor).as_str(), successor.unfinished().is_some()), ("one", true));
        successor.finish().unwrap();
        assert_eq!((waiting(&successor).as_str(), successor.unfinished()), ("two", None));
        drop(writer);
        assert_eq!(spool.take(reader.as_fd(), 100).unwrap(), Taken::End);
    }

    #[test]
    fn a_spool_is_emptied_when_it_has_grown_and_an_old_entry_means_nothing_then() {
        let dir = tempfile::tempdir().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let mut spool = open(dir.path());
        let length = usize::try_from(EMPTIED_ABOVE_BYTES).unwrap() / 2 + 1;
        let mut taken = 0;
        while taken < 2 * length {
            writer.write_all(&vec![b'x'; length]).unwrap();
            while spool.take(reader.as_fd(), length).unwrap() == Taken::Some {
                taken += waiting(&spool).len();
                spool.note(Timestamp(9), POSITION).unwrap();
                spool.finish().unwrap();
            }
        }
        assert_eq!(std::fs::metadata(dir.path().join("spool")).unwrap().len(), spool.end);
        assert!(spool.end <= EMPTIED_ABOVE_BYTES, "{}", spool.end);
        // Killed between the two steps of emptying: the entry is there, and more was taken since.
        let entry = Entry { from: BEGIN, to: EMPTIED_ABOVE_BYTES, at: Timestamp(9), position: POSITION };
        spool.clear().unwrap();
        writer.write_all(b"new").unwrap();
        spool.take(reader.as_fd(), length).unwrap();
        spool.file().unwrap().write_all_at(&entry.to_bytes(), 0).unwrap();
        let successor = open(dir.path());
        assert_eq!((waiting(&successor).as_str(), successor.unfinished()), ("new", None));
    }
}
