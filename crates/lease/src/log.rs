//! The log of a process that outlives the daemon, read line by line for the daemon's own log.
//!
//! Such a process writes into a bounded file in its lease directory, because nobody may read its standard error once
//! the daemon is gone. The daemon carries new lines over, so that one log tells the story of all processes.
//! `<name>.read` beside it says how far: the next daemon goes on there. It is locked while lines are read and written at one stroke, so
//! that neither a second reader nor the death of one brings a line twice.
//!
//! A file that was emptied when it was full, or put aside as `<name>.1`, is read from its beginning.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The most bytes that are carried over at once; of more, the last ones.
const MAX_BYTES: u64 = 64 * 1024;

/// How far a log was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    inode: u64,
    offset: u64,
}

/// The log of a leased process.
#[derive(Debug)]
pub struct ProcessLog {
    path: PathBuf,
}

impl ProcessLog {
    /// Names a log; nothing is opened.
    pub fn new(lease_dir: &Path, name: &str) -> Self {
        Self { path: lease_dir.join(name) }
    }

    /// Returns the whole lines that are new since the last call, of this process or of an earlier one. A log that is not there has no
    /// lines. Waits for another one that reads.
    ///
    /// # Errors
    /// What the system says of reading the log, or of writing down how far it was read.
    pub fn new_lines(&self) -> io::Result<Vec<String>> {
        let Some(mut file) = found(File::open(&self.path))? else { return Ok(Vec::new()) };
        let mut place_file =
            File::options().read(true).write(true).create(true).truncate(false).open(self.place_path())?;
        place_file.lock()?;
        let metadata = file.metadata()?;
        let before = place(&mut place_file)?;
        let before = before.filter(|place| place.inode == metadata.ino() && place.offset <= metadata.len());
        let from = before.map_or(0, |place| place.offset);
        if from == metadata.len() {
            return Ok(Vec::new());
        }
        let skipped = from.max(metadata.len().saturating_sub(MAX_BYTES));
        file.seek(SeekFrom::Start(skipped))?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        // The last line may still be on its way, and the first one may be cut.
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end.saturating_add(1)));
        let offset = skipped.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        // Always of the same length: nothing has to be cut off before, and one call of the system does it.
        place_file.write_all_at(format!("{:020} {offset:020}", metadata.ino()).as_bytes(), 0)?;
        let text = String::from_utf8_lossy(&bytes);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if skipped != from && !lines.is_empty() {
            lines.remove(0);
        }
        Ok(lines)
    }

    fn place_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".read");
        path.into()
    }
}

/// Reads how far the log was read; `None` when nobody has read it.
fn place(file: &mut File) -> io::Result<Option<Place>> {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
        read => read?,
    };
    let Some((inode, offset)) = text.split_once(' ') else { return Ok(None) };
    Ok(inode.parse().ok().zip(offset.parse().ok()).map(|(inode, offset)| Place { inode, offset }))
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn append(dir: &Path, text: &str) {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(dir.join("p.log")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn each_line_is_carried_over_once_also_by_a_later_reader() {
        let dir = tempfile::tempdir().unwrap();
        let read = || ProcessLog::new(dir.path(), "p.log").new_lines().unwrap();
        assert_eq!(read(), Vec::<String>::new(), "there is no log yet");
        append(dir.path(), "one\ntwo\nthr");
        assert_eq!(read(), ["one", "two"]);
        assert_eq!(read(), Vec::<String>::new());
        append(dir.path(), "ee\n");
        assert_eq!(read(), ["three"]);
    }

    #[test]
    fn of_several_readers_one_gets_each_line() {
        let dir = tempfile::tempdir().unwrap();
        let (is_over, read) = (AtomicBool::new(false), || ProcessLog::new(dir.path(), "p.log").new_lines().unwrap());
        let mut lines: Vec<String> = std::thread::scope(|scope| {
            let reader = || {
                let mut lines = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    lines.extend(read());
                }
                lines
            };
            let readers: Vec<_> = (0..4).map(|_| scope.spawn(reader)).collect();
            (0..3000).for_each(|number| append(dir.path(), &format!("{number}\n")));
            is_over.store(true, Ordering::Relaxed);
            readers.into_iter().flat_map(|reader| reader.join().unwrap()).chain(read()).collect()
        });
        lines.sort_by_key(|line| line.parse::<u32>().unwrap());
        assert_eq!(lines, (0..3000).map(|number| number.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn where_the_reader_is_is_never_cut_off_while_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        // As an earlier version wrote it.
        append(dir.path(), "one\n");
        let inode = fs::metadata(dir.path().join("p.log")).unwrap().ino();
        fs::write(dir.path().join("p.log.read"), format!("{inode} 4")).unwrap();
        append(dir.path(), "two\n");
        let place = || fs::read_to_string(dir.path().join("p.log.read")).unwrap();
        for (text, offset) in [("", 8), ("three\n", 14)] {
            append(dir.path(), text);
            assert_eq!(ProcessLog::new(dir.path(), "p.log").new_lines().unwrap().len(), 1);
            assert_eq!(place(), format!("{inode:020} {offset:020}"));
        }
    }

    #[test]
    fn a_log_that_began_anew_is_read_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let read = || ProcessLog::new(dir.path(), "p.log").new_lines().unwrap();
        append(dir.path(), "a long first line\n");
        assert_eq!(read().len(), 1);
        File::options().write(true).open(dir.path().join("p.log")).unwrap().set_len(0).unwrap();
        append(dir.path(), "emptied\n");
        assert_eq!(read(), ["emptied"]);
        fs::rename(dir.path().join("p.log"), dir.path().join("p.log.1")).unwrap();
        append(dir.path(), "put aside, and longer than before\n");
        assert_eq!(read(), ["put aside, and longer than before"]);
    }

    #[test]
    fn of_very_much_the_last_whole_lines_are_carried_over() {
        let dir = tempfile::tempdir().unwrap();
        let line = format!("{}\n", "x".repeat(99));
        append(dir.path(), &line.repeat(2000));
        let lines = ProcessLog::new(dir.path(), "p.log").new_lines().unwrap();
        assert!(lines.iter().all(|line| line.len() == 99), "a line was cut");
        assert_eq!(lines.len(), 655, "64 KiB of lines of 100 bytes");
    }
}
