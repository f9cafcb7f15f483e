//! A scripted runtime whose container is a real small process, so that the loop, the reaping and the log are real.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio as ProcessStdio};
use std::time::Duration;

use contd_protocol::shim::{ExecProcess, TaskSpec};
use contd_types::{ContainerId, ErrorKind};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::daemonize;

use super::{ExecStdio, ExecStep, Executing, Operation, Outcome, Runtime, RuntimeError, Stdio, Verb, Words};

/// The script's name in the lease directory.
pub const SCRIPT_FILE: &str = "fake.json";

/// The shortest time a timer can be set to.
const AT_ONCE: Duration = Duration::from_nanos(1);

/// As good as never.
const NEVER: Duration = Duration::from_secs(1 << 30);

/// The outcome of one operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// Succeeds at once.
    #[default]
    Succeed,
    /// Fails at once, with this kind.
    Fail(ErrorKind),
    /// Succeeds after so many milliseconds.
    Delay(u64),
    /// Never ends.
    Hang,
}

/// The script of the fake.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Script {
    /// On create. The container's process is there from the beginning, also when it hangs or fails.
    pub create: Act,
    /// On start.
    pub start: Act,
    /// On pause.
    pub pause: Act,
    /// On resume.
    pub resume: Act,
    /// On delete.
    pub delete: Act,
    /// On exec. The process is there from the beginning.
    pub exec: Act,
    /// The command of the container, for `/bin/sh -c`.
    pub command: String,
    /// Instead of the shim's own patience with a daemon that never comes, in milliseconds.
    pub unclaimed_millis: Option<u64>,
}

impl Script {
    /// Reads the script of a lease directory.
    ///
    /// # Errors
    /// What the system or the decoder says.
    pub fn read(dir: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(dir.join(SCRIPT_FILE))?)?)
    }
}

/// The scripted runtime.
#[derive(Debug)]
pub struct FakeRuntime {
    script: Script,
    container: Option<Container>,
}

#[derive(Debug)]
struct Container {
    process: Child,
    /// Closing it without a word ends a container that was not started.
    go: Option<ChildStdin>,
}

#[derive(Debug)]
struct FakeOperation {
    verb: Verb,
    id: ContainerId,
    act: Act,
    outcome: Outcome,
    timer: TimerFd,
}

impl FakeRuntime {
    /// Makes a runtime that follows a script.
    pub fn new(script: Script) -> Self {
        Self { script, container: None }
    }

    fn begin(verb: Verb, task: &TaskSpec, act: Act, outcome: Outcome) -> Result<Box<dyn Operation>, RuntimeError> {
        let failed = |errno: nix::errno::Errno| watch(verb, task, errno.into());
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC).map_err(failed)?;
        let after = match act {
            Act::Succeed | Act::Fail(_) => AT_ONCE,
            Act::Delay(millis) => Duration::from_millis(millis).max(AT_ONCE),
            Act::Hang => NEVER,
        };
        timer.set(Expiration::OneShot(TimeSpec::from(after)), TimerSetTimeFlags::empty()).map_err(failed)?;
        Ok(Box::new(FakeOperation { verb, id: task.id.clone(), act, outcome, timer }))
    }

    fn signal(&self, verb: Verb, task: &TaskSpec, signal: Signal) -> Result<(), RuntimeError> {
        let Some(container) = &self.container else { return Ok(()) };
        let failed = |errno: nix::errno::Errno| watch(verb, task, errno.into());
        let pid = i32::try_from(container.process.id()).map_err(|_| failed(nix::errno::Errno::EINVAL))?;
        kill(Pid::from_raw(pid), signal).map_err(failed)
    }
}

