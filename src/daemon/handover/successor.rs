//! The successor's side of a handover: takes the lock, or asks the daemon that holds it, or ends that daemon.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use contd_descriptors::Named;
use contd_lease::{ProcessError, ProcessIdentity};
use contd_protocol::handover::{HandoverSocket, Request, Word};
use contd_protocol::{Kind, Refusal};
use contd_session::{Blocking, SessionError};
use contd_types::ErrorKind;
use nix::libc;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{ANSWER_TIMEOUT, REST_TIMEOUT, socket};
use crate::daemon::lock::{self, Holder, LockError, NodeLock, Role};

/// Between two looks at a lock that is about to come free.
const LOOK: Duration = Duration::from_millis(2);
/// How long the kernel may take to end a process that was killed.
const KILLED_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a daemon could not take over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandoverError {
    /// The lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The predecessor says no.
    #[error("take over from the daemon on {}", run_dir.display())]
    Refused {
        /// The run directory.
        run_dir: PathBuf,
        /// Its reason.
        source: Refusal,
    },
    /// The predecessor does not let go, and does not say who it is: one of an older release.
    #[error("take over from the daemon on {}: it does not answer, and its lock does not say who it is", run_dir.display())]
    Unknown {
        /// The run directory.
        run_dir: PathBuf,
    },
    /// It cannot be ended.
    #[error("end the daemon with process id {pid}, which does not let go of {}", run_dir.display())]
    End {
        /// Its process id.
        pid: i32,
        /// The run directory.
        run_dir: PathBuf,
        /// Why.
        source: ProcessError,
    },
    /// It was killed, and is still there.
    #[error("end the daemon with process id {pid}: it is still there {KILLED_TIMEOUT:?} after a SIGKILL")]
    Undead {
        /// Its process id.
        pid: i32,
    },
}

impl HandoverError {
    /// Classifies the failure for programs.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Lock(LockError::Held { .. }) => ErrorKind::AlreadyExists,
            Self::Lock(LockError::Open { .. }) => ErrorKind::PermissionDenied,
            Self::Refused { source: Refusal::NoCommonVersion { .. }, .. } => ErrorKind::VersionMismatch,
            Self::Refused { .. } => ErrorKind::PermissionDenied,
            Self::Unknown { .. } | Self::Undead { .. } => ErrorKind::Unavailable,
            Self::End { .. } => ErrorKind::Internal,
        }
    }

    /// Says what to do next.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Lock(LockError::Held { .. }) => {
                "start this one without --no-takeover, or give it its own directories and address"
            }
            Self::Lock(LockError::Open { .. }) => "run contd as root, or choose other directories",
            Self::Refused { .. } | Self::Unknown { .. } => "stop that one first; its containers run on",
            Self::End { source, .. } => source.hint(),
            Self::Undead { .. } => "it waits for the kernel: look at its stack in /proc; its containers run on",
        }
    }
}

/// The lock of a daemon, and what its predecessor handed over.
#[derive(Debug)]
pub(crate) struct Entered {
    /// The proof.
    pub(crate) lock: NodeLock,
    /// The listening socket of the predecessor.
    pub(crate) listener: Option<OwnedFd>,
    /// The descriptors that it kept of running containers.
    pub(crate) kept: Vec<Named>,
    /// Where its service manager hears.
    pub(crate) notify_socket: Option<PathBuf>,
}

/// One predecessor: until when it may take its time, and how far it was asked.
#[derive(Debug)]
struct Round {
    /// As far as its lock says.
    process: Option<ProcessIdentity>,
    until: Instant,
    /// It has heard us, or there is nothing more to ask: only the lock is waited for.
    is_asked: bool,
    /// It was killed: its lock comes free, or somebody else holds it without saying so.
    is_ended: bool,
}

impl Round {
    fn new(process: Option<ProcessIdentity>) -> Self {
        Self { process, until: Instant::now() + REST_TIMEOUT, is_asked: false, is_ended: false }
    }
}

/// The outcome of asking.
enum Asked {
    /// It has handed over and is at rest, or has ended meanwhile.
    Given,
    /// It does not listen: it is about to come up, or to end.
    NotYet,
    /// It is there and says nothing.
    Silent,
}

/// Becomes the daemon of a run directory; blocks until then. Takes over from one that runs, if `may_take_over`.
///
/// # Errors
/// [`HandoverError`]; one that runs goes on then, unless it had handed over already and is ending by itself.
pub(crate) fn enter(run_dir: &Path, agent: &str, may_take_over: bool) -> Result<Entered, HandoverError> {
    let mut given = Given::default();
    // Of two who come at once, one waits until the other is the daemon, and asks that one.
    let next = acquire(run_dir, Role::Next, may_take_over, &mut given, |_given| Ok(Asked::NotYet))?;
    let lock = acquire(run_dir, Role::Daemon, may_take_over, &mut given, |given| ask(run_dir, agent, given))?;
    drop(next);
    let Given { listener, kept, notify_socket } = given;
    Ok(Entered { lock, listener, kept, notify_socket })
}

