//! The node that a fake pretends to be: shims, their containers, and what is on its tmpfs.

use std::collections::{BTreeMap, HashMap, VecDeque};

use contd_protocol::shim::{ExecProcess, TaskSpec, TaskState};
use contd_types::{
    ApiError, ContainerId, ErrorKind, ExecId, ExecInfo, Exit, ExitCause, ExitSource, Pid, Signal, Timestamp,
};

use super::script::{EndedBy, InitEvent, Outcome, Program, Reaction, ShimCall, Verb};

/// The first pid that is given out; larger than any a test would write by hand.
const FIRST_PID: i32 = 10_000;

/// Everything under the fake's one lock.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) calls: Vec<ShimCall>,
    pub(super) scripts: HashMap<(Option<ContainerId>, Verb), VecDeque<Outcome>>,
    pub(super) defaults: HashMap<Verb, Outcome>,
    pub(super) programs: HashMap<Option<ContainerId>, Program>,
    pub(super) reactions: HashMap<(ContainerId, u8), Reaction>,
    /// One per lease directory.
    pub(super) slots: BTreeMap<ContainerId, Slot>,
    /// How many shim processes were started, ever.
    pub(super) starts: HashMap<ContainerId, usize>,
    pub(super) duplicate_starts: usize,
    /// Every init that began and ended, in order.
    pub(super) inits: Vec<InitEvent>,
    next: i32,
}

/// A lease directory with its shim and container.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) task: TaskSpec,
    /// The number of the living shim process.
    pub(super) shim: Option<i32>,
    /// Where the container is, whether or not a shim is there to tell.
    pub(super) state: TaskState,
    /// The exit in `exit.json`.
    pub(super) exit_file: Option<Exit>,
    /// The executed processes, and how those have ended that have.
    pub(super) execs: BTreeMap<ExecId, (ExecInfo, Option<Exit>)>,
    /// Counts broken connections: a pending call that sees it change is lost.
    pub(super) breaks: u64,
}

impl Slot {
    pub(super) fn init(&self) -> Option<Pid> {
        match self.state {
            TaskState::Created { pid } | TaskState::Running { pid } | TaskState::Paused { pid } => Some(pid),
            TaskState::Empty | TaskState::Creating | TaskState::Exited { .. } => None,
        }
    }

    fn end(&mut self, exit: Exit) {
        let killed = Exit { cause: ExitCause::Signal(Signal::KILL), ..exit.clone() };
        for (_, end) in self.execs.values_mut() {
            end.get_or_insert_with(|| killed.clone());
        }
        self.exit_file = Some(exit.clone());
        self.state = TaskState::Exited { exit };
    }
}

impl Node {
    /// Writes the call down and takes its outcome: the container's own script first, then the verb's, then the default.
    pub(super) fn record(&mut self, call: ShimCall) -> Outcome {
        let (id, verb) = (call.id().cloned(), call.verb());
        self.calls.push(call);
        let own = id.and_then(|id| self.scripts.get_mut(&(Some(id), verb)).and_then(VecDeque::pop_front));
        own.or_else(|| self.scripts.get_mut(&(None, verb)).and_then(VecDeque::pop_front))
            .or_else(|| self.defaults.get(&verb).cloned())
            .unwrap_or(Outcome::Ok)
    }

    /// Starts a shim unless one lives, and returns its number; `None` when the container runs without one.
    pub(super) fn spawn(&mut self, task: &TaskSpec) -> Option<i32> {
        if let Some(slot) = self.slots.get(&task.id) {
            if slot.shim.is_some() {
                self.duplicate_starts += 1;
                return slot.shim;
            }
            if slot.init().is_some() {
                return None;
            }
        }
        let number = self.number();
        *self.starts.entry(task.id.clone()).or_default() += 1;
        let slot = self.slots.entry(task.id.clone()).or_insert_with(|| Slot {
            task: task.clone(),
            shim: None,
            state: TaskState::Empty,
            exit_file: None,
            execs: BTreeMap::new(),
            breaks: 0,
        });
        slot.shim = Some(number);
        slot.state = TaskState::Empty;
        slot.shim
    }

