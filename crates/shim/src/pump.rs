//! The container's output: from two FIFOs, through a spool each ([`crate::spool`]), into the log.
//!
//! The container's ends are opened read-write and closed here once the runtime has them, so the FIFO says end-of-file
//! exactly when the last process of the container has let go. When the log cannot be written (a full disk), nothing
//! more is read: the pipe fills and the container waits (`block`). Not a byte is dropped before [`Pump::close`]; a
//! successor goes on where this one was killed ([`Pump::adopt`]).

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use contd_failpoint::Failpoint;
use contd_logs::{LogError, MAX_CONTENT_BYTES, Stream};
use contd_protocol::shim::{TaskSpec, files};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;

use crate::clock;
use crate::diagnostics::Diagnostics;
use crate::log::LogSink;
use crate::runtime::Stdio;
use crate::spool::{Spool, Taken};

/// Large, so that a burst does not wait for us; the kernel allows this much to everybody.
const PIPE_BYTES: i32 = 1024 * 1024;

/// One read, one timestamp, one write; less when the log's files are smaller, as the log takes no more in one piece.
const MAX_BUFFER_BYTES: usize = 256 * 1024;

/// How long a failed write to the log waits for its repetition.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// How often a FIFO is taken from at most before the loop goes on: a full one is empty by then, at any size of the buffer.
const MAX_TAKES: usize = 128;

/// The most of a failed runtime's words that are kept.
const MAX_LAST_WORDS_BYTES: usize = 4096;

