//! Any OCI runtime's command: `runc`, `crun`, `youki`. One process per operation, watched by its pidfd.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as ProcessStdio};

use contd_lease::ProcessExit;
use contd_protocol::shim::{ExecProcess, TaskSpec, files};
use contd_types::{ContainerId, ErrorKind};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::oci_console::ConsoleSocket;
use super::oci_exec::OciExec;
use super::{ExecStdio, Executing, Operation, Outcome, Runtime, RuntimeError, Stdio, Verb, Words, oci_error};
use crate::daemonize;
use crate::reaper;
use crate::sys;

/// Where the runtime sends the master of init's terminal; removed with the operation.
const CONSOLE: &str = "console.sock";
/// Where the runtime writes init's pid; read once, then removed.
const PID_FILE: &str = "init.pid";

/// How much of the end of the runtime's log is searched for its last error.
const LOG_TAIL_BYTES: u64 = 32 * 1024;

/// How much of what a runtime prints is kept.
const STDERR_BYTES: u64 = 4096;

/// A pid and a newline.
const MAX_PID_BYTES: u64 = 16;

/// An OCI runtime's command.
#[derive(Debug)]
pub struct OciRuntime {
    binary: PathBuf,
    root: PathBuf,
    dir: PathBuf,
    /// How many processes were executed, for the names of their files.
    execs: u64,
}

#[derive(Debug)]
struct OciOperation {
    verb: Verb,
    id: ContainerId,
    pid: i32,
    pidfd: OwnedFd,
    stderr: Option<File>,
    log: PathBuf,
    pid_file: PathBuf,
    /// Where the master of the container's terminal comes.
    console: Option<ConsoleSocket>,
}

impl OciRuntime {
    /// Makes a runtime from its absolute path, its state directory, and the shim's lease directory.
    pub fn new(binary: PathBuf, root: PathBuf, dir: &Path) -> Self {
        Self { binary, root, dir: dir.to_owned(), execs: 0 }
    }

    fn begin(
        &self,
        verb: Verb,
        task: &TaskSpec,
        stdio: Option<Stdio>,
        console: Option<ConsoleSocket>,
        arguments: impl FnOnce(&mut Command),
    ) -> Result<Box<dyn Operation>, RuntimeError> {
        let failed = |source| RuntimeError::Spawn { verb, id: task.id.clone(), binary: self.binary.clone(), source };
        let log = self.dir.join(files::RUNTIME_LOG);
        // Only the last operation's: an error in it is then surely this one's.
        File::create(&log).map_err(failed)?;
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.root).arg("--log").arg(&log).args(["--log-format", "json"]);
        arguments(&mut command);
        command.arg(task.id.as_str()).stdin(ProcessStdio::null());
        let stderr = match stdio {
            Some(Stdio { stdin, stdout, stderr }) => {
                if let Some(stdin) = stdin {
                    command.stdin(stdin);
                }
                command.stdout(stdout).stderr(stderr);
                None
            }
            None => {
                let (reader, writer) = io::pipe().map_err(failed)?;
                fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|errno| failed(errno.into()))?;
                command.stdout(ProcessStdio::null()).stderr(writer);
                Some(File::from(OwnedFd::from(reader)))
            }
        };
        // Reaped by its pidfd in `finish`, or as an orphan after `abort`.
        let child = daemonize::spawn(&mut command).map_err(failed)?;
        // Ours and not reaped, so the pid is certainly its own.
        let watch = |source| RuntimeError::Watch { verb, id: task.id.clone(), source };
        let pid = i32::try_from(child.id()).map_err(|_| watch(io::ErrorKind::InvalidData.into()))?;
        let (_, pidfd) = reaper::pidfd_of(pid).map_err(watch)?;
        let pid_file = self.pid_file();
        Ok(Box::new(OciOperation { verb, id: task.id.clone(), pid, pidfd, stderr, log, pid_file, console }))
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.join(PID_FILE)
    }
}

impl Runtime for OciRuntime {
    fn begin_create(&mut self, task: &TaskSpec, stdio: Stdio) -> Result<Box<dyn Operation>, RuntimeError> {
        let watch = |source| RuntimeError::Watch { verb: Verb::Create, id: task.id.clone(), source };
        let console = task.input.has_terminal.then(|| ConsoleSocket::listen(self.dir.join(CONSOLE))).transpose();
        let console = console.map_err(watch)?;
        let socket = console.as_ref().map(|console| console.path().to_owned());
        self.begin(Verb::Create, task, Some(stdio), console, |command| {
            command.arg("create").arg("--bundle").arg(&task.bundle).arg("--pid-file").arg(self.pid_file());
            if let Some(socket) = socket {
                command.arg("--console-socket").arg(socket);
            }
        })
    }