    /// Starts a successor for a shim that died under its container.
    pub(super) fn succeed(&mut self, id: &ContainerId) {
        if self.slots.get(id).is_some_and(|slot| slot.shim.is_none() && slot.init().is_some()) {
            let number = self.number();
            *self.starts.entry(id.clone()).or_default() += 1;
            if let Some(slot) = self.slots.get_mut(id) {
                slot.shim = Some(number);
            }
        }
    }

    pub(super) fn create(&mut self, id: &ContainerId) -> Result<Pid, ApiError> {
        let pid = Pid(self.number());
        let slot = self.slot(id)?;
        match &slot.state {
            TaskState::Empty | TaskState::Creating => {
                slot.exit_file = None;
                slot.execs.clear();
                slot.state = TaskState::Created { pid };
                self.inits.push(InitEvent::Began { id: id.clone(), pid });
                Ok(pid)
            }
            TaskState::Created { pid } | TaskState::Running { pid } | TaskState::Paused { pid } => Ok(*pid),
            TaskState::Exited { .. } => Err(conflict(format!("create container {id}: it has ended"))),
        }
    }

    pub(super) fn start(&mut self, id: &ContainerId) -> Result<Pid, ApiError> {
        let slot = self.slot(id)?;
        match &slot.state {
            TaskState::Created { pid } => {
                let pid = *pid;
                slot.state = TaskState::Running { pid };
                Ok(pid)
            }
            TaskState::Running { pid } | TaskState::Paused { pid } => Ok(*pid),
            TaskState::Exited { .. } => Err(conflict(format!("start container {id}: it has ended"))),
            TaskState::Empty | TaskState::Creating => Err(conflict(format!("start container {id}: it is not made"))),
        }
    }

    pub(super) fn kill(&mut self, id: &ContainerId, signal: Signal, now: Timestamp) -> Result<(), ApiError> {
        let usual = if matches!(signal, Signal::KILL | Signal::TERM) { Reaction::Die } else { Reaction::Ignore };
        let reaction = self.reactions.get(&(id.clone(), u8::from(signal))).copied().unwrap_or(usual);
        self.slot(id)?;
        match reaction {
            Reaction::Die => self.end(id, exit(ExitCause::Signal(signal), now), EndedBy::Verb(Verb::Kill)),
            Reaction::ExitWith(code) => self.end(id, exit(ExitCause::Code(code), now), EndedBy::Verb(Verb::Kill)),
            Reaction::Ignore => false,
        };
        Ok(())
    }

    pub(super) fn set_paused(&mut self, id: &ContainerId, is_paused: bool) -> Result<(), ApiError> {
        let slot = self.slot(id)?;
        let pid = match slot.state {
            TaskState::Running { pid } | TaskState::Paused { pid } => pid,
            TaskState::Empty | TaskState::Creating | TaskState::Created { .. } | TaskState::Exited { .. } => {
                return Err(conflict(format!("pause or resume container {id}: it does not run")));
            }
        };
        slot.state = if is_paused { TaskState::Paused { pid } } else { TaskState::Running { pid } };
        Ok(())
    }

    pub(super) fn exec(
        &mut self,
        id: &ContainerId,
        exec: ExecId,
        process: &ExecProcess,
        since: Timestamp,
    ) -> Result<Pid, ApiError> {
        let pid = Pid(self.number());
        let slot = self.slot(id)?;
        if !matches!(slot.state, TaskState::Running { .. }) {
            return Err(conflict(format!("execute a process in container {id}: it does not run")));
        }
        let (args, has_terminal) = (process.args.clone(), process.terminal.is_some());
        let info = ExecInfo { exec, pid, args, has_terminal, since };
        Ok(slot.execs.entry(exec).or_insert((info, None)).0.pid)
    }

    /// Ends an executed process; fine when it has ended.
    pub(super) fn end_exec(&mut self, id: &ContainerId, exec: ExecId, exit: Exit) -> Result<(), ApiError> {
        let (_, end) = self.slot(id)?.execs.get_mut(&exec).ok_or_else(|| no_exec(id, exec))?;
        end.get_or_insert(exit);
        Ok(())
    }

