//! A container is made: the actor's part between the stages of the task ([`crate::task::make`]).
//!
//! ```text
//! intent on disk ─► root, bundle, log, shim, create ─► `Starting` ─► start ─► record on disk ─► `Running`, everyone is answered
//!                        a failure, a stop, or the loss of the actor, wherever: what was begun is undone
//! ```

use std::sync::Arc;

use actix::fut::ActorFutureExt;
use actix::{AsyncContext, Context, WrapFuture};
use contd_failpoint::Failpoint;
use contd_rootfs::FetchProgress;
use contd_shim_client::Shim;
use contd_types::{Event, EventKind, Exit, Pid, State, Step, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{Instrument, debug, error};

use super::{ContainerActor, FirstRun, Work};
use crate::error::{MakeError, StepError, one_line};
use crate::messages::namespace::Goal;
use crate::records::RecordError;
use crate::task::CancelHandle;
use crate::task::make::{Made, MakePlan, Making, Stage, StageDone, begin};
use crate::task::operation::Kind;

impl ContainerActor {
    /// Begins the first run of a container that was just admitted.
    pub(super) fn begin_first_run(&mut self, run: FirstRun, ctx: &mut Context<Self>) {
        let FirstRun { goal, progress, hold, reply } = run;
        self.subject.begin(Kind::Run);
        self.show();
        self.take_hold(hold, ctx);
        self.waiting.makes.push(reply);
        self.publish(EventKind::Accepted);
        self.begin_make(true, goal, progress, ctx);
    }

    /// Has the container made; the first thing that its task does is to bring this intent to the disk.
    pub(super) fn begin_make(
        &mut self,
        is_first: bool,
        goal: Goal,
        progress: Option<mpsc::Sender<FetchProgress>>,
        ctx: &mut Context<Self>,
    ) {
        contd_failpoint::hit(Failpoint::MakeAdmitted);
        self.next_generation();
        if !is_first {
            self.subject.begin(Kind::Start);
        }
        let (handle, cancel) = CancelHandle::new();
        self.work = Work::Making { cancel: handle, is_first, _guard: self.guard() };
        self.record.state = State::Creating;
        self.record.went_down_with_node = false;
        let (subject, intent) = (self.subject.clone(), self.next_write());
        let is_after_loss = self.record.exit.as_ref().is_some_and(Exit::has_lost_output);
        self.run_stage(begin(MakePlan { subject, intent, is_first, is_after_loss, goal, progress }, cancel), ctx);
    }

    fn make_error(&self, step: Step, source: StepError) -> MakeError {
        MakeError { name: self.subject.name.clone(), step, source, leftovers: Vec::new() }
    }

    /// Runs a stage to its end. When the actor is lost meanwhile, what was made is undone at once; when it is lost later, by the
    /// next actor, which finds the record.
    fn run_stage(&mut self, stage: impl Future<Output = StageDone> + 'static, ctx: &mut Context<Self>) {
        let (sender, receiver) = oneshot::channel();
        let staged = async move {
            if let Err((making, _)) = sender.send(stage.await) {
                making.undo().await;
            }
        };
        actix_rt::spawn(staged.instrument(self.subject.span().clone()));
        ctx.spawn(receiver.into_actor(self).map(|done, actor, ctx| match done {
            Ok((making, Ok(stage))) => actor.take_stage(making, stage, ctx),
            Ok((making, Err((step, source)))) => actor.take_back(making, step, source, ctx),
            Err(_panicked) => error!(parent: actor.subject.span(), "a task panicked: this is a bug"),
        }));
    }

    fn take_stage(&mut self, making: Making, stage: Stage, ctx: &mut Context<Self>) {
        match stage {
            Stage::Prepared(made) => self.commit_prepared(making, made, ctx),
            Stage::Created { pid, shim, made } => match self.begin_start(pid) {
                Ok(()) => {
                    contd_failpoint::hit(Failpoint::MakeTold);
                    self.run_stage(making.start(shim, made), ctx);
                }
                Err(source) => self.take_back(making, Step::Create, source, ctx),
            },
            Stage::Started { pid, shim, made, started_at } => {
                self.commit_running(making, Run { pid, shim, made, started_at }, ctx);
            }
        }
    }

    /// The runtime has made it: decides whether to go on.
    fn begin_start(&mut self, pid: Pid) -> Result<(), StepError> {
        if self.state != State::Creating {
            return Err(StepError::Cancelled);
        }
        self.advance(Event::ShimCreated { pid }).map_err(StepError::Illegal)?;
        self.advance(Event::StartRequested).map_err(StepError::Illegal)
    }

    /// All but its processes is there, and no more is wanted: has that on disk.
    fn commit_prepared(&mut self, making: Making, made: Made, ctx: &mut Context<Self>) {
        if self.state != State::Creating {
            self.take_back(making, Step::Record, StepError::Cancelled, ctx);
            return;
        }
        self.record.state = State::Prepared;
        self.record.made_with = made.with;
        self.record.in_force = Some(made.in_force);
        self.record.is_acknowledged = true;
        let write = self.save().into_actor(self);
        ctx.spawn(write.map(|result, actor, ctx| {
            let result = actor.finish_prepared(result);
            actor.finish_make(making, result, ctx);
        }));
    }

    fn finish_prepared(&mut self, written: Result<(), Arc<RecordError>>) -> Result<(), StepError> {
        // A stop that came meanwhile takes it back.
        let is_wanted = self.state == State::Creating;
        self.record.is_acknowledged = written.is_ok() && is_wanted;
        written.map_err(StepError::Record)?;
        if !is_wanted {
            return Err(StepError::Cancelled);
        }
        contd_failpoint::hit(Failpoint::MakePrepared);
        self.advance(Event::Prepared).map_err(StepError::Illegal)?;
        self.publish(EventKind::Created);
        Ok(())
    }

    /// It runs: has that on disk. Not to be cancelled: a stop that comes now finds a running container.
    fn commit_running(&mut self, making: Making, run: Run, ctx: &mut Context<Self>) {
        if !matches!(self.state, State::Starting { .. }) {
            self.take_back(making, Step::Record, StepError::Cancelled, ctx);
            return;
        }
        let Run { pid, shim, made, started_at } = run;
        let before = self.record.clone();
        self.record.state = State::Running { pid };
        self.record.made_with = made.with;
        self.record.begin_run(started_at);
        self.record.in_force = Some(made.in_force);
        self.record.is_acknowledged = true;
        // The making has seen to it, whatever version made the log.
        self.record.has_log_marks = true;
        let write = self.save().into_actor(self);
        ctx.spawn(write.map(move |result, actor, ctx| {
            let result = match result {
                Ok(()) => actor.finish_running(pid, shim, ctx),
                Err(failure) => {
                    actor.record.is_acknowledged = before.is_acknowledged;
                    (actor.record.started_at, actor.record.finished_at) = (before.started_at, before.finished_at);
                    actor.record.has_log_marks = before.has_log_marks;
                    Err(StepError::Record(failure))
                }
            };
            actor.finish_make(making, result, ctx);
        }));
    }

    fn finish_running(&mut self, pid: Pid, shim: Arc<dyn Shim>, ctx: &mut Context<Self>) -> Result<(), StepError> {
        contd_failpoint::hit(Failpoint::MakeCommitted);
        self.subject.shared.unmarked_logs().remove(&self.subject.id);
        // A stop may have come meanwhile: then the state stays `Stopping`, and the signals begin now.
        self.advance(Event::ShimReady { pid }).map_err(StepError::Illegal)?;
        self.shim = Some(Arc::clone(&shim));
        self.runs_since = Some(Instant::now());
        self.publish(EventKind::Started { pid });
        self.watch_exit(shim, ctx);
        if matches!(self.state, State::Stopping { .. }) {
            self.save_in_passing(ctx);
            self.begin_signals(None, false, ctx);
        }
        Ok(())
    }

    fn finish_make(&mut self, making: Making, result: Result<(), StepError>, ctx: &mut Context<Self>) {
        match result {
            Ok(()) => {
                drop(making);
                self.work = Work::Idle;
                self.answer_made();
                self.go_on(ctx);
            }
            Err(source) => self.take_back(making, Step::Record, source, ctx),
        }
    }

    /// Undoes what was made, then says why.
    fn take_back(&mut self, making: Making, step: Step, source: StepError, ctx: &mut Context<Self>) {
        if !source.is_cancelled() {
            debug!(parent: self.subject.span(), %step, error = one_line(&source), "step failed");
        }
        let mut failure = self.make_error(step, source);
        self.run_task(making.undo(), ctx, |actor, leftovers, ctx| {
            failure.leftovers = leftovers;
            actor.take_make_error(failure, ctx);
        });
    }
}

/// A run that has begun.
struct Run {
    pid: Pid,
    shim: Arc<dyn Shim>,
    made: Made,
    /// Just before it was let go.
    started_at: Timestamp,
}
