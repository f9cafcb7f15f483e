//! One container: owns its lifecycle record (nobody else writes it), its shim connection, its restart policy.
//!
//! Begins with its first run, or with what is stored of it ([`Origin`]). Answers all of [`crate::messages::container`]; tells its
//! namespace [`ContainerNews`]. Touches nothing but the record itself: each
//! operation that takes time is a task ([`crate::task`]), at most one at a time. A task's result comes back as a value, into the
//! function that goes on with it; a task whose actor is lost takes back what it did.
//!
//! ```text
//! request ─► intent (desired, wants_delete, wants_start) ─► go_on() ─► the one task that comes next
//!                                                              ▲              │
//!                                                              └─ its result ─┘
//! ```
//!
//! A stop or deletion is never queued behind work: it cancels the task under way, which undoes and reports.
//!
//! - here: the actor, its state, what it shows and stores.
//! - `requests`: the answers to requests. `work`: the next task. `making`, `reports`: going on when a task is over.
//! - `update`: changes of settings. `ending`: signals and exits. `removal`: a deletion that something resists.

mod ending;
mod exec;
mod input;
mod making;
mod removal;
mod reports;
mod requests;
mod update;
mod work;

pub(crate) use ending::KILLED_TIMEOUT;
pub(crate) use removal::REMOVAL_PATIENCE;
pub(crate) use reports::ROLLBACK_TIMEOUT;

use std::path::PathBuf;
use std::sync::Arc;

use actix::fut::ActorFutureExt;
use actix::{Actor, AsyncContext, Context, Recipient, SpawnHandle, WrapFuture};
use contd_rootfs::FetchProgress;
use contd_shim_client::Shim;
use contd_store::{ContainerRecord, Desired};
use contd_types::{ContainerEvent, Event, EventKind, Exit, IllegalTransition, RestartPolicy, State, StateName, Step};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{Instrument, error, info};

use crate::call::tell_recipient;
use crate::error::{ContainerError, one_line};
use crate::messages::namespace::{ContainerNews, Goal, News};
use crate::records::{RecordError, RecordWrite, info_of};
use crate::shared::OperationGuard;
use crate::supervision::ParentLink;
use crate::task::{CancelHandle, Subject};

/// Where one answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, ContainerError>>;

/// A first run: makes the container as far as its goal.
#[derive(Debug)]
pub(crate) struct FirstRun {
    pub(crate) goal: Goal,
    pub(crate) progress: Option<mpsc::Sender<FetchProgress>>,
    /// An attached caller.
    pub(crate) hold: Option<oneshot::Receiver<()>>,
    /// Answered when the goal is reached, or nothing of it is left.
    pub(crate) reply: Reply<()>,
}

/// Where a container's actor comes from.
#[derive(Debug)]
pub(crate) enum Origin {
    /// A run that was just admitted; nothing of it is there, not even its record.
    Fresh(FirstRun),
    /// A record that was there: of an earlier daemon, or of an actor that was lost.
    Recorded {
        /// Whether something of a shim may be there.
        may_have_shim: bool,
    },
}

/// The one operation under way.
#[derive(Debug)]
enum Work {
    /// None.
    Idle,
    /// It is being made.
    Making { cancel: CancelHandle, is_first: bool, _guard: OperationGuard },
    /// The shim of the last run is being ended.
    Settling { _guard: OperationGuard },
    /// It is being removed.
    Removing { _guard: OperationGuard },
    /// Its shim is being looked for. Dropping the handle ends the look.
    Recovering { _cancel: CancelHandle },
}

impl Work {
    fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }
}

/// The callers that wait for an answer.
#[derive(Debug, Default)]
struct Waiting {
    /// A run or start.
    makes: Vec<Reply<()>>,
    /// An end that will come by itself.
    exits: Vec<Reply<Exit>>,
    /// An end that was asked for.
    stops: Vec<Reply<Exit>>,
    deletes: Vec<Reply<()>>,
}

/// The actor; see the module.
#[derive(Debug)]
pub(crate) struct ContainerActor {
    subject: Subject,
    parent: Recipient<ContainerNews>,
    parent_link: ParentLink,
    lifeline: Option<SpawnHandle>,
    /// Until the actor has started.
    origin: Option<Origin>,
    /// This actor's number as the record's writer.
    writer: u64,
    /// The record as it is on disk, or on its way there.
    record: ContainerRecord,
    state: State,
    work: Work,
    /// Counts operations; a report of an earlier one changes nothing.
    generation: u64,
    waiting: Waiting,
    /// The connection while it runs.
    shim: Option<Arc<dyn Shim>>,
    /// The connection to the shim of the run that has ended, for its last calls.
    old_shim: Option<Arc<dyn Shim>>,
    /// Whether something of a shim is left of the last run and must go before the next.
    has_old_shim: bool,
    wants_start: bool,
    wants_delete: bool,
    /// Attached callers who have not read everything yet.
    holds: usize,
    /// Restarts in a row, and since when it runs.
    streak: u32,
    runs_since: Option<Instant>,
    /// The end of a back-off, or of the wait before another try.
    restart_timer: Option<SpawnHandle>,
    /// SIGKILL, or giving up on it.
    kill_timer: Option<SpawnHandle>,
    /// When its shim is looked at next.
    health_timer: Option<SpawnHandle>,
    settle_failures: u32,
    removal: removal::Removal,
    /// Held by the update under way.
    update_turn: Arc<tokio::sync::Mutex<()>>,
    /// Whether the last end is on disk, or could not be written: until then nobody is told of it.
    is_exit_told: bool,
    is_gone: bool,
}

