//! The processes that are executed in the container beside its own.
//!
//! ```text
//!  Exec ──► Starting ── made: written down, let go ──► runs: answered ──► Running ── ends: written down ──► Ended
//!              └ fails, or takes too long ► answered with the error          waiters are answered ◄┘
//! ```
//!
//! A caller has the process's descriptors and a pidfd from then on: we are only needed to reap it, and to tell how it ended on
//! kernels that tell the parent alone. A successor finds in the record which processes these are; the holder notes the ends that no
//! shim has seen.

use std::collections::VecDeque;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use contd_failpoint::Failpoint;
use contd_lease::ProcessIdentity;
use contd_protocol::shim::{ExecProcess, MAX_ENDED_EXECS, MAX_EXECS, Response, files};
use contd_types::{ApiError, ExecId, ExecInfo, Exit, ExitSource, Pid, Signal};
use nix::poll::PollFlags;
use serde::{Deserialize, Serialize};

use super::{Answer, CallRef, Phase, Task};
use crate::clock;
use crate::error::TaskError;
use crate::holder;
use crate::process::{End, Process};
use crate::runtime::{ExecStdio, ExecStep, Executing, RuntimeError, Verb};

const CALL: &str = "execute a process in";

/// The executed processes of a container.
#[derive(Debug, Default)]
pub(super) struct Execs {
    starting: Vec<Starting>,
    running: Vec<Running>,
    /// The newest last.
    ended: VecDeque<Ended>,
}

/// A process on its way.
#[derive(Debug)]
struct Starting {
    exec: ExecId,
    args: Vec<String>,
    has_terminal: bool,
    step: Box<dyn Executing>,
    deadline: Instant,
    callers: Vec<CallRef>,
    /// Once there is a process.
    made: Option<Made>,
}

#[derive(Debug)]
struct Made {
    process: Process,
    info: ExecInfo,
    /// The master of its terminal, for the first caller.
    terminal: Option<OwnedFd>,
}

#[derive(Debug)]
struct Running {
    process: Process,
    info: ExecInfo,
    waiters: Vec<CallRef>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ended {
    exec: ExecId,
    exit: Exit,
}

/// `execs.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    running: Vec<RecordedExec>,
    ended: VecDeque<Ended>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RecordedExec {
    #[serde(flatten)]
    info: ExecInfo,
    /// As [`contd_protocol::shim::InitRecord::start_ticks`].
    start_ticks: u64,
    /// Whether it runs its program for certain. If not, nobody was told of it.
    is_told: bool,
}

impl RecordedExec {
    fn of(process: &Process, info: &ExecInfo, is_told: bool) -> Self {
        Self { info: info.clone(), start_ticks: process.identity().start_ticks, is_told }
    }
}

impl Execs {
    /// Tells whether one is on its way.
    pub(super) fn is_starting(&self) -> bool {
        !self.starting.is_empty()
    }

    /// Tells whether a child is one of these, so that it is reaped here.
    pub(super) fn knows(&self, pid: i32) -> bool {
        let starts = |starting: &Starting| {
            starting.step.owns(pid) || starting.made.as_ref().is_some_and(|made| made.info.pid.0 == pid)
        };
        self.starting.iter().any(starts) || self.running.iter().any(|running| running.info.pid.0 == pid)
    }

    /// Forgets the calls of a connection.
    pub(super) fn forget(&mut self, connection: u64) {
        let is_other = |caller: &CallRef| caller.connection != connection;
        self.starting.iter_mut().for_each(|starting| starting.callers.retain(is_other));
        self.running.iter_mut().for_each(|running| running.waiters.retain(is_other));
    }

    /// Returns what to wait for, of each process that is on its way or runs.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (ExecId, BorrowedFd<'_>, PollFlags)> {
        let starting = self.starting.iter().map(|starting| (starting.exec, starting.step.fd(), PollFlags::POLLIN));
        let running = self.running.iter().map(|running| {
            let (fd, flags) = running.process.fd();
            (running.info.exec, fd, flags)
        });
        starting.chain(running)
    }

