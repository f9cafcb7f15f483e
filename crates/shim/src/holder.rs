//! The holder of a node: the ancestor of all its shims, which learns how the children of a dead shim end.
//!
//! Takes in: requests of the daemon ([`contd_protocol::holder`]). Gives out: started programs, and a file with the wait status
//! of each child that a dead shim has left to it. Never does: decide anything, allocate without bound, end before its children.
//!
//! ```text
//!  daemon ── start ──► holder ── fork, exec ──► contd-shim --dir … ── fork ──► shim ──► container
//!                        │ subreaper: the shim is its child from the moment that its starter ends,
//!                        │ and the container is once the shim is dead
//!                        └──► exits/<pid>-<start time>, before the process is reaped
//! ```
//!
//! It is replaced by another version in its own process, so that its children stay its own.
//!
//! It is a second holder: its death costs nothing but the exits of containers whose shim dies as well. The daemon starts
//! another one then, for the shims to come.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime};

use contd_descriptors::receive;
use contd_durable::{Fs as _, RealFs, replace_volatile};
use contd_lease::{HeldLease, LeaseDir, LeaseState, ProcessExit, ProcessIdentity};
use contd_process::ReadyPipe;
use contd_protocol::holder::{Answer, MAX_REQUEST_BYTES, Request, exit_name, files};
use contd_protocol::shim::AGENT;
use contd_types::one_line;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use crate::clock;
use crate::daemonize;
use crate::diagnostics::Diagnostics;
use crate::start::{StartError, become_program, failed, listen, print};
use crate::sys::{self, Children};

/// As `ps` shows it.
const NAME: &std::ffi::CStr = c"contd-holder";

/// How long it waits for a caller or a child before it ends: its starter connects at once, a new daemon in this time.
const UNUSED: Duration = Duration::from_secs(2);

/// The most callers at once: a daemon starts some ten shims beside each other.
const MAX_CALLERS: usize = 256;

/// The most exits that are kept: the oldest go first. Each takes a page of the run directory.
const MAX_EXITS: usize = 4096;

/// The most children that are reaped between two looks at the callers.
const MAX_REAPED_PER_TURN: usize = 256;

/// A connection.
struct Caller {
    stream: UnixStream,
    stage: Stage,
}

/// The event that a connection waits for.
enum Stage {
    /// Its request.
    Silent,
    /// Its end: it holds the holder.
    Holds,
    /// The end of this child.
    Waits(i32),
    /// That this program takes over.
    Replaces(PathBuf),
}

/// Is the holder: from the command line to the exit code, as [`crate::main`] is for a shim.
pub(crate) fn main(dir: &Path) -> ExitCode {
    match daemonize::fork_and_wait() {
        Ok(Err(code)) => code,
        Ok(Ok(pipe)) => serve(dir, pipe),
        Err(error) => print(&mut io::stderr(), &format!("contd-shim: fork: {error}"), ExitCode::FAILURE),
    }
}

/// Goes on in the process of a holder that has executed this program.
pub(crate) fn resume(dir: &Path, lock: i32) -> ExitCode {
    let take_over = || {
        let lock = contd_process::take_passed(lock).map_err(|source| StartError::Detach { source })?;
        let lease = LeaseDir::new(dir).take_over(lock, AGENT).map_err(|source| StartError::Claim { source })?;
        Holder::prepare(lease)
    };
    match take_over() {
        Ok(holder) => hold(holder),
        Err(error) => {
            // The daemon starts another holder, for the shims to come.
            Diagnostics::open(&dir.join(files::LOG)).warn(format_args!("{}", one_line(&error)));
            ExitCode::FAILURE
        }
    }
}

fn serve(dir: &Path, pipe: ReadyPipe) -> ExitCode {
    let up = || {
        daemonize::detach().map_err(|source| StartError::Detach { source })?;
        Holder::prepare(LeaseDir::new(dir).claim(AGENT).map_err(|source| StartError::Claim { source })?)
    };
    let holder = match up() {
        Ok(holder) => holder,
        Err(error) => return failed(&pipe, &error),
    };
    // A starter that is gone meanwhile is missed when nobody calls.
    let _unheard = pipe.ready();
    drop(pipe);
    hold(holder)
}

fn hold(mut holder: Holder) -> ExitCode {
    match holder.run() {
        Ok(()) => holder.end(),
        Err(error) => {
            // Its children live on, as those of init; the daemon starts another holder.
            holder.diagnostics.warn(format_args!("the loop has ended: {error}"));
            ExitCode::FAILURE
        }
    }
}

struct Holder {
    lease: HeldLease,
    listener: UnixListener,
    signals: SignalFd,
    diagnostics: Diagnostics,
    callers: Vec<Caller>,
    exits: PathBuf,
    kept: usize,
    /// It was told to end (SIGTERM): it does with its last child, whoever is connected.
    is_told: bool,
}

