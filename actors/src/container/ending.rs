//! How a container ends: signals, the exit, and what the restart policy makes of it.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::ActorFutureExt;
use actix::{AsyncContext, Context, WrapFuture};
use contd_failpoint::Failpoint;
use contd_shim_client::{Holdout, Shim, ShimError};
use contd_types::{Backoff, ErrorKind, Event, EventKind, Exit, MAX_TIMEOUT, Signal, State, Step};
use tokio::time::Instant;
use tracing::{Instrument, error, warn};

use super::removal::describe;
use super::requests::KILL_TIMEOUT;
use super::{ContainerActor, answer};
use crate::error::{ContainerError, one_line};
use crate::random::jitter;
use crate::task::remove::holdouts;

/// How long a container may take to end after SIGKILL: only processes that wait in the kernel need any time at all.
pub(crate) const KILLED_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a shim is asked whether it is there, at least: rarely enough to be nothing for a thousand of them, often enough
/// that a pipe of 1 MiB is seldom full before.
const HEALTH_EVERY: Duration = Duration::from_secs(20);
/// Added to it at random, so that a thousand shims are not asked at once.
const HEALTH_SPREAD_MS: u64 = 10_000;
/// A run that lasts so long was good: the next restart begins the back-off anew (docs/architecture.md, the lifecycle).
const GOOD_RUN: Duration = Duration::from_secs(600);
/// Between two tries to write down an end that the disk refuses; the shim keeps it meanwhile.
const EXIT_RETRY: Backoff = Backoff::RESTART;

impl ContainerActor {
    /// Watches the shim for the end of the container.
    pub(super) fn watch_exit(&mut self, shim: Arc<dyn Shim>, ctx: &mut Context<Self>) {
        let generation = self.generation;
        self.watch_health(ctx);
        let watch = async move { shim.wait().await }.instrument(self.subject.span().clone()).into_actor(self).map(
            move |result, actor, ctx| {
                actor.take_wait(generation, result, ctx);
            },
        );
        ctx.spawn(watch);
    }

    /// Sends the stop signal now, and SIGKILL after the time-out. One that stands still goes on, or it could not hear it.
    pub(super) fn begin_signals(&mut self, timeout: Option<Duration>, is_paused: bool, ctx: &mut Context<Self>) {
        let grace = self.grace(timeout);
        if grace.is_zero() {
            self.send_kill(ctx);
            return;
        }
        self.send_signal(self.record.complete_spec().stop_signal.unwrap_or(Signal::TERM), false, ctx);
        if is_paused {
            self.resume(ctx);
        }
        self.kill_timer = Some(ctx.run_later(grace, Self::send_kill));
    }

    fn resume(&self, ctx: &mut Context<Self>) {
        let Some(shim) = self.shim.as_ref().map(|shim| self.subject.shim_for(shim)) else { return };
        let span = self.subject.span().clone();
        let call = async move {
            if let Err(failure) = shim.set_paused(false).await {
                // SIGKILL comes by its timer, and thaws it by itself.
                warn!(parent: &span, error = one_line(&failure), "not resumed for its end");
            }
        };
        ctx.spawn(call.into_actor(self));
    }

    /// How long it may take to end before SIGKILL.
    pub(super) fn grace(&self, timeout: Option<Duration>) -> Duration {
        let default = self.subject.shared.settings().defaults.shutdown_timeout;
        // Also of a record that is older than this bound.
        timeout.or(self.subject.spec.shutdown_timeout).unwrap_or(default).min(MAX_TIMEOUT)
    }

    /// A second stop: its time-out counts from now, and never makes the first one's longer. After a SIGKILL that was in
    /// vain, another comes at once: nothing gentler is left.
    pub(super) fn hurry_signals(&mut self, timeout: Option<Duration>, ctx: &mut Context<Self>) {
        if self.kill_timer.is_none() {
            self.send_kill(ctx);
            return;
        }
        let Some(grace) = timeout.map(|timeout| timeout.min(MAX_TIMEOUT)) else { return };
        if grace.is_zero() {
            self.send_kill(ctx);
        } else {
            ctx.run_later(grace, |actor, ctx| {
                if matches!(actor.state, State::Stopping { .. }) {
                    actor.send_kill(ctx);
                }
            });
        }
    }

    fn send_kill(&mut self, ctx: &mut Context<Self>) {
        if !matches!(self.state, State::Stopping { .. }) {
            return;
        }
        self.cancel_timer(|actor| &mut actor.kill_timer, ctx);
        self.send_signal(Signal::KILL, true, ctx);
        self.kill_timer = Some(ctx.run_later(KILLED_TIMEOUT, Self::give_up_killing));
    }

