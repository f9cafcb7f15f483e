//! Goes on when a container's task is over: settled, recovered, or a making that has failed.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::ActorFutureExt;
use actix::{AsyncContext, Context};
use contd_failpoint::Failpoint;
use contd_types::{Backoff, Event, EventKind, Exit, Explain, Pid, State};
use tokio::time::Instant;
use tracing::warn;

use super::ending::RECOVERY_STEP;
use super::{ContainerActor, Work, answer, says_running};
use crate::error::{ContainerError, Leftover, MakeError, StepError, one_line};
use crate::random::jitter;
use crate::task::recover::Finding;

/// Between two tries to end a shim that resists.
const SETTLE_RETRY: Backoff = Backoff::RESTART;
/// Why there is no exit of a container that was told to end before it ran.
const STOPPED_EARLY: &str = "it was told to end before it ran";

impl ContainerActor {
    /// The shim of the run that has ended is gone, or resists.
    pub(super) fn finish_settling(&mut self, result: Result<(), StepError>, ctx: &mut Context<Self>) {
        contd_failpoint::hit(Failpoint::ExitSettled);
        self.work = Work::Idle;
        match result {
            Ok(()) => {
                self.has_old_shim = false;
                self.settle_failures = 0;
                self.go_on(ctx);
            }
            Err(failure) => {
                warn!(parent: self.subject.span(), error = one_line(&failure), "shim of an ended container not ended yet");
                self.settle_failures = self.settle_failures.saturating_add(1);
                if self.wants_delete {
                    self.go_on(ctx);
                    return;
                }
                ctx.run_later(SETTLE_RETRY.delay(self.settle_failures, jitter()), Self::go_on);
            }
        }
    }

    /// It is known what has become of it.
    pub(super) fn finish_recovery(&mut self, finding: Finding, ctx: &mut Context<Self>) {
        self.work = Work::Idle;
        match finding {
            Finding::Runs { shim, pid, is_paused } => {
                self.must_advance(Event::ShimReady { pid });
                if is_paused {
                    self.must_advance(Event::Paused);
                }
                self.adopt(shim, pid, is_paused, ctx);
            }
            Finding::Ended { exit, reason } => {
                let exit = exit.unwrap_or_else(|| self.unknown_exit(reason));
                // It has run, whoever was told: it is a container with an exit now, and no half-made one.
                self.record.is_acknowledged = true;
                self.take_exit(exit, ctx);
            }
            Finding::Nothing => self.take_nothing(ctx),
        }
        self.go_on(ctx);
    }

    /// Goes on with a container that runs.
    fn adopt(&mut self, shim: Arc<dyn contd_shim_client::Shim>, pid: Pid, is_paused: bool, ctx: &mut Context<Self>) {
        self.has_old_shim = false;
        self.shim = Some(Arc::clone(&shim));
        self.runs_since = Some(Instant::now());
        let is_known = self.record.is_acknowledged && self.record.state == State::Running { pid };
        if !is_known {
            self.record.is_acknowledged = true;
            self.record.state = State::Running { pid };
            if !self.record.is_run_known() {
                let now = self.subject.shared.clock.now();
                self.record.begin_run(now);
            }
            self.save_in_passing(ctx);
        }
        self.show();
        self.publish(EventKind::Recovered);
        self.watch_exit(shim, ctx);
        if self.was_told_to_stop() || self.wants_delete {
            self.must_advance(Event::StopRequested);
            self.begin_signals(None, is_paused, ctx);
        }
    }

    /// No process of the container runs, and no exit is known.
    fn take_nothing(&mut self, ctx: &mut Context<Self>) {
        self.has_old_shim = true;
        let is_other_boot = self.record.boot_id != self.subject.shared.config.boot_id;
        let has_run = says_running(&self.record.state);
        if !self.record.is_acknowledged {
            self.fail(RECOVERY_STEP, "the daemon ended while it was being made".to_owned());
            self.wants_delete = true;
        } else if has_run && is_other_boot {
            self.take_reboot(ctx);
        } else if has_run {
            let exit = self.unknown_exit("it ended while nobody watched, and nothing of it is left");
            self.take_exit(exit, ctx);
        } else {
            self.fail(RECOVERY_STEP, "the daemon ended while it was being started again".to_owned());
            let wants_start = self.policy().wants_start_at_boot(self.was_told_to_stop(), true);
            self.wants_start = if is_other_boot { wants_start } else { !self.was_told_to_stop() };
            self.save_in_passing(ctx);
        }
    }