impl Holder {
    fn prepare(lease: HeldLease) -> Result<Self, StartError> {
        let dir = lease.dir().path().to_owned();
        // How `ps` shows us is no reason to fail.
        let _only_a_name = nix::sys::prctl::set_name(NAME);
        let signals = daemonize::catch_signals().map_err(|source| StartError::Signals { source })?;
        let (path, exits) = (dir.join(files::SOCKET), dir.join(files::EXITS));
        let failed = |source| StartError::Listen { path: path.clone(), source };
        RealFs.create_dir_all(&exits, 0o700).map_err(failed)?;
        let kept = std::fs::read_dir(&exits).map_err(failed)?.count();
        let listener = listen(&path).map_err(failed)?;
        let diagnostics = Diagnostics::open(&dir.join(files::LOG));
        Ok(Self { lease, listener, signals, diagnostics, callers: Vec::new(), exits, kept, is_told: false })
    }

    /// Serves until there is nothing left to hold.
    fn run(&mut self) -> io::Result<()> {
        let mut unused_since = Some(clock::monotonic());
        loop {
            let left = match unused_since {
                Some(since) => match UNUSED.checked_sub(clock::monotonic().duration_since(since)) {
                    Some(left) => PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO),
                    None => return Ok(()),
                },
                None => PollTimeout::NONE,
            };
            let ready = self.wait(left)?;
            while let Ok(Some(signal)) = self.signals.read_signal() {
                self.is_told |= i32::try_from(signal.ssi_signo) == Ok(nix::libc::SIGTERM);
            }
            self.answer(&ready);
            self.hand_over();
            let has_children = self.reap()?;
            self.accept();
            if self.is_told && !has_children {
                return Ok(());
            }
            let is_used = has_children || !self.callers.is_empty();
            unused_since = if is_used { None } else { unused_since.or_else(|| Some(clock::monotonic())) };
        }
    }

    /// Waits until something is to be done; tells of each caller whether it has spoken or hung up.
    fn wait(&self, left: PollTimeout) -> io::Result<Vec<bool>> {
        let input = PollFlags::POLLIN;
        let mut fds = vec![PollFd::new(self.listener.as_fd(), input), PollFd::new(self.signals.as_fd(), input)];
        fds.extend(self.callers.iter().map(|caller| PollFd::new(caller.stream.as_fd(), input)));
        match poll(&mut fds, left) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(fds.iter().skip(2).map(|fd| fd.any().unwrap_or(true)).collect())
    }

    fn accept(&mut self) {
        while self.callers.len() < MAX_CALLERS {
            // An error is the caller's loss, or of a lack of descriptors that passes; the daemon tries again.
            let Ok((stream, _)) = self.listener.accept() else { return };
            if stream.set_nonblocking(true).is_ok() {
                self.callers.push(Caller { stream, stage: Stage::Silent });
            }
        }
    }

    /// Goes on with each caller that is ready.
    fn answer(&mut self, ready: &[bool]) {
        let (mut ready, diagnostics) = (ready.iter(), &self.diagnostics);
        self.callers.retain_mut(|caller| ready.next() != Some(&true) || caller.go_on(diagnostics));
    }

    /// Becomes another program, when a caller asks for it and none waits for the end of a child.
    fn hand_over(&mut self) {
        let is_asked = |caller: &Caller| matches!(caller.stage, Stage::Replaces(_));
        let Some(caller) = self.callers.iter().position(is_asked).map(|place| self.callers.swap_remove(place)) else {
            return;
        };
        let Stage::Replaces(program) = &caller.stage else { return };
        let error = if self.callers.iter().any(|caller| matches!(caller.stage, Stage::Waits(_))) {
            Errno::EBUSY.into()
        } else {
            become_program(&self.lease, program, c"--hold")
        };
        caller.tell(Answer::Failed(error.raw_os_error().unwrap_or(nix::libc::EPROTO)));
    }

    /// Reaps children that have ended: the answer of the caller that waits for one, and a file for each other. Tells whether
    /// any is left.
    fn reap(&mut self) -> io::Result<bool> {
        for _ in 0..MAX_REAPED_PER_TURN {
            let (pid, status) = match sys::peek()? {
                Children::None => return Ok(false),
                Children::Alive => return Ok(true),
                Children::Ended(pid, status) => (pid, status),
            };
            let status = status.wait_status();
            match self.callers.iter().position(|caller| matches!(caller.stage, Stage::Waits(child) if child == pid)) {
                Some(place) => {
                    let caller = self.callers.swap_remove(place);
                    caller.tell(Answer::Ended(status));
                }
                // Before it is reaped: after that nobody could learn it any more.
                None => self.note(pid, status),
            }
            sys::reap_pid(pid)?;
        }
        Ok(true)
    }

    fn note(&mut self, pid: i32, status: i32) {
        // Not reaped, so its entry is its own.
        let Ok(Some(identity)) = ProcessIdentity::of(pid) else { return };
        let path = self.exits.join(exit_name(pid, identity.start_ticks));
        match replace_volatile(&RealFs, &path, status.to_string().as_bytes(), 0o600) {
            Ok(()) => self.kept += 1,
            Err(error) => self.diagnostics.error(&error),
        }
        if self.kept > MAX_EXITS {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let entries = std::fs::read_dir(&self.exits).into_iter().flatten().flatten();
        let mut files: Vec<(SystemTime, PathBuf)> =
            entries.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
        files.sort();
        let too_many = files.len().saturating_sub(MAX_EXITS / 2);
        for (_, path) in files.iter().take(too_many) {
            // It counts as kept until it is gone.
            let _tried_again = RealFs.remove_file(path);
        }
        self.kept = files.len().saturating_sub(too_many);
    }

    fn end(self) -> ExitCode {
        // No caller is accepted from here on; a daemon that comes now starts another.
        drop(self.listener);
        match self.lease.retire() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                self.diagnostics.error(&error);
                ExitCode::FAILURE
            }
        }
    }
}

