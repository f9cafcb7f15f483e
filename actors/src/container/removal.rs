//! A removal that meets resistance: tried again until nothing is left, and never forgotten.
//!
//! ```text
//! Deleting ──► all its parts, then the record ──► gone
//!    ▲                    │ something is left: `Lingering`, the name is free, the record says so
//!    └──── back-off ◄─────┘ a late exit, or another request to delete it, ends the back-off at once
//! ```
//! A request to delete is answered within its deadline, whatever resists (docs/decisions/0011).

use std::time::Duration;

use actix::fut::ActorFutureExt;
use actix::{ActorFuture, AsyncContext, Context, WrapFuture};
use contd_shim_client::Holdout;
use contd_types::{Backoff, ErrorKind, Event, EventKind, Exit, Explain, State, StateName};
use tracing::warn;

use super::{ContainerActor, Work};
use crate::error::{ContainerError, Leftover, StepError, one_line};
use crate::messages::namespace::News;
use crate::random::jitter;
use crate::records::RecordError;
use crate::task::remove::Part;

/// How long a caller waits for a removal, beyond the end of the container: a few unmounts and the end of a server take
/// milliseconds; with [`super::KILLED_TIMEOUT`] it stays below what `contd rm` waits beyond the container's own time.
pub(crate) const REMOVAL_PATIENCE: Duration = Duration::from_secs(15);
/// Between two tries.
const RETRY: Backoff = Backoff::REMOVE;
/// Processes that are named in a reason; the others are counted.
const MAX_NAMED: usize = 3;

/// How the removal goes.
#[derive(Debug)]
pub(super) struct Removal {
    /// The part that its task is at.
    pub(super) part: Part,
    /// Tries in a row that have left something.
    failures: u32,
    /// The kind of the last failure, for programs.
    kind: ErrorKind,
    retry: Option<actix::SpawnHandle>,
    is_hurried: bool,
}

impl Default for Removal {
    fn default() -> Self {
        Self { part: Part::default(), failures: 0, kind: ErrorKind::Timeout, retry: None, is_hurried: false }
    }
}

impl Removal {
    /// Tells whether no back-off keeps the next try.
    pub(super) fn is_due(&self) -> bool {
        self.retry.is_none() || self.is_hurried
    }

    /// Somebody asks for it: the next try comes now.
    pub(super) fn hurry(&mut self) {
        self.is_hurried = true;
    }
}

impl ContainerActor {
    /// Tells whether it is to go, and whether there is a way back from that.
    pub(super) fn is_leaving(&self) -> bool {
        self.state.name() == StateName::Deleting
    }

    /// A try begins.
    pub(super) fn begin_removal_try(&mut self, ctx: &mut Context<Self>) {
        self.cancel_timer(|actor| &mut actor.removal.retry, ctx);
        // A task of an earlier try says no more where this one is.
        self.removal.part = Part::default();
        self.removal.is_hurried = false;
    }

    /// Says why it is not gone, on disk and to everyone, and gives its name away.
    pub(super) fn linger(&mut self, reason: String, kind: ErrorKind, ctx: &mut Context<Self>) {
        if self.removal.failures == 0 && !matches!(self.state, State::Lingering { .. }) {
            warn!(parent: self.subject.span(), reason, "not removed yet, going on in the background");
        }
        let is_news = self.state != State::Lingering { reason: reason.clone() };
        self.removal.kind = kind;
        // Its namespace hears of it first: who sees that it lingers finds the name free.
        self.tell_parent(News::Lingers);
        self.must_advance(Event::RemovalResisted { reason });
        self.record.state = self.state.clone();
        if is_news {
            self.save_in_passing(ctx);
        }
    }

    /// A caller has waited long enough.
    pub(super) fn end_patience(&mut self, waited: Duration, ctx: &mut Context<Self>) -> Result<(), ContainerError> {
        if self.is_gone {
            return Ok(());
        }
        if !matches!(self.state, State::Lingering { .. }) {
            let reason = match self.state.name() {
                StateName::Deleting => format!("the removal of its {} takes longer", self.removal.part.get()),
                _ => "it has not ended".to_owned(),
            };
            if self.is_leaving() || matches!(self.state, State::Stopping { .. }) {
                self.linger(reason, ErrorKind::Timeout, ctx);
                self.go_on(ctx);
            }
        }
        let reason = match &self.state {
            State::Lingering { reason } => reason.clone(),
            other => format!("it is {}", other.name()),
        };
        Err(ContainerError::Lingers { id: self.subject.id.clone(), waited, reason, kind: self.removal.kind })
    }

