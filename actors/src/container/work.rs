//! What comes next for a container, and the beginning of each task.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::ActorFutureExt;
use actix::{AsyncContext, Context, WrapFuture};
use contd_failpoint::Failpoint;
use contd_rootfs::FetchProgress;
use contd_types::{Event, State, Step};
use tokio::sync::mpsc;
use tracing::warn;

use super::ending::RECOVERY_STEP;
use super::{ContainerActor, Work, answer};
use crate::error::{ContainerError, MakeError, StepError, one_line};
use crate::records::RecordError;
use crate::shared::OperationGuard;
use crate::task::make::{Goal, MakePlan, make};
use crate::task::recover::recover;
use crate::task::remove::{remove, settle};
use crate::task::{Cancel, CancelHandle};

/// The longest back-off; a record whose clock was set back must not wait for years.
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);

/// Which making it is.
struct MakeKind {
    is_first: bool,
    goal: Goal,
}

impl ContainerActor {
    /// Begins the operation that the intents ask for, if none is under way. Called after every change.
    pub(super) fn go_on(&mut self, ctx: &mut Context<Self>) {
        if !self.work.is_idle() || self.is_gone {
            return;
        }
        let has_ended = matches!(
            self.state,
            State::Stopped { .. } | State::Backoff { .. } | State::Failed { .. } | State::Prepared
        );
        let is_removed_now = self.subject.spec.is_auto_removed
            && self.holds == 0
            && !self.wants_start
            && self.is_exit_told
            && matches!(self.state, State::Stopped { .. });
        if self.wants_delete && (has_ended || self.is_leaving()) {
            if self.removal.is_due() {
                self.begin_remove(ctx);
            }
        } else if !has_ended {
            // It runs, or nothing is known yet.
        } else if self.has_old_shim {
            if self.is_exit_told {
                self.begin_settle(ctx);
            }
        } else if is_removed_now {
            self.begin_remove(ctx);
        } else if self.wants_start {
            self.wants_start = false;
            self.cancel_timer(|actor| &mut actor.restart_timer, ctx);
            self.must_advance(Event::Restarted);
            self.begin_make(false, Goal::Running, None, ctx);
        }
    }

    fn guard(&self) -> OperationGuard {
        OperationGuard::new(&self.subject.shared)
    }

    /// Writes the intent, then has the container made.
    pub(super) fn begin_make(
        &mut self,
        is_first: bool,
        goal: Goal,
        progress: Option<mpsc::Sender<FetchProgress>>,
        ctx: &mut Context<Self>,
    ) {
        contd_failpoint::hit(Failpoint::MakeAdmitted);
        let generation = self.next_generation();
        let (handle, cancel) = CancelHandle::new();
        self.work = Work::Making { cancel: handle, is_first, _guard: self.guard() };
        self.record.state = State::Creating;
        self.record.went_down_with_node = false;
        let write = self.save().into_actor(self).map(move |result, actor, ctx| {
            if actor.generation == generation && !actor.is_gone {
                actor.launch_make(result, MakeKind { is_first, goal }, progress, cancel, ctx);
            }
        });
        ctx.spawn(write);
    }

    fn launch_make(
        &mut self,
        written: Result<(), Arc<RecordError>>,
        MakeKind { is_first, goal }: MakeKind,
        progress: Option<mpsc::Sender<FetchProgress>>,
        cancel: Cancel,
        ctx: &mut Context<Self>,
    ) {
        contd_failpoint::hit(Failpoint::MakeRecorded);
        match written {
            Ok(()) => {
                let (subject, generation, actor) = (self.subject.clone(), self.generation, ctx.address());
                actix_rt::spawn(make(MakePlan { subject, generation, is_first, goal, progress, actor }, cancel));
            }
            Err(source) => {
                let name = self.subject.name.clone();
                let source = StepError::Record(source);
                self.take_make_error(MakeError { name, step: Step::Record, source, leftovers: Vec::new() }, ctx);
            }
        }
    }

    /// Ends the shim of the last run; its exit is on disk.
    fn begin_settle(&mut self, ctx: &mut Context<Self>) {
        let generation = self.next_generation();
        self.work = Work::Settling { _guard: self.guard() };
        actix_rt::spawn(settle(self.subject.clone(), self.old_shim.take(), generation, ctx.address()));
    }