impl ContainerActor {
    /// Makes the actor of a container; `record` is what is stored, or for a fresh one what will be.
    pub(crate) fn new(
        subject: Subject,
        parent: Recipient<ContainerNews>,
        parent_link: ParentLink,
        record: ContainerRecord,
        origin: Origin,
    ) -> Self {
        let writer = subject.locks.become_writer();
        let state = record.state.clone();
        Self {
            subject,
            parent,
            parent_link,
            lifeline: None,
            origin: Some(origin),
            writer,
            record,
            state,
            work: Work::Idle,
            generation: 0,
            waiting: Waiting::default(),
            shim: None,
            old_shim: None,
            has_old_shim: false,
            wants_start: false,
            wants_delete: false,
            holds: 0,
            streak: 0,
            runs_since: None,
            restart_timer: None,
            kill_timer: None,
            health_timer: None,
            settle_failures: 0,
            removal: removal::Removal::default(),
            update_turn: Arc::default(),
            is_exit_told: true,
            is_gone: false,
        }
    }

    /// Applies an event to the lifecycle table and shows the result.
    fn advance(&mut self, event: Event) -> Result<(), IllegalTransition> {
        self.state = self.state.clone().after(event)?;
        self.show();
        Ok(())
    }

    /// [`Self::advance`] where the table must allow it; if it does not, that is a bug, and the state stays.
    fn must_advance(&mut self, event: Event) {
        if let Err(illegal) = self.advance(event) {
            error!(parent: self.subject.span(), error = one_line(&illegal), "lifecycle refused a move");
        }
    }

    /// Publishes what everyone may see.
    fn show(&self) {
        if self.is_gone {
            return;
        }
        self.subject.shared.view.publish(info_of(&self.record, self.state.clone()));
    }

    /// Prepares the write of the record as it is now.
    fn next_write(&mut self) -> RecordWrite {
        self.record.bump();
        self.record.boot_id.clone_from(&self.subject.shared.config.boot_id);
        self.subject.shared.records.write_of(&self.subject.locks, self.writer, self.record.clone())
    }

    /// Returns the write of the record as it is now; it happens when it is awaited.
    fn save(&mut self) -> impl Future<Output = Result<(), Arc<RecordError>>> + use<> {
        let (records, write) = (self.subject.shared.records.clone(), self.next_write());
        async move { records.write(write).await.map_err(Arc::new) }
    }

    /// Writes the record without anybody waiting for it; the next write repeats what this one failed to.
    fn save_in_passing(&mut self, ctx: &mut Context<Self>) {
        let write = self.save().into_actor(self).map(|result, actor, _ctx| {
            if let Err(failure) = result
                && !failure.is_end_of_node()
            {
                error!(parent: actor.subject.span(), error = one_line(&failure), "record not written");
            }
        });
        ctx.spawn(write);
    }

    fn publish(&self, kind: EventKind) {
        info!(parent: self.subject.span(), state = %self.state.name(), event = %event_name(&kind), "lifecycle");
        let shared = &self.subject.shared;
        shared.publish(ContainerEvent {
            namespace: self.subject.namespace.clone(),
            id: self.subject.id.clone(),
            name: self.subject.name.clone(),
            at: shared.clock.now(),
            kind,
        });
    }

    fn policy(&self) -> RestartPolicy {
        self.subject.spec.restart
    }

    fn was_told_to_stop(&self) -> bool {
        self.record.desired == Desired::Stop
    }

    /// Begins a new operation; reports of earlier ones are stale from here on.
    fn next_generation(&mut self) -> u64 {
        self.generation = self.generation.saturating_add(1);
        self.generation
    }

    fn cancel_timer(&mut self, which: fn(&mut Self) -> &mut Option<SpawnHandle>, ctx: &mut Context<Self>) {
        if let Some(timer) = which(self).take() {
            ctx.cancel_future(timer);
        }
    }

