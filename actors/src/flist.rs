//! The node's root file systems: has them prepared and released, each container's one call at a time.
//!
//! Answers [`PrepareRoot`], [`ReleaseRoot`], [`ListRecoveredRoots`]. At its first start it has the provider look for what
//! an earlier daemon left; preparations wait for that. Never mounts anything itself: the provider does, in threads.
//!
//! A provider that hangs keeps only its own container's lane and one thread of its tenant: other tenants and all
//! releases have threads of their own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, Context, Handler, ResponseFuture};
use contd_rootfs::{PreparedRootfs, RecoveredRootfs, RootfsProvider};
use contd_types::NamespaceId;
use tokio::sync::watch;
use tracing::error;

use crate::error::{StepError, one_line};
use crate::lineage::Lineage;
use crate::messages::node::{ListRecoveredRoots, PrepareRoot, ReleaseRoot, Undone};
use crate::pool::Pool;

/// Preparations of one tenant at once: enough to fill a link, few enough that a hanging store costs little memory.
const PREPARES_PER_NAMESPACE: usize = 16;
/// Releases of the node at once; each is a few unmounts.
const RELEASES: usize = 32;
/// How long a release waits for the preparation in its way before it is put off: a healthy one is over by then.
pub(crate) const UNDO_GRACE: Duration = Duration::from_secs(2);

/// What outlives the actor: the threads, and whether the look at the past was taken.
#[derive(Debug)]
pub(crate) struct FlistWork {
    provider: Arc<dyn RootfsProvider>,
    prepares: Mutex<HashMap<NamespaceId, Pool>>,
    releases: Pool,
    /// `None` until the provider has looked for what an earlier daemon left.
    recovered: watch::Sender<Option<Vec<RecoveredRootfs>>>,
}

impl FlistWork {
    pub(crate) fn new(provider: Arc<dyn RootfsProvider>) -> Self {
        Self {
            provider,
            prepares: Mutex::default(),
            releases: Pool::new(RELEASES),
            recovered: watch::Sender::new(None),
        }
    }

    fn pool_of(&self, namespace: &NamespaceId) -> Pool {
        let mut pools = self.prepares.lock().unwrap_or_else(PoisonError::into_inner);
        pools.entry(namespace.clone()).or_insert_with(|| Pool::new(PREPARES_PER_NAMESPACE)).clone()
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

    async fn recover(self: Arc<Self>) {
        let provider = Arc::clone(&self.provider);
        let found = match self.releases.run("look for earlier roots", move || provider.recover()).await {
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
}

/// The actor; see the module.
#[derive(Debug)]
pub(crate) struct FlistActor {
    pub(crate) work: Arc<FlistWork>,
    pub(crate) lineage: Lineage,
    /// Only the first of its line looks at the past.
    pub(crate) is_first: bool,
}

impl Actor for FlistActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.lineage.follow(ctx);
        if self.is_first {
            actix_rt::spawn(Arc::clone(&self.work).recover());
        }
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.lineage.tell_parent();
    }
}

impl Handler<PrepareRoot> for FlistActor {
    type Result = ResponseFuture<Result<PreparedRootfs, StepError>>;

    fn handle(&mut self, message: PrepareRoot, _ctx: &mut Self::Context) -> Self::Result {
        let work = Arc::clone(&self.work);
        Box::pin(async move {
            work.wait_for_the_past().await;
            let PrepareRoot { lane, wanted, request, progress } = message;
            let (pool, provider) = (work.pool_of(&request.namespace), Arc::clone(&work.provider));
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
                provider.prepare(&request, &report).map_err(StepError::Rootfs)
            };
            pool.run_locked(&lane.root, "prepare the root", job).await.map_err(StepError::Job)?
        })
    }
}

impl Handler<ReleaseRoot> for FlistActor {
    type Result = ResponseFuture<Result<Undone, StepError>>;

    fn handle(&mut self, message: ReleaseRoot, _ctx: &mut Self::Context) -> Self::Result {
        let work = Arc::clone(&self.work);
        Box::pin(async move {
            let ReleaseRoot { lane, namespace, id, when_blocked } = message;
            let (pool, provider) = (work.releases.clone(), Arc::clone(&work.provider));
            let job = move || provider.release(&namespace, &id);
            let done = pool.undo_locked(&lane.root, UNDO_GRACE, "release the root", when_blocked, job).await;
            match done.map_err(StepError::Job)? {
                None => Ok(Undone::Later),
                Some(result) => result.map(|()| Undone::Now).map_err(StepError::Rootfs),
            }
        })
    }
}

impl Handler<ListRecoveredRoots> for FlistActor {
    type Result = ResponseFuture<Result<Vec<RecoveredRootfs>, StepError>>;

    fn handle(&mut self, _message: ListRecoveredRoots, _ctx: &mut Self::Context) -> Self::Result {
        let work = Arc::clone(&self.work);
        Box::pin(async move { Ok(work.wait_for_the_past().await) })
    }
}

#[cfg(any(test, feature = "testing"))]
crate::lineage::panics_on_demand!(FlistActor);
