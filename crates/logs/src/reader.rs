//! The reader of a log: returns records in order over all rotated files, and follows the writer.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;

use crate::error::LogError;
use crate::files::{Access, Found, LogFiles};
use crate::format::{self, LogRecord, MAX_CONTENT_BYTES, MAX_HEADER_BYTES};
use crate::rotation::MAX_FILES;
use crate::tail::Counter;

/// The longest line that is decoded; the writer's lines are far shorter, so a longer one is garbage.
const MAX_LINE_BYTES: usize = 4 * (MAX_CONTENT_BYTES + MAX_HEADER_BYTES);

/// How many bytes are read from a file at once.
const READ_BYTES: usize = 64 * 1024;

/// How often the next file is looked for again when the writer rotates meanwhile.
const MAX_ROUNDS: u32 = 8;

/// The place where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// From the oldest record there is.
    All,
    /// The last N lines; 0 begins with the output that is written from now on.
    Lines(u64),
}

/// An item that the reader returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogItem {
    /// A record.
    Record(LogRecord),
    /// A line, or a piece of a too long one, that is not a record: damage, or the output of another program.
    Garbage(Vec<u8>),
    /// Rotation removed files before they could be read: records are missing here.
    Gap,
}

/// Reads one container's log. It never waits: new output is returned by a later call.
#[derive(Debug)]
pub struct LogReader {
    files: LogFiles,
    /// `None` until the directory exists.
    dir: Option<OwnedFd>,
    current: Option<Source>,
    /// The bytes that were read and not returned yet: the beginning of a record.
    pending: Vec<u8>,
    /// Whether to skip to the end of a line that was too long.
    is_in_garbage: bool,
}

/// An open file and how far it was read. While it is open, its inode number is not given to another file.
#[derive(Debug)]
struct Source {
    file: File,
    offset: u64,
}

/// The place of the open file among the names of the log.
enum Place {
    /// The open file is the log itself: the writer may append to it.
    Written,
    /// The open file is a rotated one of this age.
    Aged(u32),
    /// The open file has no name any more.
    Removed,
}

impl LogReader {
    /// Opens a log. If it does not exist yet, reading begins when it does. Files that do not belong to this log are
    /// ignored.
    ///
    /// # Errors
    /// [`LogError::Open`], [`LogError::Read`], or [`LogError::Foreign`] when only foreign files have the names.
    pub fn open(files: impl Into<LogFiles>, tail: Tail) -> Result<Self, LogError> {
        let mut reader =
            Self { files: files.into(), dir: None, current: None, pending: Vec::new(), is_in_garbage: false };
        reader.dir = reader.files.open_dir()?;
        if let Some(dir) = &reader.dir {
            reader.files.find_own(dir, &reader.files.aged(0), Access::Read)?;
        }
        reader.current = match tail {
            Tail::All => reader.oldest()?,
            Tail::Lines(lines) => reader.last_lines(lines)?,
        };
        Ok(reader)
    }

    fn last_lines(&self, lines: u64) -> Result<Option<Source>, LogError> {
        let mut counter = Counter::new(lines);
        let mut begin: Option<Source> = None;
        for age in 0..MAX_FILES {
            let Some(mut source) = self.open_aged(age)? else {
                // Between two renames of the writer the log itself may be missing.
                if age == 0 { continue } else { break }
            };
            // The writer has rotated since the last look: this is the file that was scanned in the round before.
            if let Some(last) = &begin
                && is_same(&source, last).map_err(|error| self.failed(error))?
            {
                continue;
            }
            let found = counter.scan(&source.file).map_err(|error| self.failed(error))?;
            source.offset = found.unwrap_or(0);
            begin = Some(source);
            if found.is_some() {
                break;
            }
        }
        Ok(begin)
    }

    /// Returns the next items from about `max_bytes` (at least one block of 64 KiB); empty when there is no new output.
    /// An incomplete record is returned by a later call, when it is complete.
    ///
    /// # Errors
    /// [`LogError::Open`] or [`LogError::Read`]; the items read before are kept, and the call may be repeated.
    pub fn read_records(&mut self, max_bytes: usize) -> Result<Vec<LogItem>, LogError> {
        let mut items = Vec::new();
        let mut left = max_bytes.max(1);
        // Read on when all bytes so far are the beginning of one long line: an empty result means that there is no new
        // output.
        while left > 0 || items.is_empty() {
            if self.current.is_none() {
                if self.dir.is_none() {
                    self.dir = self.files.open_dir()?;
                }
                self.current = self.oldest()?;
                if self.current.is_none() {
                    break;
                }
            }
            let count = self.read_block()?;
            left = left.saturating_sub(count);
            self.take_lines(&mut items);
            if count == 0 && !self.go_on(&mut items)? {
                break;
            }
        }
        Ok(items)
    }

    /// Returns the path of the log.
    pub fn path(&self) -> PathBuf {
        self.files.path()
    }

