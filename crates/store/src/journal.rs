//! The event journal: numbered JSON lines in two generations of a file. It is not synced, because the records are the
//! truth and the journal is only their log. [`crate::JournalReader`] reads it while it is written.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contd_durable::Fs;
use contd_types::{ContainerEvent, ErrorKind, Explain, Shortage};
use serde::{Deserialize, Serialize};

use crate::reader::{JournalFiles, older_than};

/// Larger than any event, so that a file that is due for rotation can still be read whole.
pub(crate) const MAX_EVENT_BYTES: u64 = 1024 * 1024;

/// One event with its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Its number; it grows by one with each event, also over restarts.
    pub sequence: u64,
    /// The event.
    pub event: ContainerEvent,
}

/// An item that a reader of the journal returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalItem {
    /// An event.
    Event(Box<JournalEntry>),
    /// Events that are lost: removed by rotation, or torn by a crash.
    Gap {
        /// The first lost number.
        first: u64,
        /// The last lost number.
        last: u64,
    },
}

/// An operation on the journal that failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It could not be read.
    #[error("read journal {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An event could not be turned into JSON.
    #[error("encode an event for journal {}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// An event could not be added; its number is lost.
    #[error("append to journal {}", path.display())]
    Append {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Explain for JournalError {
    fn kind(&self) -> ErrorKind {
        match self {
            _ if Shortage::behind(self).is_some() => ErrorKind::OutOfResources,
            Self::Read { .. } | Self::Append { .. } => ErrorKind::Unavailable,
            Self::Encode { .. } => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        Some("containers are not affected; look at the disk of the state directory".to_owned())
    }
}

/// Writes the journal. There is one writer per journal; all calls block.
#[derive(Debug)]
pub struct EventJournal {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    max_bytes: u64,
    size: u64,
    next: u64,
    /// Whether the file may end in the middle of a line.
    is_torn: bool,
}

impl EventJournal {
    /// Opens a journal, or begins one with number 1; of each generation about `max_bytes` are kept.
    ///
    /// # Errors
    /// [`JournalError::Read`].
    pub fn open(fs: Arc<dyn Fs>, path: impl Into<PathBuf>, max_bytes: u64) -> Result<Self, JournalError> {
        let mut journal = Self { fs, path: path.into(), max_bytes, size: 0, next: 1, is_torn: false };
        let current = journal.read_file(&journal.path)?;
        journal.size = u64::try_from(current.len()).unwrap_or(u64::MAX);
        journal.is_torn = current.last().is_some_and(|byte| *byte != b'\n');
        let older = journal.read_file(&older_than(&journal.path))?;
        // The number of a torn last line may have been returned to a caller, so it is not used again.
        let last = entries(&older).chain(entries(&current)).map(|entry| entry.sequence).max();
        journal.next = last.map_or(1, |last| last.saturating_add(1)).saturating_add(u64::from(journal.is_torn));
        Ok(journal)
    }

    /// Adds an event and returns its number.
    ///
    /// # Errors
    /// [`JournalError`]; the number of a failed event is not used again, and readers may see a gap.
    pub fn append(&mut self, event: &ContainerEvent) -> Result<u64, JournalError> {
        let sequence = self.next;
        let entry = JournalEntry { sequence, event: event.clone() };
        // The number is used from here on, also when the append fails: the line may be in the file in part, or whole.
        self.next = self.next.saturating_add(1);
        self.rotate_when_due().map_err(|source| JournalError::Append { path: self.path.clone(), source })?;
        let mut line = if self.is_torn { vec![b'\n'] } else { Vec::new() };
        serde_json::to_writer(&mut line, &entry)
            .map_err(|source| JournalError::Encode { path: self.path.clone(), source })?;
        line.push(b'\n');
        match self.fs.append(&self.path, &line) {
            Ok(()) => {
                self.is_torn = false;
                self.size = self.size.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
                Ok(sequence)
            }
            Err(source) => {
                self.is_torn = true;
                Err(JournalError::Append { path: self.path.clone(), source })
            }
        }
    }

    /// Returns the paths of the journal's files, for readers.
    pub fn files(&self) -> JournalFiles {
        JournalFiles::new(Arc::clone(&self.fs), self.path.clone())
    }

    /// Returns the number that the next event gets.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Begins a new generation when the file is full. A failure is ignored until the file is almost too long to be
    /// read.
    fn rotate_when_due(&mut self) -> io::Result<()> {
        if self.size < self.max_bytes {
            return Ok(());
        }
        match self.fs.rename(&self.path, &older_than(&self.path)) {
            Ok(()) => {
                (self.size, self.is_torn) = (0, false);
                Ok(())
            }
            Err(error) if self.size >= self.max_bytes.saturating_mul(3) => Err(error),
            Err(_tried_again_at_the_next_event) => Ok(()),
        }
    }

    fn read_file(&self, path: &Path) -> Result<Vec<u8>, JournalError> {
        // A failed rotation lets the file grow. A file much longer than that is not a journal.
        let max_bytes = self.max_bytes.saturating_mul(4).saturating_add(MAX_EVENT_BYTES);
        match self.fs.read(path, max_bytes) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(JournalError::Read { path: path.to_owned(), source }),
        }
    }
}

/// Decodes all valid lines. Damaged lines are skipped; the gap in the numbers shows them.
fn entries(bytes: &[u8]) -> impl Iterator<Item = JournalEntry> + '_ {
    bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}
