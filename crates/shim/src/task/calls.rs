//! The calls of a task: each is answered at once, or begins what is answered later.

use std::os::fd::OwnedFd;
use std::path::Path;

use contd_failpoint::Failpoint;
use contd_lease::ProcessError;
use contd_protocol::shim::{Request, Response};
use contd_types::{ApiError, RequestId, Signal};

use super::{Answer, CallRef, Deletion, HandOver, Phase, Stage, Task};
use crate::error::TaskError;
use crate::init::Init;
use crate::runtime::Verb;

const DELETE_FIRST: &str = "delete it first";
const CREATE_FIRST: &str = "create it first";

impl Task {
    /// Carries out a call; its answer comes from [`Self::take_replies`], now or later.
    pub(crate) fn call(&mut self, caller: CallRef, request: &Request, fds: Vec<OwnedFd>) {
        if let Some(operation) = RequestId::of_call(caller.call)
            && !matches!(request, Request::State | Request::Wait | Request::WaitExec { .. } | Request::Execs)
        {
            self.diagnostics.belongs_to(operation);
        }
        let answer = match request {
            Request::Create => self.create(caller),
            Request::Start => self.start(caller),
            Request::State => Ok(Some(Response::State(self.state()))),
            Request::Kill { signal, is_for_all } => self.kill(*signal, *is_for_all),
            Request::Wait => self.wait(caller),
            Request::Pause => self.pause(caller),
            Request::Resume => self.resume(caller),
            Request::Delete { force } => self.delete(caller, *force),
            Request::RotateLog => self
                .pump
                .rotate_log()
                .map(|()| Some(Response::Done))
                .map_err(|source| TaskError::Output { id: self.spec.id.clone(), source }),
            Request::Shutdown => self.shut_down(),
            Request::HandOver { binary } => self.hand_over(caller, binary),
            Request::Exec { exec, process } => self.exec(caller, *exec, process, fds),
            Request::WaitExec { exec } => self.wait_exec(caller, *exec),
            Request::KillExec { exec, signal } => self.kill_exec(*exec, *signal),
            Request::Execs => Ok(Some(self.list_execs())),
            Request::CloseInput => self.close_input(),
            Request::Resize { size } => self.resize(*size),
            Request::Terminal => self.show_terminal(caller),
            Request::GiveTerminal => self.give_terminal(fds),
        };
        match answer {
            Ok(Some(response)) => self.replies.push(Answer::new(caller, Ok(response))),
            Ok(None) => {}
            Err(error) => self.replies.push(Answer::new(caller, Err(ApiError::from_error(&error)))),
        }
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
        let stdio = match self.open_stdio() {
            Ok(stdio) => stdio,
            Err(error) => {
                self.close_stdio();
                return Err(error);
            }
        };
        match self.runtime.begin_create(&self.spec, stdio) {
            Ok(operation) => {
                contd_failpoint::hit(Failpoint::CreateBegun);
                self.begun(Verb::Create, operation, caller);
            }
            Err(error) => {
                self.close_stdio();
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
            // A container that has ended cannot be ended again.
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
        init.process().signal(signal).map_err(one)?;
        self.diagnostics.info(format_args!("sent {signal} to init {}", init.pid()));
        if is_for_all {
            init.cgroup().signal_all(signal.number()).map_err(all)?;
        }
        // A frozen container is thawed, whoever froze it: v1 keeps the signal waiting otherwise.
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
        self.check_no_exec("pause")?;
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

    fn hand_over(&mut self, caller: CallRef, binary: &Path) -> Result<Option<Response>, TaskError> {
        self.check_idle("hand over")?;
        self.check_no_exec("hand over")?;
        if self.letting_go.is_some() || self.hand_over.is_some() {
            return Err(TaskError::Busy { call: "hand over", id: self.spec.id.clone(), verb: Verb::Start });
        }
        if !self.has_container() {
            return Err(self.forbidden("hand over", "only the shim of a container can be replaced"));
        }
        self.hand_over = Some(HandOver { caller, binary: binary.to_owned() });
        Ok(None)
    }

    /// A process that is just being made must be neither frozen half-way nor left without the one who lets it go.
    fn check_no_exec(&self, call: &'static str) -> Result<(), TaskError> {
        if self.execs.is_starting() {
            return Err(TaskError::Busy { call, id: self.spec.id.clone(), verb: Verb::Exec });
        }
        Ok(())
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
}
