//! The container's output: from two FIFOs, through one buffer, into the log.
//!
//! The container's ends are opened read-write and closed here once the runtime has them, so the FIFO says end-of-file
//! exactly when the last process of the container has let go. When the log cannot be written (a full disk), nothing
//! more is read: the pipe fills and the container waits (`block`). Not a byte is dropped before [`Pump::close`].

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use contd_logs::{LogError, MAX_CONTENT_BYTES, Stream};
use contd_protocol::shim::{TaskSpec, files};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;

use crate::clock;
use crate::diagnostics::Diagnostics;
use crate::log::LogSink;
use crate::runtime::Stdio;

/// Large, so that a burst does not wait for us; the kernel allows this much to everybody.
const PIPE_BYTES: i32 = 1024 * 1024;

/// One read, one timestamp, one write; less when the log's files are smaller, as the log takes no more in one piece.
const MAX_BUFFER_BYTES: usize = 256 * 1024;

/// How long a failed write to the log waits for its repetition.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The most of a failed runtime's words that are kept.
const MAX_LAST_WORDS_BYTES: usize = 4096;

/// What can fail around the output.
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
    /// The log could not be opened.
    #[error("open the log of the container")]
    OpenLog {
        /// Why.
        source: LogError,
    },
}

#[derive(Debug)]
struct Source {
    stream: Stream,
    path: PathBuf,
    reader: Option<File>,
}

/// Bytes that the log has not taken yet.
#[derive(Debug)]
struct Pending {
    stream: Stream,
    length: usize,
    retry_at: Instant,
}

/// The way from the FIFOs to the log.
#[derive(Debug)]
pub(crate) struct Pump {
    sources: [Source; 2],
    log: Box<dyn LogSink>,
    buffer_bytes: usize,
    buffer: Vec<u8>,
    pending: Option<Pending>,
    is_reading: bool,
    diagnostics: Rc<Diagnostics>,
}

impl Pump {
    /// Makes the FIFOs if they are absent. Nothing is read yet.
    pub(crate) fn new(
        dir: &Path,
        task: &TaskSpec,
        log: Box<dyn LogSink>,
        diagnostics: Rc<Diagnostics>,
    ) -> Result<Self, PumpError> {
        let source = |stream, name| {
            let path = dir.join(name);
            make_fifo(&path).map_err(|source| PumpError::Make { path: path.clone(), source })?;
            Ok(Source { stream, path, reader: None })
        };
        Ok(Self {
            sources: [source(Stream::Stdout, files::STDOUT)?, source(Stream::Stderr, files::STDERR)?],
            log,
            buffer_bytes: usize::try_from(task.log_max_bytes)
                .unwrap_or(MAX_BUFFER_BYTES)
                .clamp(MAX_CONTENT_BYTES, MAX_BUFFER_BYTES),
            buffer: Vec::new(),
            pending: None,
            is_reading: false,
            diagnostics,
        })
    }

    /// Opens the FIFOs for a new container and returns its ends, for the runtime's `create` only.
    pub(crate) fn open(&mut self) -> Result<Stdio, PumpError> {
        self.close();
        self.reopen_log()?;
        let [stdout, stderr] = &mut self.sources;
        Ok(Stdio { stdout: stdout.open()?, stderr: stderr.open()? })
    }

    /// Begins to read. Until then the FIFOs hold only what the runtime itself has said.
    pub(crate) fn begin(&mut self) {
        self.is_reading = true;
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
        let is_open = self.is_reading && self.pending.is_none();
        self.sources
            .iter()
            .filter(move |_| is_open)
            .filter_map(|source| Some((source.stream, source.reader.as_ref()?.as_fd())))
    }

