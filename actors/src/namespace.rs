//! One namespace: owns its names, its quota and its containers' actors.
//!
//! Answers [`Run`] and routes every other verb to the container it is for. Hears [`ContainerGone`], [`ContainerLingers`] and
//! [`ContainerActorEnded`]; a lost actor is rebuilt from the store, with back-off and a limit. Never touches a record but
//! to read it for a rebuild.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use actix::fut::{self, ActorFutureExt};
use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, ResponseActFuture, ResponseFuture, WrapFuture};
use contd_protocol::api::MAX_IDEMPOTENCY_KEY_BYTES;
use contd_store::ContainerRecord;
use contd_types::{
    Caller, ContainerId, ContainerInfo, ContainerName, ContainerSpec, Exit, MAX_TIMEOUT, NamespaceId, State, StateName,
    Step,
};
use tokio::sync::watch;
use tracing::{error, warn};

use crate::call::{ask, tell};
use crate::random::new_id;
use crate::container::{ContainerActor, KILLED_TIMEOUT, Origin, ROLLBACK_TIMEOUT, first_record};
use crate::error::{ContainerError, NamespaceError, one_line};
use crate::judge::Place;
use crate::supervision::{Lifeline, ParentLink, RebuildBudget};
use crate::messages::RECOVERY_WAIT;
use crate::messages::container::{
    BeginRun, Delete, GoDown, JoinRun, Kill, Start, Stop, UntilRecovered, Update, Upgrade, Wait,
};
use crate::messages::namespace::{
    ContainerActorEnded, ContainerGone, ContainerLingers, RouteDelete, RouteGoDown, RouteKill, RouteStart, RouteStop,
    RouteUpdate, RouteUpgradeShim, RouteWait, Run,
};
use crate::records::RecordError;
use crate::shared::Shared;
use crate::task::Subject;
use crate::task::make::Goal;

/// A signal and room for its way.
const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// One write of a record, on a disk that may be slow.
const UPDATE_DEADLINE: Duration = Duration::from_secs(30);
/// For ever, as far as a timer goes.
const NO_DEADLINE: Duration = Duration::MAX;

type Answer<T> = Result<T, NamespaceError>;

/// One container of the namespace.
#[derive(Debug)]
struct Child {
    /// Its actor; `None` while that is being rebuilt.
    addr: watch::Sender<Option<Addr<ContainerActor>>>,
    spec: Arc<ContainerSpec>,
    key: Option<String>,
    generation: u32,
    budget: RebuildBudget,
    /// Counted for its caller with limited rights.
    place: Option<Place>,
}

/// The actor; see the module.
#[derive(Debug)]
pub(crate) struct NamespaceActor {
    shared: Arc<Shared>,
    namespace: NamespaceId,
    parent_link: ParentLink,
    lifeline: Lifeline,
    children: BTreeMap<ContainerId, Child>,
    names: HashMap<ContainerName, ContainerId>,
    keys: HashMap<String, ContainerId>,
    /// What there is of this namespace, until the actor has started.
    found: Vec<Found>,
}

/// One container that a new actor of a namespace finds.
#[derive(Debug)]
pub(crate) enum Found {
    /// What the store has of it.
    Record {
        record: Box<ContainerRecord>,
        /// Whether something of a shim may be there.
        may_have_shim: bool,
    },
    /// It is shown, and its record could not be read: that is tried again.
    Unread(ContainerId),
}

impl NamespaceActor {
    pub(crate) fn new(shared: Arc<Shared>, namespace: NamespaceId, parent_link: ParentLink, found: Vec<Found>) -> Self {
        let (lifeline, _nobody_yet) = watch::channel(());
        Self {
            shared,
            namespace,
            parent_link,
            lifeline,
            children: BTreeMap::new(),
            names: HashMap::new(),
            keys: HashMap::new(),
            found,
        }
    }