    /// Returns when something is due although nothing becomes ready.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let starting = self.starting.iter().map(|starting| starting.deadline);
        starting.chain(self.running.iter().filter_map(|running| running.process.deadline())).min()
    }

    fn record(&self) -> Record {
        let made = self.starting.iter().filter_map(|starting| starting.made.as_ref());
        let made = made.map(|made| RecordedExec::of(&made.process, &made.info, false));
        let running = self.running.iter().map(|running| RecordedExec::of(&running.process, &running.info, true));
        Record { running: made.chain(running).collect(), ended: self.ended.clone() }
    }

    fn end(&mut self, exec: ExecId, exit: Exit) {
        self.ended.push_back(Ended { exec, exit });
        if self.ended.len() > MAX_ENDED_EXECS {
            self.ended.pop_front();
        }
    }

    fn ended(&self, exec: ExecId) -> Option<&Exit> {
        self.ended.iter().find(|ended| ended.exec == exec).map(|ended| &ended.exit)
    }
}

impl Task {
    /// Begins to execute a process; `fds` are its descriptors 0, 1 and 2 if it has no terminal.
    pub(super) fn exec(
        &mut self,
        caller: CallRef,
        exec: ExecId,
        process: &ExecProcess,
        fds: Vec<OwnedFd>,
    ) -> Result<Option<Response>, TaskError> {
        if let Some(starting) = self.execs.starting.iter_mut().find(|starting| starting.exec == exec) {
            starting.callers.push(caller);
            return Ok(None);
        }
        if let Some(exit) = self.execs.ended(exec) {
            return Ok(Some(Response::Exited(exit.clone())));
        }
        let id = || self.spec.id.clone();
        if let Some(running) = self.execs.running.iter().find(|running| running.info.exec == exec) {
            if running.info.has_terminal {
                return Err(TaskError::TerminalGiven { id: id(), exec });
            }
            let answer = executes(&running.process, running.info.pid, None);
            self.replies.push(answer.into_answer(caller));
            return Ok(None);
        }
        self.check_idle(CALL)?;
        let (true, Some(init)) = (self.takes_processes(), &self.init) else {
            return Err(self.forbidden(CALL, "a container takes processes while it runs and is not paused"));
        };
        if self.execs.starting.len() + self.execs.running.len() >= MAX_EXECS {
            return Err(TaskError::TooManyExecs { id: id() });
        }
        let stdio = match process.terminal {
            Some(size) => ExecStdio::Terminal(size),
            // The session has counted them.
            None => ExecStdio::Given(fds.try_into().map_err(|_fds| TaskError::NoSuchExec { id: id(), exec })?),
        };
        let step = self.runtime.begin_exec(&self.spec, process, init.process().pidfd(), stdio);
        let step = step.map_err(TaskError::Runtime)?;
        let deadline = clock::monotonic() + self.spec.runtime_timeout;
        let (args, has_terminal) = (process.args.clone(), process.terminal.is_some());
        let callers = vec![caller];
        self.execs.starting.push(Starting { exec, args, has_terminal, step, deadline, callers, made: None });
        self.is_reaping_due = true;
        Ok(None)
    }

    fn takes_processes(&self) -> bool {
        matches!(self.phase, Phase::Live { is_started: true, is_paused: false }) && self.ending.is_none()
    }

    /// Waits for the end of a process.
    pub(super) fn wait_exec(&mut self, caller: CallRef, exec: ExecId) -> Result<Option<Response>, TaskError> {
        if let Some(exit) = self.execs.ended(exec) {
            return Ok(Some(Response::Exited(exit.clone())));
        }
        let running = self.execs.running.iter_mut().find(|running| running.info.exec == exec);
        let running = running.ok_or_else(|| TaskError::NoSuchExec { id: self.spec.id.clone(), exec })?;
        running.waiters.push(caller);
        Ok(None)
    }

    /// Signals a process alone.
    pub(super) fn kill_exec(&self, exec: ExecId, signal: Signal) -> Result<Option<Response>, TaskError> {
        let id = || self.spec.id.clone();
        match self.execs.running.iter().find(|running| running.info.exec == exec) {
            Some(running) => {
                let signalled = running.process.signal(signal);
                signalled.map(|()| Some(Response::Done)).map_err(|source| TaskError::Signal { id: id(), source })
            }
            None if self.execs.ended(exec).is_some() => Ok(Some(Response::Done)),
            None => Err(TaskError::NoSuchExec { id: id(), exec }),
        }
    }

    /// Lists the processes that run.
    pub(super) fn list_execs(&self) -> Response {
        Response::Execs(self.execs.running.iter().map(|running| running.info.clone()).collect())
    }