    /// Something is left: tries again after a while.
    fn try_again(&mut self, leftovers: &[Leftover], holdouts: &[Holdout], ctx: &mut Context<Self>) {
        self.work = Work::Idle;
        let kind = leftovers.first().map_or(ErrorKind::Internal, |leftover| leftover.source.kind());
        self.linger(reason_of(leftovers, holdouts), kind, ctx);
        self.removal.failures = self.removal.failures.saturating_add(1);
        let delay = RETRY.delay(self.removal.failures, jitter());
        self.removal.retry = Some(ctx.run_later(delay, |actor, ctx| {
            actor.removal.retry = None;
            actor.go_on(ctx);
        }));
    }

    /// The process that kept it has ended: its exit is told, and the removal goes on at once.
    pub(super) fn take_late_exit(&mut self, exit: Exit, ctx: &mut Context<Self>) {
        if self.runs_since.take().is_none() {
            return;
        }
        self.record.exit = Some(exit.clone());
        self.record.finished_at = Some(exit.at);
        self.publish(EventKind::Exited { exit });
        self.tell_exit();
        self.show();
        if self.removal.retry.is_some() {
            self.cancel_timer(|actor| &mut actor.removal.retry, ctx);
            self.go_on(ctx);
        }
    }

    /// A try has ended: all is gone but what is named, and the record.
    pub(super) fn finish_removal(&mut self, leftovers: &[Leftover], holdouts: &[Holdout], ctx: &mut Context<Self>) {
        if !leftovers.is_empty() {
            for leftover in leftovers {
                warn!(parent: self.subject.span(), error = one_line(leftover), "left at deletion");
            }
            self.try_again(leftovers, holdouts, ctx);
            return;
        }
        let forget = self.forget_record().map(|result, actor: &mut Self, ctx| match result {
            Ok(()) => {
                actor.publish(EventKind::Deleted);
                actor.leave(ctx);
            }
            Err(source) => {
                let leftover = Leftover { what: "record", source: StepError::Record(source) };
                warn!(parent: actor.subject.span(), error = one_line(&leftover), "left at deletion");
                actor.try_again(&[leftover], &[], ctx);
            }
        });
        ctx.spawn(forget);
    }

    pub(super) fn forget_record(
        &self,
    ) -> impl ActorFuture<Self, Output = Result<(), std::sync::Arc<RecordError>>> + use<> {
        let (records, subject) = (self.subject.shared.records.clone(), self.subject.clone());
        let forget = async move {
            let forgotten = records.remove(subject.locks, subject.namespace, subject.id).await;
            contd_failpoint::hit(contd_failpoint::Failpoint::RecordRemoved);
            forgotten.map_err(std::sync::Arc::new)
        };
        forget.into_actor(self)
    }
}

/// Says what keeps a container, for people: its processes if there are any, else what could not be removed.
fn reason_of(leftovers: &[Leftover], holdouts: &[Holdout]) -> String {
    if let Some(reason) = describe(holdouts) {
        return reason;
    }
    let mut text = leftovers.first().map(|leftover| one_line(leftover)).unwrap_or_default();
    if let Some(others @ 1..) = leftovers.len().checked_sub(1) {
        text.push_str(&format!(" (and {others} more)"));
    }
    text
}

/// Names the processes that do not end; `None` when there are none.
pub(super) fn describe(holdouts: &[Holdout]) -> Option<String> {
    let head = match holdouts.len() {
        0 => return None,
        1 => "1 process does not end".to_owned(),
        count => format!("{count} processes do not end"),
    };
    let named: Vec<String> = holdouts.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    let more = if holdouts.len() > MAX_NAMED { ", …" } else { "" };
    Some(format!("{head}: {}{more}", named.join(", ")))
}
