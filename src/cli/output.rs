//! The two streams of a command: standard output with data for programs, standard error with messages for people.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use contd_protocol::api::LogStream;
use contd_types::{NamespaceId, complete_commands};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cli::error::CliError;

/// How many pieces of output wait for a slow reader; later ones stay with the daemon.
const PUMP_PIECES: usize = 4;

/// The flags that a command in a hint needs to reach the same daemon and namespace.
#[derive(Debug)]
pub(crate) struct HintFlags {
    namespace: NamespaceId,
    flags: String,
}

impl HintFlags {
    /// Keeps the namespace, and the socket if a flag named it: the environment still applies to the next command.
    pub(crate) fn new(namespace: &NamespaceId, address: Option<&Path>) -> Self {
        let flags = address.map(|address| format!("--address {}", quoted(address)));
        Self { namespace: namespace.clone(), flags: flags.unwrap_or_default() }
    }
}

/// Quotes a path for a shell, if necessary.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    shlex::try_quote(&text).map_or_else(|_nul| text.to_string(), Cow::into_owned)
}

type Stream = Arc<Mutex<dyn Write + Send>>;

/// Standard output and standard error, or a test's replacement.
#[derive(Clone)]
pub(crate) struct Output {
    out: Stream,
    err: Stream,
    /// Whether standard error is a terminal.
    pub(crate) is_err_terminal: bool,
    /// The flags for commands in hints; set once the command line is parsed.
    hints: Arc<OnceLock<HintFlags>>,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("is_err_terminal", &self.is_err_terminal).finish_non_exhaustive()
    }
}

impl Output {
    /// Returns the streams of this process.
    pub(crate) fn of_process() -> Self {
        Self { is_err_terminal: io::stderr().is_terminal(), ..Self::new(io::stdout(), io::stderr()) }
    }

    /// Makes an output of two streams, which are no terminal.
    pub(crate) fn new(out: impl Write + Send + 'static, err: impl Write + Send + 'static) -> Self {
        let (out, err) = (Arc::new(Mutex::new(out)), Arc::new(Mutex::new(err)));
        Self { out, err, is_err_terminal: false, hints: Arc::default() }
    }

    /// Sets the flags for commands in hints; only the first call counts.
    pub(crate) fn set_hint_flags(&self, hints: HintFlags) {
        self.hints.get_or_init(|| hints);
    }

    /// Adds these flags to the commands of a hint.
    pub(crate) fn complete(&self, hint: &str) -> String {
        self.hints.get().map_or_else(|| hint.to_owned(), |it| complete_commands(hint, Some(&it.namespace), &it.flags))
    }

    /// Writes data to standard output.
    pub(crate) fn data(&self, bytes: &[u8]) -> Result<(), CliError> {
        write(&self.out, bytes).map_err(|source| CliError::Output { source })
    }

    /// Writes one line to standard output.
    pub(crate) fn line(&self, text: &str) -> Result<(), CliError> {
        self.data(format!("{text}\n").as_bytes())
    }

    /// Writes a message to standard error. A failure is ignored: there is no other place to report it.
    pub(crate) fn tell(&self, text: &str) {
        drop(write(&self.err, text.as_bytes()));
    }
}

fn write(stream: &Stream, bytes: &[u8]) -> io::Result<()> {
    let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
    stream.write_all(bytes)?;
    stream.flush()
}

/// Copies a container's output to ours on a thread, so that a blocked reader of ours delays no signal.
#[derive(Debug)]
pub(crate) struct Pump {
    pieces: mpsc::Sender<(LogStream, Vec<u8>)>,
    thread: JoinHandle<io::Result<()>>,
}

impl Pump {
    /// Starts the thread; needs a tokio runtime.
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

    /// Waits for room for one piece. Cancellation-safe. `None` when our output is closed: [`Self::finish`] returns the
    /// error.
    pub(crate) async fn room(&self) -> Option<mpsc::Permit<'_, (LogStream, Vec<u8>)>> {
        self.pieces.reserve().await.ok()
    }

    /// Waits until all is written.
    ///
    /// # Errors
    /// [`CliError::Output`] when our output is closed.
    pub(crate) async fn finish(self) -> Result<(), CliError> {
        drop(self.pieces);
        let result = self.thread.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        result.map_err(|source| CliError::Output { source })
    }
}