    /// Returns what to wait for because of executed processes.
    pub(crate) fn exec_fds(&self) -> impl Iterator<Item = (ExecId, BorrowedFd<'_>, PollFlags)> {
        self.execs.wanted()
    }

    /// Goes on with a process whose descriptor is ready: it was made, runs, or has ended.
    pub(crate) fn on_exec_ready(&mut self, exec: ExecId) {
        match self.execs.starting.iter().position(|starting| starting.exec == exec) {
            Some(place) => {
                let starting = self.execs.starting.swap_remove(place);
                self.go_on(starting);
            }
            None => self.look_at_exec(exec),
        }
    }

    /// Does what is due: processes that take too long, ends that somebody else is to tell.
    pub(super) fn advance_execs(&mut self, now: Instant) {
        while let Some(place) = self.execs.starting.iter().position(|starting| starting.deadline <= now) {
            let Starting { step, callers, .. } = self.execs.starting.swap_remove(place);
            step.abort();
            let (id, waited) = (self.spec.id.clone(), self.spec.runtime_timeout);
            let error = TaskError::Runtime(RuntimeError::TimedOut { verb: Verb::Exec, id, waited });
            self.exec_failed(&callers, &error);
        }
        let is_due = |running: &&Running| running.process.deadline().is_some_and(|due| due <= now);
        let due: Vec<ExecId> = self.execs.running.iter().filter(is_due).map(|running| running.info.exec).collect();
        due.into_iter().for_each(|exec| self.look_at_exec(exec));
    }

    fn go_on(&mut self, starting: Starting) {
        let Starting { exec, args, has_terminal, step, deadline, callers, made } = starting;
        match step.finish() {
            Ok(ExecStep::Made { pid, terminal, waiting }) => {
                let process = match Process::adopt(pid) {
                    Ok(process) => process,
                    Err(source) => {
                        let id = self.spec.id.clone();
                        return self.exec_failed(&callers, &TaskError::AdoptExec { id, source });
                    }
                };
                let info = ExecInfo { exec, pid: Pid(pid), args: args.clone(), has_terminal, since: clock::wall() };
                let made = Made { process, info, terminal };
                let Some(held) = waiting else { return self.runs(callers, made) };
                // Not let go yet: it ends by itself if we die here, or if it cannot be written down.
                let mut record = self.execs.record();
                record.running.push(RecordedExec::of(&made.process, &made.info, false));
                if let Err(error) = self.write_record(files::EXECS, &record) {
                    return self.exec_failed(&callers, &error);
                }
                contd_failpoint::hit(Failpoint::ExecRecorded);
                let step = held.let_go();
                let made = Some(made);
                self.execs.starting.push(Starting { exec, args, has_terminal, step, deadline, callers, made });
            }
            Ok(ExecStep::Runs) => match made {
                Some(made) => self.runs(callers, made),
                None => {
                    let error = RuntimeError::NoInit { verb: Verb::Exec, id: self.spec.id.clone() };
                    self.exec_failed(&callers, &TaskError::Runtime(error));
                }
            },
            Err(error) => self.exec_failed(&callers, &TaskError::Runtime(error)),
        }
    }

    /// It runs its program: whoever asked is told.
    fn runs(&mut self, callers: Vec<CallRef>, made: Made) {
        let Made { process, info, mut terminal } = made;
        let pid = info.pid;
        let answers: Vec<_> =
            callers.into_iter().map(|caller| executes(&process, pid, terminal.take()).into_answer(caller)).collect();
        self.execs.running.push(Running { process, info, waiters: Vec::new() });
        let record = self.execs.record();
        if let Err(error) = self.write_record(files::EXECS, &record) {
            // It runs, and is looked after for as long as we live.
            self.diagnostics.error(&error);
        }
        contd_failpoint::hit(Failpoint::ExecRuns);
        self.diagnostics.info(format_args!("executed process {pid}"));
        self.replies.extend(answers);
    }

    fn exec_failed(&mut self, callers: &[CallRef], error: &TaskError) {
        self.diagnostics.error(error);
        let error = ApiError::from_error(error);
        self.replies.extend(callers.iter().map(|caller| Answer::new(*caller, Err(error.clone()))));
        // A process that was made ends by itself, and is reaped as an orphan.
        self.is_reaping_due = true;
    }

