//! The writer of a log: turns bytes into records, with one `write(2)` per call and no buffering between calls.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use contd_failpoint::Failpoint;
use contd_types::Timestamp;

use crate::error::LogError;
use crate::files::{Access, Found, LogFiles};
use crate::format::{self, MAX_CONTENT_BYTES, MAX_HEADER_BYTES, Stream};
use crate::prepare::RunStart;
use crate::rotation::{self, Rotation};
use crate::tail;

/// The most input bytes in one `write(2)`: a pipe is not larger, and the buffer stays bounded.
const MAX_INPUT_BYTES: usize = 1024 * 1024;

/// Writes one container's log. A log may have one writer at a time; the shim's lease guarantees that.
#[derive(Debug)]
pub struct LogWriter {
    files: LogFiles,
    rotation: Rotation,
    /// `None` until the log can be opened.
    current: Option<Opened>,
    /// The place of the first output of this run.
    start: Option<RunStart>,
    /// A failed rotation is not tried again before the file has this size, in bytes.
    retry_size: u64,
    rotation_error: Option<LogError>,
    /// Whether the last record of each stream is partial, so that its line is still being written.
    open_lines: OpenLines,
    buffer: Vec<u8>,
}

/// The place where staged records are written: a file, whatever its name, and an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The device of the file.
    pub device: u64,
    /// The inode of the file.
    pub inode: u64,
    /// The offset in bytes.
    pub offset: u64,
    /// Whether a newline is written first, because the file ends in the middle of a record.
    pub begins_anew: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct OpenLines {
    stdout: bool,
    stderr: bool,
}

impl OpenLines {
    fn set(&mut self, stream: Stream, is_open: bool) {
        match stream {
            Stream::Stdout => self.stdout = is_open,
            Stream::Stderr => self.stderr = is_open,
        }
    }

    fn is_any(self) -> bool {
        self.stdout || self.stderr
    }
}

/// An open log file.
#[derive(Debug)]
struct Opened {
    file: File,
    /// Device and inode.
    identity: (u64, u64),
    size: u64,
    /// Whether the file may end in the middle of a record.
    is_torn: bool,
}

impl Opened {
    /// Tells whether a run begins at this offset of the file.
    fn is_at(&self, start: &RunStart, offset: u64) -> bool {
        (start.inode, start.offset) == (self.identity.1, offset)
    }

    /// Checks whether the file ends in the middle of a record.
    fn at_end(mut file: File) -> io::Result<Self> {
        let there = file.metadata()?;
        let size = there.len();
        let mut last = [b'\n'];
        if size > 0 {
            file.seek(SeekFrom::Start(size - 1))?;
            file.read_exact(&mut last)?;
        }
        Ok(Self { file, identity: (there.dev(), there.ino()), size, is_torn: last != [b'\n'] })
    }
}

impl LogWriter {
    /// Opens a log to go on at its end, or makes it (0640); the directory must exist.
    ///
    /// When the file ends in the middle of a record, as after a crash, the next write begins a new line.
    ///
    /// # Errors
    /// [`LogError::Open`], or [`LogError::Foreign`] when a foreign file has the name.
    pub fn open(files: impl Into<LogFiles>, rotation: Rotation) -> Result<Self, LogError> {
        let mut writer = Self::closed(files, rotation);
        writer.reopen()?;
        Ok(writer)
    }

    /// Makes a writer that opens its log at the first write. For a container that is adopted while its log cannot be
    /// opened.
    pub fn closed(files: impl Into<LogFiles>, rotation: Rotation) -> Self {
        Self {
            files: files.into(),
            rotation,
            current: None,
            start: None,
            retry_size: 0,
            rotation_error: None,
            open_lines: OpenLines::default(),
            buffer: Vec::new(),
        }
    }

    /// Sets where the output of this run begins. The first write there also ends the lines that the run before left
    /// open. A successor that continues the run passes the same start.
    #[must_use]
    pub fn with_start(self, start: RunStart) -> Self {
        Self { start: Some(start), ..self }
    }