    /// The end: nothing is left, the name is free, everyone is answered. The actor itself goes when nobody holds it.
    fn leave(&mut self, ctx: &mut Context<Self>) {
        // Its namespace hears of it first: who sees that it is gone finds the name free.
        self.tell_parent(News::Gone);
        self.subject.shared.view.remove(&self.subject.id);
        self.is_gone = true;
        self.state = State::Deleting;
        self.work = Work::Idle;
        self.parent_link.expect_end();
        let timers = [&mut self.restart_timer, &mut self.kill_timer, &mut self.health_timer, &mut self.lifeline];
        for timer in timers.into_iter().filter_map(Option::take) {
            ctx.cancel_future(timer);
        }
        let waiting = std::mem::take(&mut self.waiting);
        for reply in waiting.exits.into_iter().chain(waiting.stops) {
            answer(reply, Err(self.gone("wait for")));
        }
        for reply in waiting.makes {
            answer(reply, Err(self.gone("start")));
        }
        for reply in waiting.deletes {
            answer(reply, Ok(()));
        }
    }

    fn tell_parent(&self, news: News) {
        tell_recipient(&self.parent, ContainerNews { id: self.subject.id.clone(), news });
    }

    /// Runs a task that outlives the actor, if need be. Its result comes back here, unless another operation has begun meanwhile.
    fn run_task<T: 'static>(
        &self,
        task: impl Future<Output = T> + 'static,
        ctx: &mut Context<Self>,
        go_on_with: impl FnOnce(&mut Self, T, &mut Context<Self>) + 'static,
    ) {
        let (generation, task) = (self.generation, actix_rt::spawn(task.instrument(self.subject.span().clone())));
        ctx.spawn(task.into_actor(self).map(move |done, actor, ctx| match done {
            Ok(_stale) if actor.generation != generation || actor.is_gone => {}
            Ok(result) => go_on_with(actor, result, ctx),
            Err(panicked) => error!(parent: actor.subject.span(), error = %panicked, "a task panicked: this is a bug"),
        }));
    }

    fn gone(&self, verb: &'static str) -> ContainerError {
        ContainerError::Gone { id: self.subject.id.clone(), verb }
    }

    fn unknown_exit(&self, reason: impl Into<String>) -> Exit {
        Exit::unknown(reason, self.subject.shared.clock.now())
    }

    /// The answer to a wait on a container that could not be made.
    fn never_ran(&self) -> ContainerError {
        let reason = match &self.state {
            State::Failed { reason, .. } => reason.clone(),
            other => other.name().to_string(),
        };
        ContainerError::NeverRan { id: self.subject.id.clone(), reason }
    }

    /// Moves a container that cannot go on to `Failed`, whatever it was doing.
    fn fail(&mut self, step: Step, reason: String) {
        self.must_advance(Event::Aborted { step, reason: reason.clone() });
        self.record.state = self.state.clone();
        self.publish(EventKind::Failed { step, reason });
    }
}

/// Sends an answer; a caller that has gone needs none.
fn answer<T>(reply: Reply<T>, result: Result<T, ContainerError>) {
    let _gone = reply.send(result);
}

fn event_name(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Accepted => "accepted",
        EventKind::Started { .. } => "started",
        EventKind::Failed { .. } => "failed",
        EventKind::StopRequested => "stop-requested",
        EventKind::Exited { .. } => "exited",
        EventKind::BackoffBegun { .. } => "backoff-begun",
        EventKind::Recovered => "recovered",
        EventKind::Deleted => "deleted",
        EventKind::Created => "created",
        EventKind::RootLost { .. } => "root lost",
        EventKind::LogTrimmed { .. } => "log trimmed",
        EventKind::Paused => "paused",
        EventKind::Resumed => "resumed",
    }
}

/// Makes the record of a container that was just admitted.
pub(crate) fn first_record(subject: &Subject, idempotency_key: Option<String>) -> ContainerRecord {
    let shared = &subject.shared;
    let log_path: PathBuf = shared.log_path(&subject.namespace, &subject.name);
    let mut record = ContainerRecord::new(
        subject.namespace.clone(),
        subject.id.clone(),
        (*subject.spec).clone(),
        shared.config.boot_id.clone(),
        log_path,
        shared.clock.now(),
    );
    record.idempotency_key = idempotency_key;
    record.caller = subject.caller.as_deref().cloned();
    record
}

impl Actor for ContainerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.lifeline = Some(self.parent_link.follow(ctx));
        match self.origin.take() {
            Some(Origin::Fresh(run)) => self.begin_first_run(run, ctx),
            Some(Origin::Recorded { may_have_shim }) => self.pick_up(may_have_shim, ctx),
            None => {}
        }
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.parent_link.tell_parent();
    }
}

/// Tells whether a record in this state says that the container ran.
fn says_running(state: &State) -> bool {
    let name = state.name();
    matches!(name, StateName::Running | StateName::Paused | StateName::Stopping | StateName::Starting)
        || matches!(state, State::Created { .. })
}

#[cfg(any(test, feature = "testing"))]
crate::supervision::panics_on_demand!(ContainerActor);