    fn subject(&self, id: &ContainerId, spec: &Arc<ContainerSpec>, caller: Option<Caller>) -> Subject {
        Subject {
            shared: Arc::clone(&self.shared),
            locks: self.shared.locks.of(id),
            namespace: self.namespace.clone(),
            id: id.clone(),
            name: spec.name.clone(),
            spec: Arc::clone(spec),
            caller: caller.map(Arc::new),
        }
    }

    /// Counts a container that is there already, whatever its caller may have by now.
    fn place_of(&self, record: &ContainerRecord) -> Option<Place> {
        record.caller.as_ref().and_then(|caller| self.shared.places.try_take(caller.uid, None))
    }

    /// Starts the actor of a container. Its record is on disk already, or the actor writes it.
    fn start_actor(
        &self,
        subject: Subject,
        record: ContainerRecord,
        origin: Origin,
        generation: u32,
        ctx: &mut Context<Self>,
    ) -> Addr<ContainerActor> {
        let (parent, id) = (ctx.address(), subject.id.clone());
        let teller = parent.clone();
        let parent_link = ParentLink::new(&self.lifeline, move |has_panicked| {
            tell(&teller, ContainerActorEnded { id: id.clone(), generation, has_panicked });
        });
        ContainerActor::new(subject, parent, parent_link, record, origin).start()
    }

    fn add(
        &mut self,
        record: ContainerRecord,
        origin: Origin,
        place: Option<Place>,
        ctx: &mut Context<Self>,
    ) -> Addr<ContainerActor> {
        let (id, key) = (record.id.clone(), record.idempotency_key.clone());
        let spec = Arc::new(record.spec.clone());
        // What an earlier daemon had not removed yet has its name only until somebody else has it.
        let is_leaving = record.state.name() == StateName::Deleting;
        if !is_leaving || !self.names.contains_key(&spec.name) {
            self.names.insert(spec.name.clone(), id.clone());
        }
        if let Some(key) = key.as_ref().filter(|_| !is_leaving) {
            self.keys.insert(key.clone(), id.clone());
        }
        let subject = self.subject(&id, &spec, record.caller.clone());
        let addr = self.start_actor(subject, record, origin, 0, ctx);
        let (sender, _nobody_yet) = watch::channel(Some(addr.clone()));
        let child = Child { addr: sender, spec, key, generation: 0, budget: RebuildBudget::default(), place };
        self.children.insert(id, child);
        addr
    }

    /// Keeps the name of a container whose record could not be read, and reads it again.
    fn add_unread(&mut self, id: ContainerId, ctx: &mut Context<Self>) {
        let Some(info) = self.shared.view.get(&id) else { return };
        let spec = Arc::new(info.spec.clone());
        self.names.insert(spec.name.clone(), id.clone());
        let (addr, _nobody_yet) = watch::channel(None);
        let child = Child { addr, spec, key: None, generation: 0, budget: RebuildBudget::default(), place: None };
        self.children.insert(id.clone(), child);
        self.rebuild_later(id, ctx);
    }

    fn forget(&mut self, id: &ContainerId) {
        self.give_name_away(id);
        self.children.remove(id);
    }

    /// Lets another container have the name, and the key of its run; it stays one of the namespace's containers.
    fn give_name_away(&mut self, id: &ContainerId) {
        let Some(child) = self.children.get(id) else { return };
        if self.names.get(&child.spec.name) == Some(id) {
            self.names.remove(&child.spec.name);
        }
        if let Some(key) = &child.key
            && self.keys.get(key) == Some(id)
        {
            self.keys.remove(key);
        }
    }