/// An operation on the output that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PumpError {
    /// The FIFO could not be made.
    #[error("make the FIFO {}", path.display())]
    Make {
        /// The FIFO.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The FIFO could not be opened.
    #[error("open the FIFO {}", path.display())]
    Open {
        /// The FIFO.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The spool could not be opened, or emptied.
    #[error("open the spool {}", path.display())]
    Spool {
        /// The spool.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The log could not be opened.
    #[error("open the log of the container")]
    OpenLog {
        /// Why.
        source: LogError,
    },
    /// The next file of the log could not be begun.
    #[error("rotate the log of the container")]
    RotateLog {
        /// Why.
        source: LogError,
    },
}

#[derive(Debug)]
struct Source {
    stream: Stream,
    path: PathBuf,
    reader: Option<File>,
    spool: Spool,
}

/// The way from the FIFOs to the log.
#[derive(Debug)]
pub(crate) struct Pump {
    sources: [Source; 2],
    log: Box<dyn LogSink>,
    buffer_bytes: usize,
    buffer: Vec<u8>,
    /// When the log refuses, the next try. Nothing is taken until then.
    retry_at: Option<Instant>,
    /// When output last reached the log.
    logged_at: Option<Instant>,
    is_reading: bool,
    diagnostics: Rc<Diagnostics>,
}

/// Makes the FIFOs of a container to come, so that its start need not.
pub(crate) fn make_fifos(dir: &Path) -> Result<(), PumpError> {
    [files::STDOUT, files::STDERR].into_iter().try_for_each(|name| {
        let path = dir.join(name);
        make_fifo(&path).map_err(|source| PumpError::Make { path, source })
    })
}

impl Pump {
    /// Makes the FIFOs and spools if they are absent. Nothing is read yet.
    pub(crate) fn new(
        dir: &Path,
        task: &TaskSpec,
        log: Box<dyn LogSink>,
        diagnostics: Rc<Diagnostics>,
    ) -> Result<Self, PumpError> {
        let stdout = Source::prepare(dir, Stream::Stdout, files::STDOUT)?;
        let stderr = Source::prepare(dir, Stream::Stderr, files::STDERR)?;
        Ok(Self {
            sources: [stdout, stderr],
            log,
            buffer_bytes: usize::try_from(task.log_max_bytes)
                .unwrap_or(MAX_BUFFER_BYTES)
                .clamp(MAX_CONTENT_BYTES, MAX_BUFFER_BYTES),
            buffer: Vec::new(),
            retry_at: None,
            logged_at: None,
            is_reading: false,
            diagnostics,
        })
    }

    /// Opens the FIFOs for a new container and returns its ends, for the runtime's `create` only.
    pub(crate) fn open(&mut self) -> Result<Stdio, PumpError> {
        self.close();
        self.log.reopen().map_err(|source| PumpError::OpenLog { source })?;
        let [stdout, stderr] = &mut self.sources;
        Ok(Stdio { stdin: None, stdout: stdout.open()?, stderr: stderr.open()? })
    }

    /// Opens one more writing end of standard output: for a terminal, whose output comes through us.
    pub(crate) fn open_writer(&self) -> Result<File, PumpError> {
        let [stdout, _] = &self.sources;
        stdout.open_fifo(OpenOptions::new().write(true))
    }

    /// Tells whether what comes is taken now.
    pub(crate) fn takes(&self) -> bool {
        self.is_reading && self.retry_at.is_none()
    }

    /// Begins to read. Until then the FIFOs hold only what the runtime itself has said.
    pub(crate) fn begin(&mut self) {
        self.is_reading = true;
    }

    /// Goes on for a container that a predecessor has made: what lies in the spools first, then what comes.
    pub(crate) fn adopt(&mut self) -> Result<(), PumpError> {
        for source in &mut self.sources {
            source.reader = Some(source.open_reader()?);
        }
        self.begin();
        self.drain_spools();
        Ok(())
    }

    /// Returns what the runtime has written to the container's standard error before any of the container ran.
    pub(crate) fn last_words(&mut self) -> String {
        let mut words = Vec::new();
        if let Some(mut reader) =
            self.sources.iter_mut().find(|s| s.stream == Stream::Stderr).and_then(|s| s.reader.take())
        {
            let mut chunk = [0u8; MAX_LAST_WORDS_BYTES];
            if let Ok(length) = reader.read(&mut chunk) {
                words.extend_from_slice(chunk.get(..length).unwrap_or_default());
            }
        }
        String::from_utf8_lossy(&words).trim().to_owned()
    }

    /// Returns the descriptors to wait on.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        let takes = self.takes();
        self.sources
            .iter()
            .filter(move |_| takes)
            .filter_map(|source| Some((source.stream, source.reader.as_ref()?.as_fd())))
    }

    /// Returns when [`Self::retry`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Returns when output last reached the log.
    pub(crate) fn logged_at(&self) -> Option<Instant> {
        self.logged_at
    }

    /// Tells whether all output there will ever be is in the log.
    pub(crate) fn is_drained(&self) -> bool {
        self.retry_at.is_none() && self.sources.iter().all(|source| source.reader.is_none())
    }

    /// Tells whether something that was taken is not in the log yet.
    pub(crate) fn has_waiting(&self) -> bool {
        self.sources.iter().any(|source| source.spool.has_waiting())
    }

    /// Brings the log to its disk.
    pub(crate) fn sync_log(&mut self) {
        if let Err(error) = self.log.sync() {
            self.diagnostics.error(&error);
        }
    }

    /// Takes once from a FIFO that is ready, and writes it to the log.
    pub(crate) fn on_readable(&mut self, stream: Stream) {
        let _told_by_the_next_poll = self.take(stream);
    }

    /// Takes all that is there from the FIFOs of a container that has ended. A FIFO that had no writer any more when it was
    /// opened never becomes ready at its end: only taking tells.
    pub(crate) fn take_the_rest(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            for _ in 0..MAX_TAKES {
                if self.take(stream) != Taken::Some {
                    break;
                }
            }
        }
    }

    fn take(&mut self, stream: Stream) -> Taken {
        if self.retry_at.is_some() {
            return Taken::Nothing;
        }
        let Some(source) = self.sources.iter_mut().find(|source| source.stream == stream) else { return Taken::End };
        let Some(reader) = source.reader.as_ref() else { return Taken::End };
        match source.spool.take(reader.as_fd(), self.buffer_bytes) {
            Ok(taken) => {
                match taken {
                    Taken::End => source.reader = None,
                    Taken::Some => self.drain_spools(),
                    Taken::Nothing => {}
                }
                taken
            }
            // No byte was taken, so none is lost: the file system of the spool may have room again.
            Err(error) => {
                self.diagnostics.warn(format_args!("take from {}: {error}", source.path.display()));
                self.retry_at = Some(clock::monotonic() + RETRY_AFTER);
                Taken::Nothing
            }
        }
    }

    /// Repeats a write that failed, when it is time.
    pub(crate) fn retry(&mut self, now: Instant) {
        if self.retry_at.take_if(|at| *at <= now).is_some() {
            self.drain_spools();
            if self.retry_at.is_none() {
                self.diagnostics.info("output is taken again");
            }
        }
    }

    /// Begins the next file of the log. Not while output has to be repeated: a successor would take its place in the other file
    /// for a write that was done.
    pub(crate) fn rotate_log(&mut self) -> Result<(), PumpError> {
        if self.has_waiting() {
            return Ok(());
        }
        self.log.rotate().map_err(|source| PumpError::RotateLog { source })
    }

    /// Forgets the container: what is still in the FIFOs is taken if the log takes it, then dropped.
    pub(crate) fn close(&mut self) {
        if self.is_reading {
            for stream in [Stream::Stdout, Stream::Stderr] {
                self.on_readable(stream);
            }
        }
        self.retry_at = None;
        for source in &mut self.sources {
            source.reader = None;
            if source.spool.has_waiting() {
                let path = source.path.display();
                self.diagnostics.warn(format_args!("output of {path} was dropped: the log cannot be written"));
            }
            if let Err(error) = source.spool.clear() {
                self.diagnostics.warn(format_args!("empty the spool of {}: {error}", source.path.display()));
            }
        }
        self.is_reading = false;
        self.buffer = Vec::new();
    }

    /// Brings what lies in the spools into the log; when that fails, it is tried again later.
    fn drain_spools(&mut self) {
        for place in 0..self.sources.len() {
            if let Err(error) = self.drain_spool(place) {
                self.diagnostics.error(&*error);
                self.retry_at = Some(clock::monotonic() + RETRY_AFTER);
            }
        }
        if let Some(error) = self.log.take_rotation_error() {
            self.diagnostics.error(&error);
        }
    }

    fn drain_spool(&mut self, place: usize) -> Result<(), Box<dyn Error>> {
        let Some(Source { stream, spool, .. }) = self.sources.get_mut(place) else { return Ok(()) };
        while spool.has_waiting() {
            spool.read(&mut self.buffer)?;
            match spool.unfinished() {
                Some(entry) => self.log.redo(*stream, entry.at, &self.buffer, entry.position)?,
                None => {
                    let at = clock::wall();
                    let position = self.log.stage(*stream, at, &self.buffer)?;
                    spool.note(at, position)?;
                    self.log.flush()?;
                }
            }
            contd_failpoint::hit(Failpoint::SpoolLogged);
            spool.finish()?;
            self.logged_at = Some(clock::monotonic());
            contd_failpoint::hit(Failpoint::SpoolFinished);
        }
        Ok(())
    }
}

