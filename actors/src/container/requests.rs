//! Answers the requests for a container.

use std::time::Duration;

use actix::fut::{self, ActorFutureExt};
use actix::{AsyncContext, Context, Handler, ResponseActFuture, ResponseFuture, WrapFuture};
use contd_failpoint::Failpoint;
use contd_shim_client::ShimError;
use contd_store::Desired;
use contd_types::{ContainerId, Event, EventKind, Exit, State};
use tokio::sync::oneshot;
use tracing::Instrument as _;

use super::ending::KILLED_TIMEOUT;
use super::removal::REMOVAL_PATIENCE;
use super::{ContainerActor, Work, answer};
use crate::error::{ContainerError, StepError};
use crate::messages::container::{
    Delete, GoDown, JoinRun, Kill, Restart, RotateLog, SetPaused, Start, Stop, Upgrade, Wait,
};
use crate::task::operation::Kind;

/// A signal is one call of the shim; its own deadline is shorter.
pub(super) const KILL_TIMEOUT: Duration = Duration::from_secs(6);

type Answer<T> = Result<T, ContainerError>;

impl Handler<JoinRun> for ContainerActor {
    type Result = ResponseActFuture<Self, Answer<ContainerId>>;

    fn handle(&mut self, JoinRun { hold }: JoinRun, ctx: &mut Self::Context) -> Self::Result {
        if self.is_gone {
            return Box::pin(fut::ready(Err(self.gone("run"))));
        }
        if let Work::Making { is_first: true, .. } = &self.work {
            self.take_hold(hold, ctx);
            let reply = self.when_made();
            return self.with_id(reply);
        }
        let answer = if self.record.is_acknowledged { Ok(self.subject.id.clone()) } else { Err(self.never_ran()) };
        if answer.is_ok() {
            self.take_hold(hold, ctx);
        }
        Box::pin(fut::ready(answer))
    }
}

impl Handler<Start> for ContainerActor {
    type Result = ResponseFuture<Answer<()>>;

    fn handle(&mut self, _message: Start, ctx: &mut Self::Context) -> Self::Result {
        let forbidden = |actor: &Self| ContainerError::Forbidden {
            id: actor.subject.id.clone(),
            verb: "start",
            state: actor.state.name(),
        };
        if self.is_gone {
            return ready(Err(self.gone("start")));
        }
        match self.state {
            State::Running { .. } | State::Paused { .. } => ready(Ok(())),
            State::Creating | State::Created { .. } | State::Starting { .. } => self.when_made(),
            _ if self.subject.shared.is_going_down() => {
                ready(Err(ContainerError::GoingDown { id: self.subject.id.clone() }))
            }
            State::Stopped { .. } | State::Backoff { .. } | State::Failed { .. } | State::Prepared
                if !self.wants_delete =>
            {
                self.record.desired = Desired::Run;
                self.streak = 0;
                self.wants_start = true;
                let reply = self.when_made();
                self.go_on(ctx);
                reply
            }
            _ => ready(Err(forbidden(self))),
        }
    }
}

impl Handler<Restart> for ContainerActor {
    type Result = ResponseFuture<Answer<()>>;

    fn handle(&mut self, Restart { timeout }: Restart, ctx: &mut Self::Context) -> Self::Result {
        const VERB: &str = "restart";
        if self.is_gone {
            return ready(Err(self.gone(VERB)));
        }
        let runs = matches!(self.state, State::Running { .. } | State::Paused { .. } | State::Stopping { .. });
        if !runs || self.wants_delete {
            return Handler::<Start>::handle(self, Start, ctx);
        }
        if self.subject.shared.is_going_down() {
            return ready(Err(ContainerError::GoingDown { id: self.subject.id.clone() }));
        }
        let was_told = std::mem::replace(&mut self.record.desired, Desired::Run) == Desired::Stop;
        let _ends_later = self.begin_end(timeout, was_told, ctx);
        self.streak = 0;
        self.wants_start = true;
        self.when_made()
    }
}

impl Handler<SetPaused> for ContainerActor {
    type Result = ResponseActFuture<Self, Answer<()>>;