    /// Decides whether a run may begin; everything that can be refused without work is refused here. A caller with limited
    /// rights takes one of its places.
    fn admit(&self, run: &Run) -> Result<Option<Place>, NamespaceError> {
        let name = || run.spec.name.clone();
        if self.shared.is_going_down() {
            return Err(NamespaceError::GoingDown { name: name() });
        }
        if let Some(key) = &run.idempotency_key
            && (key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY_BYTES)
        {
            return Err(NamespaceError::BadKey { name: name(), limit: MAX_IDEMPOTENCY_KEY_BYTES });
        }
        let checked = run.spec.validate().and_then(|()| run.spec.check_exec(self.shared.config.exec_limit_bytes));
        checked.map_err(|source| NamespaceError::Spec { name: name(), source })?;
        let runtimes = &self.shared.config.runtimes;
        if let Some(runtime) = run.spec.runtime.clone().filter(|runtime| !runtimes.knows(Some(runtime))) {
            let known = runtimes.names().map(str::to_owned).collect();
            return Err(NamespaceError::UnknownRuntime { name: name(), runtime, known });
        }
        if let Some(id) = self.names.get(&run.spec.name) {
            let state = self.shared.view.get(id).map(|info| info.state.name());
            let (namespace, id) = (self.namespace.clone(), id.clone());
            return Err(NamespaceError::NameTaken { namespace, name: name(), id, state });
        }
        let limit = self.shared.settings().limits.containers_per_namespace;
        if self.children.len() >= limit {
            return Err(NamespaceError::Full { namespace: self.namespace.clone(), name: name(), limit });
        }
        let Some(caller) = &run.caller else { return Ok(None) };
        let judged = self.shared.judge.judge(caller, &self.namespace, &run.spec).map_err(NamespaceError::Denied)?;
        let (uid, limit) = (caller.uid, judged.max_containers);
        let full = || NamespaceError::CallerFull { name: name(), uid, limit: limit.unwrap_or_default() };
        self.shared.places.try_take(uid, limit).map(Some).ok_or_else(full)
    }

    /// Joins a run that was made with the same key.
    fn join(&self, run: &mut Run) -> Option<ResponseActFuture<Self, Answer<ContainerId>>> {
        let key = run.idempotency_key.as_ref()?;
        let id = self.keys.get(key)?;
        let child = self.children.get(id)?;
        if *child.spec != run.spec {
            let error = NamespaceError::KeyReused { name: run.spec.name.clone(), id: id.clone() };
            return Some(Box::pin(fut::ready(Err(error))));
        }
        let message = JoinRun { hold: run.hold.take() };
        let answer = self.route(id, "run", message, self.make_deadline(), false);
        Some(Box::pin(answer.into_actor(self).map(|result, _actor, _ctx| result)))
    }

    /// How long a make may take: its longest step, and everything else.
    fn make_deadline(&self) -> Duration {
        self.shared.config.rootfs_timeout.saturating_add(2 * ROLLBACK_TIMEOUT)
    }

    /// Sends a message to a container's actor, once that is there and knows how its container is. `is_forced` goes on
    /// even when that takes too long.
    fn route<M, T>(
        &self,
        id: &ContainerId,
        verb: &'static str,
        message: M,
        deadline: Duration,
        is_forced: bool,
    ) -> ResponseFuture<Answer<T>>
    where
        ContainerActor: Handler<M>,
        M: Message<Result = Result<T, ContainerError>> + Send + 'static,
        T: Send + 'static,
    {
        let Some(child) = self.children.get(id) else {
            let gone = ContainerError::Gone { id: id.clone(), verb };
            return Box::pin(std::future::ready(Err(gone.into())));
        };
        let (mut addr, id) = (child.addr.subscribe(), id.clone());
        Box::pin(async move {
            let recovering = ContainerError::Recovering { id: id.clone(), verb, waited: RECOVERY_WAIT };
            let found = tokio::time::timeout(RECOVERY_WAIT, addr.wait_for(Option::is_some)).await;
            let addr = match found {
                Ok(Ok(found)) => found.clone(),
                Ok(Err(_forgotten)) => return Err(ContainerError::Gone { id, verb }.into()),
                Err(_elapsed) => None,
            };
            let Some(addr) = addr else { return Err(recovering.into()) };
            let known = ask::<ContainerActor, UntilRecovered>(&addr, UntilRecovered, RECOVERY_WAIT).await;
            if known.is_err() && !is_forced {
                return Err(recovering.into());
            }
            let answer = ask(&addr, message, deadline).await.map_err(ContainerError::Call)?;
            Ok(answer?)
        })
    }