    /// Writes bytes of a stream, all with the same time. Up to 1 MiB it is one `write(2)`.
    ///
    /// # Errors
    /// [`LogError::Write`]. Nothing of the failed write stays in the file. Up to 1 MiB the whole call may be repeated;
    /// of a larger one the parts before the failed one are written.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) -> Result<(), LogError> {
        for input in bytes.chunks(self.max_input()) {
            self.stage(stream, input, now)?;
            self.flush()?;
        }
        Ok(())
    }

    /// Encodes the bytes, rotates when that is due, and returns where [`Self::flush`] will write them. If the caller
    /// records that position before the flush, a successor can repeat the write by [`Self::redo`].
    ///
    /// # Errors
    /// As [`Self::open`], while the log is not open; [`LogError::Read`]. It may be repeated.
    pub fn stage(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) -> Result<Position, LogError> {
        if self.current.is_none() {
            self.reopen()?;
        }
        let begins_run = self.begin_buffer(self.current.as_ref().map_or(0, |current| current.size), now)?;
        format::encode(&mut self.buffer, stream, now, bytes);
        // The beginning of a run is known by its inode and offset, so the file is not rotated before it.
        if !begins_run {
            self.rotate_when_due();
        }
        let Some(current) = &self.current else { return Err(self.not_open()) };
        if current.is_torn {
            // The file ends in an incomplete record: end that line first.
            self.buffer.insert(0, b'\n');
        }
        if begins_run {
            self.open_lines = OpenLines::default();
        }
        self.open_lines.set(stream, bytes.last() != Some(&b'\n'));
        let (device, inode) = current.identity;
        Ok(Position { device, inode, offset: current.size, begins_anew: current.is_torn })
    }

    /// Writes again the records that a predecessor staged and perhaps wrote, in whole or in part: the same bytes at the
    /// same place. Does nothing when the log is another file by now: a writer changes files only between two writes, so
    /// that write was complete.
    ///
    /// # Errors
    /// [`LogError::Write`], or as [`Self::stage`]; it may be repeated.
    pub fn redo(&mut self, stream: Stream, bytes: &[u8], now: Timestamp, at: Position) -> Result<(), LogError> {
        if self.current.is_none() {
            self.reopen()?;
        }
        let path = self.path();
        let failed = |source| LogError::Write { path: path.clone(), source };
        let Some(current) = self.current.as_mut() else { return Err(self.not_open()) };
        if current.identity != (at.device, at.inode) {
            return Ok(());
        }
        let length = current.file.metadata().map_err(failed)?.len();
        current.is_torn = at.begins_anew;
        if length < at.offset {
            // Another program truncated the file meanwhile.
            self.stage(stream, bytes, now)?;
            return self.flush();
        }
        let begins_run = self.begin_buffer(at.offset, now)?;
        format::encode(&mut self.buffer, stream, now, bytes);
        if at.begins_anew {
            self.buffer.insert(0, b'\n');
        }
        // The log's own descriptor has O_APPEND and would write at the end.
        let place = self.open_to_overwrite(at)?;
        place.write_all_at(&self.buffer, at.offset).map_err(failed)?;
        let end = at.offset.saturating_add(u64::try_from(self.buffer.len()).unwrap_or(u64::MAX));
        if let Some(current) = &mut self.current {
            current.size = end.max(length);
            current.is_torn = false;
        }
        if begins_run {
            self.open_lines = OpenLines::default();
        }
        self.open_lines.set(stream, bytes.last() != Some(&b'\n'));
        Ok(())
    }

    /// Writes the staged records, all or none; the file then ends in a whole record.
    ///
    /// # Errors
    /// [`LogError::Write`]. No byte of them stays in the file; stage them again and repeat.
    pub fn flush(&mut self) -> Result<(), LogError> {
        let Some(current) = &mut self.current else { return Err(self.not_open()) };
        match current.file.write_all(&self.buffer) {
            Ok(()) => {
                current.size = current.size.saturating_add(u64::try_from(self.buffer.len()).unwrap_or(u64::MAX));
                current.is_torn = false;
                Ok(())
            }
            Err(source) => {
                // Cut off the half-written records, so that a repeated call does not double anything. If that fails
                // too, the next write begins a new line.
                let was_cut = current.file.set_len(current.size);
                current.is_torn = current.is_torn || was_cut.is_err();
                Err(LogError::Write { path: self.path(), source })
            }
        }
    }

    /// Opens the path again, for programs that rename the log from outside.
    ///
    /// # Errors
    /// As [`Self::open`]; the writer then continues in the file it had.
    pub fn reopen(&mut self) -> Result<(), LogError> {
        let failed = |source| LogError::Open { path: self.files.path(), source };
        let absent = || failed(io::ErrorKind::NotFound.into());
        let dir = self.files.open_dir()?.ok_or_else(absent)?;
        let opened = Opened::at_end(self.files.open_log(&dir)?).map_err(failed)?;
        self.current = Some(opened);
        self.retry_size = 0;
        Ok(())
    }

    /// Begins the next file now, whatever the size of this one. Does nothing when the file is empty, or when this run has
    /// written nothing to it: the beginning of a run stays where it was announced. Only legal between two writes, none of
    /// which has to be repeated.
    ///
    /// # Errors
    /// [`LogError::Rotate`], or as [`Self::open`]; the writer then continues in the file it had.
    pub fn rotate_now(&mut self) -> Result<(), LogError> {
        if self.current.is_none() {
            self.reopen()?;
        }
        let Some(current) = &self.current else { return Err(self.not_open()) };
        let is_begin = current.size == 0 || self.start.is_some_and(|start| current.is_at(&start, current.size));
        if is_begin { Ok(()) } else { self.rotate() }
    }

    /// Syncs the log to the disk; called once, when the container has ended. The writer itself holds no bytes back.
    ///
    /// # Errors
    /// [`LogError::Write`].
    pub fn sync(&mut self) -> Result<(), LogError> {
        let Some(current) = &self.current else { return Ok(()) };
        current.file.sync_data().map_err(|source| LogError::Write { path: self.path(), source })
    }

    /// Returns and clears the error of the last rotation; until one succeeds the log grows in the same file.
    pub fn take_rotation_error(&mut self) -> Option<LogError> {
        self.rotation_error.take()
    }

    /// Returns the size of the current file in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| current.size)
    }

    /// Returns the path of the log.
    pub fn path(&self) -> PathBuf {
        self.files.path()
    }

    /// Returns how many input bytes go into one write, so that its records do not exceed a file by much.
    fn max_input(&self) -> usize {
        usize::try_from(self.rotation.max_bytes).unwrap_or(usize::MAX).clamp(MAX_CONTENT_BYTES, MAX_INPUT_BYTES)
    }

    fn not_open(&self) -> LogError {
        LogError::Open { path: self.path(), source: io::ErrorKind::NotFound.into() }
    }

    /// Clears the buffer and fills in the records that precede the first output of a run; tells whether there are any.
    fn begin_buffer(&mut self, offset: u64, now: Timestamp) -> Result<bool, LogError> {
        self.buffer.clear();
        let Some(current) = &self.current else { return Ok(false) };
        let Some(start) = self.start.filter(|start| current.is_at(start, offset)) else { return Ok(false) };
        let open = tail::open_lines(&current.file, offset);
        for stream in open.map_err(|source| LogError::Read { path: self.files.path(), source })? {
            format::encode_line_end(&mut self.buffer, stream, now);
        }
        if start.is_after_loss {
            format::encode_loss(&mut self.buffer, now);
        }
        Ok(!self.buffer.is_empty())
    }

    /// Opens the log for writing at any offset, by its own name.
    fn open_to_overwrite(&self, at: Position) -> Result<File, LogError> {
        let failed = |source| LogError::Write { path: self.files.path(), source };
        if let Some(dir) = self.files.open_dir()?
            && let Found::Ours(file) = self.files.find(&dir, &self.files.aged(0), Access::Write)?
        {
            let there = file.metadata().map_err(failed)?;
            if (there.dev(), there.ino()) == (at.device, at.inode) {
                return Ok(file);
            }
        }
        Err(failed(io::ErrorKind::NotFound.into()))
    }

    fn rotate_when_due(&mut self) {
        let size = self.size_bytes();
        let added = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        let is_full = size > 0 && size.saturating_add(added) > self.rotation.max_bytes;
        let may_split = size >= self.rotation.max_bytes.saturating_mul(2);
        if !is_full || size < self.retry_size || (self.open_lines.is_any() && !may_split) {
            return;
        }
        if let Err(error) = self.rotate() {
            self.retry_size = size.saturating_add(self.rotation.max_bytes / 8 + 1);
            self.rotation_error = Some(error);
        }
    }

    fn rotate(&mut self) -> Result<(), LogError> {
        let failed = |source| LogError::Rotate { path: self.files.path(), source };
        let Some(dir) = self.files.open_dir()? else { return Err(failed(io::ErrorKind::NotFound.into())) };
        let name = self.files.aged(0);
        // Shift only our own file: after a failed attempt, or a rename from outside, the name may be free already.
        let there = self.files.find_own(&dir, &name, Access::Append)?;
        let identity = there.as_ref().map(File::metadata).transpose().map_err(failed)?;
        let identity = identity.map(|there| (there.dev(), there.ino()));
        let next = if identity.is_some() && identity != self.current.as_ref().map(|current| current.identity) {
            // Another writer of ours, or a program that renamed the log, has made the next file.
            there
        } else {
            // Make the next file first: if the disk is full that fails, and no file was moved.
            let made = self.files.make_nameless(&dir).map_err(failed)?;
            if identity.is_some()
                && let Err(error) = rotation::shift(&self.files, &dir, self.rotation.max_files)
            {
                let _gone_with_its_file = made.as_ref().map(|made| self.files.marks().forget(made));
                return Err(error);
            }
            Some(self.files.place(&dir, &name, made).map_err(failed)?)
        };
        if let Some(next) = next {
            self.current = Some(Opened::at_end(next).map_err(failed)?);
            self.retry_size = 0;
        }
        contd_failpoint::hit(Failpoint::RotationReopened);
        Ok(())
    }
}

// `max_input` clamps between these limits.
const _: () = assert!(MAX_HEADER_BYTES < MAX_CONTENT_BYTES && MAX_CONTENT_BYTES <= MAX_INPUT_BYTES);