    /// Writes the intent, then has everything removed.
    fn begin_remove(&mut self, ctx: &mut Context<Self>) {
        self.cancel_timer(|actor| &mut actor.restart_timer, ctx);
        self.fail_waiting_starts();
        self.must_advance(Event::DeleteRequested);
        let generation = self.next_generation();
        self.work = Work::Removing { _guard: self.guard() };
        self.wants_delete = true;
        self.record.state = self.state.clone();
        self.begin_removal_try(ctx);
        let write = self.save().into_actor(self).map(move |result, actor, ctx| {
            if let Err(failure) = result {
                // A full disk must not keep what would free it. The parts go first, and with them room comes; after a crash
                // before that it would be there again, half: the deletion was not acknowledged.
                warn!(container = %actor.subject.id, error = one_line(&failure), "intent to delete not written");
            }
            contd_failpoint::hit(Failpoint::DeleteRecorded);
            let shim = actor.shim.take().or(actor.old_shim.take());
            actix_rt::spawn(remove(actor.subject.clone(), shim, generation, ctx.address()));
        });
        ctx.spawn(write);
    }

    fn fail_waiting_starts(&mut self) {
        for reply in std::mem::take(&mut self.waiting.makes) {
            let (id, state) = (self.subject.id.clone(), self.state.name());
            answer(reply, Err(ContainerError::Forbidden { id, verb: "start", state }));
        }
    }

    /// Looks for the shim. The state is `Recovering` already.
    pub(super) fn begin_recovery(&mut self, ctx: &mut Context<Self>) {
        let generation = self.next_generation();
        let (handle, cancel) = CancelHandle::new();
        self.work = Work::Recovering { _cancel: handle };
        actix_rt::spawn(recover(self.subject.clone(), generation, ctx.address(), cancel));
    }

    /// A forced deletion of a container whose shim does not answer: it is removed as far as that goes.
    pub(super) fn give_up_recovery(&mut self, ctx: &mut Context<Self>) {
        self.next_generation();
        self.work = Work::Idle;
        self.fail(RECOVERY_STEP, "given up for its deletion".to_owned());
        self.answer_recovered();
        self.go_on(ctx);
    }

    /// Picks up where an earlier daemon, or a lost actor, left the container.
    pub(super) fn pick_up(&mut self, may_have_shim: bool, ctx: &mut Context<Self>) {
        self.has_old_shim = may_have_shim;
        let is_other_boot = self.record.boot_id != self.subject.shared.config.boot_id;
        let was_told = self.was_told_to_stop();
        match self.state.clone() {
            state if state.may_have_shim() => {
                self.must_advance(Event::RecoveryBegun);
                self.begin_recovery(ctx);
                return;
            }
            State::Deleting | State::Lingering { .. } => self.wants_delete = true,
            State::Failed { .. } if !self.record.is_acknowledged => self.wants_delete = true,
            State::Stopped { .. } | State::Failed { .. } if self.record.went_down_with_node => {
                self.wants_start = self.policy().wants_start_at_boot(was_told, true);
                if !self.wants_start {
                    // Once decided, it is no longer what the next boot would have to look at.
                    self.record.went_down_with_node = false;
                    self.save_in_passing(ctx);
                }
            }
            State::Stopped { .. } | State::Failed { .. } if is_other_boot => {
                self.wants_start = self.policy().wants_start_at_boot(was_told, false);
            }
            State::Backoff { .. } if is_other_boot => {
                self.wants_start = self.policy().wants_start_at_boot(was_told, true);
                if !self.wants_start {
                    self.must_advance(Event::StopRequested);
                    self.record.state = self.state.clone();
                    self.save_in_passing(ctx);
                }
            }
            State::Backoff { attempt, until, .. } => {
                self.streak = attempt.saturating_sub(1);
                let left = until.saturating_since(self.subject.shared.clock.now());
                self.arm_restart(left.min(LONGEST_BACKOFF), ctx);
            }
            State::Failed { .. } => self.retry_failed(ctx),
            _ => {}
        }
        self.show();
        self.go_on(ctx);
    }
}