    fn handle(&mut self, SetPaused { is_paused }: SetPaused, _ctx: &mut Self::Context) -> Self::Result {
        let verb = if is_paused { "pause" } else { "unpause" };
        let id = self.subject.id.clone();
        let shim = match (&self.state, &self.shim) {
            _ if self.is_gone => return Box::pin(fut::err(self.gone(verb))),
            // Also when it is so already: the answer to an earlier call may have been lost.
            (State::Running { .. } | State::Paused { .. }, Some(shim)) => shim,
            (state, _) => return Box::pin(fut::err(ContainerError::Forbidden { id, verb, state: state.name() })),
        };
        let (mut subject, generation) = (self.subject.clone(), self.generation);
        subject.begin(Kind::Pause);
        let shim = subject.shim_for(shim);
        let call = async move { shim.set_paused(is_paused).await }.instrument(subject.span().clone());
        Box::pin(call.into_actor(self).map(move |result, actor, _ctx| {
            let wrap = |source| ContainerError::Step { id, verb, source: StepError::shim(source).into() };
            result.map_err(wrap)?;
            let is_current = actor.generation == generation && !actor.is_gone;
            match actor.state {
                State::Running { .. } if is_current && is_paused => {
                    actor.must_advance(Event::Paused);
                    actor.publish(EventKind::Paused);
                }
                State::Paused { .. } if is_current && !is_paused => {
                    actor.must_advance(Event::Resumed);
                    actor.publish(EventKind::Resumed);
                }
                // A stop, its end or another call came first.
                _ => {}
            }
            Ok(())
        }))
    }
}

impl Handler<Stop> for ContainerActor {
    type Result = ResponseFuture<Answer<Exit>>;

    fn handle(&mut self, Stop { timeout }: Stop, ctx: &mut Self::Context) -> Self::Result {
        if self.is_gone {
            return ready(Err(self.gone("stop")));
        }
        if let Some(refused) = self.refuse_end("stop") {
            return ready(Err(refused));
        }
        match self.begin_stop(timeout, ctx) {
            Some(exit) => {
                // It has ended already; that it shall stay so must be on disk before it is said.
                let (write, id) = (self.save(), self.subject.id.clone());
                Box::pin(async move {
                    let written = write.await;
                    let wrap =
                        |source| ContainerError::Step { id, verb: "stop", source: StepError::Record(source).into() };
                    written.map(|()| exit).map_err(wrap)
                })
            }
            None => {
                let (sender, receiver) = oneshot::channel();
                self.waiting.stops.push(sender);
                self.until(receiver, "stop")
            }
        }
    }
}

impl Handler<GoDown> for ContainerActor {
    type Result = ResponseFuture<Answer<()>>;

    fn handle(&mut self, GoDown { longest }: GoDown, ctx: &mut Self::Context) -> Self::Result {
        if self.is_gone {
            return ready(Ok(()));
        }
        match self.state {
            State::Creating
            | State::Created { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Paused { .. }
            | State::Stopping { .. } => {}
            State::Recovering => return ready(self.refuse_end("shut down").map_or(Ok(()), Err)),
            // It has ended already; a start that waits for its turn will not come.
            State::Stopped { .. }
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Prepared
            | State::Deleting
            | State::Lingering { .. } => {
                self.wants_start = false;
                self.fail_starts();
                return ready(Ok(()));
            }
        }
        self.record.went_down_with_node |= !self.was_told_to_stop();
        let grace = self.grace(None).min(longest);
        let _ends_later = self.begin_end(Some(grace), true, ctx);
        let (sender, receiver) = oneshot::channel();
        self.waiting.stops.push(sender);
        let ended = self.until(receiver, "shut down");
        Box::pin(async move { ended.await.map(drop) })
    }
}

impl Handler<Kill> for ContainerActor {
    type Result = ResponseFuture<Answer<()>>;

    fn handle(&mut self, Kill { signal }: Kill, _ctx: &mut Self::Context) -> Self::Result {
        let id = self.subject.id.clone();
        let mut subject = self.subject.clone();
        subject.begin(Kind::Kill);
        let Some(shim) = self.shim.as_ref().map(|shim| subject.shim_for(shim)) else {
            let state = self.state.name();
            return ready(Err(if self.is_gone {
                self.gone("signal")
            } else {
                ContainerError::Forbidden { id, verb: "signal", state }
            }));
        };
        Box::pin(async move {
            let source = match tokio::time::timeout(KILL_TIMEOUT, shim.kill(signal, false)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(source)) => StepError::shim(source),
                Err(_elapsed) => StepError::Deadline { what: "send the signal", waited: KILL_TIMEOUT },
            };
            Err(ContainerError::Step { id, verb: "signal", source: source.into() })
        })
    }
}

impl Handler<Upgrade> for ContainerActor {
    type Result = ResponseActFuture<Self, Answer<()>>;