    fn stop_deadline(&self, id: &ContainerId, timeout: Option<Duration>) -> Duration {
        let own = self.children.get(id).and_then(|child| child.spec.shutdown_timeout);
        let grace = timeout.or(own).unwrap_or(self.shared.settings().defaults.shutdown_timeout);
        grace.min(MAX_TIMEOUT).saturating_add(KILLED_TIMEOUT).saturating_add(ROLLBACK_TIMEOUT)
    }

    /// Reads the record of a container whose actor was lost, and starts another.
    fn rebuild(&self, id: ContainerId, ctx: &mut Context<Self>) {
        let (records, namespace) = (self.shared.records.clone(), self.namespace.clone());
        let (locks, wanted) = (self.shared.locks.of(&id), id.clone());
        let read = async move { records.get(&locks, namespace, wanted).await };
        ctx.spawn(read.into_actor(self).map(move |found, actor, ctx| actor.finish_rebuild(&id, found, ctx)));
    }

    fn finish_rebuild(
        &mut self,
        id: &ContainerId,
        found: Result<Option<ContainerRecord>, RecordError>,
        ctx: &mut Context<Self>,
    ) {
        match found {
            Ok(Some(record)) => {
                let Some(child) = self.children.get_mut(id) else { return };
                child.generation = child.generation.saturating_add(1);
                // Its policy may have been changed since it was admitted.
                child.spec = Arc::new(record.spec.clone());
                child.key.clone_from(&record.idempotency_key);
                if let Some(key) = &child.key {
                    self.keys.insert(key.clone(), id.clone());
                }
                let (generation, spec, has_place) = (child.generation, Arc::clone(&child.spec), child.place.is_some());
                let place = if has_place { None } else { self.place_of(&record) };
                let origin = Origin::Recorded { may_have_shim: true };
                let subject = self.subject(id, &spec, record.caller.clone());
                let addr = self.start_actor(subject, record, origin, generation, ctx);
                self.shared.count_rebuild();
                if let Some(child) = self.children.get_mut(id) {
                    child.place = child.place.take().or(place);
                    child.addr.send_replace(Some(addr));
                }
            }
            Ok(None) => {
                // It was lost before its record was written, or after it was removed: nothing is left of it.
                self.shared.view.remove(id);
                self.forget(id);
            }
            Err(failure) => {
                error!(container = %id, ns = %self.namespace, error = one_line(&failure), "record of a lost actor not read");
                self.rebuild_later(id.clone(), ctx);
            }
        }
    }

    fn rebuild_later(&mut self, id: ContainerId, ctx: &mut Context<Self>) {
        let Some(child) = self.children.get_mut(&id) else { return };
        if let Some(delay) = child.budget.next_delay() {
            ctx.run_later(delay, move |actor, ctx| actor.rebuild(id, ctx));
            return;
        }
        error!(container = %id, ns = %self.namespace, "its actor was lost too often, giving up; the container itself is not touched");
        if let Some(info) = self.shared.view.get(&id) {
            let mut shown = (*info).clone();
            let reason = "its actor was lost too often; restart the daemon to look after it again".to_owned();
            shown.state = State::Failed { step: Step::Record, reason };
            self.shared.view.publish(shown);
        }
    }
}

impl Actor for NamespaceActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.parent_link.follow(ctx);
        for found in std::mem::take(&mut self.found) {
            match found {
                Found::Record { record, may_have_shim } => {
                    let place = self.place_of(&record);
                    self.add(*record, Origin::Recorded { may_have_shim }, place, ctx);
                }
                Found::Unread(id) => self.add_unread(id, ctx),
            }
        }
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.parent_link.tell_parent();
    }
}

