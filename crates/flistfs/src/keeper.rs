//! The keeper: a process with one thread that loads the flist, holds all that must not be lost, and forks the process that serves.
//!
//! ```text
//! contd-flistfs --dir DIR ──► keeper ── fork ──► server       /dev/fuse, the lock and the socket are open in both
//!                               ▲                  │
//!          server died: fork another                keeper died: start its successor (`handover`)
//! ```
//!
//! The tree is in the keeper's memory before it forks, so a new server has it at once and the two share its pages. Whoever
//! of the two is killed, the mount lives, and the kernel keeps what was asked until the next server has answered it. When
//! the server cannot be kept alive, the keeper ends, too: the kernel then fails all requests of this mount, and of no other.

use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contd_flist::Flist;
use contd_lease::LeaseDir;
use contd_process::{Fork, ReadyPipe, fork};
use contd_protocol::flistfs::{LAST_WORDS_FILE, ServeSpec};
use contd_types::{ApiError, Backoff};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tracing::{error, info, warn};

use crate::error::ServeError;
use crate::handover;
use crate::launch::Start;
use crate::log::BoundedLog;
use crate::mount_state::{self, MountState, SOCKET_FILE};
use crate::serve::{self, SERVES};

/// The name that `ps` shows for the keeper; its command line is that of the server.
const NAME: &std::ffi::CStr = c"flistfs-keeper";

/// How often a server may fail in a row before its mount is given up: with [`FAILURE_PAUSES`] that takes some ten seconds,
/// in which a passing trouble is over, and those who wait for an answer get an error then.
const MAX_FAILURES: u32 = 10;

/// The pauses before another one after a failure.
const FAILURE_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(2));

/// How often a server may be killed before it serves, without one that serves in between; with the pauses half a minute.
const MAX_KILLED_EARLY: u32 = 200;
/// How many of them are replaced without a pause.
const FREE_KILLED_EARLY: u32 = 20;
/// The pause before each further one.
const KILLED_EARLY_PAUSE: Duration = Duration::from_millis(200);

/// How long a server may stand still (SIGSTOP) before it is ended and another goes on: one second in milliseconds.
const STILL_GRACE: u16 = 1000;

/// A server that has lived so long has not failed in a row with the one before.
const HEALTHY_LIFE: Duration = Duration::from_secs(60);

/// Serves what the lease directory says until it is shut down, terminated, or the file system is gone. Returns in the keeper
/// and in each process that it forks.
///
/// # Errors
/// The failure as it travels; it is also in the log, if there is one.
pub(crate) fn run(dir: &Path, start: Start, ready_pipe: &ReadyPipe) -> Result<(), ApiError> {
    let log = BoundedLog::open(dir)
        .map_err(|source| ApiError::from_error(&ServeError::Log { dir: dir.to_owned(), source }))?;
    let subscriber = tracing_subscriber::fmt().with_writer(log).with_ansi(false).with_target(false).finish();
    // There is no other: this process has only just begun.
    let _is_first = tracing::subscriber::set_global_default(subscriber);
    keep(dir, start, ready_pipe).map_err(|error| {
        let error = ApiError::from_error(&error);
        error!(%error, "the flist server ends");
        error
    })
}

fn keep(dir: &Path, start: Start, ready_pipe: &ReadyPipe) -> Result<(), ServeError> {
    // First of all: threads and children inherit the mask, and an early SIGTERM must not kill between mount and serving.
    let signals = catch_signals()?;
    mount_state::check_not_ending(dir)?;
    let spec = mount_state::read_spec(dir)?;
    let (state, flist) = match start {
        Start::Fresh => {
            let claimed = LeaseDir::new(dir).claim(env!("CARGO_PKG_VERSION"));
            let lease = claimed.map_err(|source| ServeError::Lease { source })?;
            let flist = open(&spec)?;
            (MountState::create(dir, spec, lease)?, flist)
        }
        Start::Succeed => {
            let offer = handover::ask(dir)?;
            let flist = open(&spec)?;
            // Everything that could keep a server from serving is tried before the one that serves is ended.
            serve::rehearse(dir, &spec, &flist)?;
            (MountState::take_over(dir, spec, offer)?, flist)
        }
    };
    Keeper { state, flist, signals, failures: 0, killed_early: 0 }.run(ready_pipe)
}

fn open(spec: &ServeSpec) -> Result<Arc<Flist>, ServeError> {
    let path = &spec.flist;
    let opened = contd_flist_legacy::open(path);
    opened.map(Arc::new).map_err(|error| ServeError::Flist { path: path.clone(), source: Box::new(error) })
}

/// Blocks the signals that ask us to end and takes them as data; the rest of the usual ones is ignored by blocking.
fn catch_signals() -> Result<SignalFd, ServeError> {
    let failed = |errno: Errno| ServeError::Wait { source: errno.into() };
    let mut blocked = SigSet::empty();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGPIPE,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGCHLD,
    ] {
        blocked.add(signal);
    }
    blocked.thread_block().map_err(failed)?;
    let mut taken = SigSet::empty();
    taken.add(Signal::SIGTERM);
    taken.add(Signal::SIGCHLD);
    SignalFd::with_flags(&taken, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)
}

/// Takes all signals that have come; `true` when we are asked to end.
pub(crate) fn take_signals(signals: &SignalFd) -> bool {
    let mut is_asked_to_end = false;
    while let Ok(Some(signal)) = signals.read_signal() {
        is_asked_to_end |= i32::try_from(signal.ssi_signo) == Ok(Signal::SIGTERM as i32);
    }
    is_asked_to_end
}