    fn handle(&mut self, _message: Upgrade, _ctx: &mut Self::Context) -> Self::Result {
        const VERB: &str = "upgrade the shim of";
        if self.is_gone {
            return Box::pin(fut::err(self.gone(VERB)));
        }
        let (id, generation) = (self.subject.id.clone(), self.generation);
        let Some(shim) = self.shim.clone() else {
            return Box::pin(fut::err(ContainerError::Forbidden { id, verb: VERB, state: self.state.name() }));
        };
        let call = async move { shim.hand_over().await }.into_actor(self);
        Box::pin(call.map(move |result, actor, ctx| {
            if matches!(result, Err(ShimError::Silent { .. })) && actor.generation == generation {
                // Its successor is what was asked for.
                actor.replace_silent_shim(ctx);
            }
            result.map_err(|source| ContainerError::Step { id, verb: VERB, source: StepError::shim(source).into() })
        }))
    }
}

impl Handler<RotateLog> for ContainerActor {
    type Result = ResponseFuture<Answer<()>>;

    fn handle(&mut self, _message: RotateLog, _ctx: &mut Self::Context) -> Self::Result {
        const VERB: &str = "rotate the log of";
        let id = self.subject.id.clone();
        let Some(shim) = self.shim.clone() else {
            return ready(Err(ContainerError::Forbidden { id, verb: VERB, state: self.state.name() }));
        };
        let wrap = |source| ContainerError::Step { id, verb: VERB, source: StepError::shim(source).into() };
        Box::pin(async move { shim.rotate_log().await.map_err(wrap) })
    }
}

impl Handler<Delete> for ContainerActor {
    type Result = ResponseActFuture<Self, Answer<()>>;

    fn handle(&mut self, Delete { force, timeout }: Delete, ctx: &mut Self::Context) -> Self::Result {
        if self.is_gone {
            return Box::pin(fut::err(self.gone("delete")));
        }
        let has_ended = self.is_leaving()
            || matches!(
                self.state,
                State::Stopped { .. } | State::Backoff { .. } | State::Failed { .. } | State::Prepared
            );
        if !has_ended && !force {
            let (id, state) = (self.subject.id.clone(), self.state.name());
            return Box::pin(fut::err(ContainerError::NotEnded { id, state }));
        }
        let waited = if has_ended {
            REMOVAL_PATIENCE
        } else {
            self.grace(timeout).saturating_add(KILLED_TIMEOUT).saturating_add(REMOVAL_PATIENCE)
        };
        let (sender, receiver) = oneshot::channel();
        self.waiting.deletes.push(sender);
        self.wants_delete = true;
        self.wants_start = false;
        if self.state == State::Recovering {
            self.give_up_recovery(ctx);
        } else if !has_ended {
            let _waits_for_the_end = self.begin_stop(timeout, ctx);
        }
        self.removal.hurry();
        self.go_on(ctx);
        let deleted = tokio::time::timeout(waited, self.until(receiver, "delete"));
        Box::pin(deleted.into_actor(self).map(move |done, actor, ctx| match done {
            Ok(answer) => answer,
            Err(_elapsed) => actor.end_patience(waited, ctx),
        }))
    }
}

impl Handler<Wait> for ContainerActor {
    type Result = ResponseFuture<Answer<Exit>>;

    fn handle(&mut self, _message: Wait, _ctx: &mut Self::Context) -> Self::Result {
        if self.is_gone {
            return ready(Err(self.gone("wait for")));
        }
        match &self.state {
            // Not before it is on disk: who was told an exit must find it again after any crash.
            State::Stopped { exit } | State::Backoff { exit, .. } if self.is_exit_told => ready(Ok(exit.clone())),
            State::Failed { .. } => ready(self.record.exit.clone().ok_or_else(|| self.never_ran())),
            State::Deleting | State::Lingering { .. } if self.runs_since.is_none() => {
                ready(self.record.exit.clone().ok_or_else(|| self.gone("wait for")))
            }
            _ => {
                let (sender, receiver) = oneshot::channel();
                self.waiting.exits.push(sender);
                self.until(receiver, "wait for")
            }
        }
    }
}

impl ContainerActor {
    /// A restart that waits for its time and that the policy does not want any more does not come.
    pub(super) fn drop_unwanted_restart(&mut self, ctx: &mut Context<Self>) {
        let State::Backoff { exit, .. } = &self.state else { return };
        if !self.policy().wants_restart(exit.is_success(), self.streak) {
            self.cancel_timer(|actor| &mut actor.restart_timer, ctx);
            self.must_advance(Event::StopRequested);
            self.record.state = self.state.clone();
        }
    }