    /// The node went down under it.
    fn take_reboot(&mut self, ctx: &mut Context<Self>) {
        let exit = Exit::by_reboot(self.subject.shared.clock.now());
        self.record.end_run(&exit);
        self.must_advance(Event::ShimExited { exit: exit.clone() });
        self.record.state = self.state.clone();
        self.publish(EventKind::Exited { exit });
        self.wants_start = self.policy().wants_start_at_boot(self.was_told_to_stop(), true);
        self.save_in_passing(ctx);
    }

    /// A making has failed, or was told to end; all it did is undone but what the error names.
    pub(super) fn take_make_error(&mut self, mut failure: MakeError, ctx: &mut Context<Self>) {
        let is_first = matches!(self.work, Work::Making { is_first: true, .. });
        if !is_first {
            self.work = Work::Idle;
            self.take_restart_error(failure, ctx);
            return;
        }
        if !failure.leftovers.is_empty() {
            self.work = Work::Idle;
            self.take_stuck_rollback(failure, ctx);
            return;
        }
        let forget = self.forget_record().map(move |result, actor: &mut Self, ctx| match result {
            Ok(()) => actor.leave_unmade(failure, ctx),
            Err(source) => {
                failure.leftovers.push(Leftover { what: "record", source: StepError::Record(source) });
                actor.work = Work::Idle;
                actor.take_stuck_rollback(failure, ctx);
            }
        });
        ctx.spawn(forget);
    }

    /// The rollback is complete: everyone hears why, and nothing is left.
    fn leave_unmade(&mut self, failure: MakeError, ctx: &mut Context<Self>) {
        let (step, reason) = (failure.step, one_line(&failure));
        warn!(parent: self.subject.span(), %step, error = reason, "run rolled back");
        self.publish(EventKind::Failed { step, reason });
        let exit = self.unknown_exit(STOPPED_EARLY);
        for reply in std::mem::take(&mut self.waiting.stops) {
            answer(reply, Ok(exit.clone()));
        }
        let shared = ContainerError::Make(Arc::new(failure));
        for reply in std::mem::take(&mut self.waiting.exits) {
            answer(reply, Err(shared.clone()));
        }
        let makes = std::mem::take(&mut self.waiting.makes);
        // First the name, then the answer: who runs it again at once must find it free.
        self.leave(ctx);
        for reply in makes {
            answer(reply, Err(shared.clone()));
        }
    }

    /// The rollback left something: nobody was promised this container, so it is removed like one that was deleted, until
    /// nothing is left.
    fn take_stuck_rollback(&mut self, failure: MakeError, ctx: &mut Context<Self>) {
        self.has_old_shim = failure.leftovers.iter().any(|leftover| leftover.what == "shim");
        self.fail(failure.step, one_line(&failure));
        self.wants_delete = true;
        self.must_advance(Event::DeleteRequested);
        // First the name, then the answer.
        self.linger(one_line(&failure), failure.kind(), ctx);
        let shared = ContainerError::Make(Arc::new(failure));
        self.answer_failure(&shared);
        for reply in std::mem::take(&mut self.waiting.stops) {
            answer(reply, Err(shared.clone()));
        }
        self.go_on(ctx);
    }

    /// A restart has failed, or was told to end: root and log are kept.
    fn take_restart_error(&mut self, failure: MakeError, ctx: &mut Context<Self>) {
        self.has_old_shim = !failure.leftovers.is_empty();
        if matches!(self.state, State::Stopping { .. }) {
            let exit = self.unknown_exit(STOPPED_EARLY);
            let shared = ContainerError::Make(Arc::new(failure));
            self.answer_failure(&shared);
            self.take_exit(exit, ctx);
            return;
        }
        self.fail(failure.step, one_line(&failure));
        self.save_in_passing(ctx);
        self.answer_failure(&ContainerError::Make(Arc::new(failure)));
        self.retry_failed(ctx);
        self.go_on(ctx);
    }

    /// It runs, and that is on disk.
    pub(super) fn answer_made(&mut self) {
        for reply in std::mem::take(&mut self.waiting.makes) {
            answer(reply, Ok(()));
        }
    }

    fn answer_failure(&mut self, failure: &ContainerError) {
        let waiting = &mut self.waiting;
        for reply in waiting.makes.drain(..) {
            answer(reply, Err(failure.clone()));
        }
        for reply in waiting.exits.drain(..) {
            answer(reply, Err(failure.clone()));
        }
    }
}

/// Bounds what a caller should wait for an answer that needs a rollback: each undo has its own deadline, these are all.
pub(crate) const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(90);
