//! The node's root file systems: has them prepared and released, each container's one call at a time.
//!
//! Answers [`PrepareRoot`], [`ReleaseRoot`], [`FreeMemory`], [`TakeDownRoots`], [`ListRecoveredRoots`]. Once per node the provider looks for what an
//! earlier daemon left; preparations wait for that. Every few seconds the actor looks for roots that nobody serves any more and
//! publishes [`EventKind::RootLost`] for each, once. Never mounts anything itself: the provider does, in threads.
//!
//! Owns the losses that were published. A successor begins with none, looks at the roots, and publishes what is lost then.
//!
//! A provider that hangs keeps only its own container's locks and one thread of its namespace: other namespaces have threads of
//! their own, and a namespace's releases others than its preparations.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, ResponseFuture, WrapFuture as _};
use contd_rootfs::{LostRootfs, PreparedRootfs, RecoveredRootfs, RootfsError, RootfsProvider};
use contd_types::{ContainerEvent, ContainerId, EventKind};
use tokio::sync::watch;
use tracing::{debug, error};

use crate::error::{StepError, one_line};
use crate::messages::node::{FreeMemory, ListRecoveredRoots, PrepareRoot, ReleaseRoot, TakeDownRoots, Undone};
use crate::pool::{NamespacePools, Pool, UNDO_GRACE, WhenBlocked};
use crate::shared::Shared;
use crate::supervision::ParentLink;

/// Preparations of one namespace at once: enough to fill a link, few enough that a hanging store costs little memory.
const PREPARES_PER_NAMESPACE: usize = 16;
/// Releases of one namespace at once; each is a few unmounts, and of roots whose store hangs these may take long.
const RELEASES_PER_NAMESPACE: usize = 32;
/// How often it is looked whether all roots are served: a loss is rare, and its containers cannot be helped by haste.
pub(crate) const LOSS_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The boundary and the threads, which outlive the actor: a job that hangs keeps its thread when the actor is lost.
#[derive(Debug)]
pub(crate) struct FlistParts {
    provider: Arc<dyn RootfsProvider>,
    prepares: NamespacePools,
    releases: NamespacePools,
    /// For the looks at all roots, which come one after the other.
    looks: Pool,
    /// `None` until the provider has looked for what an earlier daemon left; then never changed. The look clears away what is
    /// not mounted, so it must not be taken again while roots are being made.
    recovered: watch::Sender<Option<Vec<RecoveredRootfs>>>,
}

impl FlistParts {
    pub(crate) fn new(provider: Arc<dyn RootfsProvider>) -> Self {
        Self {
            provider,
            prepares: NamespacePools::new(PREPARES_PER_NAMESPACE),
            releases: NamespacePools::new(RELEASES_PER_NAMESPACE),
            looks: Pool::new(1),
            recovered: watch::Sender::new(None),
        }
    }

    /// Waits until the past is known; everything else comes after.
    async fn wait_for_the_past(&self) -> Vec<RecoveredRootfs> {
        let mut recovered = self.recovered.subscribe();
        match recovered.wait_for(Option::is_some).await {
            Ok(found) => found.clone().unwrap_or_default(),
            // The sender lives in `self`.
            Err(_closed) => Vec::new(),
        }
    }

    /// Has the provider look for what an earlier daemon left; once per node, before the first actor starts.
    pub(crate) async fn recover(self: Arc<Self>) {
        let provider = Arc::clone(&self.provider);
        let found = match self.looks.run("look for earlier roots", move || provider.recover()).await {
            Ok(Ok(found)) => found,
            Ok(Err(failure)) => {
                error!(error = one_line(&failure), "roots of an earlier daemon are not known, none is cleared away");
                Vec::new()
            }
            Err(lost) => {
                error!(error = one_line(&lost), "roots of an earlier daemon are not known, none is cleared away");
                Vec::new()
            }
        };
        self.recovered.send_replace(Some(found));
    }

    /// Looks for roots that nobody serves any more; `None` when that failed.
    async fn look_for_losses(self: Arc<Self>) -> Option<Vec<LostRootfs>> {
        self.wait_for_the_past().await;
        let provider = Arc::clone(&self.provider);
        let look = move || {
            // A look at what releases had to leave; what resists again is left to the next one.
            if let Err(failure) = provider.tidy() {
                debug!(error = one_line(&failure), "what releases had to leave could not be looked at");
            }
            provider.lost()
        };
        match self.looks.run("look for roots that are not served", look).await {
            Ok(Ok(lost)) => return Some(lost),
            Ok(Err(failure)) => debug!(error = one_line(&failure), "roots could not be looked at"),
            Err(lost) => debug!(error = one_line(&lost), "roots could not be looked at"),
        }
        None
    }
}

/// The actor; see the module.
#[derive(Debug)]
pub(crate) struct FlistActor {
    shared: Arc<Shared>,
    parts: Arc<FlistParts>,
    parent_link: ParentLink,
    /// The containers whose loss was published.
    known_losses: BTreeSet<ContainerId>,
}

impl Actor for FlistActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.parent_link.follow(ctx);
        self.check_losses_later(ctx);
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.parent_link.tell_parent();
    }
}

impl FlistActor {
    pub(crate) fn new(shared: Arc<Shared>, parts: Arc<FlistParts>, parent_link: ParentLink) -> Self {
        Self { shared, parts, parent_link, known_losses: BTreeSet::new() }
    }

    /// Each look begins some time after the one before has ended: a disk that hangs has one thread waiting, not many.
    fn check_losses_later(&self, ctx: &mut Context<Self>) {
        ctx.run_later(LOSS_CHECK_INTERVAL, |actor, ctx| {
            let look = Arc::clone(&actor.parts).look_for_losses();
            ctx.spawn(look.into_actor(actor).map(|lost, actor, ctx| {
                if let Some(lost) = lost {
                    actor.publish_losses(lost);
                }
                actor.check_losses_later(ctx);
            }));
        });
    }