    /// Takes the status of a process that has ended.
    fn look_at_exec(&mut self, exec: ExecId) {
        let Some(place) = self.execs.running.iter().position(|running| running.info.exec == exec) else { return };
        let Some(running) = self.execs.running.get_mut(place) else { return };
        let end = match running.process.end(clock::monotonic()) {
            Ok(Some(end)) => end,
            Ok(None) => return,
            Err(error) => End::Unknown(format!("ask how it has ended: {error}")),
        };
        contd_failpoint::hit(Failpoint::ExecEnded);
        let Running { info, waiters, .. } = self.execs.running.swap_remove(place);
        let exit = exit_of(&end);
        self.diagnostics.info(format_args!("executed process {} has ended: {exit}", info.pid));
        self.execs.end(exec, exit.clone());
        let record = self.execs.record();
        if let Err(error) = self.write_record(files::EXECS, &record) {
            self.diagnostics.error(&error);
        }
        let told = |caller| Answer::new(caller, Ok(Response::Exited(exit.clone())));
        self.replies.extend(waiters.into_iter().map(told));
    }

    /// Goes on with the processes that a predecessor has executed.
    pub(super) fn adopt_execs(&mut self, run_dir: &Path) -> Result<(), TaskError> {
        let Some(record) = self.read_record::<Record>(files::EXECS)? else { return Ok(()) };
        self.execs.ended = record.ended;
        for RecordedExec { info, start_ticks, is_told } in record.running {
            let identity = ProcessIdentity { pid: info.pid.0, start_ticks };
            let process = Process::take_over(identity, None, run_dir);
            match process.map_err(|source| TaskError::AdoptExec { id: self.spec.id.clone(), source })? {
                // Its caller was told that it failed: it must not run on.
                Some(process) if !is_told => {
                    let _ended_already = process.signal(Signal::KILL);
                }
                None if !is_told => {}
                Some(process) => self.execs.running.push(Running { process, info, waiters: Vec::new() }),
                None => {
                    let end = holder::noted(run_dir, &identity).map(|status| End::Known(status, ExitSource::Reaped));
                    let unseen = || End::Unknown("its shim died, and it ended while nobody else watched".to_owned());
                    self.execs.end(info.exec, exit_of(&end.unwrap_or_else(unseen)));
                }
            }
        }
        Ok(())
    }

    /// Forgets all of them, when the container is gone.
    pub(super) fn forget_execs(&mut self) {
        let Execs { starting, running, .. } = std::mem::take(&mut self.execs);
        let error = ApiError::new(contd_types::ErrorKind::Conflict, format!("{CALL} container {}", self.spec.id));
        let error = ApiError { causes: vec!["the container was deleted".to_owned()], ..error };
        let waiters = running.into_iter().flat_map(|running| running.waiters);
        let callers: Vec<_> = starting.into_iter().flat_map(|starting| starting.callers).chain(waiters).collect();
        self.replies.extend(callers.into_iter().map(|caller| Answer::new(caller, Err(error.clone()))));
        self.remove_record(files::EXECS);
    }
}

fn exit_of(end: &End) -> Exit {
    let (cause, source) = end.cause();
    Exit { cause, at: clock::wall(), oom_kills: 0, source, is_drained: true }
}

/// The answer that a process runs, with its descriptors.
struct Executes {
    result: Result<Response, ApiError>,
    fds: Vec<OwnedFd>,
}

impl Executes {
    fn into_answer(self, caller: CallRef) -> Answer {
        Answer { caller, result: self.result, fds: self.fds }
    }
}

fn executes(process: &Process, pid: Pid, terminal: Option<OwnedFd>) -> Executes {
    match process.pidfd().as_fd().try_clone_to_owned() {
        Ok(pidfd) => {
            let response = Response::Executes { pid, has_terminal: terminal.is_some() };
            Executes { result: Ok(response), fds: std::iter::once(pidfd).chain(terminal).collect() }
        }
        Err(error) => {
            let kind = contd_types::Shortage::of_spawn(&error)
                .map_or(contd_types::ErrorKind::Internal, |_| contd_types::ErrorKind::OutOfResources);
            let message = format!("give away the pidfd of executed process {pid}: {error}");
            Executes { result: Err(ApiError::new(kind, message)), fds: Vec::new() }
        }
    }
}

/// Removes what is left of the files of runtimes that were at it when a predecessor died.
pub(super) fn remove_leftovers(dir: &Path) {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    for file in files.filter(|file| file.file_name().to_string_lossy().starts_with("exec-")) {
        // Tried again with the directory.
        let _later = fs::remove_file(file.path());
    }
}
