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
mod letting_go;

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use contd_cgroup::{Hierarchies, TaskCgroup};
use contd_failpoint::Failpoint;
use contd_lease::ProcessError;
use contd_protocol::shim::{Request, Response, TaskSpec, TaskState, files};
use contd_types::{ApiError, Exit, Pid, Signal, Timestamp};

use crate::clock;
use crate::diagnostics::Diagnostics;
use crate::error::TaskError;
use crate::init::{End, Init, StoredInit};
use crate::pump::Pump;
use crate::runtime::{Operation, Runtime, RuntimeError, Verb};
use letting_go::LettingGo;

const DELETE_FIRST: &str = "delete it first";
const CREATE_FIRST: &str = "create it first";

/// Which call of which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallRef {
    /// The connection's number; never used again.
    pub(crate) connection: u64,
    /// The id that the caller chose.
    pub(crate) call: u64,
}

type Answer = Result<Response, ApiError>;

/// Another program is to go on in this process.
#[derive(Debug)]
pub(crate) struct HandOver {
    /// Who is told when that fails; when it does not, the end of the connection says it.
    pub(crate) caller: CallRef,
    /// The program.
    pub(crate) binary: PathBuf,
}

#[derive(Debug)]
enum Phase {
    /// Nothing was made; when not clean, a predecessor may have left something at the runtime.
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
    is_shut_down: bool,
    hand_over: Option<HandOver>,
    /// Whether orphans must be looked for although no signal has announced one.
    is_reaping_due: bool,
    replies: Vec<(CallRef, Answer)>,
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
            phase: Phase::Empty { is_clean: false },
            current: None,
            init: None,
            lost: None,
            ending: None,
            is_rest_whole: false,
            waiters: Vec::new(),
            deletion: None,
            letting_go: None,
            is_shut_down: false,
            hand_over: None,
            is_reaping_due: false,
            replies: Vec::new(),
        }
    }

    /// Carries out a call; its answer comes from [`Self::take_replies`], now or later.
    pub(crate) fn call(&mut self, caller: CallRef, request: &Request) {
        let answer = match request {
            Request::Create => self.create(caller),
            Request::Start => self.start(caller),
            Request::State => Ok(Some(Response::State(self.state()))),
            Request::Kill { signal, is_for_all } => self.kill(*signal, *is_for_all),
            Request::Wait => self.wait(caller),
            Request::Pause => self.pause(caller),
            Request::Resume => self.resume(caller),
            Request::Delete { force } => self.delete(caller, *force),
            Request::ReopenLog => self
                .pump
                .reopen_log()
                .map(|()| Some(Response::Done))
                .map_err(|source| TaskError::Output { id: self.spec.id.clone(), source }),
            Request::Shutdown => self.shut_down(),
            Request::HandOver { binary } => self.hand_over(caller, binary),
        };
        match answer {
            Ok(Some(response)) => self.replies.push((caller, Ok(response))),
            Ok(None) => {}
            Err(error) => self.replies.push((caller, Err(ApiError::from_error(&error)))),
        }
    }

    /// Returns the answers that have come up.
    pub(crate) fn take_replies(&mut self) -> Vec<(CallRef, Answer)> {
        std::mem::take(&mut self.replies)
    }

    /// Forgets the calls of a connection that is gone; what they have begun goes on.
    pub(crate) fn forget(&mut self, connection: u64) {
        let is_other = |caller: &CallRef| caller.connection != connection;
        self.waiters.retain(is_other);
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

    fn create(&mut self, caller: CallRef) -> Result<Option<Response>, TaskError> {
        if self.joins(Verb::Create, caller) {
            return Ok(None);
        }
        self.check_idle("create")?;
        match &self.phase {
            Phase::Empty { .. } => {}
            Phase::Live { is_started: false, .. } if self.ending.is_none() => return Ok(self.pid()),
            Phase::Failed | Phase::Live { .. } | Phase::Exited { .. } => {
                return Err(self.forbidden("create", DELETE_FIRST));
            }
        }
        self.forget_records();
        let failed = |source| TaskError::Output { id: self.spec.id.clone(), source };
        let stdio = self.pump.open().map_err(failed)?;
        match self.runtime.begin_create(&self.spec, stdio) {
            Ok(operation) => {
                contd_failpoint::hit(Failpoint::CreateBegun);
                self.begun(Verb::Create, operation, caller);
            }
            Err(error) => {
                self.pump.close();
                return Err(TaskError::Runtime(error));
            }
        }
        Ok(None)
    }

    fn start(&mut self, caller: CallRef) -> Result<Option<Response>, TaskError> {
        if self.joins(Verb::Start, caller) {
            return Ok(None);
        }
        self.check_idle("start")?;
        match &self.phase {
            Phase::Live { is_started: true, .. } => return Ok(self.pid()),
            // It was asked twice, and the container was quicker than the second time.
            Phase::Exited { pid, is_started: true, .. } => return Ok(Some(Response::Pid(*pid))),
            Phase::Live { is_started: false, .. } if self.ending.is_none() => {}
            Phase::Empty { .. } => return Err(self.forbidden("start", CREATE_FIRST)),
            Phase::Failed | Phase::Live { .. } | Phase::Exited { .. } => {
                return Err(self.forbidden("start", "delete it and create it again"));
            }
        }
        let operation = self.runtime.begin_start(&self.spec).map_err(TaskError::Runtime)?;
        contd_failpoint::hit(Failpoint::StartBegun);
        self.begun(Verb::Start, operation, caller);
        Ok(None)
    }

    fn kill(&mut self, signal: Signal, is_for_all: bool) -> Result<Option<Response>, TaskError> {
        if let Some(init) = &self.init {
            self.signal(init, signal, is_for_all)?;
            return Ok(Some(Response::Done));
        }
        match &self.phase {
            // What has ended cannot be ended again.
            Phase::Failed | Phase::Exited { .. } | Phase::Live { .. } => Ok(Some(Response::Done)),
            Phase::Empty { .. } if self.is_creating() && signal == Signal::KILL => {
                self.break_off();
                Ok(Some(Response::Done))
            }
            Phase::Empty { .. } if self.is_creating() => {
                Err(self.forbidden("kill", "there is no init yet: repeat when it is created, or send SIGKILL"))
            }
            Phase::Empty { .. } => Err(self.forbidden("kill", CREATE_FIRST)),
        }
    }

    fn signal(&self, init: &Init, signal: Signal, is_for_all: bool) -> Result<(), TaskError> {
        let one = |source: ProcessError| TaskError::Signal { id: self.spec.id.clone(), source };
        let all = |source| TaskError::SignalAll { id: self.spec.id.clone(), source };
        init.signal(signal).map_err(one)?;
        if is_for_all {
            init.cgroup().signal_all(signal.number()).map_err(all)?;
        }
        // Whoever froze it: v1 keeps the signal waiting otherwise.
        if signal == Signal::KILL {
            init.cgroup().thaw().map_err(all)?;
        }
        Ok(())
    }

    fn wait(&mut self, caller: CallRef) -> Result<Option<Response>, TaskError> {
        match &self.phase {
            Phase::Exited { exit, .. } => Ok(Some(Response::Exited(exit.clone()))),
            Phase::Failed => Err(self.forbidden("wait for", "it never ran: delete it")),
            Phase::Empty { .. } | Phase::Live { .. } => {
                self.waiters.push(caller);
                Ok(None)
            }
        }
    }

    fn pause(&mut self, caller: CallRef) -> Result<Option<Response>, TaskError> {
        if self.joins(Verb::Pause, caller) {
            return Ok(None);
        }
        self.check_idle("pause")?;
        match &self.phase {
            Phase::Live { is_paused: true, .. } => Ok(Some(Response::Done)),
            Phase::Live { is_started: true, .. } if self.ending.is_none() => {
                let operation = self.runtime.begin_pause(&self.spec).map_err(TaskError::Runtime)?;
                self.begun(Verb::Pause, operation, caller);
                Ok(None)
            }
            Phase::Empty { .. } | Phase::Failed | Phase::Live { .. } | Phase::Exited { .. } => {
                Err(self.forbidden("pause", "only a running container can be paused"))
            }
        }
    }

    fn resume(&mut self, caller: CallRef) -> Result<Option<Response>, TaskError> {
        if self.joins(Verb::Resume, caller) {
            return Ok(None);
        }
        self.check_idle("resume")?;
        match &self.phase {
            Phase::Live { is_paused: true, .. } if self.ending.is_none() => {
                let operation = self.runtime.begin_resume(&self.spec).map_err(TaskError::Runtime)?;
                self.begun(Verb::Resume, operation, caller);
                Ok(None)
            }
            Phase::Live { is_started: true, is_paused: false } => Ok(Some(Response::Done)),
            Phase::Empty { .. } | Phase::Failed | Phase::Live { .. } | Phase::Exited { .. } => {
                Err(self.forbidden("resume", "only a paused container can be resumed"))
            }
        }
    }

    fn delete(&mut self, caller: CallRef, is_forced: bool) -> Result<Option<Response>, TaskError> {
        if let Some(deletion) = &mut self.deletion {
            deletion.callers.push(caller);
            return Ok(None);
        }
        if matches!(self.phase, Phase::Empty { is_clean: true }) && self.current.is_none() {
            return Ok(Some(Response::Done));
        }
        if !is_forced {
            self.check_idle("delete")?;
            if matches!(self.phase, Phase::Live { .. }) {
                return Err(self.forbidden("delete", "kill it first, or delete with force"));
            }
        }
        if self.current.is_some() {
            self.break_off();
        }
        if let Some(init) = &self.init {
            self.signal(init, Signal::KILL, true)?;
        }
        self.deletion = Some(Deletion { callers: vec![caller], stage: Stage::AwaitExit });
        if !matches!(self.phase, Phase::Live { .. }) {
            self.begin_deletion();
        }
        Ok(None)
    }

    fn shut_down(&mut self) -> Result<Option<Response>, TaskError> {
        if self.current.is_some() || self.deletion.is_some() || matches!(self.phase, Phase::Live { .. }) {
            return Err(self.forbidden("shut down the shim of", "delete it with force first"));
        }
        contd_failpoint::hit(Failpoint::ShimShutDown);
        self.is_shut_down = true;
        self.refuse_waiters("the shim was shut down");
        Ok(Some(Response::Done))
    }

    /// Sees to it that all which is known of a container that has ended is on disk, for whoever comes after us. `false` while
    /// there is something to guard: a container that lives, work under way, or output that the log does not take.
    pub(crate) fn leave_behind(&mut self) -> bool {
        if self.current.is_some() || self.deletion.is_some() || matches!(self.phase, Phase::Live { .. }) {
            return false;
        }
        // What descendants have said since: they are not ours any more.
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

    fn hand_over(&mut self, caller: CallRef, binary: &Path) -> Result<Option<Response>, TaskError> {
        self.check_idle("hand over")?;
        if self.letting_go.is_some() || self.hand_over.is_some() {
            return Err(TaskError::Busy { call: "hand over", id: self.spec.id.clone(), verb: Verb::Start });
        }
        if !self.has_container() {
            return Err(self.forbidden("hand over", "only the shim of a container can be replaced"));
        }
        self.hand_over = Some(HandOver { caller, binary: binary.to_owned() });
        Ok(None)
    }

    /// Returns the program that is to go on, if one is. All output that was taken is in the log or in its spool.
    pub(crate) fn take_hand_over(&mut self) -> Option<HandOver> {
        self.hand_over.take()
    }

    /// Answers that the program could not be executed.
    pub(crate) fn refuse_hand_over(&mut self, caller: CallRef, binary: PathBuf, source: io::Error) {
        let error = TaskError::HandOver { id: self.spec.id.clone(), binary, source };
        self.diagnostics.error(&error);
        self.replies.push((caller, Err(ApiError::from_error(&error))));
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

    /// Adds a caller to the same operation under way, if that is what is under way.
    fn joins(&mut self, verb: Verb, caller: CallRef) -> bool {
        match &mut self.current {
            Some(current) if current.verb == verb && self.deletion.is_none() => {
                current.callers.push(caller);
                true
            }
            _ => false,
        }
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
        // The announcement of an ended child may have been lost while the operation's process was started.
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
        self.replies.extend(callers.iter().map(|caller| (*caller, Err(error.clone()))));
        if verb == Verb::Create && self.init.is_none() {
            self.phase = Phase::Failed;
            self.is_reaping_due = true;
            self.pump.close();
            self.refuse_waiters("the container could not be created");
        }
    }

    fn refuse_waiters(&mut self, why: &str) {
        let error = ApiError::new(contd_types::ErrorKind::Conflict, format!("wait for container {}", self.spec.id));
        let error = ApiError { causes: vec![why.to_owned()], ..error };
        self.replies.extend(self.waiters.drain(..).map(|caller| (caller, Err(error.clone()))));
    }
}
