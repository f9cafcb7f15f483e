//! The supervisor's children: how each is made, and made again.

use std::collections::HashMap;
use std::sync::Arc;

use actix::fut::ActorFutureExt;
use actix::{Actor, AsyncContext, Context, Handler, Message, WrapFuture};
use actix_rt::{Arbiter, ArbiterHandle};
use contd_types::{ErrorKind, Explain, NamespaceId};
use tracing::{error, warn};

use super::{Boundaries, Supervisor};
use crate::bundle::{BundleActor, BundleParts};
use crate::call::tell;
use crate::containers::Containers;
use crate::error::one_line;
use crate::event::{EventActor, EventParts};
use crate::flist::{FlistActor, FlistParts};
use crate::log::{LogActor, LogParts};
use crate::messages::ListContainers;
use crate::namespace::{Found, NamespaceActor};
use crate::shared::Shared;
use crate::supervision::{ParentLink, RebuildBudget};

/// A child of the supervisor has ended without being told to.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub(super) struct ChildEnded {
    child: Child,
    /// Which of the child's actors, counted by rebuilds; a late word about an older one changes nothing.
    generation: u32,
}

/// One of the supervisor's children.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Child {
    Service(Service),
    Namespace(NamespaceId),
}

/// The actors that serve the whole node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Service {
    Flist,
    Bundle,
    Log,
    Event,
}

/// One namespace.
#[derive(Debug)]
pub(super) struct Branch {
    arbiter: usize,
    generation: u32,
    budget: RebuildBudget,
}

/// The parts of which the services' actors are made; they outlive them.
#[derive(Debug)]
pub(super) struct Kit {
    flist: Arc<FlistParts>,
    bundle: Arc<BundleParts>,
    log: Arc<LogParts>,
    event: Arc<EventParts>,
    generations: HashMap<Service, (u32, RebuildBudget)>,
}

impl Kit {
    pub(super) fn new(shared: &Arc<Shared>, containers: &Arc<Containers>, boundaries: Boundaries) -> Self {
        let Boundaries { rootfs, journal, events } = boundaries;
        Self {
            flist: Arc::new(FlistParts::new(rootfs)),
            bundle: Arc::new(BundleParts::new(Arc::clone(shared))),
            log: Arc::new(LogParts::new(Arc::clone(shared), Arc::clone(containers) as _)),
            event: Arc::new(EventParts::new(journal, events)),
            generations: HashMap::new(),
        }
    }
}

impl Supervisor {
    pub(super) fn start_services(&mut self, ctx: &mut Context<Self>) {
        self.services_arbiter().spawn(Arc::clone(&self.kit.flist).recover());
        for service in [Service::Flist, Service::Bundle, Service::Log, Service::Event] {
            self.kit.generations.insert(service, (0, RebuildBudget::default()));
            self.start_service(service, ctx);
        }
    }

    /// Ties a child to this actor.
    fn tie(&self, child: Child, generation: u32, ctx: &mut Context<Self>) -> ParentLink {
        let parent = ctx.address().downgrade();
        ParentLink::new(&self.lifeline, move |_has_panicked| {
            if let Some(parent) = parent.upgrade() {
                tell(&parent, ChildEnded { child: child.clone(), generation });
            }
        })
    }

    /// Services share the last arbiter: they only pass work on.
    fn services_arbiter(&self) -> ArbiterHandle {
        self.arbiter(self.arbiters.len().saturating_sub(1))
    }

    /// Starts a service and hands its address to everyone.
    fn start_service(&self, service: Service, ctx: &mut Context<Self>) {
        let generation = self.kit.generations.get(&service).map_or(0, |(generation, _)| *generation);
        let parent_link = self.tie(Child::Service(service), generation, ctx);
        let (arbiter, services) = (self.services_arbiter(), &self.services);
        match service {
            Service::Flist => {
                let actor = FlistActor::new(Arc::clone(&self.shared), Arc::clone(&self.kit.flist), parent_link);
                services.flist.set(FlistActor::start_in_arbiter(&arbiter, |_| actor));
            }
            Service::Bundle => {
                let actor = BundleActor { parts: Arc::clone(&self.kit.bundle), parent_link };
                services.bundle.set(BundleActor::start_in_arbiter(&arbiter, |_| actor));
            }
            Service::Log => {
                let actor = LogActor::new(Arc::clone(&self.kit.log), parent_link);
                services.log.set(LogActor::start_in_arbiter(&arbiter, |_| actor));
            }
            Service::Event => {
                let actor = EventActor::new(Arc::clone(&self.kit.event), parent_link);
                services.event.set(EventActor::start_in_arbiter(&arbiter, |_| actor));
            }
        }
    }