impl Caller {
    /// Takes what has come; `false` when the connection is over.
    fn go_on(&mut self, diagnostics: &Diagnostics) -> bool {
        match self.stage {
            Stage::Silent => match self.begin() {
                Ok(stage) => {
                    self.stage = stage;
                    true
                }
                Err(error) => {
                    diagnostics.warn(format_args!("request refused: {error}"));
                    let errno = error.raw_os_error().unwrap_or(nix::libc::EPROTO);
                    let _hung_up = (&self.stream).write_all(&Answer::Failed(errno).to_bytes());
                    false
                }
            },
            // A caller says nothing more, so it has hung up.
            Stage::Holds | Stage::Replaces(_) => {
                matches!(self.stream.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Stage::Waits(child) => {
                // Not reaped, so its pid is its own; its end is noted like that of any other child.
                let _ended_already = sys::kill_child(child);
                false
            }
        }
    }

    fn begin(&mut self) -> io::Result<Stage> {
        let (mut buffer, mut fds) = ([0; MAX_REQUEST_BYTES + 1], Vec::new());
        let count = receive(&self.stream, &mut buffer, &mut fds).map_err(io::Error::other)?;
        let request = Request::from_bytes(buffer.get(..count).unwrap_or_default());
        match request.ok_or_else(|| io::Error::from(Errno::EPROTONOSUPPORT))? {
            Request::Hold => {
                let pid = nix::unistd::getpid().as_raw();
                self.stream.write_all(&Answer::Holds(pid).to_bytes())?;
                Ok(Stage::Holds)
            }
            Request::Start { words } => {
                let child = start(words, fds)?;
                // A caller that has hung up is noticed next, and the program ended.
                let _hung_up = (&self.stream).write_all(&Answer::Started(child).to_bytes());
                Ok(Stage::Waits(child))
            }
            Request::HandOver { program } => Ok(Stage::Replaces(OsString::from_vec(program).into())),
        }
    }

    fn tell(self, answer: Answer) {
        // It has hung up in this moment.
        let _unheard = (&self.stream).write_all(&answer.to_bytes());
    }
}

/// Starts a program in an environment of `PATH` only; returns its pid.
fn start(words: Vec<Vec<u8>>, fds: Vec<OwnedFd>) -> io::Result<i32> {
    let mut words = words.into_iter().map(OsString::from_vec);
    let (Some(path), Some(program)) = (words.next(), words.next()) else { return Err(Errno::EPROTO.into()) };
    let Ok([stdin, stderr]) = <[OwnedFd; 2]>::try_from(fds) else { return Err(Errno::EPROTO.into()) };
    let mut command = Command::new(program);
    command.args(words).env_clear().env("PATH", path).current_dir("/");
    command.stdin(stdin).stdout(Stdio::null()).stderr(stderr);
    let child = daemonize::spawn(&mut command)?;
    i32::try_from(child.id()).map_err(io::Error::other)
}

/// How a child of a dead shim has ended, as the holder has noted it; `None` while it has not, or when there is no holder.
pub(crate) fn noted(run_dir: &Path, identity: &ProcessIdentity) -> Option<ProcessExit> {
    let name = exit_name(identity.pid, identity.start_ticks);
    let path = run_dir.join(contd_protocol::holder::DIR).join(files::EXITS).join(name);
    let status: i32 = RealFs.read(&path, 16).ok().and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok())?;
    Some(ProcessExit::from_wait_status(status))
}

/// Tells whether a process is a child of the living holder of a node, which will note its end.
pub(crate) fn holds(run_dir: &Path, pid: i32) -> bool {
    let lease = LeaseDir::new(run_dir.join(contd_protocol::holder::DIR));
    let holder = match lease.probe() {
        Ok(LeaseState::Held(lease)) => lease.process,
        _ => None,
    };
    holder.is_some_and(|holder| crate::reaper::parent_of(pid) == Some(holder.pid))
}