impl Handler<Run> for NamespaceActor {
    type Result = ResponseActFuture<Self, Answer<ContainerId>>;

    fn handle(&mut self, mut run: Run, ctx: &mut Self::Context) -> Self::Result {
        if let Some(joined) = self.join(&mut run) {
            return joined;
        }
        let owned = match self.admit(&run) {
            Ok(owned) => owned,
            Err(refused) => return Box::pin(fut::ready(Err(refused))),
        };
        let Run { spec, caller, idempotency_key, progress, hold, goal } = run;
        let name = spec.name.clone();
        let place = match self.shared.admission.try_run(&self.namespace, &self.shared.settings().limits) {
            Ok(place) => place,
            Err(none) => return Box::pin(fut::ready(Err(NamespaceError::no_place(none, &self.namespace, &name)))),
        };
        let takes_slot = spec.runtime.is_none() && goal == Goal::Running;
        let id = match takes_slot.then(|| self.shared.shims.reserve_id()).flatten() {
            // A shim waits for a container of this id.
            Some(id) => id,
            None => match new_id() {
                Ok(id) => id,
                Err(source) => return Box::pin(fut::ready(Err(NamespaceError::NoRandomness { name, source }))),
            },
        };
        let record = first_record(&self.subject(&id, &Arc::new(spec), caller), idempotency_key);
        let addr = self.add(record, Origin::Fresh, owned, ctx);
        let deadline = self.make_deadline();
        let made = async move {
            let answer = ask(&addr, BeginRun { goal, progress, hold }, deadline).await;
            drop(place);
            answer
        };
        Box::pin(made.into_actor(self).map(move |answer, actor, _ctx| {
            // Before the answer: who runs it again at once must find the name free.
            match actor.shared.view.get(&id) {
                None => {
                    actor.shared.shims.release_id(&id);
                    actor.forget(&id);
                }
                // A warm shim that waits for it would wait in vain.
                Some(info) if matches!(info.state, State::Lingering { .. }) => {
                    actor.shared.shims.release_id(&id);
                    actor.give_name_away(&id);
                }
                Some(_) => {}
            }
            Ok(answer.map_err(ContainerError::Call)??)
        }))
    }
}

impl Handler<RouteStart> for NamespaceActor {
    type Result = ResponseFuture<Answer<()>>;

    fn handle(&mut self, RouteStart(id): RouteStart, _ctx: &mut Self::Context) -> Self::Result {
        self.route(&id, "start", Start, self.make_deadline(), false)
    }
}

impl Handler<RouteStop> for NamespaceActor {
    type Result = ResponseFuture<Answer<Exit>>;

    fn handle(&mut self, RouteStop(id, timeout): RouteStop, _ctx: &mut Self::Context) -> Self::Result {
        self.route(&id, "stop", Stop { timeout }, self.stop_deadline(&id, timeout), false)
    }
}

impl Handler<RouteGoDown> for NamespaceActor {
    type Result = ResponseFuture<Answer<()>>;

    fn handle(&mut self, RouteGoDown { id, longest }: RouteGoDown, _ctx: &mut Self::Context) -> Self::Result {
        self.route(&id, "shut down", GoDown { longest }, self.stop_deadline(&id, Some(longest)), false)
    }
}

impl Handler<RouteKill> for NamespaceActor {
    type Result = ResponseFuture<Answer<()>>;

    fn handle(&mut self, RouteKill(id, signal): RouteKill, _ctx: &mut Self::Context) -> Self::Result {
        self.route(&id, "signal", Kill { signal }, KILL_DEADLINE, false)
    }
}

impl Handler<RouteUpdate> for NamespaceActor {
    type Result = ResponseFuture<Answer<()>>;

    fn handle(&mut self, RouteUpdate(id, restart): RouteUpdate, _ctx: &mut Self::Context) -> Self::Result {
        self.route(&id, "update", Update { restart }, UPDATE_DEADLINE, false)
    }
}

