//! The writer: bytes in, records out, one `write(2)` per call, nothing kept back.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use contd_failpoint::Failpoint;
use contd_types::Timestamp;

use crate::custody::RunStart;
use crate::error::LogError;
use crate::files::{Access, Found, LogFiles};
use crate::format::{self, MAX_CONTENT_BYTES, MAX_HEADER_BYTES, Stream};
use crate::rotation::{self, Rotation};
use crate::tail;

/// The most bytes that are taken into one `write(2)`: a pipe is not larger, and the buffer stays bounded.
const MAX_INPUT_BYTES: usize = 1024 * 1024;

/// Writes one container's log. There must be one writer per log at a time; the shim's lease sees to that.
#[derive(Debug)]
pub struct LogWriter {
    files: LogFiles,
    rotation: Rotation,
    /// `None` until the log can be opened.
    current: Option<Opened>,
    /// Where the first output of this run goes, or went.
    start: Option<RunStart>,
    /// Before this size a failed rotation is not tried again.
    retry_size: u64,
    rotation_error: Option<LogError>,
    /// Whether the last record of each stream is partial: then its line is still being written.
    open_lines: OpenLines,
    buffer: Vec<u8>,
}

/// Where staged records go: a place in a file, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The device of the file.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// In bytes from its beginning.
    pub offset: u64,
    /// Whether a line end comes first, because the file ends in the middle of a record.
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

/// A log as it was opened.
#[derive(Debug)]
struct Opened {
    file: File,
    /// Device and inode.
    identity: (u64, u64),
    size: u64,
    /// Whether it may end in the middle of a record.
    is_torn: bool,
}

impl Opened {
    /// Looks how a file ends.
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
    /// [`LogError::Open`], or [`LogError::Foreign`] when what lies there is not ours.
    pub fn open(files: impl Into<LogFiles>, rotation: Rotation) -> Result<Self, LogError> {
        let mut writer = Self::closed(files, rotation);
        writer.reopen()?;
        Ok(writer)
    }

    /// Makes a writer that opens its log with the first write that can: for whoever goes on with a container whose log
    /// cannot be opened now.
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

    /// Says where the output of this run begins: what is written there first ends the lines that the run before has left
    /// without an end. Whoever goes on with the run says the same.
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

    /// Encodes the bytes, rotates when that is due, and returns where [`Self::flush`] will put them. Whoever notes the
    /// position first can have the write repeated by a successor: [`Self::redo`].
    ///
    /// # Errors
    /// As [`Self::open`], while the log is not open; [`LogError::Read`]. It may be repeated.
    pub fn stage(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) -> Result<Position, LogError> {
        if self.current.is_none() {
            self.reopen()?;
        }
        let begins_run = self.begin_buffer(self.current.as_ref().map_or(0, |current| current.size), now)?;
        format::encode(&mut self.buffer, stream, now, bytes);
        // The beginning of a run is known by its place, so it stays in this file.
        if !begins_run {
            self.rotate_when_due();
        }
        let Some(current) = &self.current else { return Err(self.not_open()) };
        if current.is_torn {
            // What stands there half is no line of ours: it gets an end.
            self.buffer.insert(0, b'\n');
        }
        if begins_run {
            self.open_lines = OpenLines::default();
        }
        self.open_lines.set(stream, bytes.last() != Some(&b'\n'));
        let (device, inode) = current.identity;
        Ok(Position { device, inode, offset: current.size, begins_anew: current.is_torn })
    }