    /// Refuses to end what is on its way out, or not known yet.
    fn refuse_end(&self, verb: &'static str) -> Option<ContainerError> {
        let id = self.subject.id.clone();
        match self.state {
            State::Deleting | State::Lingering { .. } | State::Prepared => {
                Some(ContainerError::Forbidden { id, verb, state: self.state.name() })
            }
            State::Recovering => {
                let waited = crate::messages::RECOVERY_WAIT;
                Some(ContainerError::Recovering { id, verb, waited })
            }
            _ => None,
        }
    }

    /// Has the container end and remembers that it shall stay so; `Some` when it has ended already.
    pub(super) fn begin_stop(&mut self, timeout: Option<Duration>, ctx: &mut Context<Self>) -> Option<Exit> {
        let was_told = std::mem::replace(&mut self.record.desired, Desired::Stop) == Desired::Stop;
        self.record.went_down_with_node = false;
        self.begin_end(timeout, was_told, ctx)
    }

    /// Has the container end; `was_told` tells whether it is ending for somebody who waits already.
    fn begin_end(&mut self, timeout: Option<Duration>, was_told: bool, ctx: &mut Context<Self>) -> Option<Exit> {
        self.wants_start = false;
        self.cancel_timer(|actor| &mut actor.restart_timer, ctx);
        if self.state.may_have_shim() && !was_told {
            self.subject.begin(Kind::Stop);
        }
        match &self.state {
            State::Creating | State::Created { .. } | State::Starting { .. } => {
                self.must_advance(Event::StopRequested);
                self.publish(EventKind::StopRequested);
                if let Work::Making { cancel, .. } = &self.work {
                    cancel.cancel();
                }
                None
            }
            State::Running { .. } | State::Paused { .. } => {
                contd_failpoint::hit(Failpoint::StopRequested);
                let is_paused = matches!(self.state, State::Paused { .. });
                self.must_advance(Event::StopRequested);
                self.publish(EventKind::StopRequested);
                self.save_in_passing(ctx);
                self.begin_signals(timeout, is_paused, ctx);
                None
            }
            State::Stopping { .. } => {
                // A restart that was waiting for this end does not come.
                self.fail_starts();
                if self.shim.is_some() && (timeout.is_some() || !was_told || self.kill_timer.is_none()) {
                    self.hurry_signals(timeout, ctx);
                }
                None
            }
            State::Stopped { .. } | State::Backoff { .. } => {
                self.must_advance(Event::StopRequested);
                self.record.state = self.state.clone();
                self.fail_starts();
                self.state.exit().cloned()
            }
            State::Failed { reason, .. } => {
                let exit = self.record.exit.clone().unwrap_or_else(|| self.unknown_exit(reason.clone()));
                self.fail_starts();
                Some(exit)
            }
            State::Recovering | State::Prepared | State::Deleting | State::Lingering { .. } => None,
        }
    }

    /// Answers those whose start was waiting for its turn when a stop came.
    fn fail_starts(&mut self) {
        if !self.work.is_idle() && matches!(self.work, Work::Making { .. }) {
            return;
        }
        for reply in std::mem::take(&mut self.waiting.makes) {
            let (id, state) = (self.subject.id.clone(), self.state.name());
            answer(reply, Err(ContainerError::Forbidden { id, verb: "start", state }));
        }
    }

    fn when_made(&mut self) -> ResponseFuture<Answer<()>> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.makes.push(sender);
        self.until(receiver, "start")
    }

    fn with_id(&self, reply: ResponseFuture<Answer<()>>) -> ResponseActFuture<Self, Answer<ContainerId>> {
        let id = self.subject.id.clone();
        Box::pin(reply.into_actor(self).map(move |result, _actor, _ctx| result.map(|()| id)))
    }

    /// Waits for an answer of this actor; its loss is an answer as well.
    fn until<T: 'static>(
        &self,
        receiver: oneshot::Receiver<Answer<T>>,
        verb: &'static str,
    ) -> ResponseFuture<Answer<T>> {
        let id = self.subject.id.clone();
        Box::pin(async move {
            match receiver.await {
                Ok(result) => result,
                Err(_lost) => Err(ContainerError::ActorLost { id, verb }),
            }
        })
    }

    /// Keeps an auto-removed container until its attached caller has let go.
    pub(super) fn take_hold(&mut self, hold: Option<oneshot::Receiver<()>>, ctx: &mut Context<Self>) {
        let Some(hold) = hold else { return };
        self.holds += 1;
        let released = async move { drop(hold.await) }.into_actor(self).map(|(), actor, ctx| {
            actor.holds = actor.holds.saturating_sub(1);
            actor.go_on(ctx);
        });
        ctx.spawn(released);
    }
}

fn ready<T: 'static>(answer: Answer<T>) -> ResponseFuture<Answer<T>> {
    Box::pin(std::future::ready(answer))
}