impl Handler<RouteUpgradeShim> for NamespaceActor {
    type Result = ResponseFuture<Answer<()>>;

    fn handle(&mut self, RouteUpgradeShim(id): RouteUpgradeShim, _ctx: &mut Self::Context) -> Self::Result {
        self.route(&id, "upgrade the shim of", Upgrade, KILL_DEADLINE, false)
    }
}

impl Handler<RouteDelete> for NamespaceActor {
    type Result = ResponseActFuture<Self, Answer<()>>;

    fn handle(&mut self, message: RouteDelete, _ctx: &mut Self::Context) -> Self::Result {
        let RouteDelete { id, force, timeout } = message;
        let deadline = self.stop_deadline(&id, timeout).saturating_add(ROLLBACK_TIMEOUT);
        let deleted = self.route(&id, "delete", Delete { force, timeout }, deadline, force);
        Box::pin(deleted.into_actor(self).map(move |answer, actor, _ctx| {
            // Before the answer: the name is free when the caller hears of it.
            match &answer {
                Ok(()) => actor.forget(&id),
                Err(NamespaceError::Container(ContainerError::Lingers { .. })) => actor.give_name_away(&id),
                Err(_) => {}
            }
            answer
        }))
    }
}

impl Handler<RouteWait> for NamespaceActor {
    type Result = ResponseFuture<Answer<Exit>>;

    fn handle(&mut self, RouteWait(id): RouteWait, _ctx: &mut Self::Context) -> Self::Result {
        self.route(&id, "wait for", Wait, NO_DEADLINE, true)
    }
}

impl Handler<ContainerGone> for NamespaceActor {
    type Result = ();

    fn handle(&mut self, ContainerGone { id }: ContainerGone, _ctx: &mut Self::Context) {
        self.forget(&id);
    }
}

impl Handler<ContainerLingers> for NamespaceActor {
    type Result = ();

    fn handle(&mut self, ContainerLingers { id }: ContainerLingers, _ctx: &mut Self::Context) {
        self.give_name_away(&id);
    }
}

impl Handler<ContainerActorEnded> for NamespaceActor {
    type Result = ();

    fn handle(&mut self, message: ContainerActorEnded, ctx: &mut Self::Context) {
        let ContainerActorEnded { id, generation, has_panicked } = message;
        let Some(child) = self.children.get(&id) else { return };
        if child.generation != generation {
            return;
        }
        warn!(container = %id, ns = %self.namespace, has_panicked, "its actor was lost, rebuilding it");
        child.addr.send_replace(None);
        self.rebuild_later(id, ctx);
    }
}

#[cfg(any(test, feature = "testing"))]
crate::supervision::panics_on_demand!(NamespaceActor);

#[cfg(any(test, feature = "testing"))]
impl Handler<crate::messages::namespace::PanicContainer> for NamespaceActor {
    type Result = ();

    fn handle(&mut self, message: crate::messages::namespace::PanicContainer, _ctx: &mut Self::Context) {
        let addr = self.children.get(&message.0).and_then(|child| child.addr.borrow().clone());
        if let Some(addr) = addr {
            tell(&addr, crate::messages::node::Panic);
        }
    }
}

/// Shows a container of an earlier daemon before its actor has started, so that the first list is complete.
pub(crate) fn show_found(shared: &Shared, record: &ContainerRecord) {
    shared.view.publish(ContainerInfo {
        id: record.id.clone(),
        namespace: record.namespace.clone(),
        spec: record.complete_spec(),
        state: if record.state.may_have_shim() { State::Recovering } else { record.state.clone() },
        created_at: record.created_at,
        started_at: record.started_at,
        finished_at: record.finished_at,
        last_exit: record.exit.clone(),
        restart_count: record.restart_count,
        log_path: record.log_path.to_string_lossy().into_owned(),
        in_force: record.in_force.clone(),
    });
}
