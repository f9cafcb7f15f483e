//! Whole command lines against a scripted daemon: tests the request, the output and the exit code.

mod attached;
mod cache;
mod flists;
mod local;
pub(crate) mod samples;
mod usage;
mod verbs;

use std::future::Future;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc as std_mpsc};

use contd_client::testing::{Caller, FakeDaemon};
use contd_protocol::api::{Request, Response};
use contd_types::{ApiError, Clock, ErrorKind, Signal, Timestamp};
use tokio::sync::{mpsc, oneshot};

use super::host::Host;
use super::output::Output;
use super::{DaemonArgs, execute};

/// A daemon on a thread of its own, at a socket of its own. Ends when dropped.
struct Daemon {
    dir: tempfile::TempDir,
    fake: Arc<FakeDaemon>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Daemon {
    fn scripted<F, A>(script: F) -> Self
    where
        F: Fn(Request, Caller) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Response, ApiError>> + Send + 'static,
    {
        let dir = tempfile::tempdir().expect("temporary directory");
        let socket = dir.path().join("s");
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std_mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let fake = Arc::new(FakeDaemon::listen(&socket, script).expect("listens"));
                ready.send(fake).expect("the test waits");
                stopped.await.ok();
            });
        });
        let fake = is_ready.recv().expect("the daemon listens");
        Self { dir, fake, stop: Some(stop), thread: Some(thread) }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn requests(&self) -> Vec<Request> {
        self.fake.requests()
    }

    /// Runs a command line against this daemon.
    fn contd(&self, words: &str) -> Outcome {
        Shell::new().contd(&format!("--address {} {words}", self.socket().display()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the daemon ended well");
        }
    }
}

/// The outcome of a command line.
#[derive(Debug)]
struct Outcome {
    code: u8,
    out: String,
    err: String,
}

impl Outcome {
    #[track_caller]
    fn succeeded(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "it wrote {:?}", self.out);
        self.out
    }
}

/// The surroundings of a command line.
struct Shell {
    signals: Arc<Mutex<Option<mpsc::Receiver<Signal>>>>,
}

impl Shell {
    fn new() -> Self {
        Self { signals: Arc::new(Mutex::new(None)) }
    }

    fn with_signals(signals: mpsc::Receiver<Signal>) -> Self {
        Self { signals: Arc::new(Mutex::new(Some(signals))) }
    }

    fn contd(&self, words: &str) -> Outcome {
        let (out, err) = (Buffer::default(), Buffer::default());
        let code = self.run(words, Output::new(out.clone(), err.clone()));
        Outcome { code, out: out.text(), err: err.text() }
    }

    fn run(&self, words: &str, output: Output) -> u8 {
        let signals = Arc::clone(&self.signals);
        let host = Host {
            output,
            clock: Box::new(StoppedClock),
            env: |key| (key == "HOME").then(|| "/root".to_owned()),
            cwd: "/home/me".into(),
            catch_signals: Box::new(move || {
                Ok(signals.lock().expect("unpoisoned").take().unwrap_or_else(|| mpsc::channel(1).1))
            }),
        };
        execute(std::iter::once("contd").chain(words.split_whitespace()), &host, no_daemon)
    }
}

/// Shows the arguments that the daemon would get.
fn no_daemon(args: &DaemonArgs) -> Result<(), ApiError> {
    Err(ApiError::new(ErrorKind::Unsupported, format!("{args:?}")).with_hint("this is a test"))
}

#[derive(Debug)]
struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        samples::NOW
    }
}

/// A shared buffer as a stream.
#[derive(Debug, Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("unpoisoned").clone()).expect("text")
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("unpoisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stream whose reader is gone.
struct ClosedPipe;

impl Write for ClosedPipe {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