    /// Publishes the losses that are new since the last look.
    fn publish_losses(&mut self, lost: Vec<LostRootfs>) {
        self.known_losses.retain(|id| lost.iter().any(|root| root.id == *id));
        for root in lost {
            // One that is being made is not shown yet, and its maker sees the loss itself.
            let Some(info) = self.shared.view.get(&root.id) else { continue };
            if !self.known_losses.insert(root.id.clone()) {
                continue;
            }
            let (ns, container) = (&root.namespace, root.id.short());
            error!(%ns, %container, flist = root.flist_hash, error = %root.why, "rootfs server lost");
            self.shared.publish(ContainerEvent {
                namespace: root.namespace,
                id: root.id,
                name: info.spec.name.clone(),
                at: self.shared.clock.now(),
                kind: EventKind::RootLost { reason: one_line(&root.why) },
            });
        }
    }
}

impl Handler<PrepareRoot> for FlistActor {
    type Result = ResponseFuture<Result<PreparedRootfs, StepError>>;

    fn handle(&mut self, message: PrepareRoot, _ctx: &mut Self::Context) -> Self::Result {
        let (parts, shared) = (Arc::clone(&self.parts), Arc::clone(&self.shared));
        Box::pin(async move {
            parts.wait_for_the_past().await;
            let PrepareRoot { locks, wanted, request, progress, span } = message;
            let still = wanted.clone();
            let (pool, provider) = (parts.prepares.of(&request.namespace), Arc::clone(&parts.provider));
            let job = move || {
                let report = |piece| {
                    if let Some(sender) = &progress {
                        // A full or closed channel loses the piece: progress never slows the run.
                        let _lossy = sender.try_send(piece);
                    }
                };
                if wanted.is_given_up() {
                    return Err(StepError::Cancelled);
                }
                span.in_scope(|| provider.prepare(&request, &report)).map_err(StepError::Rootfs)
            };
            let prepared = pool.run_locked(&locks.root, "prepare the root", job);
            let prepared =
                still.unless_given_up(prepared).await.ok_or(StepError::Cancelled)?.map_err(StepError::Job)?;
            prepared.map_err(|failure| with_name(failure, &shared))
        })
    }
}

impl Handler<ReleaseRoot> for FlistActor {
    type Result = ResponseFuture<Result<Undone, StepError>>;

    fn handle(&mut self, message: ReleaseRoot, _ctx: &mut Self::Context) -> Self::Result {
        let parts = Arc::clone(&self.parts);
        Box::pin(async move {
            let ReleaseRoot { locks, namespace, id, when_blocked, span } = message;
            let (pool, provider) = (parts.releases.of(&namespace), Arc::clone(&parts.provider));
            let job = move || span.in_scope(|| provider.release(&namespace, &id));
            let done = pool.undo_locked(&locks.root, UNDO_GRACE, "release the root", when_blocked, job).await;
            match done.map_err(StepError::Job)? {
                None => Ok(Undone::Later),
                Some(result) => result.map(|()| Undone::Now).map_err(StepError::Rootfs),
            }
        })
    }
}

impl Handler<FreeMemory> for FlistActor {
    type Result = ResponseFuture<Result<Undone, StepError>>;

    fn handle(&mut self, message: FreeMemory, _ctx: &mut Self::Context) -> Self::Result {
        let parts = Arc::clone(&self.parts);
        Box::pin(async move {
            let FreeMemory { locks, namespace, id } = message;
            let (pool, provider) = (parts.releases.of(&namespace), Arc::clone(&parts.provider));
            let job = move || provider.free_memory(&namespace, &id);
            let done =
                pool.undo_locked(&locks.root, UNDO_GRACE, "free the layer in memory", WhenBlocked::Queue, job).await;
            match done.map_err(StepError::Job)? {
                None => Ok(Undone::Later),
                Some(result) => result.map(|()| Undone::Now).map_err(StepError::Rootfs),
            }
        })
    }
}

impl Handler<TakeDownRoots> for FlistActor {
    type Result = ResponseFuture<Result<(), StepError>>;

    fn handle(&mut self, _message: TakeDownRoots, _ctx: &mut Self::Context) -> Self::Result {
        let parts = Arc::clone(&self.parts);
        Box::pin(async move {
            parts.wait_for_the_past().await;
            let provider = Arc::clone(&parts.provider);
            let taken_down = parts.looks.run("take the roots down", move || provider.take_down());
            taken_down.await.map_err(StepError::Job)?.map_err(StepError::Rootfs)
        })
    }
}

impl Handler<ListRecoveredRoots> for FlistActor {
    type Result = ResponseFuture<Result<Vec<RecoveredRootfs>, StepError>>;

    fn handle(&mut self, _message: ListRecoveredRoots, _ctx: &mut Self::Context) -> Self::Result {
        let parts = Arc::clone(&self.parts);
        Box::pin(async move { Ok(parts.wait_for_the_past().await) })
    }
}

/// Gives the other container the name by which people know it; the provider knows ids only.
fn with_name(failure: StepError, shared: &Shared) -> StepError {
    match failure {
        StepError::Rootfs(RootfsError::UpperInUse { path, namespace, id, name: None, how }) => {
            let name = shared.view.get(&id).map(|info| info.spec.name.clone());
            StepError::Rootfs(RootfsError::UpperInUse { path, namespace, id, name, how })
        }
        other => other,
    }
}

#[cfg(any(test, feature = "testing"))]
crate::supervision::panics_on_demand!(FlistActor);
