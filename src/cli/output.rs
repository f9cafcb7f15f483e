//! The two streams of a command: data for programs on the one, words for people on the other.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use contd_protocol::api::LogStream;
use contd_types::{NamespaceId, complete_commands};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cli::error::CliError;

/// Pieces of output that may wait for a slow reader of ours; the next ones stay with the daemon.
const PUMP_PIECES: usize = 4;

/// What a command in a hint needs, to reach what this command reached.
#[derive(Debug)]
pub(crate) struct Way {
    namespace: NamespaceId,
    flags: String,
}

impl Way {
    /// Takes the namespace, and the socket where a flag named it: what comes from the environment comes from there again.
    pub(crate) fn new(namespace: &NamespaceId, address: Option<&Path>) -> Self {
        let flags = address.map(|address| format!("--address {}", quoted(address)));
        Self { namespace: namespace.clone(), flags: flags.unwrap_or_default() }
    }
}

/// Quotes a path for a shell, where it needs that.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    shlex::try_quote(&text).map_or_else(|_nul| text.to_string(), |quoted| quoted.into_owned())
}

type Stream = Arc<Mutex<dyn Write + Send>>;

/// Standard output and standard error, or what a test has put in their place.
#[derive(Clone)]
pub(crate) struct Output {
    out: Stream,
    err: Stream,
    /// Whether a person watches standard error.
    pub(crate) is_err_terminal: bool,
    /// What the commands in hints need; known once the command line is.
    way: Arc<OnceLock<Way>>,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("is_err_terminal", &self.is_err_terminal).finish_non_exhaustive()
    }
}

impl Output {
    /// Takes the streams of this process.
    pub(crate) fn of_process() -> Self {
        let is_err_terminal = io::stderr().is_terminal();
        let way = Arc::default();
        Self { out: Arc::new(Mutex::new(io::stdout())), err: Arc::new(Mutex::new(io::stderr())), is_err_terminal, way }
    }

    /// Takes other streams; nobody watches.
    #[cfg(test)]
    pub(crate) fn new(out: impl Write + Send + 'static, err: impl Write + Send + 'static) -> Self {
        let way = Arc::default();
        Self { out: Arc::new(Mutex::new(out)), err: Arc::new(Mutex::new(err)), is_err_terminal: false, way }
    }

    /// Says how the commands in hints reach what this command reaches; the first word stands.
    pub(crate) fn set_way(&self, way: Way) {
        self.way.get_or_init(|| way);
    }

    /// Completes the commands of a hint.
    pub(crate) fn complete(&self, hint: &str) -> String {
        self.way.get().map_or_else(|| hint.to_owned(), |way| complete_commands(hint, Some(&way.namespace), &way.flags))
    }

    /// Writes data.
    pub(crate) fn data(&self, bytes: &[u8]) -> Result<(), CliError> {
        write(&self.out, bytes).map_err(|source| CliError::Output { source })
    }

    /// Writes one line of data.
    pub(crate) fn line(&self, text: &str) -> Result<(), CliError> {
        self.data(format!("{text}\n").as_bytes())
    }

    /// Tells people something. When nobody can be told, there is nobody to be told that either.
    pub(crate) fn tell(&self, text: &str) {
        drop(write(&self.err, text.as_bytes()));
    }
}

fn write(stream: &Stream, bytes: &[u8]) -> io::Result<()> {
    let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
    stream.write_all(bytes)?;
    stream.flush()
}

/// Carries a container's output to ours on a thread, so that a reader of ours that is stuck delays no signal.
#[derive(Debug)]
pub(crate) struct Pump {
    pieces: mpsc::Sender<(LogStream, Vec<u8>)>,
    thread: JoinHandle<io::Result<()>>,
}

impl Pump {
    /// Begins; needs a tokio runtime.
    pub(crate) fn start(output: &Output) -> Self {
        let (pieces, mut waiting) = mpsc::channel::<(LogStream, Vec<u8>)>(PUMP_PIECES);
        let (out, err) = (Arc::clone(&output.out), Arc::clone(&output.err));
        let thread = tokio::task::spawn_blocking(move || {
            while let Some((stream, bytes)) = waiting.blocking_recv() {
                match stream {
                    LogStream::Stdout => write(&out, &bytes)?,
                    LogStream::Stderr => write(&err, &bytes)?,
                }
            }
            Ok(())
        });
        Self { pieces, thread }
    }

    /// Waits for room for one piece. Cancellation-safe. `None` when our reader is gone: [`Self::finish`] tells why.
    pub(crate) async fn room(&self) -> Option<mpsc::Permit<'_, (LogStream, Vec<u8>)>> {
        self.pieces.reserve().await.ok()
    }

    /// Waits until all is written.
    ///
    /// # Errors
    /// [`CliError::Output`] when our reader has gone.
    pub(crate) async fn finish(self) -> Result<(), CliError> {
        drop(self.pieces);
        let result = self.thread.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        result.map_err(|source| CliError::Output { source })
    }
}