impl Source {
    fn prepare(dir: &Path, stream: Stream, name: &str) -> Result<Self, PumpError> {
        let path = dir.join(name);
        make_fifo(&path).map_err(|source| PumpError::Make { path: path.clone(), source })?;
        let spool = dir.join(format!("{name}{}", files::SPOOL_SUFFIX));
        let spool = Spool::open(spool.clone()).map_err(|source| PumpError::Spool { path: spool, source })?;
        Ok(Self { stream, path, reader: None, spool })
    }

    /// Opens our end, then the container's: read-write, so that its writes never meet a pipe without a reader, even if
    /// we die.
    fn open(&mut self) -> Result<File, PumpError> {
        let reader = self.open_reader()?;
        // The container gets a blocking one: O_NONBLOCK belongs to the open file, not to the descriptor.
        let writer = self.open_fifo(OpenOptions::new().read(true).write(true))?;
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_RDWR))
            .map_err(|errno| PumpError::Open { path: self.path.clone(), source: errno.into() })?;
        // Best effort: without it the pipe has 64 KiB and all still works.
        let _smaller_pipe = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        self.reader = Some(reader);
        Ok(writer)
    }

    fn open_reader(&self) -> Result<File, PumpError> {
        self.open_fifo(OpenOptions::new().read(true))
    }

    fn open_fifo(&self, options: &mut OpenOptions) -> Result<File, PumpError> {
        options
            .custom_flags(OFlag::O_NONBLOCK.bits() | OFlag::O_NOFOLLOW.bits())
            .open(&self.path)
            .map_err(|source| PumpError::Open { path: self.path.clone(), source })
    }
}

