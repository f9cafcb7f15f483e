//! The container's life as its parent sees it: answers calls, and is advanced by what becomes ready.
//!
//! ```text
//!           Create           Start
//!   Empty ─────────► Live ─────────► Live ───► (init ends, output is drained) ───► Exited
//!     ▲      │        not started     started ⇄ paused                              │
//!     │      └ fails ► Failed                                                       │
//!     └───────────────── Delete ─── runtime's delete, orphans ended ◄───────────────┘
//! ```
//!
//! One operation of the runtime is under way at a time. A kill needs no runtime and is never queued behind one.

mod adopt;
mod advance;
mod calls;
mod exec;
mod input;
mod letting_go;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use contd_cgroup::{Hierarchies, TaskCgroup};
use contd_protocol::shim::{Response, TaskSpec, TaskState, files};
use contd_types::{ApiError, Exit, Pid, Timestamp};

use crate::clock;
use crate::console::Console;
use crate::diagnostics::Diagnostics;
use crate::error::TaskError;
use crate::init::{Init, StoredInit};
use crate::input::Input;
use crate::process::End;
use crate::pump::Pump;
use crate::runtime::{Operation, Runtime, RuntimeError, Verb};
use exec::Execs;
use letting_go::LettingGo;

/// Which call of which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallRef {
    /// The connection's number; never used again.
    pub(crate) connection: u64,
    /// The id that the caller chose.
    pub(crate) call: u64,
}

/// An answer on its way to its caller.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) caller: CallRef,
    pub(crate) result: Result<Response, ApiError>,
    /// The descriptors that belong to it.
    pub(crate) fds: Vec<OwnedFd>,
}

impl Answer {
    fn new(caller: CallRef, result: Result<Response, ApiError>) -> Self {
        Self { caller, result, fds: Vec::new() }
    }
}

/// Another program is to go on in this process.
#[derive(Debug)]
pub(crate) struct HandOver {
    /// The call that is answered when that fails; when it succeeds, the end of the connection says it.
    pub(crate) caller: CallRef,
    /// The program.
    pub(crate) binary: PathBuf,
}

#[derive(Debug)]
enum Phase {
    /// No container was made; when not clean, a predecessor may have left something at the runtime.
    Empty { is_clean: bool },
    /// Something was made by half.
    Failed,
    /// There is an init, perhaps just ended.
    Live { is_started: bool, is_paused: bool },
    /// It has ended, and that is written down.
    Exited { pid: Pid, exit: Exit, is_started: bool },
}

/// The runtime's operation under way.
#[derive(Debug)]
struct Current {
    verb: Verb,
    operation: Box<dyn Operation>,
    deadline: Instant,
    callers: Vec<CallRef>,
}

/// Init has ended; its output is being read to the end.
#[derive(Debug)]
struct Ending {
    end: End,
    at: Timestamp,
    deadline: Instant,
}

#[derive(Debug)]
struct Deletion {
    callers: Vec<CallRef>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    AwaitExit,
    AtRuntime,
    AwaitOrphans { deadline: Instant },
}

/// One container.
#[derive(Debug)]
pub(crate) struct Task {
    spec: TaskSpec,
    dir: PathBuf,
    runtime: Box<dyn Runtime>,
    hierarchies: Rc<Hierarchies>,
    diagnostics: Rc<Diagnostics>,
    /// Its output.
    pub(crate) pump: Pump,
    /// Its standard input, if that is open.
    input: Option<Input>,
    /// Its terminal, if it has one.
    console: Option<Console>,
    phase: Phase,
    current: Option<Current>,
    init: Option<Init>,
    /// In the place of an init whose end a predecessor missed: there is no descriptor of it.
    lost: Option<StoredInit>,
    ending: Option<Ending>,
    /// Whether the FIFOs of a predecessor's container were held by somebody all the time.
    is_rest_whole: bool,
    waiters: Vec<CallRef>,
    deletion: Option<Deletion>,
    letting_go: Option<LettingGo>,
    /// The processes that are executed in it beside its own.
    execs: Execs,
    is_shut_down: bool,
    hand_over: Option<HandOver>,
    /// Whether orphans must be looked for although no signal has announced one.
    is_reaping_due: bool,
    replies: Vec<Answer>,
}

impl Task {
    /// Makes a task of which nothing exists yet.
    pub(crate) fn new(
        spec: TaskSpec,
        dir: PathBuf,
        runtime: Box<dyn Runtime>,
        hierarchies: Rc<Hierarchies>,
        pump: Pump,
        diagnostics: Rc<Diagnostics>,
    ) -> Self {
        Self {
            spec,
            dir,
            runtime,
            hierarchies,
            diagnostics,
            pump,
            input: None,
            console: None,
            phase: Phase::Empty { is_clean: false },
            current: None,
            init: None,
            lost: None,
            ending: None,
            is_rest_whole: false,
            waiters: Vec::new(),
            deletion: None,
            letting_go: None,
            execs: Execs::default(),
            is_shut_down: false,
            hand_over: None,
            is_reaping_due: false,
            replies: Vec::new(),
        }
    }

