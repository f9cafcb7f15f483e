//! The way up: what must be true before the first caller is accepted, step by step.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use contd_cgroup::{CgroupError, Hierarchies};
use contd_failpoint::Failpoint;
use contd_lease::{HeldLease, LeaseDir, LeaseError};
use contd_logs::{LogError, LogFiles, LogWriter, Rotation, RunStart};
use contd_process::ReadyPipe;
use contd_protocol::shim::{AGENT, LogStart, TaskSpec, files};
use contd_types::one_line;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signalfd::SignalFd;
use nix::sys::stat::{Mode, umask};
use nix::unistd::execv;

use crate::args::{self, Args, Role};
use crate::daemonize;
use crate::diagnostics::Diagnostics;
use crate::error::TaskError;
use crate::event_loop::{Ending, EventLoop};
use crate::holder;
use crate::pump::{self, Pump, PumpError};
use crate::runtime::Runtime;
use crate::runtime::native::NativeRuntime;
use crate::slot::{self, SlotError, Word};
use crate::task::{HandOver, Task};
use crate::task_file::{self, TaskFileError};

/// The settings of a shim beyond its task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How long to wait for the first caller. A daemon that has started us and died will never come.
    pub unclaimed_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { unclaimed_timeout: Duration::from_secs(30) }
    }
}

/// Why the shim did not come up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("leave the session of the caller")]
    Detach { source: io::Error },
    #[error("claim the lease")]
    Claim { source: LeaseError },
    #[error("read the task")]
    Task { source: TaskFileError },
    #[error("prepare the runtime")]
    Runtime { source: io::Error },
    #[error("read the mounts of the cgroups")]
    Cgroups { source: CgroupError },
    #[error("be a warm slot")]
    Slot { source: SlotError },
    #[error("end a warm slot")]
    Retire { source: LeaseError },
    #[error("open the log of the container")]
    Log { source: LogError },
    #[error("prepare the output of the container")]
    Output { source: PumpError },
    #[error("go on with the container of the predecessor")]
    Adopt { source: TaskError },
    #[error("listen at {}", path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("execute this program from a read-only mount of its own")]
    Seal { source: io::Error },
    #[error("receive signals")]
    Signals { source: io::Error },
    #[error("tell the caller that all is ready")]
    Tell { source: io::Error },
}

impl StartError {
    fn hint(&self) -> &'static str {
        match self {
            Self::Claim { source } => source.hint(),
            Self::Task { .. } => "start it with the daemon of its own version",
            Self::Log { .. } => "the directory of the log must exist, and its disk must be writable",
            Self::Runtime { .. } => "check the runtime's script in the lease directory",
            Self::Cgroups { .. } => "/proc must be mounted",
            Self::Output { .. } | Self::Adopt { .. } | Self::Listen { .. } => {
                "the run directory must be a writable tmpfs of this user"
            }
            Self::Seal { .. } => "the shim must be run by root, in the mount namespace that its file is in",
            Self::Slot { .. } | Self::Retire { .. } => "contd starts containers without it; see the kernel log",
            Self::Detach { .. } | Self::Signals { .. } | Self::Tell { .. } => "see the kernel log; repeat",
        }
    }
}

/// Is the shim: from the command line to the exit code. Only legal as the first thing a process does, which must have
/// one thread. The parent returns when the child accepts callers; the child when it was shut down.
///
/// `make_runtime` gets the task and the lease directory.
pub fn main(
    arguments: impl Iterator<Item = OsString>,
    options: &Options,
    make_runtime: impl FnOnce(&TaskSpec, &Path, &Rc<Hierarchies>) -> io::Result<Box<dyn Runtime>>,
) -> ExitCode {
    let (dir, role) = match args::parse(arguments) {
        Ok(Args::Serve { dir, role }) => (dir, role),
        Ok(Args::Hold { dir, lock: None }) => return holder::main(&dir),
        Ok(Args::Hold { dir, lock: Some(lock) }) => return holder::resume(&dir, lock),
        Ok(Args::Version) => return print(&mut io::stdout(), AGENT, ExitCode::SUCCESS),
        Err(error) => return print(&mut io::stderr(), &format!("contd-shim: {error}"), ExitCode::from(2)),
    };
    if let Some(run_dir) = dir.parent().and_then(Path::parent) {
        contd_failpoint::arm(run_dir);
    }
    // The init of a container executes this file until it executes the entrypoint.
    if let Err(source) = contd_launch::sealed::ensure() {
        let error = StartError::Seal { source };
        let words = format!("contd-shim: {}\nhint: {}", one_line(&error), error.hint());
        return print(&mut io::stderr(), &words, ExitCode::FAILURE);
    }
    if let Role::Resumed { lock } = role {
        return resume(&dir, lock, options, make_runtime);
    }
    match daemonize::fork_and_wait() {
        Ok(Err(code)) => code,
        Ok(Ok(pipe)) if role == Role::Slot => serve_slot(&dir, options, pipe),
        Ok(Ok(pipe)) => serve(&dir, role, options, pipe, make_runtime),
        Err(error) => print(&mut io::stderr(), &format!("contd-shim: fork: {error}"), ExitCode::FAILURE),
    }
}