    /// Writes again what a predecessor has staged and perhaps written, in whole or in part: the same bytes at the same
    /// place. Nothing is done when the log is another file by now, for then that write was complete: a file is left only
    /// between two writes.
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
            // Somebody has cut it meanwhile.
            self.stage(stream, bytes, now)?;
            return self.flush();
        }
        let begins_run = self.begin_buffer(at.offset, now)?;
        format::encode(&mut self.buffer, stream, now, bytes);
        if at.begins_anew {
            self.buffer.insert(0, b'\n');
        }
        // The log's own descriptor appends wherever it is told to write.
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

    /// Writes what was staged, all or nothing; the file ends in whole records then.
    ///
    /// # Errors
    /// [`LogError::Write`]. Nothing of it stays in the file; stage it again and repeat.
    pub fn flush(&mut self) -> Result<(), LogError> {
        let Some(current) = &mut self.current else { return Err(self.not_open()) };
        match current.file.write_all(&self.buffer) {
            Ok(()) => {
                current.size = current.size.saturating_add(u64::try_from(self.buffer.len()).unwrap_or(u64::MAX));
                current.is_torn = false;
                Ok(())
            }
            Err(source) => {
                // The half-written records go, so that the call can be repeated without doubling anything. If even that
                // fails, the next write begins a new line.
                let was_cut = current.file.set_len(current.size);
                current.is_torn = current.is_torn || was_cut.is_err();
                Err(LogError::Write { path: self.path(), source })
            }
        }
    }

    /// Opens the path again, for whoever renames the log from outside.
    ///
    /// # Errors
    /// As [`Self::open`]; the writer then goes on in the file it had.
    pub fn reopen(&mut self) -> Result<(), LogError> {
        let failed = |source| LogError::Open { path: self.files.path(), source };
        let absent = || failed(io::ErrorKind::NotFound.into());
        let dir = self.files.open_dir()?.ok_or_else(absent)?;
        let opened = Opened::at_end(self.files.open_log(&dir)?).map_err(failed)?;
        self.current = Some(opened);
        self.retry_size = 0;
        Ok(())
    }

    /// Brings what was written to the disk; once, when the container has ended. No byte waits in the writer itself.
    ///
    /// # Errors
    /// [`LogError::Write`].
    pub fn sync(&mut self) -> Result<(), LogError> {
        let Some(current) = &self.current else { return Ok(()) };
        current.file.sync_data().map_err(|source| LogError::Write { path: self.path(), source })
    }

    /// Returns and forgets why the last rotation failed; the log meanwhile grows in the file it has.
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

    /// How much input goes into one write, so that its records do not exceed a file by much.
    fn max_input(&self) -> usize {
        usize::try_from(self.rotation.max_bytes).unwrap_or(usize::MAX).clamp(MAX_CONTENT_BYTES, MAX_INPUT_BYTES)
    }

    fn not_open(&self) -> LogError {
        LogError::Open { path: self.path(), source: io::ErrorKind::NotFound.into() }
    }

    /// Empties the buffer, and puts into it what comes before the first output of a run. Tells whether that is something.
    fn begin_buffer(&mut self, offset: u64, now: Timestamp) -> Result<bool, LogError> {
        self.buffer.clear();
        let Some(current) = &self.current else { return Ok(false) };
        let is_here = |start: &RunStart| (start.inode, start.offset) == (current.identity.1, offset);
        let Some(start) = self.start.filter(is_here) else { return Ok(false) };
        let open = tail::open_lines(&current.file, offset);
        for stream in open.map_err(|source| LogError::Read { path: self.files.path(), source })? {
            format::encode_line_end(&mut self.buffer, stream, now);
        }
        if start.is_after_loss {
            format::encode_loss(&mut self.buffer, now);
        }
        Ok(!self.buffer.is_empty())
    }

    /// Opens the log at any place, by its own name or by that which its rotation gave it just now.
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
        // Only our own file is shifted: after a failed attempt, or a rename from outside, the name may be free already.
        let there = self.files.find_own(&dir, &name, Access::Append)?;
        let identity = there.as_ref().map(File::metadata).transpose().map_err(failed)?;
        let identity = identity.map(|there| (there.dev(), there.ino()));
        let next = if identity.is_some() && identity != self.current.as_ref().map(|current| current.identity) {
            // Another writer of ours was here, or whoever renamed the log has made it anew.
            there
        } else {
            // The next file first: on a full disk there is none, and then all stays as it is.
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

// The arithmetic of `max_input` relies on it.
const _: () = assert!(MAX_HEADER_BYTES < MAX_CONTENT_BYTES && MAX_CONTENT_BYTES <= MAX_INPUT_BYTES);