    /// Returns the answers that have come up.
    pub(crate) fn take_replies(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.replies)
    }

    /// Forgets the calls of a connection that is gone; what they have begun goes on.
    pub(crate) fn forget(&mut self, connection: u64) {
        let is_other = |caller: &CallRef| caller.connection != connection;
        self.waiters.retain(is_other);
        self.execs.forget(connection);
        if let Some(current) = &mut self.current {
            current.callers.retain(is_other);
        }
        if let Some(deletion) = &mut self.deletion {
            deletion.callers.retain(is_other);
        }
    }

    /// Tells whether the shim was told to end.
    pub(crate) fn is_shut_down(&self) -> bool {
        self.is_shut_down
    }

    /// Sees to it that all which is known of a container that has ended is on disk, for whoever comes after us. `false` while
    /// there is something to guard: a container that lives, work under way, or output that the log does not take.
    pub(crate) fn leave_behind(&mut self) -> bool {
        if self.current.is_some() || self.deletion.is_some() || matches!(self.phase, Phase::Live { .. }) {
            return false;
        }
        // The output of descendants since then: they are not ours any more.
        self.pump.take_the_rest();
        if self.pump.has_waiting() {
            return false;
        }
        self.pump.sync_log();
        if let Phase::Exited { exit, .. } = &self.phase
            && let Err(error) = self.keep_record(files::EXIT, exit)
        {
            // It was written before, if not brought to the disk.
            self.diagnostics.error(&error);
        }
        true
    }

    /// Returns the program that is to go on, if one is. All output that was taken is in the log or in its spool.
    pub(crate) fn take_hand_over(&mut self) -> Option<HandOver> {
        self.hand_over.take()
    }

    /// Answers that the program could not be executed.
    pub(crate) fn refuse_hand_over(&mut self, caller: CallRef, binary: PathBuf, source: io::Error) {
        let error = TaskError::HandOver { id: self.spec.id.clone(), binary, source };
        self.diagnostics.error(&error);
        self.replies.push(Answer::new(caller, Err(ApiError::from_error(&error))));
    }

    /// Tells where the container is.
    fn state(&self) -> TaskState {
        match (&self.phase, self.init_pid()) {
            (Phase::Exited { exit, .. }, _) => TaskState::Exited { exit: exit.clone() },
            (Phase::Live { is_paused: true, .. }, Some(pid)) => TaskState::Paused { pid },
            (Phase::Live { is_started: true, .. }, Some(pid)) => TaskState::Running { pid },
            (Phase::Live { .. }, Some(pid)) => TaskState::Created { pid },
            (Phase::Empty { .. }, _) if self.is_creating() => TaskState::Creating,
            (Phase::Empty { .. } | Phase::Failed | Phase::Live { .. }, _) => TaskState::Empty,
        }
    }

    /// Tells whether there is a container, living or ended, that must be looked after or told of.
    pub(crate) fn has_container(&self) -> bool {
        matches!(self.phase, Phase::Live { .. } | Phase::Exited { .. })
    }

    fn init_pid(&self) -> Option<Pid> {
        self.init.as_ref().map(Init::pid).or_else(|| self.lost.as_ref().map(|lost| lost.record.pid))
    }

    fn cgroup(&self) -> Option<&TaskCgroup> {
        self.init.as_ref().map(Init::cgroup).or_else(|| self.lost.as_ref().map(|lost| &lost.cgroup))
    }

    fn state_name(&self) -> &'static str {
        match &self.phase {
            Phase::Empty { .. } if self.is_creating() => "being created",
            Phase::Empty { .. } => "not created",
            Phase::Failed => "half-made",
            Phase::Live { .. } if self.ending.is_some() => "ending",
            Phase::Live { is_paused: true, .. } => "paused",
            Phase::Live { is_started: true, .. } => "running",
            Phase::Live { .. } => "created",
            Phase::Exited { .. } => "ended",
        }
    }

    fn is_creating(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.verb == Verb::Create)
    }

    fn pid(&self) -> Option<Response> {
        self.init.as_ref().map(|init| Response::Pid(init.pid()))
    }

    fn check_idle(&self, call: &'static str) -> Result<(), TaskError> {
        let verb = match (&self.current, &self.deletion) {
            (_, Some(_)) => Verb::Delete,
            (Some(current), None) => current.verb,
            (None, None) => return Ok(()),
        };
        Err(TaskError::Busy { call, id: self.spec.id.clone(), verb })
    }

    fn forbidden(&self, call: &'static str, hint: &'static str) -> TaskError {
        TaskError::Forbidden { call, id: self.spec.id.clone(), state: self.state_name(), hint }
    }

    fn begun(&mut self, verb: Verb, operation: Box<dyn Operation>, caller: CallRef) {
        let deadline = clock::monotonic() + self.spec.runtime_timeout;
        self.current = Some(Current { verb, operation, deadline, callers: vec![caller] });
        // A child that has ended meanwhile is not in the way of the operation's.
        self.is_reaping_due = true;
    }

    /// Breaks off what the runtime is doing.
    fn break_off(&mut self) {
        let Some(Current { verb, operation, callers, .. }) = self.current.take() else { return };
        operation.abort();
        let error = RuntimeError::Aborted { verb, id: self.spec.id.clone() };
        self.failed(verb, &callers, &TaskError::Runtime(error));
    }

    /// Answers the callers of an operation that failed, and notes what that means for the container.
    fn failed(&mut self, verb: Verb, callers: &[CallRef], error: &TaskError) {
        self.diagnostics.error(error);
        let error = ApiError::from_error(error);
        self.replies.extend(callers.iter().map(|caller| Answer::new(*caller, Err(error.clone()))));
        if verb == Verb::Create && self.init.is_none() {
            self.phase = Phase::Failed;
            self.is_reaping_due = true;
            self.close_stdio();
            self.refuse_waiters("the container could not be created");
        }
    }

    fn refuse_waiters(&mut self, why: &str) {
        let error = ApiError::new(contd_types::ErrorKind::Conflict, format!("wait for container {}", self.spec.id));
        let error = ApiError { causes: vec![why.to_owned()], ..error };
        self.replies.extend(self.waiters.drain(..).map(|caller| Answer::new(caller, Err(error.clone()))));
    }
}
