//! The boundary to the log file, so that a test can make its disk fail.

use std::fmt::Debug;

use contd_logs::{LogError, LogWriter, Position, Stream};
use contd_types::Timestamp;

/// Takes output, all or nothing per write.
pub(crate) trait LogSink: Debug {
    /// Encodes the bytes of one read and says where [`Self::flush`] will put them.
    fn stage(&mut self, stream: Stream, at: Timestamp, bytes: &[u8]) -> Result<Position, LogError>;
    /// Writes what was staged. After an error it is staged again.
    fn flush(&mut self) -> Result<(), LogError>;
    /// Writes again what a predecessor had staged.
    fn redo(&mut self, stream: Stream, at: Timestamp, bytes: &[u8], position: Position) -> Result<(), LogError>;
    /// Opens the log again by its path.
    fn reopen(&mut self) -> Result<(), LogError>;
    /// Begins the next file.
    fn rotate(&mut self) -> Result<(), LogError>;
    /// Brings what was written to the disk.
    fn sync(&mut self) -> Result<(), LogError>;
    /// Returns and forgets why the log could not be rotated.
    fn take_rotation_error(&mut self) -> Option<LogError>;
}

impl LogSink for LogWriter {
    fn stage(&mut self, stream: Stream, at: Timestamp, bytes: &[u8]) -> Result<Position, LogError> {
        Self::stage(self, stream, bytes, at)
    }

    fn flush(&mut self) -> Result<(), LogError> {
        Self::flush(self)
    }

    fn redo(&mut self, stream: Stream, at: Timestamp, bytes: &[u8], position: Position) -> Result<(), LogError> {
        Self::redo(self, stream, bytes, at, position)
    }

    fn reopen(&mut self) -> Result<(), LogError> {
        Self::reopen(self)
    }

    fn rotate(&mut self) -> Result<(), LogError> {
        Self::rotate_now(self)
    }

    fn sync(&mut self) -> Result<(), LogError> {
        Self::sync(self)
    }

    fn take_rotation_error(&mut self) -> Option<LogError> {
        Self::take_rotation_error(self)
    }
}
