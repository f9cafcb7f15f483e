//! The holder of a node, seen from the daemon: it starts the shims, and is started by the first start that finds none.
//!
//! Where no holder can be had, shims are started without one: then only a death of both, shim and daemon, may cost an exit code.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use contd_lease::{LeaseDir, LeaseError, LeaseState};
use contd_protocol::holder::{ANSWER_BYTES, Answer, DIR, Request, files};
use contd_protocol::shim::AGENT;
use contd_types::one_line;
use nix::errno::Errno;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Command;
use tokio::sync::Mutex;

use super::launch::{Captured, captured, end_process_of, run_captured, search_path};
use crate::deadline;

/// How often a holder is looked for or started: another daemon's may just begin or end.
const MAX_TRIES: u32 = 200;

/// How often one is started that then does not answer.
const MAX_STARTS: u32 = 3;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a holder may take to answer: it does nothing but fork. One that takes longer stands still and is replaced, which costs
/// nothing but time, so this is for a machine that is very busy.
const STANDS_STILL: Duration = Duration::from_secs(5);

/// The holder of one run directory.
#[derive(Debug)]
pub(super) struct Holder {
    lease: LeaseDir,
    program: PathBuf,
    /// The cgroup for the holder, and so for all shims that it starts; `None` leaves them in that of their daemon.
    cgroup: Option<PathBuf>,
    /// The connection that holds the holder; it lives for as long as that is open.
    held: Mutex<Option<UnixStream>>,
    /// The pid of the holder at that connection.
    pid: AtomicI32,
}

impl Holder {
    pub(super) fn new(run_dir: &Path, program: &Path, cgroup: Option<PathBuf>) -> Self {
        Self {
            lease: LeaseDir::new(run_dir.join(DIR)),
            program: program.to_owned(),
            cgroup,
            held: Mutex::default(),
            pid: AtomicI32::new(0),
        }
    }

    /// Sees to it that there is a holder before the first shim is started, and that it is of this version.
    pub(super) async fn be_there(&self) {
        if let Err(error) = self.hold().await {
            tracing::warn!(%error, "no holder of shims");
        } else if let Err(error) = self.upgrade().await {
            tracing::warn!(%error, "the holder of shims stays of another version");
        }
    }

