//! Reads the journal beside its writer: own descriptors, no lock, each byte once.
//!
//! ```text
//! journal.1 ──► journal ──► (rotated meanwhile: what is open is journal.1 now) ──► the new journal
//! ```
//! A reader keeps its position between calls. It starts near the wanted number, which it finds by bisection, and holds
//! at most one piece of a file in memory. Events that were rotated away before it read them, or were never written, are
//! a gap.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contd_durable::{FileId, Fs, ReadFile};

use crate::journal::{JournalEntry, JournalError, JournalItem, MAX_EVENT_BYTES};

/// Bytes read at once: some hundred events.
const PIECE_BYTES: usize = 64 * 1024;
/// The distance to the wanted number at which bisection ends: one piece holds that much anyway.
const NEAR_BYTES: u64 = 64 * 1024;
/// How often one call looks again when the journal is rotated between two looks; after that the next call tries again.
const MAX_LOOKS: usize = 4;

/// The paths of a journal's files.
#[derive(Debug, Clone)]
pub struct JournalFiles {
    fs: Arc<dyn Fs>,
    path: PathBuf,
}

impl JournalFiles {
    pub(crate) fn new(fs: Arc<dyn Fs>, path: PathBuf) -> Self {
        Self { fs, path }
    }

    /// Makes a reader that begins with this number. It opens no file yet.
    pub fn reader(&self, from: u64) -> JournalReader {
        JournalReader { files: self.clone(), expected: from.max(1), generation: None, held: None }
    }

