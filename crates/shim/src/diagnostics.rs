//! The shim's own log, `shim.log`: bounded, since no other process rotates it. The daemon carries its lines over.
//!
//! ```text
//! 2026-11-23T10:11:12.123456789Z INFO request=5b0c3f9a11d2 created init 4711
//! ```

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use contd_types::RequestId;

use crate::clock;

/// At this size the file begins anew: it lies on tmpfs, which is memory.
const MAX_BYTES: u64 = 256 * 1024;

/// The longest line.
const MAX_LINE_BYTES: usize = 4096;

/// An append-only text file. Writing never fails for the caller: there is nowhere else to complain.
#[derive(Debug)]
pub(crate) struct Diagnostics {
    file: RefCell<Option<File>>,
    written: Cell<u64>,
    request: Cell<Option<RequestId>>,
}

impl Diagnostics {
    /// Opens the file, or goes without when that is not possible.
    pub(crate) fn open(path: &Path) -> Self {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).ok();
        let written = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len());
        Self { file: RefCell::new(file), written: Cell::new(written), request: Cell::default() }
    }

    /// Says which operation of the daemon the lines from here on belong to: that of the latest call that changes something.
    pub(crate) fn belongs_to(&self, request: RequestId) {
        self.request.set(Some(request));
    }

    /// Notes a fact.
    pub(crate) fn info(&self, text: impl Display) {
        self.line("INFO", &text);
    }

    /// Notes something surprising that is being handled.
    pub(crate) fn warn(&self, text: impl Display) {
        self.line("WARN", &text);
    }

    /// Notes an error with all its causes.
    pub(crate) fn error(&self, error: &dyn std::error::Error) {
        self.line("WARN", &contd_types::one_line(error));
    }

    fn line(&self, level: &str, text: &dyn Display) {
        let mut slot = self.file.borrow_mut();
        let Some(file) = slot.as_mut() else { return };
        let request = self.request.get().map(|request| format!("request={request} ")).unwrap_or_default();
        let mut line = format!("{} {level} {request}{text}", clock::wall()).replace('\n', " ");
        line.truncate(line.floor_char_boundary(MAX_LINE_BYTES));
        line.push('\n');
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.written.get().saturating_add(length) > MAX_BYTES && file.set_len(0).is_ok() {
            self.written.set(0);
        }
        if file.write_all(line.as_bytes()).is_ok() {
            self.written.set(self.written.get().saturating_add(length));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_never_grows_above_its_bound() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("shim.log");
        let diagnostics = Diagnostics::open(&path);
        for _ in 0..200 {
            diagnostics.warn("x".repeat(10_000));
        }
        let size = std::fs::metadata(&path).expect("stat").len();
        assert!(size <= MAX_BYTES && size > 0, "{size} bytes");
    }
}
