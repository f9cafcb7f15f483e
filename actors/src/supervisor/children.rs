//! The supervisor's children: how each is made, and made again.

use std::collections::HashMap;
use std::sync::Arc;

use actix::fut::ActorFutureExt;
use actix::{Actor, Addr, AsyncContext, Context, Handler, WrapFuture};
use actix_rt::{Arbiter, ArbiterHandle};
use contd_types::{ErrorKind, Explain, NamespaceId};
use tokio::sync::watch;
use tracing::{error, warn};

use super::{Boundaries, Supervisor};
use crate::bundle::{BundleActor, BundleWork};
use crate::call::tell;
use crate::error::one_line;
use crate::event::{EventActor, EventWork};
use crate::flist::{FlistActor, FlistWork};
use crate::supervision::{ParentLink, RebuildBudget};
use crate::log::{LogActor, LogWork};
use crate::messages::ListContainers;
use crate::messages::node::{Service, ServiceEnded};
use crate::messages::supervisor::NamespaceActorEnded;
use crate::namespace::{Found, NamespaceActor};
use crate::shared::Shared;

/// One namespace.
#[derive(Debug)]
pub(super) struct Branch {
    /// Its actor; `None` while that is being rebuilt.
    pub(super) addr: watch::Sender<Option<Addr<NamespaceActor>>>,
    arbiter: usize,
    generation: u32,
    budget: RebuildBudget,
}

/// What the services work with; it outlives their actors.
#[derive(Debug)]
pub(super) struct Kit {
    flist: Arc<FlistWork>,
    bundle: Arc<BundleWork>,
    log: Arc<LogWork>,
    event: EventWork,
    lines: HashMap<Service, (u32, RebuildBudget)>,
}

impl Kit {
    pub(super) fn new(shared: &Arc<Shared>, boundaries: Boundaries, arbiter: Option<&Arbiter>) -> Self {
        let Boundaries { rootfs, bundles, journal } = boundaries;
        let (event, writer) = EventWork::new(journal);
        match arbiter {
            Some(arbiter) => drop(arbiter.spawn(writer)),
            None => drop(actix_rt::spawn(writer)),
        }
        Self {
            flist: Arc::new(FlistWork::new(rootfs)),
            bundle: Arc::new(BundleWork::new(bundles, Arc::clone(shared))),
            log: Arc::new(LogWork::new(Arc::clone(shared))),
            event,
            lines: HashMap::new(),
        }
    }
}

impl Supervisor {
    pub(super) fn start_services(&mut self, ctx: &mut Context<Self>) {
        for service in [Service::Flist, Service::Bundle, Service::Log, Service::Event] {
            self.kit.lines.insert(service, (0, RebuildBudget::default()));
            self.start_service(service, ctx);
        }
    }

    /// Starts a service and hands its address to everyone. Services share the last arbiter: they only pass work on.
    fn start_service(&self, service: Service, ctx: &mut Context<Self>) {
        let generation = self.kit.lines.get(&service).map_or(0, |(generation, _)| *generation);
        let parent = ctx.address().downgrade();
        let parent_link = ParentLink::new(&self.lifeline, move |_has_panicked| {
            if let Some(parent) = parent.upgrade() {
                tell(&parent, ServiceEnded { service, generation });
            }
        });
        let arbiter = self.arbiter(self.arbiters.len().saturating_sub(1));
        match service {
            Service::Flist => {
                let (shared, work) = (Arc::clone(&self.shared), Arc::clone(&self.kit.flist));
                let actor = FlistActor { shared, work, parent_link, is_first: generation == 0 };
                self.shared.flist.set(Some(FlistActor::start_in_arbiter(&arbiter, |_| actor)));
            }
            Service::Bundle => {
                let actor = BundleActor { work: Arc::clone(&self.kit.bundle), parent_link };
                self.shared.bundle.set(Some(BundleActor::start_in_arbiter(&arbiter, |_| actor)));
            }
            Service::Log => {
                let actor = LogActor { work: Arc::clone(&self.kit.log), parent_link };
                self.shared.log.set(Some(LogActor::start_in_arbiter(&arbiter, |_| actor)));
            }
            Service::Event => {
                let actor = EventActor { work: self.kit.event.clone(), parent_link };
                self.shared.event.set(Some(EventActor::start_in_arbiter(&arbiter, |_| actor)));
            }
        }
    }