    fn open(&self, path: &Path) -> io::Result<Option<Generation>> {
        match self.fs.open(path) {
            Ok(file) => Ok(Some(Generation::new(file)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn id_of(&self, path: &Path) -> io::Result<Option<FileId>> {
        match self.fs.id(path) {
            Ok(id) => Ok(Some(id)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Returns the path of the generation before the current one.
pub(crate) fn older_than(path: &Path) -> PathBuf {
    let mut name = path.to_path_buf().into_os_string();
    name.push(".1");
    PathBuf::from(name)
}

/// Reads the journal beside its writer; see the module. All calls block.
#[derive(Debug)]
pub struct JournalReader {
    files: JournalFiles,
    /// The number of the next event.
    expected: u64,
    generation: Option<Generation>,
    /// An event that was read already, and is returned after the gap before it.
    held: Option<JournalEntry>,
}

impl JournalReader {
    /// Returns the next event, or the gap before it; `None` when there is no new event. `next` is the number that the
    /// writer gives to the next event: an event with a lower number that is not in the files is lost.
    ///
    /// # Errors
    /// [`JournalError::Read`].
    pub fn next(&mut self, next: u64) -> Result<Option<JournalItem>, JournalError> {
        loop {
            let found = match self.held.take() {
                Some(held) => Some(held),
                None => {
                    self.next_entry().map_err(|source| JournalError::Read { path: self.files.path.clone(), source })?
                }
            };
            let (first, gap_ends) = match found {
                Some(entry) if entry.sequence < self.expected => continue,
                Some(entry) if entry.sequence == self.expected => {
                    self.expected = entry.sequence.saturating_add(1);
                    return Ok(Some(JournalItem::Event(Box::new(entry))));
                }
                Some(entry) => {
                    let sequence = entry.sequence;
                    self.held = Some(entry);
                    (self.expected, sequence)
                }
                None if self.expected < next => (self.expected, next),
                None => return Ok(None),
            };
            self.expected = gap_ends;
            return Ok(Some(JournalItem::Gap { first, last: gap_ends.saturating_sub(1) }));
        }
    }

    fn next_entry(&mut self) -> io::Result<Option<JournalEntry>> {
        if self.generation.is_none() {
            self.generation = self.begin()?;
        }
        while let Some(generation) = &mut self.generation {
            if let Some(entry) = generation.next_entry()? {
                return Ok(Some(entry));
            }
            if !self.go_on()? {
                break;
            }
        }
        Ok(None)
    }

    /// Opens the generation that holds the wanted number, or else the oldest one, and seeks to it.
    fn begin(&self) -> io::Result<Option<Generation>> {
        let current = self.files.open(&self.files.path)?;
        let mut last = None;
        for found in [current, self.files.open(&older_than(&self.files.path))?] {
            let Some(mut generation) = found else { continue };
            let begins = generation.first_sequence()?;
            if begins.is_some_and(|begins| begins < self.expected) {
                generation.seek(self.expected)?;
                return Ok(Some(generation));
            }
            let is_the_one = begins == Some(self.expected);
            last = Some(generation);
            if is_the_one {
                break;
            }
        }
        Ok(last)
    }

    /// Continues with the file that follows the open one; tells whether there may be more to read.
    fn go_on(&mut self) -> io::Result<bool> {
        let Some(generation) = &mut self.generation else { return Ok(false) };
        let id = generation.id;
        if self.files.id_of(&self.files.path)? == Some(id) {
            return Ok(false);
        }
        // The open file was rotated. Read first what was appended between our last read and the rotation.
        if generation.fill()? {
            return Ok(true);
        }
        let older = older_than(&self.files.path);
        for _ in 0..MAX_LOOKS {
            let is_older = self.files.id_of(&older)? == Some(id);
            // The open file was rotated away twice: the older generation of now comes next.
            let mut next = if is_older { None } else { self.files.open(&older)? };
            if next.is_none() {
                next = self.files.open(&self.files.path)?;
            }
            // If a rotation came between the two looks, we would skip a generation.
            if is_older && self.files.id_of(&older)? != Some(id) {
                continue;
            }
            let Some(next) = next.filter(|next| next.id != id) else { return Ok(false) };
            self.generation = Some(next);
            return Ok(true);
        }
        Ok(false)
    }
}

/// One file of the journal and a position in it.
#[derive(Debug)]
struct Generation {
    file: Box<dyn ReadFile>,
    id: FileId,
    /// Where the next piece begins.
    offset: u64,
    /// The bytes that were read; those from `at` on are not decoded yet.
    buffer: Vec<u8>,
    at: usize,
    /// Whether to skip the bytes up to the next newline: they belong to a line before the wanted one, or to one too
    /// long for an event.
    is_in_rest: bool,
}

impl Generation {
    fn new(file: Box<dyn ReadFile>) -> io::Result<Self> {
        let id = file.id()?;
        Ok(Self { file, id, offset: 0, buffer: Vec::new(), at: 0, is_in_rest: false })
    }

    /// Reads up to the next valid line. Damaged lines are skipped; the gap in the numbers shows them.
    fn next_entry(&mut self) -> io::Result<Option<JournalEntry>> {
        loop {
            while let Some(line) = self.next_line() {
                if let Some(entry) = self.buffer.get(line).and_then(|line| serde_json::from_slice(line).ok()) {
                    return Ok(Some(entry));
                }
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Consumes one whole line of the buffer and returns its range.
    fn next_line(&mut self) -> Option<std::ops::Range<usize>> {
        loop {
            let begin = self.at;
            let len = self.buffer.get(begin..)?.iter().position(|byte| *byte == b'\n')?;
            self.at = begin + len + 1;
            if !std::mem::take(&mut self.is_in_rest) {
                return Some(begin..begin + len);
            }
        }
    }

    /// Reads one more piece; tells whether there was any byte.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.at);
        self.at = 0;
        if u64::try_from(self.buffer.len()).is_ok_and(|len| len > MAX_EVENT_BYTES) {
            self.buffer.clear();
            self.is_in_rest = true;
        }
        let kept = self.buffer.len();
        self.buffer.resize(kept + PIECE_BYTES, 0);
        let read = self.file.read_at(self.buffer.get_mut(kept..).unwrap_or_default(), self.offset);
        let count = *read.as_ref().unwrap_or(&0);
        self.buffer.truncate(kept + count);
        self.offset = self.offset.saturating_add(u64::try_from(count).unwrap_or_default());
        read.map(|count| count > 0)
    }

    /// Returns the number of the first event, and seeks back to the beginning.
    fn first_sequence(&mut self) -> io::Result<Option<u64>> {
        let first = self.next_entry()?.map(|entry| entry.sequence);
        if u64::try_from(self.buffer.len()).is_ok_and(|len| len == self.offset) {
            // The buffer still holds everything from the beginning on.
            (self.at, self.is_in_rest) = (0, false);
        } else {
            self.jump(0);
        }
        Ok(first)
    }

    /// Seeks to a position shortly before the wanted number by bisection: the numbers only grow.
    fn seek(&mut self, wanted: u64) -> io::Result<()> {
        let (mut low, mut high) = (0, self.file.size()?);
        if high <= NEAR_BYTES {
            return Ok(());
        }
        while high - low > NEAR_BYTES {
            let middle = low + (high - low) / 2;
            self.jump(middle);
            let is_before = self.next_entry()?.is_some_and(|entry| entry.sequence <= wanted);
            if is_before { low = middle } else { high = middle }
        }
        self.jump(low);
        Ok(())
    }

    /// Seeks to any position; the rest of the line there is skipped.
    fn jump(&mut self, offset: u64) {
        self.buffer.clear();
        (self.offset, self.at, self.is_in_rest) = (offset, 0, offset > 0);
    }
}