impl Runtime for FakeRuntime {
    fn begin_create(&mut self, task: &TaskSpec, stdio: Stdio) -> Result<Box<dyn Operation>, RuntimeError> {
        let verb = Verb::Create;
        let failed =
            |source| RuntimeError::Spawn { verb, id: task.id.clone(), binary: PathBuf::from("/bin/sh"), source };
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "read go && exec /bin/sh -c \"$0\" </dev/null", &self.script.command])
            .stdin(ProcessStdio::piped())
            .stdout(stdio.stdout)
            .stderr(stdio.stderr);
        let mut process = daemonize::spawn(&mut command).map_err(failed)?;
        let go = process.stdin.take();
        let pid = i32::try_from(process.id()).map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
        self.container = Some(Container { process, go });
        Self::begin(verb, task, self.script.create, Outcome::Created { pid, terminal: None })
    }

    fn begin_start(&mut self, task: &TaskSpec) -> Result<Box<dyn Operation>, RuntimeError> {
        if !matches!(self.script.start, Act::Fail(_) | Act::Hang)
            && let Some(mut go) = self.container.as_mut().and_then(|container| container.go.take())
        {
            go.write_all(b"go\n").map_err(|source| watch(Verb::Start, task, source))?;
        }
        Self::begin(Verb::Start, task, self.script.start, Outcome::Done)
    }

    fn begin_delete(&mut self, task: &TaskSpec, is_forced: bool) -> Result<Box<dyn Operation>, RuntimeError> {
        if is_forced {
            // Not started: it ends when the pipe closes. Started: the shim has reaped it, or kills it as an orphan.
            self.container = None;
        }
        Self::begin(Verb::Delete, task, self.script.delete, Outcome::Done)
    }

    fn begin_pause(&mut self, task: &TaskSpec) -> Result<Box<dyn Operation>, RuntimeError> {
        self.signal(Verb::Pause, task, Signal::SIGSTOP)?;
        Self::begin(Verb::Pause, task, self.script.pause, Outcome::Done)
    }

    fn begin_resume(&mut self, task: &TaskSpec) -> Result<Box<dyn Operation>, RuntimeError> {
        self.signal(Verb::Resume, task, Signal::SIGCONT)?;
        Self::begin(Verb::Resume, task, self.script.resume, Outcome::Done)
    }

    fn begin_exec(
        &mut self,
        task: &TaskSpec,
        process: &ExecProcess,
        _init: BorrowedFd<'_>,
        stdio: ExecStdio,
    ) -> Result<Box<dyn Executing>, RuntimeError> {
        let failed = |source| RuntimeError::Spawn {
            verb: Verb::Exec,
            id: task.id.clone(),
            binary: PathBuf::from("/bin/sh"),
            source,
        };
        let ExecStdio::Given([stdin, stdout, stderr]) = stdio else {
            return Err(failed(io::ErrorKind::Unsupported.into()));
        };
        let (program, args) = process.args.split_first().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let mut command = Command::new(program);
        command.args(args).stdin(stdin).stdout(stdout).stderr(stderr);
        let child = daemonize::spawn(&mut command).map_err(failed)?;
        let pid = i32::try_from(child.id()).map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
        let operation = Self::begin(Verb::Exec, task, self.script.exec, Outcome::Created { pid, terminal: None })?;
        Ok(Box::new(FakeExec { operation, pid }))
    }
}

/// An operation whose result is a process.
#[derive(Debug)]
struct FakeExec {
    operation: Box<dyn Operation>,
    pid: i32,
}

impl Executing for FakeExec {
    fn fd(&self) -> BorrowedFd<'_> {
        self.operation.fd()
    }

    fn owns(&self, pid: i32) -> bool {
        pid == self.pid
    }

    fn finish(self: Box<Self>) -> Result<ExecStep, RuntimeError> {
        match self.operation.finish()? {
            Outcome::Created { pid, terminal } => Ok(ExecStep::Made { pid, terminal, waiting: None }),
            Outcome::LetGo | Outcome::Done => Ok(ExecStep::Runs),
        }
    }

    fn abort(self: Box<Self>) {
        self.operation.abort();
    }
}

impl Operation for FakeOperation {
    fn fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    fn child(&self) -> Option<i32> {
        None
    }

    fn finish(self: Box<Self>) -> Result<Outcome, RuntimeError> {
        match self.act {
            Act::Fail(kind) => Err(RuntimeError::Failed {
                verb: self.verb,
                id: self.id,
                status: "code 1".to_owned(),
                kind,
                source: Words("scripted".to_owned()),
            }),
            Act::Succeed | Act::Delay(_) | Act::Hang => Ok(self.outcome),
        }
    }

    fn abort(self: Box<Self>) {
        let _closed: OwnedFd = self.timer.into();
    }
}

fn watch(verb: Verb, task: &TaskSpec, source: io::Error) -> RuntimeError {
    RuntimeError::Watch { verb, id: task.id.clone(), source }
}