    /// Returns when [`Self::retry`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.pending.as_ref().map(|pending| pending.retry_at)
    }

    /// Tells whether all output there will ever be is in the log.
    pub(crate) fn is_drained(&self) -> bool {
        self.pending.is_none() && self.sources.iter().all(|source| source.reader.is_none())
    }

    /// Reads once from a FIFO that is ready, and writes it to the log.
    pub(crate) fn on_readable(&mut self, stream: Stream) {
        if self.pending.is_some() {
            return;
        }
        if self.buffer.is_empty() {
            // From zeroed pages: memory is used only as far as it is read into.
            self.buffer = vec![0; self.buffer_bytes];
        }
        let Some(source) = self.sources.iter_mut().find(|source| source.stream == stream) else { return };
        let Some(reader) = source.reader.as_mut() else { return };
        match reader.read(&mut self.buffer) {
            Ok(0) => source.reader = None,
            Ok(length) => self.write(stream, length),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                self.diagnostics.warn(format_args!("read {}: {error}; given up", source.path.display()));
                source.reader = None;
            }
        }
    }

    /// Repeats a write that failed, when it is time.
    pub(crate) fn retry(&mut self, now: Instant) {
        if let Some(pending) = self.pending.take_if(|pending| pending.retry_at <= now) {
            self.write(pending.stream, pending.length);
            if self.pending.is_none() {
                self.diagnostics.info("the log takes output again");
            }
        }
    }

    /// Closes the log and opens it again by its path.
    pub(crate) fn reopen_log(&mut self) -> Result<(), PumpError> {
        self.log.reopen().map_err(|source| PumpError::OpenLog { source })
    }

    /// Forgets the container: what is still in the FIFOs is taken if the log takes it, then dropped.
    pub(crate) fn close(&mut self) {
        if self.is_reading {
            for stream in [Stream::Stdout, Stream::Stderr] {
                self.on_readable(stream);
            }
        }
        if let Some(pending) = self.pending.take() {
            let bytes = pending.length;
            self.diagnostics.warn(format_args!("{bytes} bytes of output were dropped: the log cannot be written"));
        }
        for source in &mut self.sources {
            source.reader = None;
        }
        self.is_reading = false;
        self.buffer = Vec::new();
    }

    fn write(&mut self, stream: Stream, length: usize) {
        let bytes = self.buffer.get(..length).unwrap_or_default();
        if let Err(error) = self.log.append(stream, clock::wall(), bytes) {
            self.diagnostics.error(&error);
            self.pending = Some(Pending { stream, length, retry_at: clock::monotonic() + RETRY_AFTER });
        }
        if let Some(error) = self.log.take_rotation_error() {
            self.diagnostics.error(&error);
        }
    }
}

impl Source {
    /// Opens our end, then the container's: read-write, so that its writes never meet a pipe without a reader, even if
    /// we die.
    fn open(&mut self) -> Result<File, PumpError> {
        let open = |options: &mut OpenOptions| {
            options
                .custom_flags(OFlag::O_NONBLOCK.bits() | OFlag::O_NOFOLLOW.bits())
                .open(&self.path)
                .map_err(|source| PumpError::Open { path: self.path.clone(), source })
        };
        let reader = open(OpenOptions::new().read(true))?;
        // The container gets a blocking one: O_NONBLOCK belongs to the open file, not to the descriptor.
        let writer = open(OpenOptions::new().read(true).write(true))?;
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_RDWR))
            .map_err(|errno| PumpError::Open { path: self.path.clone(), source: errno.into() })?;
        // Best effort: without it the pipe has 64 KiB and all still works.
        let _smaller_pipe = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        self.reader = Some(reader);
        Ok(writer)
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
    use contd_types::Timestamp;
    use std::cell::RefCell;
    use std::io::Write;

    #[derive(Debug, Default)]
    struct Script {
        taken: Vec<u8>,
        failures: usize,
    }

    #[derive(Debug, Clone, Default)]
    struct ScriptedLog(Rc<RefCell<Script>>);

    impl LogSink for ScriptedLog {
        fn append(&mut self, _: Stream, _: Timestamp, bytes: &[u8]) -> Result<(), LogError> {
            let mut script = self.0.borrow_mut();
            if script.failures > 0 {
                script.failures -= 1;
                return Err(LogError::Write { path: "log".into(), source: io::ErrorKind::StorageFull.into() });
            }
            script.taken.extend_from_slice(bytes);
            Ok(())
        }
        fn reopen(&mut self) -> Result<(), LogError> {
            Ok(())
        }
        fn take_rotation_error(&mut self) -> Option<LogError> {
            None
        }
    }

    fn pump(dir: &Path, log: &ScriptedLog) -> Pump {
        let source = |stream, name: &str| {
            let path = dir.join(name);
            make_fifo(&path).expect("fifo");
            Source { stream, path, reader: None }
        };
        Pump {
            sources: [source(Stream::Stdout, "stdout"), source(Stream::Stderr, "stderr")],
            log: Box::new(log.clone()),
            buffer_bytes: MAX_BUFFER_BYTES,
            buffer: Vec::new(),
            pending: None,
            is_reading: false,
            diagnostics: Rc::new(Diagnostics::open(&dir.join("shim.log"))),
        }
    }

    #[test]
    fn a_full_disk_keeps_the_bytes_and_stops_the_reading_until_it_is_over() {
        let dir = tempfile::tempdir().expect("scratch");
        let log = ScriptedLog::default();
        let mut pump = pump(dir.path(), &log);
        let mut stdio = pump.open().expect("fifos");
        pump.begin();
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