fn make_fifo(path: &Path) -> io::Result<()> {
    match nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) => Ok(()),
        // Left by our predecessor, perhaps with output in it.
        Err(nix::errno::Errno::EEXIST) if std::fs::symlink_metadata(path)?.file_type().is_fifo() => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_logs::Position;
    use contd_types::Timestamp;
    use std::cell::RefCell;
    use std::io::Write;

    #[derive(Debug, Default)]
    struct Script {
        staged: Vec<u8>,
        taken: Vec<u8>,
        failures: usize,
        rotations: usize,
    }

    #[derive(Debug, Clone, Default)]
    struct ScriptedLog(Rc<RefCell<Script>>);

    impl LogSink for ScriptedLog {
        fn stage(&mut self, _: Stream, _: Timestamp, bytes: &[u8]) -> Result<Position, LogError> {
            let mut script = self.0.borrow_mut();
            script.staged = bytes.to_vec();
            let offset = u64::try_from(script.taken.len()).expect("small");
            Ok(Position { device: 1, inode: 1, offset, begins_anew: false })
        }
        fn flush(&mut self) -> Result<(), LogError> {
            let mut script = self.0.borrow_mut();
            if script.failures > 0 {
                script.failures -= 1;
                return Err(LogError::Write { path: "log".into(), source: io::ErrorKind::StorageFull.into() });
            }
            let staged = std::mem::take(&mut script.staged);
            script.taken.extend(staged);
            Ok(())
        }
        fn redo(&mut self, stream: Stream, at: Timestamp, bytes: &[u8], position: Position) -> Result<(), LogError> {
            self.0.borrow_mut().taken.truncate(usize::try_from(position.offset).expect("small"));
            self.stage(stream, at, bytes)?;
            self.flush()
        }
        fn reopen(&mut self) -> Result<(), LogError> {
            Ok(())
        }
        fn rotate(&mut self) -> Result<(), LogError> {
            self.0.borrow_mut().rotations += 1;
            Ok(())
        }
        fn sync(&mut self) -> Result<(), LogError> {
            Ok(())
        }
        fn take_rotation_error(&mut self) -> Option<LogError> {
            None
        }
    }

    fn pump(dir: &Path, log: &ScriptedLog) -> Pump {
        Pump {
            sources: [
                Source::prepare(dir, Stream::Stdout, "stdout").expect("fifo"),
                Source::prepare(dir, Stream::Stderr, "stderr").expect("fifo"),
            ],
            log: Box::new(log.clone()),
            buffer_bytes: MAX_BUFFER_BYTES,
            buffer: Vec::new(),
            retry_at: None,
            logged_at: None,
            is_reading: false,
            diagnostics: Rc::new(Diagnostics::open(&dir.join("shim.log"))),
        }
    }

    /// A pump that reads, and the container's ends.
    fn begun(dir: &Path, log: &ScriptedLog) -> (Pump, Stdio) {
        let mut pump = pump(dir, log);
        let stdio = pump.open().expect("fifos");
        pump.begin();
        (pump, stdio)
    }

    #[test]
    fn a_full_disk_keeps_the_bytes_and_stops_the_reading_until_it_is_over() {
        let dir = tempfile::tempdir().expect("scratch");
        let log = ScriptedLog::default();
        let (mut pump, mut stdio) = begun(dir.path(), &log);
        stdio.stdout.write_all(b"one\n").expect("room");
        log.0.borrow_mut().failures = 2;
        pump.on_readable(Stream::Stdout);
        stdio.stdout.write_all(b"two\n").expect("room");
        assert_eq!(pump.wanted().count(), 0, "it would spin");
        let due = pump.deadline().expect("a retry is due");
        pump.retry(due - Duration::from_millis(1));
        assert_eq!(log.0.borrow().failures, 1, "it was repeated too early");
        pump.retry(due);
        let due = pump.deadline().expect("a second retry is due");
        pump.retry(due);
        assert_eq!(pump.wanted().count(), 2);
        pump.on_readable(Stream::Stdout);
        drop(stdio);
        for stream in [Stream::Stdout, Stream::Stderr] {
            pump.on_readable(stream);
        }
        assert!(pump.is_drained());
        assert_eq!(log.0.borrow().taken, b"one\ntwo\n");
    }

    #[test]
    fn a_log_is_not_rotated_while_output_has_to_be_repeated() {
        let dir = tempfile::tempdir().expect("scratch");
        let log = ScriptedLog::default();
        let (mut pump, mut stdio) = begun(dir.path(), &log);
        stdio.stdout.write_all(b"one\n").expect("room");
        log.0.borrow_mut().failures = 1;
        pump.on_readable(Stream::Stdout);
        pump.rotate_log().expect("it is no error");
        assert_eq!(log.0.borrow().rotations, 0);
        let due = pump.deadline().expect("a retry is due");
        pump.retry(due);
        pump.rotate_log().expect("rotates");
        assert_eq!(log.0.borrow().rotations, 1);
    }

    #[test]
    fn a_successor_writes_what_its_predecessor_had_taken_and_what_came_meanwhile() {
        let dir = tempfile::tempdir().expect("scratch");
        let log = ScriptedLog::default();
        let (mut first, mut stdio) = begun(dir.path(), &log);
        stdio.stdout.write_all(b"written\n").expect("room");
        first.on_readable(Stream::Stdout);
        log.0.borrow_mut().failures = 1;
        stdio.stdout.write_all(b"taken\n").expect("room");
        first.on_readable(Stream::Stdout);
        assert_eq!(log.0.borrow().taken, b"written\n");
        drop(first);
        stdio.stdout.write_all(b"meanwhile\n").expect("no reader is no error: the container holds both ends");
        drop(stdio.stderr);
        let mut second = pump(dir.path(), &log);
        second.adopt().expect("adopts");
        assert_eq!(log.0.borrow().taken, b"written\ntaken\n");
        second.on_readable(Stream::Stdout);
        assert_eq!(log.0.borrow().taken, b"written\ntaken\nmeanwhile\n");
        drop(stdio.stdout);
        for stream in [Stream::Stdout, Stream::Stderr] {
            second.on_readable(stream);
        }
        assert!(second.is_drained());
    }

    #[test]
    fn a_successor_knows_when_all_of_an_ended_container_is_read() {
        let dir = tempfile::tempdir().expect("scratch");
        let log = ScriptedLog::default();
        let mut first = pump(dir.path(), &log);
        let mut stdio = first.open().expect("fifos");
        // The daemon holds a reader of each.
        let held = [&first.sources[0], &first.sources[1]].map(|source| source.open_reader().expect("a second reader"));
        first.begin();
        stdio.stdout.write_all(b"last words\n").expect("room");
        drop((first, stdio));
        let mut second = pump(dir.path(), &log);
        second.adopt().expect("adopts");
        assert!(!second.is_drained());
        second.take_the_rest();
        assert!(second.is_drained(), "no writer will ever come: nobody else tells");
        assert_eq!(log.0.borrow().taken, b"last words\n");
        drop(held);
    }

    #[test]
    fn what_the_runtime_says_before_the_container_runs_is_not_in_the_log() {
        let dir = tempfile::tempdir().expect("scratch");
        let log = ScriptedLog::default();
        let mut pump = pump(dir.path(), &log);
        let mut stdio = pump.open().expect("fifos");
        stdio.stderr.write_all(b"cannot create\n").expect("room");
        drop(stdio);
        assert_eq!(pump.last_words(), "cannot create");
        pump.close();
        assert!(log.0.borrow().taken.is_empty());
    }
}