struct Keeper {
    state: MountState,
    flist: Arc<Flist>,
    signals: SignalFd,
    /// Servers that failed in a row.
    failures: u32,
    /// Servers that were killed before they served, in a row.
    killed_early: u32,
}

/// One server's life.
struct Life {
    status: WaitStatus,
    has_served: bool,
    lasted: Duration,
}

impl Keeper {
    fn run(mut self, ready_pipe: &ReadyPipe) -> Result<(), ServeError> {
        let mut is_first = true;
        loop {
            let (ours, theirs) = UnixStream::pair().map_err(|source| ServeError::Fork { source })?;
            match fork().map_err(|source| ServeError::Fork { source })? {
                Fork::Child => {
                    drop(ours);
                    let Self { state, flist, signals, .. } = self;
                    let ready_pipe = is_first.then_some(ready_pipe);
                    return serve::run(state, flist, &signals, &theirs, ready_pipe);
                }
                Fork::Parent(child) => {
                    drop(theirs);
                    let life = self.accompany(child, ours)?;
                    if !self.is_another_wanted(&life, is_first)? {
                        return Ok(());
                    }
                    is_first = false;
                }
            }
        }
    }

    /// Waits for the end of a server, passing on what it is to be told. One that stands still is ended.
    #[expect(clippy::disallowed_methods, reason = "how long a real process lives; no decision that a test would steer")]
    fn accompany(&self, child: Pid, link: UnixStream) -> Result<Life, ServeError> {
        // How `ps` shows us is no reason to fail.
        let _only_a_name = prctl::set_name(NAME);
        let failed = |errno: Errno| ServeError::Wait { source: errno.into() };
        let began = Instant::now();
        let mut stands_still = false;
        let status = loop {
            // SIGCHLD is blocked since before the fork, so no end comes between this look and the poll.
            match waitpid(child, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED | WaitPidFlag::WCONTINUED)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
                Ok(WaitStatus::Stopped(..)) => stands_still = true,
                Ok(WaitStatus::Continued(_)) => stands_still = false,
                Ok(ended) => break ended,
                Err(errno) => return Err(failed(errno)),
            }
            let timeout = if stands_still { PollTimeout::from(STILL_GRACE) } else { PollTimeout::NONE };
            match poll(&mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) => {
                    warn!("the process that serves stands still, ending it");
                    // Not reaped yet, so its pid is its own.
                    kill(child, Signal::SIGKILL).map_err(failed)?;
                    stands_still = false;
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
            if take_signals(&self.signals) {
                // As above. If it has just ended there is nobody to tell.
                let _told = kill(child, Signal::SIGTERM);
            }
        };
        Ok(Life { status, has_served: has_served(link), lasted: began.elapsed() })
    }

    /// Judges a life that has ended. A server that says it is done is not replaced, nor is the first one if it never served.
    fn is_another_wanted(&mut self, life: &Life, is_first: bool) -> Result<bool, ServeError> {
        if matches!(life.status, WaitStatus::Exited(_, 0)) {
            // It has done so itself, unless it could not.
            let _usually_gone = std::fs::remove_file(self.state.dir.join(SOCKET_FILE));
            info!("ended");
            return Ok(false);
        }
        if is_first && !life.has_served && self.state.predecessors.is_empty() {
            // It has told why. There is no one above the mount yet.
            crate::mount::abandon(&self.state.spec.mount_point);
            return Ok(false);
        }
        mount_state::check_not_ending(&self.state.dir)?;
        if matches!(life.status, WaitStatus::Signaled(_, Signal::SIGKILL, _)) {
            warn!(status = ?life.status, "the process that serves was killed, another goes on in its place");
            // That is no fault of its own. But one that is killed whenever it begins (out of memory) is given up some day.
            self.killed_early = if life.has_served { 0 } else { self.killed_early + 1 };
            if self.killed_early < MAX_KILLED_EARLY {
                if self.killed_early > FREE_KILLED_EARLY {
                    std::thread::park_timeout(KILLED_EARLY_PAUSE);
                }
                return Ok(true);
            }
            self.failures = MAX_FAILURES;
        } else {
            self.failures = if life.lasted >= HEALTHY_LIFE { 1 } else { self.failures + 1 };
        }
        error!(status = ?life.status, failures = self.failures, "the process that serves failed");
        if self.failures >= MAX_FAILURES {
            let error = ServeError::GivenUp { last: describe(life.status) };
            self.leave_word(&error);
            return Err(error);
        }
        let (min, max) = FAILURE_PAUSES;
        std::thread::park_timeout(Backoff::new(min, max).delay(self.failures, 0));
        Ok(true)
    }

    /// Writes down why there will be no server any more, for the daemon to tell.
    fn leave_word(&self, error: &ServeError) {
        let path = self.state.dir.join(LAST_WORDS_FILE);
        let text = serde_json::to_vec(&ApiError::from_error(error)).unwrap_or_default();
        if let Err(error) = contd_durable::replace_volatile(&contd_durable::RealFs, &path, &text, 0o600) {
            warn!(path = %path.display(), error = %contd_types::one_line(&error), "the last words cannot be written");
        }
    }
}

fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exit code {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("signal {signal}"),
        other => format!("{other:?}"),
    }
}

/// Reads whether the other end, which is closed now, has said that it serves.
fn has_served(mut link: UnixStream) -> bool {
    let mut word = [0; 1];
    loop {
        match link.read(&mut word) {
            Ok(len) => return len == 1 && word == SERVES,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_reset) => return false,
        }
    }
}
