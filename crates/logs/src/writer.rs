//! The writer: bytes in, records out, one `write(2)` per call, nothing kept back.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use contd_failpoint::Failpoint;
use contd_types::Timestamp;

use crate::error::LogError;
use crate::format::{self, MAX_CONTENT_BYTES, MAX_HEADER_BYTES, Stream};
use crate::rotation::{self, Rotation};

/// The most bytes that are taken into one `write(2)`: a pipe is not larger, and the buffer stays bounded.
const MAX_INPUT_BYTES: usize = 1024 * 1024;

/// Writes one container's log. There must be one writer per log at a time; the shim's lease sees to that.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    /// Its device and inode.
    identity: (u64, u64),
    size: u64,
    /// Before this size a failed rotation is not tried again.
    retry_size: u64,
    rotation_error: Option<LogError>,
    /// Whether the last record of each stream is partial: then its line is still being written.
    open_lines: OpenLines,
    /// Whether the file may end in the middle of a record.
    is_torn: bool,
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

impl LogWriter {
    /// Opens a log to go on at its end, or makes it (0640); the directory must exist.
    ///
    /// When the file ends in the middle of a record, as after a crash, the next write begins a new line.
    ///
    /// # Errors
    /// [`LogError::Open`].
    pub fn open(path: impl Into<PathBuf>, rotation: Rotation) -> Result<Self, LogError> {
        let path = path.into();
        let Opened { file, identity, size, is_torn } = open_end(&path)?;
        let (open_lines, buffer) = (OpenLines::default(), Vec::new());
        Ok(Self {
            path,
            rotation,
            file,
            identity,
            size,
            retry_size: 0,
            rotation_error: None,
            open_lines,
            is_torn,
            buffer,
        })
    }