    fn send_signal(&self, signal: Signal, is_for_all: bool, ctx: &mut Context<Self>) {
        let Some(shim) = self.shim.as_ref().map(|shim| self.subject.shim_for(shim)) else { return };
        let span = self.subject.span().clone();
        let generation = self.generation;
        let call = async move {
            let signalled = tokio::time::timeout(KILL_TIMEOUT, shim.kill(signal, is_for_all)).await;
            contd_failpoint::hit(Failpoint::StopSignalled);
            let (failure, is_silent) = match signalled {
                Ok(Ok(())) => return false,
                Ok(Err(failure)) => (one_line(&failure), matches!(failure, ShimError::Silent { .. })),
                Err(_elapsed) => ("no answer".to_owned(), true),
            };
            // The next, stronger signal comes by its timer; the exit, if it came first, makes this moot.
            warn!(parent: &span, %signal, error = failure, "signal not sent");
            is_silent
        };
        ctx.spawn(call.into_actor(self).map(move |is_silent, actor, ctx| {
            if is_silent && actor.generation == generation {
                actor.replace_silent_shim(ctx);
            }
        }));
    }

    /// Looks from time to time whether the shim still answers: one that stands still would in the end stop its container
    /// by not reading what it says.
    fn watch_health(&mut self, ctx: &mut Context<Self>) {
        let generation = self.generation;
        self.cancel_timer(|actor| &mut actor.health_timer, ctx);
        self.health_timer = Some(ctx.run_later(
            HEALTH_EVERY + Duration::from_millis(jitter() % HEALTH_SPREAD_MS),
            move |actor, ctx| {
                let Some(shim) = actor.shim.clone().filter(|_| actor.generation == generation) else { return };
                let look = async move { shim.state().await }.into_actor(actor).map(move |state, actor, ctx| {
                    if actor.generation != generation {
                        return;
                    }
                    match state {
                        Err(ShimError::Silent { .. }) => actor.replace_silent_shim(ctx),
                        // A lost one is seen by whoever waits for the exit.
                        Ok(_) | Err(_) => actor.watch_health(ctx),
                    }
                });
                ctx.spawn(look);
            },
        ));
    }

    /// Ends a shim that does not answer; its loss is noticed by the wait for the exit, and a successor goes on.
    pub(super) fn replace_silent_shim(&mut self, ctx: &mut Context<Self>) {
        let (subject, span) = (self.subject.clone(), self.subject.span().clone());
        warn!(parent: &span, "silent shim replaced");
        let ended = async move { subject.shared.shims.end_silent(&subject.namespace, &subject.id).await };
        ctx.spawn(ended.instrument(span.clone()).into_actor(self).map(move |result, _actor, _ctx| {
            if let Err(failure) = result {
                error!(parent: &span, error = one_line(&failure), "silent shim not ended");
            }
        }));
    }

    /// SIGKILL was in vain: says so to whoever waits. A stop stays wanted; a deletion goes on without its end.
    fn give_up_killing(&mut self, ctx: &mut Context<Self>) {
        self.kill_timer = None;
        let (subject, generation) = (self.subject.clone(), self.generation);
        let look = async move { holdouts(&subject).await }.into_actor(self);
        ctx.spawn(look.map(move |found, actor, ctx| {
            if actor.generation == generation && matches!(actor.state, State::Stopping { .. }) {
                actor.tell_kill_was_in_vain(&found, ctx);
            }
        }));
    }

    fn tell_kill_was_in_vain(&mut self, found: &[Holdout], ctx: &mut Context<Self>) {
        let reason = describe(found).unwrap_or_else(|| "its shim has not told its end".to_owned());
        warn!(parent: self.subject.span(), reason, "does not end after SIGKILL");
        let id = self.subject.id.clone();
        let error = ContainerError::NotStopped { id, waited: KILLED_TIMEOUT, reason: reason.clone() };
        for reply in std::mem::take(&mut self.waiting.stops) {
            answer(reply, Err(error.clone()));
        }
        if self.wants_delete {
            self.linger(reason, ErrorKind::Timeout, ctx);
            self.go_on(ctx);
        }
    }

    /// The container has ended: decides what comes next, writes both down at once, then tells everyone.
    pub(super) fn take_exit(&mut self, exit: Exit, ctx: &mut Context<Self>) {
        contd_failpoint::hit(Failpoint::ExitTaken);
        self.cancel_timer(|actor| &mut actor.kill_timer, ctx);
        self.subject.shared.meters.forget(&self.subject.id);
        self.old_shim = self.shim.take();
        self.has_old_shim = true;
        if self.runs_since.take().is_some_and(|since| Instant::now().duration_since(since) >= GOOD_RUN) {
            self.streak = 0;
        }
        let is_going_down = self.subject.shared.is_going_down();
        let wants_restart = !self.was_told_to_stop()
            && !self.wants_delete
            && !is_going_down
            && !self.wants_start
            && self.policy().wants_restart(exit.is_success(), self.streak);
        self.record.end_run(&exit);
        self.record.went_down_with_node |= is_going_down && !self.was_told_to_stop();
        self.is_exit_told = false;
        if let Err(illegal) = self.end_by(exit.clone(), wants_restart, ctx) {
            error!(parent: self.subject.span(), error = one_line(&illegal), "lifecycle refused an exit");
        }
        self.record.state = self.state.clone();
        self.publish(EventKind::Exited { exit });
        if let State::Backoff { attempt, .. } = self.state {
            self.publish(EventKind::BackoffBegun { attempt });
        }
        self.store_exit(1, ctx);
    }