pub(crate) fn print(to: &mut dyn Write, text: &str, code: ExitCode) -> ExitCode {
    // A reader that has closed it does not need the text.
    let _nobody_listens = writeln!(to, "{text}");
    code
}

fn serve(
    dir: &Path,
    role: Role,
    options: &Options,
    pipe: ReadyPipe,
    make_runtime: impl FnOnce(&TaskSpec, &Path, &Rc<Hierarchies>) -> io::Result<Box<dyn Runtime>>,
) -> ExitCode {
    let come_up = || {
        let kept = slot::take_stdin().map_err(|source| StartError::Detach { source })?;
        daemonize::detach().map_err(|source| StartError::Detach { source })?;
        let ground = Ground::claim(dir)?;
        let predecessor = (role == Role::Successor).then_some(Predecessor { kept: Some(kept) });
        serve_task(ground, predecessor, options, make_runtime)
    };
    let (mut up, told) = match come_up() {
        Ok(up) => (up, pipe.ready()),
        Err(error) => return failed(&pipe, &error),
    };
    drop(pipe);
    contd_failpoint::hit(Failpoint::ShimReady);
    match told {
        Ok(()) => up.run(),
        Err(source) => up.give_up(&StartError::Tell { source }),
    }
}

/// Goes on in the process of a predecessor that has executed this program.
fn resume(
    dir: &Path,
    lock: i32,
    options: &Options,
    make_runtime: impl FnOnce(&TaskSpec, &Path, &Rc<Hierarchies>) -> io::Result<Box<dyn Runtime>>,
) -> ExitCode {
    let come_up = || {
        let lock = contd_process::take_passed(lock).map_err(|source| StartError::Detach { source })?;
        let ground = Ground::take_over(dir, lock)?;
        serve_task(ground, Some(Predecessor { kept: None }), options, make_runtime)
    };
    match come_up() {
        Ok(mut up) => up.run(),
        Err(error) => {
            // The container lives; the daemon sees that nobody looks after it, and starts a successor.
            Diagnostics::open(&dir.join(files::SHIM_LOG)).warn(format_args!("{}", one_line(&error)));
            ExitCode::FAILURE
        }
    }
}

fn serve_task(
    ground: Ground,
    predecessor: Option<Predecessor>,
    options: &Options,
    make_runtime: impl FnOnce(&TaskSpec, &Path, &Rc<Hierarchies>) -> io::Result<Box<dyn Runtime>>,
) -> Result<Up, StartError> {
    let spec = task_file::read(&ground.dir).map_err(|source| StartError::Task { source })?;
    let runtime = make_runtime(&spec, &ground.dir, &ground.hierarchies);
    let runtime = runtime.map_err(|source| StartError::Runtime { source })?;
    ground.take_up(spec, runtime, predecessor, options)
}