    /// Returns one of the node's arbiters, or the supervisor's own when it has none.
    fn arbiter(&self, index: usize) -> ArbiterHandle {
        self.arbiters.get(index).map_or_else(Arbiter::current, Arbiter::handle)
    }

    /// Starts the actor of a namespace; namespaces are spread over the arbiters in turn.
    pub(super) fn start_namespace(&mut self, namespace: &NamespaceId, found: Vec<Found>, ctx: &mut Context<Self>) {
        let next = self.namespaces.len().checked_rem(self.arbiters.len()).unwrap_or(0);
        let (sender, _nobody_yet) = watch::channel(None);
        let fresh = || Branch { addr: sender, arbiter: next, generation: 0, budget: RebuildBudget::default() };
        let branch = self.namespaces.entry(namespace.clone()).or_insert_with(fresh);
        let (generation, arbiter) = (branch.generation, branch.arbiter);
        let (parent, name) = (ctx.address().downgrade(), namespace.clone());
        let parent_link = ParentLink::new(&self.lifeline, move |_has_panicked| {
            if let Some(parent) = parent.upgrade() {
                tell(&parent, NamespaceActorEnded { namespace: name.clone(), generation });
            }
        });
        let actor = NamespaceActor::new(Arc::clone(&self.shared), namespace.clone(), parent_link, found);
        let addr = NamespaceActor::start_in_arbiter(&self.arbiter(arbiter), |_| actor);
        if let Some(branch) = self.namespaces.get(namespace) {
            branch.addr.send_replace(Some(addr));
        }
    }

    /// Reads the records of a namespace whose actor was lost, and starts another. A container whose record cannot be read now
    /// keeps its name and is read again; one whose record is damaged is left to a person, as at a start.
    fn rebuild_namespace(&mut self, namespace: NamespaceId, ctx: &mut Context<Self>) {
        let (shared, name) = (Arc::clone(&self.shared), namespace.clone());
        let read = async move {
            let mut found = Vec::new();
            for id in known_ids(&shared, &name) {
                let locks = shared.locks.of(&id);
                match shared.records.get(&locks, name.clone(), id.clone()).await {
                    Ok(Some(record)) => found.push(Found::Record { record: Box::new(record), may_have_shim: true }),
                    Ok(None) => shared.view.remove(&id),
                    Err(failure) => {
                        error!(ns = %name, container = %id, error = one_line(&failure), "record not read at a rebuild");
                        if matches!(failure.kind(), ErrorKind::Corrupt | ErrorKind::VersionMismatch) {
                            shared.view.remove(&id);
                        } else {
                            found.push(Found::Unread(id));
                        }
                    }
                }
            }
            found
        };
        ctx.spawn(read.into_actor(self).map(move |found, actor, ctx| {
            if let Some(branch) = actor.namespaces.get_mut(&namespace) {
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

impl Handler<ServiceEnded> for Supervisor {
    type Result = ();

    fn handle(&mut self, ServiceEnded { service, generation }: ServiceEnded, ctx: &mut Self::Context) {
        let Some((current, budget)) = self.kit.lines.get_mut(&service) else { return };
        if *current != generation {
            return;
        }
        *current = current.saturating_add(1);
        match budget.next_delay() {
            Some(delay) => {
                warn!(?service, "service was lost, rebuilding it");
                ctx.run_later(delay, move |actor, ctx| {
                    actor.shared.count_rebuild();
                    actor.start_service(service, ctx);
                });
            }
            None => error!(?service, "service was lost too often, giving up; restart the daemon"),
        }
    }
}

impl Handler<NamespaceActorEnded> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: NamespaceActorEnded, ctx: &mut Self::Context) {
        let NamespaceActorEnded { namespace, generation } = message;
        let Some(branch) = self.namespaces.get_mut(&namespace) else { return };
        if branch.generation != generation {
            return;
        }
        branch.addr.send_replace(None);
        match branch.budget.next_delay() {
            Some(delay) => {
                warn!(ns = %namespace, "its actor was lost, rebuilding it");
                ctx.run_later(delay, move |actor, ctx| actor.rebuild_namespace(namespace, ctx));
            }
            None => error!(ns = %namespace, "its actor was lost too often, giving up; restart the daemon"),
        }
    }
}