    fn begin_start(&mut self, task: &TaskSpec) -> Result<Box<dyn Operation>, RuntimeError> {
        self.begin(Verb::Start, task, None, None, |command| {
            command.arg("start");
        })
    }

    fn begin_delete(&mut self, task: &TaskSpec, is_forced: bool) -> Result<Box<dyn Operation>, RuntimeError> {
        self.begin(Verb::Delete, task, None, None, |command| {
            command.arg("delete").args(is_forced.then_some("--force"));
        })
    }

    fn begin_pause(&mut self, task: &TaskSpec) -> Result<Box<dyn Operation>, RuntimeError> {
        self.begin(Verb::Pause, task, None, None, |command| {
            command.arg("pause");
        })
    }

    fn begin_resume(&mut self, task: &TaskSpec) -> Result<Box<dyn Operation>, RuntimeError> {
        self.begin(Verb::Resume, task, None, None, |command| {
            command.arg("resume");
        })
    }

    fn begin_exec(
        &mut self,
        task: &TaskSpec,
        process: &ExecProcess,
        _init: BorrowedFd<'_>,
        stdio: ExecStdio,
    ) -> Result<Box<dyn Executing>, RuntimeError> {
        self.execs += 1;
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.root);
        Ok(Box::new(OciExec::begin(&mut command, &self.dir, self.execs, task, process, stdio)?))
    }
}

impl Operation for OciOperation {
    fn fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    fn child(&self) -> Option<i32> {
        Some(self.pid)
    }

    fn finish(self: Box<Self>) -> Result<Outcome, RuntimeError> {
        let watch = |source| RuntimeError::Watch { verb: self.verb, id: self.id.clone(), source };
        let status = sys::reap(self.pidfd.as_fd()).map_err(watch)?;
        let status = status.ok_or_else(|| watch(io::ErrorKind::WouldBlock.into()))?;
        if status == ProcessExit::Code(0) {
            return match self.verb {
                Verb::Create => self.read_pid(),
                Verb::Start => Ok(Outcome::LetGo),
                Verb::Pause | Verb::Resume | Verb::Delete | Verb::Exec => Ok(Outcome::Done),
            };
        }
        let words = self.words();
        if self.verb == Verb::Delete && oci_error::means_absent(&words) {
            return Ok(Outcome::Done);
        }
        let kind = match self.verb {
            Verb::Create | Verb::Start => oci_error::classify(&words),
            Verb::Pause | Verb::Resume | Verb::Delete | Verb::Exec => ErrorKind::Internal,
        };
        let status = describe(status);
        Err(RuntimeError::Failed { verb: self.verb, id: self.id.clone(), status, kind, source: Words(words) })
    }

    fn abort(self: Box<Self>) {
        // It is our child and not reaped; the worst that can fail is that it has ended already.
        let _ended_already = contd_lease::signal(&self.pidfd, nix::libc::SIGKILL);
    }
}

impl OciOperation {
    fn read_pid(&self) -> Result<Outcome, RuntimeError> {
        let failed = |source| RuntimeError::PidFile { id: self.id.clone(), path: self.pid_file.clone(), source };
        let mut text = String::new();
        File::open(&self.pid_file)
            .and_then(|file| file.take(MAX_PID_BYTES).read_to_string(&mut text))
            .and_then(|_| fs::remove_file(&self.pid_file))
            .map_err(failed)?;
        let pid = text.trim().parse().map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
        let watch = |source| RuntimeError::Watch { verb: self.verb, id: self.id.clone(), source };
        let terminal = self.console.as_ref().map(ConsoleSocket::take_master).transpose().map_err(watch)?;
        Ok(Outcome::Created { pid, terminal })
    }

    /// Returns the last error in the runtime's log, or what it printed.
    fn words(&self) -> String {
        let logged = read_tail(&self.log).ok().and_then(|log| oci_error::last_error(&log));
        logged.unwrap_or_else(|| {
            let mut printed = Vec::new();
            if let Some(stderr) = &self.stderr {
                // The bytes that were read before an error are kept.
                let _no_more = stderr.take(STDERR_BYTES).read_to_end(&mut printed);
            }
            oci_error::capped(&String::from_utf8_lossy(&printed))
        })
    }
}

pub(super) fn describe(status: ProcessExit) -> String {
    match status {
        ProcessExit::Code(code) => format!("code {code}"),
        ProcessExit::Signal(signal) => format!("signal {signal}"),
    }
}

pub(super) fn read_tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
