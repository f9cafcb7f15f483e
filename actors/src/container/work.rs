//! Decides which task comes next for a container, and begins it.

use std::time::Duration;

use actix::fut::ActorFutureExt;
use actix::{AsyncContext, Context, WrapFuture};
use contd_failpoint::Failpoint;
use contd_store::Desired;
use contd_types::{Event, State};
use tracing::warn;

use super::ending::RECOVERY_STEP;
use super::{ContainerActor, Work, answer};
use crate::error::{ContainerError, one_line};
use crate::messages::namespace::Goal;
use crate::shared::OperationGuard;
use crate::task::CancelHandle;
use crate::task::operation::Kind;
use crate::task::recover::recover;
use crate::task::remove::{remove, settle};

/// The longest back-off; a record whose clock was set back must not wait for years.
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);

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
            // Also where a policy starts at boot what a user had stopped: that stop is over now.
            self.record.desired = Desired::Run;
            self.cancel_timer(|actor| &mut actor.restart_timer, ctx);
            self.must_advance(Event::Restarted);
            self.begin_make(false, Goal::Running, None, ctx);
        }
    }

    pub(super) fn guard(&self) -> OperationGuard {
        OperationGuard::new(&self.subject.shared)
    }

    /// Ends the shim of the last run; its exit is on disk.
    fn begin_settle(&mut self, ctx: &mut Context<Self>) {
        self.next_generation();
        self.subject.begin(Kind::Settle);
        self.work = Work::Settling { _guard: self.guard() };
        let settling = settle(self.subject.clone(), self.old_shim.take());
        self.run_task(settling, ctx, Self::finish_settling);
    }

    /// Writes the intent, then has everything removed.
    fn begin_remove(&mut self, ctx: &mut Context<Self>) {
        self.cancel_timer(|actor| &mut actor.restart_timer, ctx);
        self.fail_waiting_starts();
        self.subject.begin(Kind::Remove);
        self.must_advance(Event::DeleteRequested);
        self.next_generation();
        self.work = Work::Removing { _guard: self.guard() };
        self.wants_delete = true;
        self.record.state = self.state.clone();
        self.begin_removal_try(ctx);
        let write = self.save().into_actor(self).map(move |result, actor, ctx| {
            if let Err(failure) = result {
                // A full disk must not keep what would free it. The parts go first, and with them room comes; after a crash
                // before that it would be there again, half: the deletion was not acknowledged.
                warn!(parent: actor.subject.span(), error = one_line(&failure), "intent to delete not written");
            }
            contd_failpoint::hit(Failpoint::DeleteRecorded);
            let shim = actor.shim.take().or(actor.old_shim.take());
            let removing = remove(actor.subject.clone(), shim, actor.removal.part.clone());
            actor.run_task(removing, ctx, |actor, (leftovers, holdouts), ctx| {
                actor.finish_removal(&leftovers, &holdouts, ctx);
            });
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
        self.next_generation();
        self.subject.begin(Kind::Recover);
        let (handle, cancel) = CancelHandle::new();
        self.work = Work::Recovering { _cancel: handle };
        self.run_task(recover(self.subject.clone(), cancel), ctx, |actor, finding, ctx| {
            if let Some(finding) = finding {
                actor.finish_recovery(finding, ctx);
            }
        });
    }

    /// A forced deletion of a container whose shim does not answer: it is removed as far as that goes.
    pub(super) fn give_up_recovery(&mut self, ctx: &mut Context<Self>) {
        self.next_generation();
        self.work = Work::Idle;
        self.fail(RECOVERY_STEP, "given up for its deletion".to_owned());
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