    /// Has a holder of another version execute our program in its place: its children stay its own.
    async fn upgrade(&self) -> io::Result<()> {
        let program = self.program.as_os_str().as_bytes().to_vec();
        let request = Request::HandOver { program };
        for _ in 0..MAX_TRIES {
            let lease = self.lease.clone();
            let look = move || lease.probe().map_err(io::Error::other);
            let LeaseState::Held(found) = tokio::task::spawn_blocking(look).await.map_err(io::Error::other)?? else {
                return Ok(());
            };
            if found.binary_version == AGENT {
                return self.hold().await;
            }
            match self.ask(&request, &[]).await {
                // It starts a shim in this moment, or has executed the program and does not listen yet.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy || is_absent(&error) => {}
                Err(error) if is_cut_off(&error) => {
                    tracing::info!(from = %found.binary_version, "holder of shims upgraded");
                }
                Err(error) => return Err(error),
                Ok(_) => return Err(Errno::EPROTO.into()),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Returns the pid of the holder if it lives. A process that another one has started has lost its holder.
    pub(super) fn pid(&self) -> Option<i32> {
        // When the lock is taken somebody is connecting: the pid changes only when that is done.
        let lives = self.held.try_lock().map_or(true, |held| held.as_ref().is_some_and(is_open));
        lives.then(|| self.pid.load(Ordering::Relaxed))
    }

    /// Runs a program of ours to its end, as a child of the holder: processes that it leaves behind are the holder's. Its
    /// environment is empty but for `PATH`, and its standard output is nowhere. It is killed when it takes too long or the
    /// caller drops this.
    pub(super) async fn run(&self, words: &[&OsStr], stdin: Option<OwnedFd>, limit: Duration) -> io::Result<Captured> {
        if let Err(error) = self.hold().await {
            tracing::warn!(%error, "no holder of shims, starting one without it");
            return self.run_alone(words, stdin, limit).await;
        }
        let stdin = stdin.map_or_else(null, Ok)?;
        let (said, stderr) = io::pipe()?;
        let path = search_path();
        let all = [path.as_os_str()].into_iter().chain(words.iter().copied());
        let request = Request::Start { words: all.map(|word| word.as_bytes().to_vec()).collect() };
        let fds = [stdin, stderr.into()];
        let mut connection = match self.ask(&request, &fds).await {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.replace().await?;
                self.ask(&request, &fds).await?.0
            }
            // It died in this moment, or becomes another program: the end of the connection that holds it may not be seen yet.
            Err(error) if is_absent(&error) || is_cut_off(&error) => {
                *self.held.lock().await = None;
                self.hold().await?;
                self.ask(&request, &fds).await?.0
            }
            asked => asked?.0,
        };
        drop(fds);
        let said = Receiver::from_owned_fd(said.into())?;
        let (answer, stderr) = captured(answer(&mut connection), said, limit).await?;
        match answer {
            Answer::Ended(status) => Ok(Captured { status: ExitStatus::from_raw(status), stderr }),
            Answer::Failed(_) | Answer::Holds(_) | Answer::Started(_) => Err(Errno::EPROTO.into()),
        }
    }

    async fn run_alone(&self, words: &[&OsStr], stdin: Option<OwnedFd>, limit: Duration) -> io::Result<Captured> {
        let [program, arguments @ ..] = words else { return Err(io::ErrorKind::InvalidInput.into()) };
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::null()).current_dir("/");
        run_captured(&mut command, stdin.map_or_else(Stdio::null, Stdio::from), limit).await
    }

    /// Sees to it that there is a holder and that it stays: connects, or starts one.
    async fn hold(&self) -> io::Result<()> {
        let mut held = self.held.lock().await;
        if held.as_ref().is_some_and(is_open) {
            return Ok(());
        }
        *held = None;
        let mut starts = 0;
        for _ in 0..MAX_TRIES {
            match self.ask(&Request::Hold, &[]).await {
                Ok((connection, Answer::Holds(pid))) => {
                    self.take_in(pid).await;
                    *held = Some(connection);
                    self.pid.store(pid, Ordering::Relaxed);
                    return Ok(());
                }
                Ok(_) => return Err(Errno::EPROTO.into()),
                Err(error) if is_absent(&error) && starts < MAX_STARTS => starts += u32::from(self.start().await?),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => self.end_it().await?,
                // It was just ending.
                Err(error) if is_cut_off(&error) => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Has a holder, which has just said its pid, in the cgroup where it belongs, before it starts anything. Shims that it has
    /// already stay where they are.
    async fn take_in(&self, pid: i32) {
        let Some(cgroup) = self.cgroup.clone() else { return };
        let moved = tokio::task::spawn_blocking(move || contd_cgroup::Cgroup::take_in(&cgroup, pid)).await;
        // Only the counting is lost.
        let error = match moved {
            Ok(Ok(())) => return,
            Ok(Err(error)) => one_line(&error),
            Err(error) => one_line(&error),
        };
        tracing::warn!(error, "the holder of shims is not in the unit of containers");
    }

    /// Has another holder in the place of one that stands still.
    async fn replace(&self) -> io::Result<()> {
        *self.held.lock().await = None;
        self.end_it().await?;
        self.hold().await
    }

    /// Ends a holder that stands still; its children are init's from then on.
    async fn end_it(&self) -> io::Result<()> {
        tracing::warn!("the holder of shims stands still, it is replaced");
        let lease = self.lease.clone();
        let end = move || {
            let LeaseState::Held(lease) = lease.probe().map_err(io::Error::other)? else { return Ok(()) };
            let is_dead = end_process_of(&lease).map_err(io::Error::other)?;
            if is_dead { Ok(()) } else { Err(io::Error::other("it was killed and does not end")) }
        };
        tokio::task::spawn_blocking(end).await.map_err(io::Error::other)?
    }

    /// Starts a holder; `false` when another process is at it.
    async fn start(&self) -> io::Result<bool> {
        let (lease, socket) = (self.lease.clone(), self.socket());
        match tokio::task::spawn_blocking(move || lease.reserve("holder", &socket)).await.map_err(io::Error::other)? {
            Ok(()) => {}
            // One begins, or ends.
            Err(LeaseError::Held { .. }) => {
                tokio::time::sleep(PAUSE).await;
                return Ok(false);
            }
            Err(error) => return Err(io::Error::other(error)),
        }
        let words = [self.program.as_os_str(), OsStr::new("--hold"), self.lease.path().as_os_str()];
        match self.run_alone(&words, None, deadline::SPAWN).await? {
            Captured { status, .. } if status.success() => Ok(true),
            Captured { status, stderr } => Err(io::Error::other(format!("it ended with {status}: {stderr}"))),
        }
    }

    /// Sends a request and waits for its first answer.
    ///
    /// # Errors
    /// `TimedOut` when the holder stands still, and what it has answered itself.
    async fn ask(&self, request: &Request, fds: &[OwnedFd]) -> io::Result<(UnixStream, Answer)> {
        let bytes = request.to_bytes().ok_or_else(|| io::Error::from(Errno::E2BIG))?;
        let stands_still = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {STANDS_STILL:?}"));
        let mut connection = match UnixStream::connect(self.socket()).await {
            // So many have called already and were not accepted.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(stands_still()),
            connected => connected?,
        };
        let fds: Vec<_> = fds.iter().map(OwnedFd::as_fd).collect();
        contd_descriptors::send(&connection, &bytes, &fds)?;
        let answer = tokio::time::timeout(STANDS_STILL, answer(&mut connection)).await;
        match answer.map_err(|_elapsed| stands_still())?? {
            Answer::Failed(errno) => Err(io::Error::from_raw_os_error(errno)),
            answer => Ok((connection, answer)),
        }
    }

    fn socket(&self) -> PathBuf {
        self.lease.path().join(files::SOCKET)
    }
}

async fn answer(connection: &mut UnixStream) -> io::Result<Answer> {
    let mut bytes = [0; ANSWER_BYTES];
    connection.read_exact(&mut bytes).await?;
    Answer::from_bytes(bytes).ok_or_else(|| Errno::EPROTO.into())
}

fn null() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/dev/null")?.into())
}

/// Tells whether the holder at the other end lives: it says nothing more.
fn is_open(held: &UnixStream) -> bool {
    matches!(held.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Tells whether the other end has closed the connection.
fn is_cut_off(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

/// Tells whether nobody listens.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