    /// Returns one of the node's arbiters, or the supervisor's own when it has none.
    fn arbiter(&self, index: usize) -> ArbiterHandle {
        self.arbiters.get(index).map_or_else(Arbiter::current, Arbiter::handle)
    }

    /// Starts the actor of a namespace; namespaces are spread over the arbiters in turn.
    pub(super) fn start_namespace(&mut self, namespace: &NamespaceId, found: Vec<Found>, ctx: &mut Context<Self>) {
        let next = self.branches.len().checked_rem(self.arbiters.len()).unwrap_or(0);
        let fresh = || Branch { arbiter: next, generation: 0, budget: RebuildBudget::default() };
        let branch = self.branches.entry(namespace.clone()).or_insert_with(fresh);
        let (generation, arbiter) = (branch.generation, branch.arbiter);
        // Before the containers can be asked for: a request waits for the address.
        for one in &found {
            self.containers.addresses.publish(one.id().clone(), None);
        }
        let parent_link = self.tie(Child::Namespace(namespace.clone()), generation, ctx);
        let (shared, services, containers) =
            (Arc::clone(&self.shared), Arc::clone(&self.services), Arc::clone(&self.containers));
        let actor = NamespaceActor::new(shared, services, containers, namespace.clone(), parent_link, found);
        let addr = NamespaceActor::start_in_arbiter(&self.arbiter(arbiter), |_| actor);
        self.namespaces.publish(namespace.clone(), Some(addr));
    }

    /// Reads the records of a namespace whose actor was lost, and starts another. A container whose record cannot be read now
    /// keeps its name and is read again; one whose record is damaged is left to a person, as at a start.
    fn rebuild_namespace(&mut self, namespace: NamespaceId, ctx: &mut Context<Self>) {
        let (shared, containers) = (Arc::clone(&self.shared), Arc::clone(&self.containers));
        let name = namespace.clone();
        let read = async move {
            let mut found = Vec::new();
            for id in known_ids(&shared, &name) {
                let locks = shared.locks.of(&id);
                match shared.records.get(&locks, name.clone(), id.clone()).await {
                    Ok(Some(record)) => found.push(Found::Record { record: Box::new(record), may_have_shim: true }),
                    Ok(None) => containers.forget(&id),
                    Err(failure) => {
                        error!(ns = %name, container = %id, error = one_line(&failure), "record not read at a rebuild");
                        if matches!(failure.kind(), ErrorKind::Corrupt | ErrorKind::VersionMismatch) {
                            containers.forget(&id);
                        } else {
                            found.push(Found::Unread(id));
                        }
                    }
                }
            }
            found
        };
        ctx.spawn(read.into_actor(self).map(move |found, actor, ctx| {
            if let Some(branch) = actor.branches.get_mut(&namespace) {
                branch.generation = branch.generation.saturating_add(1);
                actor.shared.count_rebuild();
                actor.start_namespace(&namespace, found, ctx);
            }
        }));
    }
}

/// Every container of a namespace that has been shown; one whose run has not come so far has left nothing.
fn known_ids(shared: &Shared, namespace: &NamespaceId) -> Vec<contd_types::ContainerId> {
    let mut ids = Vec::new();
    loop {
        let query = ListContainers { namespace: Some(namespace.clone()), after: ids.last().cloned(), limit: 0 };
        let page = shared.view.list(&query);
        ids.extend(page.containers.into_iter().map(|one| one.id));
        if !page.has_more {
            return ids;
        }
    }
}

impl Handler<ChildEnded> for Supervisor {
    type Result = ();

    fn handle(&mut self, ChildEnded { child, generation }: ChildEnded, ctx: &mut Self::Context) {
        let found = match &child {
            Child::Service(service) => self.kit.generations.get_mut(service).map(|(current, budget)| (current, budget)),
            Child::Namespace(name) => {
                self.branches.get_mut(name).map(|branch| (&mut branch.generation, &mut branch.budget))
            }
        };
        let Some((_, budget)) = found.filter(|(current, _)| **current == generation) else { return };
        let delay = budget.next_delay();
        if let Child::Namespace(namespace) = &child {
            self.namespaces.publish(namespace.clone(), None);
        }
        let Some(delay) = delay else {
            error!(?child, "an actor was lost too often, giving up; restart the daemon");
            return;
        };
        warn!(?child, "an actor was lost, rebuilding it");
        ctx.run_later(delay, move |actor, ctx| match child {
            Child::Service(service) => {
                if let Some((generation, _)) = actor.kit.generations.get_mut(&service) {
                    *generation = generation.saturating_add(1);
                }
                actor.shared.count_rebuild();
                actor.start_service(service, ctx);
            }
            Child::Namespace(namespace) => actor.rebuild_namespace(namespace, ctx),
        });
    }
}