/// Is a warm slot, then the shim of the container that comes.
fn serve_slot(dir: &Path, options: &Options, pipe: ReadyPipe) -> ExitCode {
    let slot_failed = |source| StartError::Slot { source };
    let prepare = || {
        let leash = slot::take_stdin().map_err(|source| StartError::Detach { source })?;
        daemonize::detach().map_err(|source| StartError::Detach { source })?;
        let ground = Ground::claim(dir)?;
        let spec = slot::read(dir).map_err(slot_failed)?;
        let mut runtime = NativeRuntime::new(slot::settings(&spec), Rc::clone(&ground.hierarchies));
        pump::make_fifos(dir).map_err(|source| StartError::Output { source })?;
        runtime.warm_up().map_err(|source| slot_failed(SlotError::WarmUp { source }))?;
        Ok((leash, ground, spec, runtime))
    };
    let (leash, ground, spec, mut runtime) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => return failed(&pipe, &error),
    };
    let diagnostics = Rc::clone(&ground.diagnostics);
    let take_up = || {
        pipe.ready().map_err(|source| StartError::Tell { source })?;
        drop(pipe);
        contd_failpoint::hit(Failpoint::SlotReady);
        let word = slot::wait(leash, &ground.signals, &runtime).map_err(slot_failed)?;
        if word == Word::End {
            return Ok(None);
        }
        let task = task_file::read(dir).map_err(|source| StartError::Task { source })?;
        slot::check(&spec, &task).map_err(slot_failed)?;
        Ok(Some(task))
    };
    let result = match take_up() {
        Ok(Some(task)) => match ground.take_up(task, Box::new(runtime), None, options) {
            Ok(mut up) => return up.run(),
            Err(error) => Err(error),
        },
        Ok(None) => end_slot(&mut runtime, ground),
        Err(error) => end_slot(&mut runtime, ground).and(Err(error)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            diagnostics.warn(format_args!("{}", one_line(&error)));
            ExitCode::FAILURE
        }
    }
}

/// Removes everything of a slot without a container.
fn end_slot(runtime: &mut NativeRuntime, ground: Ground) -> Result<(), StartError> {
    runtime.cool_down().map_err(|source| StartError::Slot { source: SlotError::CoolDown { source } })?;
    drop(ground.listener);
    ground.lease.retire().map_err(|source| StartError::Retire { source })
}

pub(crate) fn failed(pipe: &ReadyPipe, error: &StartError) -> ExitCode {
    let has_run_out = contd_types::Shortage::behind(error).is_some();
    let words = format!("contd-shim: {}\nhint: {}\n", one_line(error), error.hint());
    daemonize::tell_failure(pipe, &words, has_run_out);
    ExitCode::FAILURE
}

/// The parts of a shim before it knows its task.
struct Ground {
    dir: PathBuf,
    hierarchies: Rc<Hierarchies>,
    diagnostics: Rc<Diagnostics>,
    signals: SignalFd,
    listener: UnixListener,
    socket: BoundSocket,
    lease: HeldLease,
}

/// The socket's file, which goes with whoever has bound it.
struct BoundSocket(PathBuf);

impl Drop for BoundSocket {
    fn drop(&mut self) {
        // It may have gone with its directory.
        let _gone_already = fs::remove_file(&self.0);
    }
}

/// Somebody whose container goes on here.
struct Predecessor {
    /// A descriptor that may be a pidfd of its init.
    kept: Option<OwnedFd>,
}

impl Ground {
    fn claim(dir: &Path) -> Result<Self, StartError> {
        // Before anything is touched: who comes too late must leave no trace.
        let lease = LeaseDir::new(dir).claim(AGENT).map_err(|source| StartError::Claim { source })?;
        contd_failpoint::hit(Failpoint::ShimClaimed);
        Self::prepare(dir, lease)
    }

    fn take_over(dir: &Path, lock: OwnedFd) -> Result<Self, StartError> {
        let lease = LeaseDir::new(dir).take_over(lock, AGENT).map_err(|source| StartError::Claim { source })?;
        contd_failpoint::hit(Failpoint::HandOverClaimed);
        Self::prepare(dir, lease)
    }

    fn prepare(dir: &Path, lease: HeldLease) -> Result<Self, StartError> {
        let diagnostics = Rc::new(Diagnostics::open(&dir.join(files::SHIM_LOG)));
        let hierarchies = Rc::new(Hierarchies::read().map_err(|source| StartError::Cgroups { source })?);
        // From here on a child's end is announced; none was started before.
        let signals = daemonize::catch_signals().map_err(|source| StartError::Signals { source })?;
        let path = dir.join(files::SOCKET);
        let listener = listen(&path).map_err(|source| StartError::Listen { path: path.clone(), source })?;
        let socket = BoundSocket(path);
        contd_failpoint::hit(Failpoint::ShimBound);
        Ok(Self { dir: dir.to_owned(), hierarchies, diagnostics, signals, listener, socket, lease })
    }