    /// Tells how an executed process has ended; `None` while it runs.
    pub(super) fn end_of_exec(&mut self, id: &ContainerId, exec: ExecId) -> Option<Result<Exit, ApiError>> {
        match self.slot(id).map(|slot| slot.execs.get(&exec).map(|(_, end)| end.clone())) {
            Ok(Some(end)) => end.map(Ok),
            Ok(None) => Some(Err(no_exec(id, exec))),
            Err(error) => Some(Err(error)),
        }
    }

    pub(super) fn execs(&mut self, id: &ContainerId) -> Result<Vec<ExecInfo>, ApiError> {
        let runs = |(info, end): &(ExecInfo, Option<Exit>)| end.is_none().then(|| info.clone());
        Ok(self.slot(id)?.execs.values().filter_map(runs).collect())
    }

    /// Tells whether a container lives that even SIGKILL does not end.
    pub(super) fn survives_kill(&self, id: &ContainerId) -> bool {
        let is_deaf = self.reactions.get(&(id.clone(), u8::from(Signal::KILL))) == Some(&Reaction::Ignore);
        is_deaf && self.slots.get(id).is_some_and(|slot| slot.init().is_some())
    }

    pub(super) fn delete(&mut self, id: &ContainerId, force: bool, now: Timestamp) -> Result<(), ApiError> {
        let slot = self.slot(id)?;
        if slot.init().is_some() {
            if !force {
                return Err(conflict(format!("delete container {id}: it has not ended")));
            }
            self.end(id, exit(ExitCause::Signal(Signal::KILL), now), EndedBy::Verb(Verb::Delete));
        }
        self.slot(id)?.state = TaskState::Empty;
        Ok(())
    }

    pub(super) fn shutdown(&mut self, id: &ContainerId) -> Result<(), ApiError> {
        if self.slots.get(id).and_then(Slot::init).is_some() {
            return Err(conflict(format!("shut the shim of container {id} down: the container lives")));
        }
        self.slots.remove(id);
        Ok(())
    }

    /// Returns the behaviour of the container once it is started.
    pub(super) fn program(&self, id: &ContainerId) -> Program {
        let own = self.programs.get(&Some(id.clone())).or_else(|| self.programs.get(&None));
        own.copied().unwrap_or(Program::RunsOn)
    }

    /// Ends a container that has this pid; `false` when there is no such one.
    pub(super) fn end_if(&mut self, id: &ContainerId, pid: Pid, exit: Exit) -> bool {
        match self.slots.get(id) {
            Some(slot) if slot.init() == Some(pid) && slot.shim.is_some() => self.end(id, exit, EndedBy::World),
            _ => false,
        }
    }

    /// Ends a living container, and its shim writes down how; `false` when none lives.
    pub(super) fn end(&mut self, id: &ContainerId, exit: Exit, by: EndedBy) -> bool {
        let Some((slot, pid)) = self.slots.get_mut(id).and_then(|slot| slot.init().map(|pid| (slot, pid))) else {
            return false;
        };
        slot.end(exit.clone());
        self.inits.push(InitEvent::Ended { id: id.clone(), pid, by, exit: Some(exit) });
        true
    }

    /// Ends a container, if it lives, and nobody knows how.
    pub(super) fn lose_init(&mut self, id: &ContainerId, by: EndedBy) -> bool {
        let Some((slot, pid)) = self.slots.get_mut(id).and_then(|slot| slot.init().map(|pid| (slot, pid))) else {
            return false;
        };
        slot.state = TaskState::Empty;
        self.inits.push(InitEvent::Ended { id: id.clone(), pid, by, exit: None });
        true
    }

    pub(super) fn slot(&mut self, id: &ContainerId) -> Result<&mut Slot, ApiError> {
        self.slots.get_mut(id).ok_or_else(|| ApiError::new(ErrorKind::NotFound, format!("find the shim of {id}")))
    }

    fn number(&mut self) -> i32 {
        self.next = self.next.wrapping_add(1);
        FIRST_PID.saturating_add(self.next)
    }
}

/// An exit that a living shim saw.
pub(super) fn exit(cause: ExitCause, at: Timestamp) -> Exit {
    Exit { cause, at, oom_kills: 0, source: ExitSource::Reaped, is_drained: true }
}

fn no_exec(id: &ContainerId, exec: ExecId) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("find executed process {exec} of container {id}"))
}

fn conflict(message: String) -> ApiError {
    ApiError::new(ErrorKind::Conflict, message)
}
