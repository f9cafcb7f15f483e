//! Advances a task without a call: an operation is over, init has ended, the output is drained, the orphans are gone.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Instant;

use contd_durable::{DurableError, Fs, RealFs, replace, replace_volatile};
use contd_failpoint::Failpoint;
use contd_protocol::shim::{Response, files};
use contd_types::{ApiError, Exit, Signal};
use nix::poll::PollFlags;
use serde::Serialize;

use super::{Answer, Current, Deletion, Ending, LettingGo, Phase, Stage, Task};
use crate::clock;
use crate::console::Console;
use crate::error::TaskError;
use crate::init::Init;
use crate::leftover;
use crate::process::End;
use crate::reaper::{self, Left};
use crate::runtime::{Outcome, RuntimeError, Verb, Words};

/// How often the time to read the last output is given again at most, while output comes.
const MAX_EXTENSIONS: u32 = 4;

impl Task {
    /// Returns the descriptor of the operation under way.
    pub(crate) fn operation_fd(&self) -> Option<BorrowedFd<'_>> {
        self.current.as_ref().map(|current| current.operation.fd())
    }

    /// Returns the descriptor of an init that lives, and what to wait for.
    pub(crate) fn init_fd(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        if self.ending.is_some() { None } else { self.init.as_ref().map(|init| init.process().fd()) }
    }

    /// Returns when [`Self::advance`] has something to do even if nothing becomes ready.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let orphans = self.deletion.as_ref().and_then(|deletion| match deletion.stage {
            Stage::AwaitOrphans { deadline } => Some(deadline),
            Stage::AwaitExit | Stage::AtRuntime => None,
        });
        let operation = self.current.as_ref().map(|current| current.deadline);
        // While `start` is under way the exit is held back anyway; its own deadline wakes us.
        let ending = self.ending.as_ref().filter(|_| !self.is_starting()).map(|ending| self.ends_at(ending));
        let letting_go = self.letting_go.as_ref().map(LettingGo::next_look);
        let init = self.init_deadline();
        let execs = self.execs.deadline();
        let console = self.console.as_ref().and_then(Console::deadline);
        let all = [operation, ending, orphans, letting_go, init, execs, console, self.pump.deadline()];
        all.into_iter().flatten().min()
    }

    /// Returns when to look at an init that is dead and of which nobody has told how it ended.
    fn init_deadline(&self) -> Option<Instant> {
        self.init.as_ref().filter(|_| self.ending.is_none()).and_then(|init| init.process().deadline())
    }

    /// Takes the result of the operation under way.
    pub(crate) fn on_operation_done(&mut self) {
        let Some(Current { verb, operation, callers, .. }) = self.current.take() else { return };
        let outcome = operation.finish();
        let outcome_is_let_go = matches!(outcome, Ok(Outcome::LetGo));
        let result = match outcome {
            Ok(outcome) => self.succeeded(verb, outcome),
            Err(error) => Err(TaskError::Runtime(self.with_last_words(error))),
        };
        match result {
            Ok(response) if outcome_is_let_go => self.let_go(callers, response),
            Ok(response) => {
                self.replies.extend(callers.iter().map(|caller| Answer::new(*caller, Ok(response.clone()))));
            }
            Err(error) if verb == Verb::Delete => self.deletion_failed(&error),
            Err(error) => self.failed(verb, &callers, &error),
        }
    }

    fn succeeded(&mut self, verb: Verb, outcome: Outcome) -> Result<Response, TaskError> {
        match (verb, outcome) {
            (Verb::Create, Outcome::Created { pid, terminal }) => {
                contd_failpoint::hit(Failpoint::CreateMade);
                let adopt = |source| TaskError::Adopt { id: self.spec.id.clone(), source };
                let init = Init::adopt(pid, &self.hierarchies).map_err(adopt)?;
                let record = self.write_record(files::INIT, &init.record(false));
                contd_failpoint::hit(Failpoint::CreateRecorded);
                let pid = init.pid();
                // From here on its end is waited for, whatever else fails.
                self.phase = Phase::Live { is_started: false, is_paused: false };
                self.pump.begin();
                if record.is_err() {
                    // No process would find it again after our death.
                    self.kill_quietly(&init);
                }
                self.init = Some(init);
                self.diagnostics.info(format_args!("created init {pid}"));
                if let Some(master) = terminal {
                    self.take_terminal(master)?;
                }
                record.map(|()| Response::Pid(pid))
            }
            (Verb::Start, _) => {
                self.phase = Phase::Live { is_started: true, is_paused: false };
                let Some(init) = &self.init else { return Ok(Response::Done) };
                let (pid, record) = (init.pid(), init.record(true));
                if let Err(error) = self.write_record(files::INIT, &record) {
                    // It runs: a successor would at worst start it again, which the runtime refuses.
                    self.diagnostics.error(&error);
                }
                contd_failpoint::hit(Failpoint::StartRecorded);
                self.diagnostics.info(format_args!("started init {pid}"));
                Ok(Response::Pid(pid))
            }
            (Verb::Pause, _) => {
                self.set_paused(true);
                Ok(Response::Done)
            }
            (Verb::Resume, _) => {
                self.set_paused(false);
                Ok(Response::Done)
            }
            (Verb::Delete, _) => {
                self.runtime_deleted();
                Ok(Response::Done)
            }
            (Verb::Create | Verb::Exec, _) => {
                let (id, path) = (self.spec.id.clone(), self.dir.clone());
                let source = io::ErrorKind::InvalidData.into();
                Err(TaskError::Runtime(RuntimeError::PidFile { id, path, source }))
            }
        }
    }

    fn set_paused(&mut self, is_now: bool) {
        if let Phase::Live { is_paused, .. } = &mut self.phase {
            *is_paused = is_now;
        }
    }

    fn kill_quietly(&self, init: &Init) {
        if let Err(error) = init.process().signal(Signal::KILL) {
            self.diagnostics.error(&error);
        }
    }

    /// A runtime that has left nothing in its log has printed it where the container's standard error goes.
    fn with_last_words(&mut self, error: RuntimeError) -> RuntimeError {
        match error {
            RuntimeError::Failed { verb: verb @ Verb::Create, id, status, source, .. } if source.0.is_empty() => {
                let words = self.pump.last_words();
                let kind = crate::runtime::classify(&words);
                RuntimeError::Failed { verb, id, status, kind, source: Words(words) }
            }
            other => other,
        }
    }

    /// Takes the status of an init that has ended.
    pub(crate) fn on_init_ended(&mut self) {
        let Some(init) = &mut self.init else { return };
        let end = match init.process_mut().end(clock::monotonic()) {
            Ok(Some(end)) => end,
            Ok(None) => return,
            Err(error) => {
                self.diagnostics.warn(format_args!("ask how init {} has ended: {error}", init.pid()));
                End::Unknown(format!("ask how it has ended: {error}"))
            }
        };
        self.begin_ending(end);
    }

    /// It has ended; its output is still to be read.
    pub(super) fn begin_ending(&mut self, end: End) {
        contd_failpoint::hit(Failpoint::EndSeen);
        if let Some(console) = &mut self.console {
            console.end();
        }
        if self.is_rest_whole {
            self.pump.take_the_rest();
        }
        let deadline = clock::monotonic() + self.spec.drain_timeout;
        self.ending = Some(Ending { end, at: clock::wall(), deadline });
    }

    /// Does what is due: deadlines, the exit once the output is drained.
    pub(crate) fn advance(&mut self, now: Instant) {
        self.pump.retry(now);
        if let Some(console) = &mut self.console {
            console.look_again(now);
        }
        self.look_whether_it_runs(now);
        self.advance_execs(now);
        if self.init_deadline().is_some_and(|due| due <= now) {
            self.on_init_ended();
        }
        if self.current.as_ref().is_some_and(|current| current.deadline <= now) {
            self.time_out();
        }
        if let Some(ending) = &self.ending
            && !self.is_starting()
            && (self.pump.is_drained() || self.ends_at(ending) <= now)
        {
            let exit = self.exit_of(ending);
            self.record_exit(exit);
        }
        if let Some(Deletion { stage: Stage::AwaitOrphans { deadline }, .. }) = &self.deletion
            && *deadline <= now
        {
            let id = self.spec.id.clone();
            self.phase = Phase::Failed;
            self.deletion_failed(&TaskError::Undying { id });
        }
    }

    /// Returns until when the output of what has ended is read: as long as it still comes into the log the time runs anew,
    /// within a bound. A slow disk or a busy node is no reason to lose what lies in the pipes.
    fn ends_at(&self, ending: &Ending) -> Instant {
        let drain = self.spec.drain_timeout;
        let goes_on_until = self.pump.logged_at().map_or(ending.deadline, |at| at + drain);
        goes_on_until.clamp(ending.deadline, ending.deadline + MAX_EXTENSIONS * drain)
    }

    fn is_starting(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.verb == Verb::Start)
    }

    fn time_out(&mut self) {
        let Some(Current { verb, operation, callers, .. }) = self.current.take() else { return };
        operation.abort();
        let waited = self.spec.runtime_timeout;
        let error = TaskError::Runtime(RuntimeError::TimedOut { verb, id: self.spec.id.clone(), waited });
        if verb == Verb::Delete {
            self.deletion_failed(&error);
        } else {
            self.failed(verb, &callers, &error);
        }
    }

    fn exit_of(&self, ending: &Ending) -> Exit {
        let (cause, source) = ending.end.cause();
        let oom_kills = self.cgroup().map_or(0, contd_cgroup::TaskCgroup::oom_kills);
        let is_drained = self.pump.is_drained();
        Exit { cause, at: ending.at, oom_kills, source, is_drained }
    }

    /// Writes the exit down, then tells it.
    fn record_exit(&mut self, exit: Exit) {
        let Some(pid) = self.init_pid() else { return };
        contd_failpoint::hit(Failpoint::EndDrained);
        (self.init, self.lost, self.ending) = (None, None, None);
        if let Err(error) = self.write_record(files::EXIT, &exit) {
            // Still true, and still told; only our own death could lose it now.
            self.diagnostics.error(&error);
        }
        contd_failpoint::hit(Failpoint::EndWritten);
        self.diagnostics.info(format_args!("init {pid} has ended: {exit}"));
        let is_started = matches!(self.phase, Phase::Live { is_started: true, .. });
        self.replies
            .extend(self.waiters.drain(..).map(|caller| Answer::new(caller, Ok(Response::Exited(exit.clone())))));
        self.phase = Phase::Exited { pid, exit, is_started };
        contd_failpoint::hit(Failpoint::EndTold);
        if self.deletion.is_some() {
            if self.current.is_some() {
                self.break_off();
            }
            self.begin_deletion();
        }
    }

    pub(super) fn begin_deletion(&mut self) {
        // Forced, also for what has ended: descendants without a pid namespace of their own may still run.
        match self.runtime.begin_delete(&self.spec, true) {
            Ok(operation) => {
                contd_failpoint::hit(Failpoint::DeleteBegun);
                let deadline = clock::monotonic() + self.spec.runtime_timeout;
                self.current = Some(Current { verb: Verb::Delete, operation, deadline, callers: Vec::new() });
                self.is_reaping_due = true;
                if let Some(deletion) = &mut self.deletion {
                    deletion.stage = Stage::AtRuntime;
                }
            }
            Err(error) => self.deletion_failed(&TaskError::Runtime(error)),
        }
    }

    /// Kills what is still our child, and waits for it: no process of the container may outlive its deletion.
    fn runtime_deleted(&mut self) {
        contd_failpoint::hit(Failpoint::DeleteCgroupRemoved);
        if let Some(deletion) = &mut self.deletion {
            let deadline = clock::monotonic() + self.spec.runtime_timeout;
            deletion.stage = Stage::AwaitOrphans { deadline };
        }
        self.is_reaping_due = true;
    }

    fn deletion_failed(&mut self, error: &TaskError) {
        self.diagnostics.error(error);
        let Some(deletion) = self.deletion.take() else { return };
        let error = ApiError::from_error(error);
        self.replies.extend(deletion.callers.into_iter().map(|caller| Answer::new(caller, Err(error.clone()))));
    }

    /// Reaps whoever nobody waits for; returns whether another round is needed at once.
    pub(crate) fn reap(&mut self) -> bool {
        self.is_reaping_due = false;
        let init = self.init.as_ref().filter(|_| self.ending.is_none()).map(|init| init.pid().0);
        let child = self.current.as_ref().and_then(|current| current.operation.child());
        let is_known = |pid: i32| Some(pid) == init || Some(pid) == child || self.execs.knows(pid);
        let left = match reaper::reap_orphans(is_known) {
            Ok(left) => left,
            Err(error) => {
                self.diagnostics.warn(format_args!("reap orphans: {error}"));
                return false;
            }
        };
        let is_last_stage = matches!(self.deletion, Some(Deletion { stage: Stage::AwaitOrphans { .. }, .. }));
        if left == Left::Nobody && is_last_stage {
            self.finish_deletion();
        } else if left != Left::Nobody
            && (is_last_stage || matches!(self.phase, Phase::Failed))
            && let Err(error) = reaper::kill_orphans(is_known)
        {
            self.diagnostics.warn(format_args!("kill orphans: {error}"));
        }
        left == Left::MoreToReap
    }

    /// Tells whether orphans must be looked for although no signal announced one.
    pub(crate) fn wants_reaping(&self) -> bool {
        self.is_reaping_due
    }

    fn finish_deletion(&mut self) {
        let Some(deletion) = self.deletion.take() else { return };
        if matches!(self.phase, Phase::Failed) {
            // A runtime that was killed half-way knows nothing of the cgroup it had made.
            if let Err(error) = leftover::remove_cgroup(&self.hierarchies, &self.spec.bundle) {
                self.diagnostics.error(&error);
            }
        }
        self.close_stdio();
        self.remove_record(files::INIT);
        self.forget_execs();
        contd_failpoint::hit(Failpoint::DeleteForgotten);
        self.phase = Phase::Empty { is_clean: true };
        self.refuse_waiters("the container was deleted");
        self.replies.extend(deletion.callers.into_iter().map(|caller| Answer::new(caller, Ok(Response::Done))));
    }

    /// Forgets what is written down about an earlier container under this lease.
    pub(super) fn forget_records(&self) {
        self.remove_record(files::INIT);
        self.remove_record(files::EXIT);
        self.remove_record(files::EXECS);
    }

    pub(super) fn remove_record(&self, name: &str) {
        match fs::remove_file(self.dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.diagnostics.warn(format_args!("remove {name}: {error}"));
            }
            _ => {}
        }
    }

    pub(super) fn write_record(&self, name: &str, record: &impl Serialize) -> Result<(), TaskError> {
        write(&self.dir.join(name), record, replace_volatile)
    }

    /// Writes a record that must outlive us and a run directory that is on a disk.
    pub(super) fn keep_record(&self, name: &str, record: &impl Serialize) -> Result<(), TaskError> {
        write(&self.dir.join(name), record, replace)
    }
}

/// How a file is replaced.
type Replace = fn(&dyn Fs, &Path, &[u8], u32) -> Result<(), DurableError>;

fn write(path: &Path, record: &impl Serialize, replace: Replace) -> Result<(), TaskError> {
    let failed = |source| TaskError::Record { path: path.to_owned(), source };
    let bytes = serde_json::to_vec(record).map_err(|error| {
        let source = io::Error::other(error);
        failed(DurableError::Write { path: path.to_owned(), source })
    })?;
    replace(&RealFs, path, &bytes, 0o600).map_err(failed)
}
