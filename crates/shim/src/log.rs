//! The border to the log file, so that a test can make its disk fail.

use std::fmt::Debug;

use contd_logs::{LogError, LogWriter, Stream};
use contd_types::Timestamp;

/// Takes output, all or nothing per call.
pub(crate) trait LogSink: Debug {
    /// Writes the bytes of one read. After an error the same call may be repeated.
    fn append(&mut self, stream: Stream, at: Timestamp, bytes: &[u8]) -> Result<(), LogError>;
    /// Opens the log again by its path.
    fn reopen(&mut self) -> Result<(), LogError>;
    /// Returns and forgets why the log could not be rotated.
    fn take_rotation_error(&mut self) -> Option<LogError>;
}

impl LogSink for LogWriter {
    fn append(&mut self, stream: Stream, at: Timestamp, bytes: &[u8]) -> Result<(), LogError> {
        self.write(stream, bytes, at)
    }

    fn reopen(&mut self) -> Result<(), LogError> {
        Self::reopen(self)
    }

    fn take_rotation_error(&mut self) -> Option<LogError> {
        Self::take_rotation_error(self)
    }
}
