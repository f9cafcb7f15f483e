//! One namespace: owns its names, its quota and its containers' actors.
//!
//! Answers [`Run`]. Writes the addresses of its containers, to which every other verb goes straight. Hears [`ContainerNews`] and
//! [`ContainerActorEnded`]; a lost actor is rebuilt from the store, with back-off and a limit. Never touches a record but
//! to read it for a rebuild.
//!
//! - here: the actor, admission. `rebuild`: containers whose actor was lost.

mod rebuild;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use actix::fut::{self, ActorFutureExt};
use actix::{Actor, AsyncContext, Context, Handler, ResponseActFuture, WrapFuture};
use contd_protocol::api::MAX_IDEMPOTENCY_KEY_BYTES;
use contd_store::ContainerRecord;
use contd_types::{Caller, ContainerId, ContainerName, ContainerSpec, NamespaceId, State, StateName};
use tokio::sync::{oneshot, watch};

use crate::call::{CallError, tell};
use crate::container::{ContainerActor, FirstRun, Origin, first_record};
use crate::containers::{Containers, Verb};
use crate::error::{ContainerError, NamespaceError};
use crate::judge::Place;
use crate::messages::container::JoinRun;
use crate::messages::namespace::{ContainerActorEnded, ContainerNews, Goal, News, Run};
use crate::random::new_id;
use crate::records::found_info;
use crate::services::Services;
use crate::shared::Shared;
use crate::supervision::{Lifeline, ParentLink, RebuildBudget};
use crate::task::Subject;

type Answer<T> = Result<T, NamespaceError>;

/// One container of the namespace.
#[derive(Debug)]
struct Child {
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
    services: Arc<Services>,
    containers: Arc<Containers>,
    namespace: NamespaceId,
    parent_link: ParentLink,
    lifeline: Lifeline,
    children: BTreeMap<ContainerId, Child>,
    names: HashMap<ContainerName, ContainerId>,
    keys: HashMap<String, ContainerId>,
    /// The containers of this namespace, until the actor has started.
    found: Vec<Found>,
}

/// One container that a new actor of a namespace finds.
#[derive(Debug)]
pub(crate) enum Found {
    /// Its record was read.
    Record {
        record: Box<ContainerRecord>,
        /// Whether something of a shim may be there.
        may_have_shim: bool,
    },
    /// It is shown, and its record could not be read: that is tried again.
    Unread(ContainerId),
}

impl Found {
    pub(crate) fn id(&self) -> &ContainerId {
        match self {
            Self::Record { record, .. } => &record.id,
            Self::Unread(id) => id,
        }
    }
}

impl NamespaceActor {
    pub(crate) fn new(
        shared: Arc<Shared>,
        services: Arc<Services>,
        containers: Arc<Containers>,
        namespace: NamespaceId,
        parent_link: ParentLink,
        found: Vec<Found>,
    ) -> Self {
        let (lifeline, _nobody_yet) = watch::channel(());
        Self {
            shared,
            services,
            containers,
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
        let (shared, services) = (Arc::clone(&self.shared), Arc::clone(&self.services));
        Subject::new(shared, services, self.namespace.clone(), id.clone(), Arc::clone(spec), caller)
    }

    /// Counts a container that is there already, whatever its caller may have by now.
    fn place_of(&self, record: &ContainerRecord) -> Option<Place> {
        record.caller.as_ref().and_then(|caller| self.shared.places.try_take(caller.uid, None))
    }

    /// Starts the actor of a container, and publishes its address. Its record is on disk already, or the actor writes it.
    fn start_actor(
        &self,
        subject: Subject,
        record: ContainerRecord,
        origin: Origin,
        generation: u32,
        ctx: &mut Context<Self>,
    ) {
        if matches!(origin, Origin::Recorded { .. }) {
            // Before the address: a request that finds it waits for the look at its shim.
            self.shared.view.publish(found_info(&record));
        }
        let (parent, id) = (ctx.address(), subject.id.clone());
        let (teller, lost) = (parent.clone(), id.clone());
        let parent_link = ParentLink::new(&self.lifeline, move |has_panicked| {
            tell(&teller, ContainerActorEnded { id: lost.clone(), generation, has_panicked });
        });
        let addr = ContainerActor::new(subject, parent.recipient(), parent_link, record, origin).start();
        self.containers.addresses.publish(id, Some(addr));
    }

    fn add(&mut self, record: ContainerRecord, origin: Origin, place: Option<Place>, ctx: &mut Context<Self>) {
        let (id, key) = (record.id.clone(), record.idempotency_key.clone());
        let spec = Arc::new(record.spec.clone());
        // A container that an earlier daemon had not removed yet has its name only until another has it.
        let is_leaving = record.state.name() == StateName::Deleting;
        if !is_leaving || !self.names.contains_key(&spec.name) {
            self.names.insert(spec.name.clone(), id.clone());
        }
        if let Some(key) = key.as_ref().filter(|_| !is_leaving) {
            self.keys.insert(key.clone(), id.clone());
        }
        let subject = self.subject(&id, &spec, record.caller.clone());
        self.start_actor(subject, record, origin, 0, ctx);
        self.children.insert(id, Child { spec, key, generation: 0, budget: RebuildBudget::default(), place });
    }

    /// Keeps the name of a container whose record could not be read, and reads it again.
    fn add_unread(&mut self, id: ContainerId, ctx: &mut Context<Self>) {
        let Some(info) = self.shared.view.get(&id) else { return };
        let spec = Arc::new(info.spec.clone());
        self.names.insert(spec.name.clone(), id.clone());
        let child = Child { spec, key: None, generation: 0, budget: RebuildBudget::default(), place: None };
        self.children.insert(id.clone(), child);
        self.rebuild_later(id, ctx);
    }

    fn forget(&mut self, id: &ContainerId) {
        self.give_name_away(id);
        self.children.remove(id);
        self.containers.addresses.remove(id);
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
        let (containers, id, message) = (Arc::clone(&self.containers), id.clone(), JoinRun { hold: run.hold.take() });
        let verb = Verb::new("run", containers.make_deadline());
        let joined = async move { Ok(containers.ask(id, verb, message).await?) };
        Some(Box::pin(joined.into_actor(self)))
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
        // Its containers' actors end with it; requests wait for the next ones.
        for id in self.children.keys() {
            self.containers.addresses.publish(id.clone(), None);
        }
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
        let (reply, made) = oneshot::channel();
        let run = FirstRun { goal, progress, hold, reply };
        self.add(record, Origin::Fresh(run), owned, ctx);
        let deadline = self.containers.make_deadline();
        let made = async move {
            let answer = tokio::time::timeout(deadline, made).await;
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
            let actor = "ContainerActor";
            let answer = answer.map_err(|_elapsed| CallError::Deadline { actor, waited: deadline });
            let answer = answer.and_then(|made| made.map_err(|_lost| CallError::ActorLost { actor }));
            answer.map_err(ContainerError::Call)??;
            Ok(id)
        }))
    }
}

impl Handler<ContainerNews> for NamespaceActor {
    type Result = ();

    fn handle(&mut self, ContainerNews { id, news }: ContainerNews, _ctx: &mut Self::Context) {
        match news {
            News::Gone => self.forget(&id),
            News::Lingers => self.give_name_away(&id),
        }
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
        tracing::warn!(container = %id, ns = %self.namespace, has_panicked, "actor lost, rebuilding");
        self.containers.addresses.publish(id.clone(), None);
        self.rebuild_later(id, ctx);
    }
}

#[cfg(any(test, feature = "testing"))]
crate::supervision::panics_on_demand!(NamespaceActor);
