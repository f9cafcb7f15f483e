//! The way up: what must be true before the first caller is accepted, step by step.

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use contd_lease::{HeldLease, LeaseDir, LeaseError};
use contd_logs::{LogError, LogWriter, Rotation};
use contd_protocol::shim::{TaskSpec, files};
use nix::sys::stat::{Mode, umask};

use crate::args::{self, Args};
use crate::cgroup::Hierarchies;
use crate::connection::AGENT;
use crate::daemonize::{self, ReadyPipe, Side};
use crate::diagnostics::Diagnostics;
use crate::event_loop::EventLoop;
use crate::pump::{Pump, PumpError};
use crate::runtime::Runtime;
use crate::task::Task;
use crate::task_file::{self, TaskFileError};

/// What can be set for a shim beyond its task.
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
enum StartError {
    #[error("leave the session of the caller")]
    Detach { source: io::Error },
    #[error("claim the lease")]
    Claim { source: LeaseError },
    #[error("read the task")]
    Task { source: TaskFileError },
    #[error("prepare the runtime")]
    Runtime { source: io::Error },
    #[error("read the mounts of the cgroups")]
    Cgroups { source: io::Error },
    #[error("open the log of the container")]
    Log { source: LogError },
    #[error("prepare the output of the container")]
    Output { source: PumpError },
    #[error("listen at {}", path.display())]
    Listen { path: PathBuf, source: io::Error },
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
            Self::Output { .. } | Self::Listen { .. } => "the run directory must be a writable tmpfs of this user",
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
    make_runtime: impl FnOnce(&TaskSpec, &Path) -> io::Result<Box<dyn Runtime>>,
) -> ExitCode {
    let dir = match args::parse(arguments) {
        Ok(Args::Serve { dir }) => dir,
        Ok(Args::Version) => return print(&mut io::stdout(), AGENT, ExitCode::SUCCESS),
        Err(error) => return print(&mut io::stderr(), &format!("contd-shim: {error}"), ExitCode::from(2)),
    };
    match daemonize::fork_and_wait() {
        Ok(Side::Parent(code)) => code,
        Ok(Side::Child(pipe)) => serve(&dir, options, pipe, make_runtime),
        Err(error) => print(&mut io::stderr(), &format!("contd-shim: fork: {error}"), ExitCode::FAILURE),
    }
}

fn print(to: &mut dyn Write, text: &str, code: ExitCode) -> ExitCode {
    // Who has closed it does not ask.
    let _nobody_listens = writeln!(to, "{text}");
    code
}

fn serve(
    dir: &Path,
    options: &Options,
    pipe: ReadyPipe,
    make_runtime: impl FnOnce(&TaskSpec, &Path) -> io::Result<Box<dyn Runtime>>,
) -> ExitCode {
    match come_up(dir, options, make_runtime) {
        Ok(up) => up.run(pipe),
        Err(error) => {
            pipe.failed(&format!("contd-shim: {}\nhint: {}\n", chain(&error), error.hint()));
            ExitCode::FAILURE
        }
    }
}

/// A shim that can accept callers. The lease goes last.
struct Up {
    event_loop: EventLoop,
    diagnostics: Rc<Diagnostics>,
    socket: PathBuf,
    _lease: HeldLease,
}

impl Up {
    fn run(mut self, pipe: ReadyPipe) -> ExitCode {
        let result = pipe
            .ready()
            .map_err(|source| StartError::Tell { source })
            .map_err(|error| io::Error::other(chain(&error)))
            .and_then(|()| self.event_loop.run());
        if let Err(error) = fs::remove_file(&self.socket) {
            self.diagnostics.warn(format_args!("remove {}: {error}", self.socket.display()));
        }
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                self.diagnostics.warn(format_args!("the loop has ended: {error}"));
                ExitCode::FAILURE
            }
        }
    }
}

fn come_up(
    dir: &Path,
    options: &Options,
    make_runtime: impl FnOnce(&TaskSpec, &Path) -> io::Result<Box<dyn Runtime>>,
) -> Result<Up, StartError> {
    daemonize::detach().map_err(|source| StartError::Detach { source })?;
    // Before anything is touched: who comes too late must leave no trace.
    let lease = LeaseDir::new(dir).claim(AGENT).map_err(|source| StartError::Claim { source })?;
    let diagnostics = Rc::new(Diagnostics::open(&dir.join(files::SHIM_LOG)));
    let spec = task_file::read(dir).map_err(|source| StartError::Task { source })?;
    let runtime = make_runtime(&spec, dir).map_err(|source| StartError::Runtime { source })?;
    let hierarchies = Hierarchies::read().map_err(|source| StartError::Cgroups { source })?;
    let rotation = Rotation { max_bytes: spec.log_max_bytes, max_files: spec.log_max_files };
    let log = LogWriter::open(&spec.log_path, rotation).map_err(|source| StartError::Log { source })?;
    let pump = Pump::new(dir, &spec, Box::new(log), Rc::clone(&diagnostics))
        .map_err(|source| StartError::Output { source })?;
    // From here on a child's end is announced; none was started before.
    let signals = daemonize::catch_signals().map_err(|source| StartError::Signals { source })?;
    let socket = dir.join(files::SOCKET);
    let listener = listen(&socket).map_err(|source| StartError::Listen { path: socket.clone(), source })?;
    let task = Task::new(spec, dir.to_owned(), runtime, hierarchies, pump, Rc::clone(&diagnostics));
    let event_loop = EventLoop::new(listener, signals, task, options.unclaimed_timeout, Rc::clone(&diagnostics));
    Ok(Up { event_loop, diagnostics, socket, _lease: lease })
}

/// Binds the socket, 0600 from its first moment. A stale one is our dead predecessor's: we hold the lease.
fn listen(path: &Path) -> io::Result<UnixListener> {
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

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