/// Takes a lock; asks whoever holds it, and ends one that stands still.
fn acquire(
    run_dir: &Path,
    role: Role,
    may_wait: bool,
    given: &mut Given,
    ask: impl Fn(&mut Given) -> Result<Asked, HandoverError>,
) -> Result<NodeLock, HandoverError> {
    let mut round: Option<Round> = None;
    loop {
        match NodeLock::take(run_dir, role) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Held { .. }) if may_wait => {}
            Err(error) => return Err(error.into()),
        }
        let holder = lock::holder(run_dir, role);
        let process = holder.as_ref().map(|holder| holder.process);
        let mut current = round.take().filter(|round| round.process == process).unwrap_or_else(|| Round::new(process));
        if !current.is_asked {
            match ask(given)? {
                Asked::Given => current.is_asked = true,
                Asked::NotYet => {}
                Asked::Silent => current.until = Instant::now(),
            }
        }
        if Instant::now() >= current.until {
            if current.is_ended {
                return Err(HandoverError::Unknown { run_dir: run_dir.to_owned() });
            }
            end(run_dir, holder.as_ref(), given)?;
            current.is_ended = true;
            current.until = Instant::now() + ANSWER_TIMEOUT;
        }
        round = Some(current);
        std::thread::sleep(LOOK);
    }
}

/// Everything that predecessors have handed over.
#[derive(Debug, Default)]
struct Given {
    listener: Option<OwnedFd>,
    kept: Vec<Named>,
    notify_socket: Option<PathBuf>,
}

/// Asks whoever listens, and takes what it gives until it is at rest.
fn ask(run_dir: &Path, agent: &str, given: &mut Given) -> Result<Asked, HandoverError> {
    let failed = |error: &SessionError| if error.is_silence() { Asked::Silent } else { Asked::NotYet };
    let stream = match UnixStream::connect(socket(run_dir)) {
        Ok(stream) => stream,
        Err(_not_there) => return Ok(Asked::NotYet),
    };
    let greet = || {
        let mut session = Blocking::<HandoverSocket>::new(stream, ANSWER_TIMEOUT)?;
        session.greet(agent).map(|welcome| (session, welcome))
    };
    let mut session = match greet() {
        Ok((session, welcome)) => {
            info!(predecessor = welcome.agent, "handover begun");
            session
        }
        Err(SessionError::Refused { source }) => {
            return Err(HandoverError::Refused { run_dir: run_dir.to_owned(), source });
        }
        Err(error) => return Ok(failed(&error)),
    };
    let mut hand_over = || -> Result<(), SessionError> {
        session.send(Kind::Call, &Request::TakeOver, &[])?;
        loop {
            match session.next(Kind::Item, "an item")? {
                Word::Listener { notify_socket } => {
                    given.listener = Some(session.descriptor()?);
                    given.notify_socket = notify_socket;
                    info!("the API socket is here; waiting for the predecessor to come to rest");
                    session.be_patient(REST_TIMEOUT)?;
                }
                Word::Kept { names } => {
                    for name in names {
                        given.kept.push(Named { name, fd: session.descriptor()? });
                    }
                }
                Word::Rested => return Ok(()),
            }
        }
    };
    match hand_over() {
        Ok(()) => Ok(Asked::Given),
        Err(error) if error.is_hang_up() && given.listener.is_some() => Ok(Asked::Given),
        Err(error) => Ok(failed(&error)),
    }
}

/// Ends a predecessor that stands still; what it listens with is taken out of it first.
fn end(run_dir: &Path, holder: Option<&Holder>, given: &mut Given) -> Result<(), HandoverError> {
    let unknown = || HandoverError::Unknown { run_dir: run_dir.to_owned() };
    let holder = holder.ok_or_else(unknown)?;
    let pid = holder.process.pid;
    let failed = |source| HandoverError::End { pid, run_dir: run_dir.to_owned(), source };
    // Gone: then its lock comes free by itself.
    let Some(pidfd) = holder.pidfd().map_err(failed)? else { return Ok(()) };
    if let (None, Some(number)) = (&given.listener, holder.listener) {
        match contd_descriptors::take_from(&pidfd, number) {
            Ok(listener) => given.listener = Some(listener),
            Err(error) => warn!(%error, "connections are refused until this daemon listens"),
        }
    }
    warn!(pid, "the daemon that runs does not let go, it is killed; containers run on");
    contd_lease::signal(&pidfd, libc::SIGKILL).map_err(failed)?;
    if contd_lease::wait_dead(&pidfd, KILLED_TIMEOUT).map_err(failed)? {
        Ok(())
    } else {
        Err(HandoverError::Undead { pid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_directory_is_entered_at_once_and_a_held_one_is_refused_when_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let first = enter(dir.path(), "test", true).unwrap();
        assert!(first.listener.is_none() && first.kept.is_empty());
        let error = enter(dir.path(), "test", false).unwrap_err();
        assert!(matches!(error, HandoverError::Lock(LockError::Held { .. })), "{error}");
        assert!(error.hint().contains("--no-takeover"));
    }

    #[test]
    fn a_predecessor_that_ends_while_nobody_can_be_asked_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let first = enter(dir.path(), "test", true).unwrap();
        let waiting = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| enter(dir.path(), "test", true));
            std::thread::sleep(LOOK * 10);
            drop(first);
            waiting.join().unwrap()
        });
        assert!(waiting.is_ok());
    }

    #[test]
    fn one_of_an_older_release_that_says_nothing_is_not_ended_blindly() {
        let dir = tempfile::tempdir().unwrap();
        let error = end(dir.path(), None, &mut Given::default()).unwrap_err();
        assert!(error.hint().contains("stop that one first"), "{error}");
    }
}