    /// Reads one block into `pending`; returns 0 at the end of the file.
    fn read_block(&mut self) -> Result<usize, LogError> {
        let Some(source) = &mut self.current else { return Ok(0) };
        let failed = |source| LogError::Read { path: self.files.path(), source };
        let size = source.file.metadata().map_err(failed)?.len();
        if size < source.offset {
            // The writer took back a record that it could not write completely, or another program emptied the file.
            source.offset = size;
            self.pending.clear();
            return Ok(0);
        }
        let known = self.pending.len();
        self.pending.resize(known + READ_BYTES, 0);
        let room = self.pending.get_mut(known..).unwrap_or_default();
        let result = loop {
            match source.file.read_at(room, source.offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let count = *result.as_ref().unwrap_or(&0);
        self.pending.truncate(known + count);
        source.offset = source.offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        result.map_err(failed)
    }

    /// Turns the complete lines in `pending` into items.
    fn take_lines(&mut self, items: &mut Vec<LogItem>) {
        let mut done = 0;
        while let Some(rest) = self.pending.get(done..)
            && let Some(length) = rest.iter().position(|byte| *byte == b'\n')
        {
            items.push(item(rest.get(..length).unwrap_or_default(), self.is_in_garbage));
            self.is_in_garbage = false;
            done += length + 1;
        }
        self.pending.drain(..done);
        if self.pending.len() > MAX_LINE_BYTES {
            items.push(LogItem::Garbage(std::mem::take(&mut self.pending)));
            self.is_in_garbage = true;
        }
    }

    /// Runs at the end of a file: switches to the next file if the writer has one; `false` when there is no new output.
    fn go_on(&mut self, items: &mut Vec<LogItem>) -> Result<bool, LogError> {
        for _ in 0..MAX_ROUNDS {
            let next = match self.place()? {
                Place::Written => return Ok(false),
                Place::Aged(age) => self.open_aged(age - 1)?,
                Place::Removed => self.oldest()?,
            };
            // The new name does not exist yet: the writer is between two steps of a rotation.
            let Some(next) = next else { return Ok(false) };
            // Read first what was appended before the rename; after it, the writer appends to the next file.
            if self.read_block()? > 0 {
                self.take_lines(items);
                return Ok(true);
            }
            // The writer rotated again meanwhile: the opened file is not the next one, or another one precedes it.
            let is_next = match self.place()? {
                Place::Written => false,
                Place::Aged(age) => self.is_file_at(&next.file, age - 1)?,
                Place::Removed => {
                    items.push(LogItem::Gap);
                    true
                }
            };
            if is_next {
                self.finish_pending(items);
                self.current = Some(next);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns an incomplete record at the end of a file: the writer will not complete it.
    fn finish_pending(&mut self, items: &mut Vec<LogItem>) {
        if !self.pending.is_empty() {
            items.push(item(&std::mem::take(&mut self.pending), self.is_in_garbage));
        }
        self.is_in_garbage = false;
    }

    fn place(&self) -> Result<Place, LogError> {
        let Some(source) = &self.current else { return Ok(Place::Removed) };
        for age in 0..MAX_FILES {
            if self.is_file_at(&source.file, age)? {
                return Ok(if age == 0 { Place::Written } else { Place::Aged(age) });
            }
            // While the writer rotates, one name in the middle is free: only two free names in a row are the end.
            let is_end = !self.exists(age) && !self.exists(age + 1);
            if is_end {
                break;
            }
        }
        Ok(Place::Removed)
    }

    fn oldest(&self) -> Result<Option<Source>, LogError> {
        for _ in 0..MAX_ROUNDS {
            let mut oldest = None;
            for age in 0..MAX_FILES {
                match self.open_aged(age)? {
                    Some(source) => oldest = Some(source),
                    None if self.exists(age + 1) => {}
                    None => break,
                }
            }
            if oldest.is_some() || !self.exists(0) {
                return Ok(oldest);
            }
        }
        Ok(None)
    }

    /// Opens the file of this age, if it exists and belongs to this log.
    fn open_aged(&self, age: u32) -> Result<Option<Source>, LogError> {
        let Some(dir) = &self.dir else { return Ok(None) };
        match self.files.find(dir, &self.files.aged(age), Access::Read)? {
            Found::Ours(file) => Ok(Some(Source { file, offset: 0 })),
            Found::Absent | Found::OfOwner(..) | Found::Foreign(_) => Ok(None),
        }
    }

    fn exists(&self, age: u32) -> bool {
        let Some(dir) = &self.dir else { return false };
        statat(dir, self.files.aged(age), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    fn is_file_at(&self, file: &File, age: u32) -> Result<bool, LogError> {
        let Some(dir) = &self.dir else { return Ok(false) };
        let ours = file.metadata().map_err(|error| self.failed(error))?;
        match statat(dir, self.files.aged(age), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => Ok((there.st_dev, there.st_ino) == (ours.dev(), ours.ino())),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.failed(errno.into())),
        }
    }

    fn failed(&self, source: io::Error) -> LogError {
        LogError::Read { path: self.files.path(), source }
    }
}

fn item(line: &[u8], is_garbage: bool) -> LogItem {
    match format::decode(line) {
        Some(record) if !is_garbage => LogItem::Record(record),
        _ => LogItem::Garbage(line.to_vec()),
    }
}

fn is_same(one: &Source, other: &Source) -> io::Result<bool> {
    let (one, other) = (one.file.metadata()?, other.file.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}