    /// Writes bytes of a stream, all with the same time. Up to 1 MiB it is one `write(2)`.
    ///
    /// # Errors
    /// [`LogError::Write`]. Nothing of the failed write stays in the file. Up to 1 MiB the whole call may be repeated;
    /// of a larger one the parts before the failed one are written.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) -> Result<(), LogError> {
        for input in bytes.chunks(self.max_input()) {
            self.stage(stream, input, now);
            self.flush()?;
        }
        Ok(())
    }

    /// Encodes the bytes, rotates when that is due, and returns where [`Self::flush`] will put them. Whoever notes the
    /// position first can have the write repeated by a successor: [`Self::redo`].
    pub fn stage(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) -> Position {
        self.encode(stream, bytes, now);
        self.rotate_when_due();
        if self.is_torn {
            // What stands there half is no line of ours: it gets an end.
            self.buffer.insert(0, b'\n');
        }
        self.open_lines.set(stream, bytes.last() != Some(&b'\n'));
        let (device, inode) = self.identity;
        Position { device, inode, offset: self.size, begins_anew: self.is_torn }
    }

    /// Writes again what a predecessor has staged and perhaps written, in whole or in part: the same bytes at the same
    /// place. Nothing is done when the log is another file by now, for then that write was complete: a file is left only
    /// between two writes.
    ///
    /// # Errors
    /// [`LogError::Write`]; it may be repeated.
    pub fn redo(&mut self, stream: Stream, bytes: &[u8], now: Timestamp, at: Position) -> Result<(), LogError> {
        let path = self.path.clone();
        let failed = |source| LogError::Write { path: path.clone(), source };
        if self.identity != (at.device, at.inode) {
            return Ok(());
        }
        let file = self.file.metadata().map_err(failed)?;
        self.is_torn = at.begins_anew;
        if file.len() < at.offset {
            // Somebody has cut it meanwhile.
            self.stage(stream, bytes, now);
            return self.flush();
        }
        self.encode(stream, bytes, now);
        if at.begins_anew {
            self.buffer.insert(0, b'\n');
        }
        // The log's own descriptor appends wherever it is told to write.
        let place = OpenOptions::new().write(true).custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits()).open(&self.path);
        place.and_then(|place| place.write_all_at(&self.buffer, at.offset)).map_err(failed)?;
        let end = at.offset.saturating_add(u64::try_from(self.buffer.len()).unwrap_or(u64::MAX));
        self.size = end.max(file.len());
        self.is_torn = false;
        self.open_lines.set(stream, bytes.last() != Some(&b'\n'));
        Ok(())
    }

    fn encode(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) {
        self.buffer.clear();
        format::encode(&mut self.buffer, stream, now, bytes);
    }

    /// Writes what was staged, all or nothing; the file ends in whole records then.
    ///
    /// # Errors
    /// [`LogError::Write`]. Nothing of it stays in the file; stage it again and repeat.
    pub fn flush(&mut self) -> Result<(), LogError> {
        match self.file.write_all(&self.buffer) {
            Ok(()) => {
                self.size = self.size.saturating_add(u64::try_from(self.buffer.len()).unwrap_or(u64::MAX));
                self.is_torn = false;
                Ok(())
            }
            Err(source) => {
                // The half-written records go, so that the call can be repeated without doubling anything. If even that
                // fails, the next write begins a new line.
                let was_cut = self.file.set_len(self.size);
                self.is_torn = self.is_torn || was_cut.is_err();
                Err(LogError::Write { path: self.path.clone(), source })
            }
        }
    }

    /// Opens the path again, for whoever renames the log from outside.
    ///
    /// # Errors
    /// [`LogError::Open`]; the writer then goes on in the file it had.
    pub fn reopen(&mut self) -> Result<(), LogError> {
        Opened { file: self.file, identity: self.identity, size: self.size, is_torn: self.is_torn } =
            open_end(&self.path)?;
        self.retry_size = 0;
        Ok(())
    }

    /// Brings what was written to the disk; once, when the container has ended. No byte waits in the writer itself.
    ///
    /// # Errors
    /// [`LogError::Write`].
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.file.sync_data().map_err(|source| LogError::Write { path: self.path.clone(), source })
    }

    /// Returns and forgets why the last rotation failed; the log meanwhile grows in the file it has.
    pub fn take_rotation_error(&mut self) -> Option<LogError> {
        self.rotation_error.take()
    }

    /// Returns the size of the current file in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size
    }

    /// Returns the path of the log.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How much input goes into one write, so that its records do not exceed a file by much.
    fn max_input(&self) -> usize {
        usize::try_from(self.rotation.max_bytes).unwrap_or(usize::MAX).clamp(MAX_CONTENT_BYTES, MAX_INPUT_BYTES)
    }

    fn rotate_when_due(&mut self) {
        let added = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        let is_full = self.size > 0 && self.size.saturating_add(added) > self.rotation.max_bytes;
        let may_split = self.size >= self.rotation.max_bytes.saturating_mul(2);
        if !is_full || self.size < self.retry_size || (self.open_lines.is_any() && !may_split) {
            return;
        }
        if let Err(error) = self.rotate() {
            self.retry_size = self.size.saturating_add(self.rotation.max_bytes / 8 + 1);
            self.rotation_error = Some(error);
        }
    }

    fn rotate(&mut self) -> Result<(), LogError> {
        // Only our own file is shifted: after a failed attempt, or a rename from outside, the name may be free already.
        let is_ours = match std::fs::symlink_metadata(&self.path) {
            Ok(there) => self.identity == (there.dev(), there.ino()),
            Err(_) => false,
        };
        if is_ours {
            rotation::shift(&self.path, self.rotation.max_files)
                .map_err(|source| LogError::Rotate { path: self.path.clone(), source })?;
        }
        self.reopen()?;
        contd_failpoint::hit(Failpoint::RotationReopened);
        Ok(())
    }
}

/// A log as it was opened.
struct Opened {
    file: File,
    /// Device and inode.
    identity: (u64, u64),
    size: u64,
    /// Whether it ends in the middle of a record.
    is_torn: bool,
}

/// Opens the file at its end.
fn open_end(path: &Path) -> Result<Opened, LogError> {
    let failed = |source| LogError::Open { path: path.to_owned(), source };
    let open = || -> io::Result<Opened> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o640);
        let nofollow = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NOCTTY | nix::fcntl::OFlag::O_NONBLOCK;
        let mut file = options.custom_flags(nofollow.bits()).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let size = metadata.len();
        let mut last = [b'\n'];
        if size > 0 {
            file.seek(SeekFrom::Start(size - 1))?;
            file.read_exact(&mut last)?;
        }
        Ok(Opened { file, identity: (metadata.dev(), metadata.ino()), size, is_torn: last != [b'\n'] })
    };
    open().map_err(failed)
}

// The arithmetic of `max_input` relies on it.
const _: () = assert!(MAX_HEADER_BYTES < MAX_CONTENT_BYTES && MAX_CONTENT_BYTES <= MAX_INPUT_BYTES);
