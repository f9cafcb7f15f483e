//! The server's own log: a file in its lease directory that cannot grow without end.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

use contd_protocol::flistfs::LOG_FILE;
/// The lease directory lies in memory: two files of this size are the most that a flist with a dead store may take.
const MAX_BYTES: u64 = 256 * 1024;

/// A file that is put aside as `<name>.1` when it is full, in the place of the former one.
#[derive(Debug)]
pub struct BoundedLog {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    bytes: u64,
}

impl BoundedLog {
    /// Opens the log in this directory for appending.
    ///
    /// # Errors
    /// The system's error.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(LOG_FILE);
        let file = open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, state: Mutex::new(State { file, bytes }) })
    }

    fn append(&self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.bytes >= MAX_BYTES {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            *state = State { file: open(&self.path)?, bytes: 0 };
        }
        let written = state.file.write(line)?;
        state.bytes = state.bytes.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        Ok(written)
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The writer for [`tracing_subscriber`].
#[derive(Debug)]
pub struct Writer<'a>(&'a BoundedLog);

impl Write for Writer<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.append(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for BoundedLog {
    type Writer = Writer<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Writer(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_put_aside_once_and_never_takes_more_than_two_files() {
        let dir = tempfile::tempdir().unwrap();
        let log = BoundedLog::open(dir.path()).unwrap();
        let line = [b'x'; 1000];
        for _ in 0..1000 {
            log.make_writer().write_all(&line).unwrap();
        }
        let sizes: Vec<u64> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(sizes.len(), 2);
        assert!(sizes.iter().all(|size| *size < MAX_BYTES + 1000), "{sizes:?}");
    }
}