    fn take_up(
        self,
        spec: TaskSpec,
        runtime: Box<dyn Runtime>,
        predecessor: Option<Predecessor>,
        options: &Options,
    ) -> Result<Up, StartError> {
        contd_failpoint::hit(Failpoint::ShimTaskRead);
        let Self { dir, hierarchies, diagnostics, signals, listener, socket, lease } = self;
        let rotation = Rotation { max_bytes: spec.log_max_bytes, max_files: spec.log_max_files };
        let files = log_files(&spec);
        let log = match LogWriter::open(files.clone(), rotation) {
            Ok(log) => log,
            // The container lives. Its output waits until there is a log again, or is told to be lost at its end.
            Err(error) if predecessor.is_some() => {
                diagnostics.error(&error);
                LogWriter::closed(files, rotation)
            }
            Err(source) => return Err(StartError::Log { source }),
        };
        let log = match spec.log_start {
            Some(LogStart { inode, offset, is_after_loss }) => {
                log.with_start(RunStart { inode, offset, is_after_loss })
            }
            None => log,
        };
        let pump = Pump::new(&dir, &spec, Box::new(log), Rc::clone(&diagnostics))
            .map_err(|source| StartError::Output { source })?;
        let mut task = Task::new(spec, dir, runtime, hierarchies, pump, Rc::clone(&diagnostics));
        if let Some(Predecessor { kept }) = predecessor {
            task.adopt(kept).map_err(|source| StartError::Adopt { source })?;
        }
        let event_loop = EventLoop::new(listener, signals, task, options.unclaimed_timeout, Rc::clone(&diagnostics));
        Ok(Up { event_loop, diagnostics, _socket: socket, lease })
    }
}

/// Names the log of a task.
fn log_files(spec: &TaskSpec) -> LogFiles {
    match &spec.log_notes {
        Some(notes) => LogFiles::marked(&spec.log_path, spec.id.as_str(), notes),
        None => LogFiles::by_name(&spec.log_path),
    }
}

/// A shim that can accept callers. The lease goes last.
struct Up {
    event_loop: EventLoop,
    diagnostics: Rc<Diagnostics>,
    _socket: BoundSocket,
    lease: HeldLease,
}

impl Up {
    fn run(&mut self) -> ExitCode {
        loop {
            match self.event_loop.run() {
                Ok(Ending::Done) => return ExitCode::SUCCESS,
                Ok(Ending::HandOver(HandOver { caller, binary })) => {
                    self.diagnostics.info(format_args!("handing over to {}", binary.display()));
                    contd_failpoint::hit(Failpoint::HandOverBegun);
                    let source = become_program(&self.lease, &binary, c"--dir");
                    self.event_loop.refuse_hand_over(caller, binary, source);
                }
                Err(error) => {
                    self.diagnostics.warn(format_args!("the loop has ended: {error}"));
                    return ExitCode::FAILURE;
                }
            }
        }
    }

    fn give_up(&self, error: &StartError) -> ExitCode {
        self.diagnostics.warn(format_args!("{}", one_line(error)));
        ExitCode::FAILURE
    }
}

/// Becomes another program, which goes on where this one is: same process, same children, same lease. Returns only when that
/// is not possible.
pub(crate) fn become_program(lease: &HeldLease, binary: &Path, option: &CStr) -> io::Error {
    let execute = || -> io::Result<Infallible> {
        let lock = lease.as_fd();
        let word = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::other);
        let path = word(binary.as_os_str().as_bytes())?;
        let number = word(lock.as_raw_fd().to_string().as_bytes())?;
        let dir = word(lease.dir().path().as_os_str().as_bytes())?;
        fcntl(lock, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let result = execv(&path, &[path.as_c_str(), option, &dir, c"--resume", &number]);
        fcntl(lock, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        Ok(result?)
    };
    match execute() {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

/// Binds the socket, 0600 from its first moment. A stale one is our dead predecessor's: we hold the lease.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let before = umask(Mode::S_IXUSR | Mode::S_IRWXG | Mode::S_IRWXO);
    let listener = UnixListener::bind(path);
    umask(before);
    let listener = listener?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