    /// Moves to `Stopped` or on to `Backoff`, and shows only the last: a follower of the log must not take a crash for
    /// the end.
    fn end_by(
        &mut self,
        exit: Exit,
        wants_restart: bool,
        ctx: &mut Context<Self>,
    ) -> Result<(), contd_types::IllegalTransition> {
        let mut next = self.state.clone().after(Event::ShimExited { exit })?;
        if wants_restart {
            let attempt = self.streak.saturating_add(1);
            let delay = Backoff::RESTART.delay(attempt, jitter());
            let until = self.subject.shared.clock.now().saturating_add(delay);
            next = next.after(Event::BackoffBegun { attempt, until })?;
            self.arm_restart(delay, ctx);
        }
        self.state = next;
        self.show();
        Ok(())
    }

    /// Writes the end down; when the disk refuses, tells it all the same and goes on trying. Only then is the shim, which
    /// knows the end as well, let go.
    fn store_exit(&mut self, attempt: u32, ctx: &mut Context<Self>) {
        let generation = self.generation;
        let write = self.save().into_actor(self).map(move |result, actor, ctx| {
            contd_failpoint::hit(Failpoint::ExitStored);
            if result.as_ref().is_err_and(|failure| failure.is_end_of_node()) {
                // The successor hears of it from the shim, writes it down and tells it.
                return;
            }
            let is_stale = actor.generation != generation;
            actor.tell_exit();
            match result {
                _ if is_stale || actor.is_gone => {}
                Ok(()) => {
                    actor.go_on(ctx);
                }
                Err(failure) => {
                    error!(parent: actor.subject.span(), error = one_line(&failure), "exit not written down, the shim is kept");
                    if actor.wants_delete {
                        actor.go_on(ctx);
                    } else {
                        ctx.run_later(EXIT_RETRY.delay(attempt, jitter()), move |actor, ctx| {
                            if actor.generation == generation && !actor.is_gone {
                                actor.store_exit(attempt.saturating_add(1), ctx);
                            }
                        });
                    }
                }
            }
        });
        ctx.spawn(write);
    }

    pub(super) fn tell_exit(&mut self) {
        self.is_exit_told = true;
        let Some(exit) = self.record.exit.clone() else { return };
        let waiting = self.waiting.exits.drain(..).chain(self.waiting.stops.drain(..));
        for reply in waiting {
            answer(reply, Ok(exit.clone()));
        }
    }

    /// Starts the container after a while, unless a stop, start or deletion comes first.
    pub(super) fn arm_restart(&mut self, delay: Duration, ctx: &mut Context<Self>) {
        self.cancel_timer(|actor| &mut actor.restart_timer, ctx);
        self.restart_timer = Some(ctx.run_later(delay, |actor, ctx| {
            actor.restart_timer = None;
            let is_there = matches!(actor.state, State::Backoff { .. } | State::Failed { .. }) && !actor.wants_delete;
            if is_there && !actor.subject.shared.is_going_down() {
                actor.record.restart_count = actor.record.restart_count.saturating_add(1);
                actor.streak = actor.streak.saturating_add(1);
                actor.wants_start = true;
                actor.go_on(ctx);
            }
        }));
    }

    /// Tries again after a restart that failed, when the policy wants the container to run.
    pub(super) fn retry_failed(&mut self, ctx: &mut Context<Self>) {
        let is_wanted = !self.was_told_to_stop()
            && !self.wants_delete
            && self.record.is_acknowledged
            && self.policy().wants_restart(false, self.streak);
        if is_wanted {
            let attempt = self.streak.saturating_add(1);
            self.publish(EventKind::BackoffBegun { attempt });
            self.arm_restart(Backoff::RESTART.delay(attempt, jitter()), ctx);
        }
    }

    /// The container has ended, or its shim has.
    fn take_wait(&mut self, generation: u64, result: Result<Exit, ShimError>, ctx: &mut Context<Self>) {
        if self.is_leaving() {
            if let Ok(exit) = result {
                self.take_late_exit(exit, ctx);
            }
            return;
        }
        let is_running = matches!(self.state, State::Running { .. } | State::Paused { .. } | State::Stopping { .. });
        if generation != self.generation || !is_running || self.is_gone {
            return;
        }
        match result {
            Ok(exit) => self.take_exit(exit, ctx),
            Err(failure) => {
                warn!(parent: self.subject.span(), error = one_line(&failure), "shim lost");
                self.shim = None;
                self.cancel_timer(|actor| &mut actor.kill_timer, ctx);
                // Its making may not have reported yet, and is stale from here on.
                self.answer_made();
                self.must_advance(Event::RecoveryBegun);
                self.begin_recovery(ctx);
            }
        }
    }
}

/// The step that a recovery names when a container cannot go on.
pub(super) const RECOVERY_STEP: Step = Step::Shim;
