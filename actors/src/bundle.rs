//! The node's bundles: has them written, shown and removed in threads.
//!
//! Answers [`WriteBundle`], [`PreviewBundle`], [`RemoveBundle`], [`ListBundles`]. Resolves the network namespace at each
//! write, so that a restart joins the one that has the name then. Never looks into a root but through `contd_bundle`.

use std::path::PathBuf;
use std::sync::Arc;

use actix::{Actor, Context, Handler, ResponseFuture};
use contd_bundle::{BundleKey, BundleRequest, Bundles, Netns, netns};
use contd_types::{ContainerId, ContainerSpec, NamespaceId, Network};

use crate::config::NodeConfig;
use crate::error::StepError;
use crate::flist::UNDO_GRACE;
use crate::lineage::Lineage;
use crate::messages::node::{ListBundles, PreviewBundle, RemoveBundle, Undone, WriteBundle};
use crate::pool::Pool;

/// Bundles written or removed at once; each is a few milliseconds of fsync.
const THREADS: usize = 16;

/// What outlives the actor.
#[derive(Debug)]
pub(crate) struct BundleWork {
    bundles: Arc<dyn Bundles>,
    config: NodeConfig,
    pool: Pool,
}

impl BundleWork {
    pub(crate) fn new(bundles: Arc<dyn Bundles>, config: NodeConfig) -> Self {
        Self { bundles, config, pool: Pool::new(THREADS) }
    }

    /// Calls `make` with the complete request. Blocks.
    fn with_request<T>(
        &self,
        namespace: &NamespaceId,
        id: &ContainerId,
        spec: &ContainerSpec,
        root: &std::path::Path,
        make: impl FnOnce(&BundleRequest<'_>) -> Result<T, contd_bundle::BundleError>,
    ) -> Result<T, StepError> {
        let netns = match &spec.network {
            Network::Private => Netns::Private,
            Network::Named(name) => {
                Netns::Path(netns::resolve(name, &self.config.netns_dir).map_err(StepError::Netns)?)
            }
        };
        let spec = crate::startup::complete(spec, root).map_err(StepError::Startup)?;
        let request = BundleRequest {
            namespace,
            id,
            spec: &spec,
            root,
            netns,
            cgroup_parent: &self.config.cgroup_parent,
            defaults: &self.config.defaults.limits,
        };
        make(&request).map_err(StepError::Bundle)
    }
}

/// The actor; see the module.
#[derive(Debug)]
pub(crate) struct BundleActor {
    pub(crate) work: Arc<BundleWork>,
    pub(crate) lineage: Lineage,
}

impl Actor for BundleActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.lineage.follow(ctx);
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.lineage.tell_parent();
    }
}

impl Handler<WriteBundle> for BundleActor {
    type Result = ResponseFuture<Result<PathBuf, StepError>>;

    fn handle(&mut self, message: WriteBundle, _ctx: &mut Self::Context) -> Self::Result {
        let work = Arc::clone(&self.work);
        Box::pin(async move {
            let WriteBundle { lane, wanted, namespace, id, spec, root } = message;
            let pool = work.pool.clone();
            let job = move || {
                if wanted.is_given_up() {
                    return Err(StepError::Cancelled);
                }
                work.with_request(&namespace, &id, &spec, &root, |request| work.bundles.write(request))
            };
            pool.run_locked(&lane.bundle, "write the bundle", job).await.map_err(StepError::Job)?
        })
    }
}

impl Handler<PreviewBundle> for BundleActor {
    type Result = ResponseFuture<Result<String, StepError>>;

    fn handle(&mut self, message: PreviewBundle, _ctx: &mut Self::Context) -> Self::Result {
        let work = Arc::clone(&self.work);
        Box::pin(async move {
            let PreviewBundle { namespace, id, spec, root } = message;
            let pool = work.pool.clone();
            let job = move || work.with_request(&namespace, &id, &spec, &root, contd_bundle::preview);
            pool.run("preview the bundle", job).await.map_err(StepError::Job)?
        })
    }
}

impl Handler<RemoveBundle> for BundleActor {
    type Result = ResponseFuture<Result<Undone, StepError>>;

    fn handle(&mut self, message: RemoveBundle, _ctx: &mut Self::Context) -> Self::Result {
        let work = Arc::clone(&self.work);
        Box::pin(async move {
            let RemoveBundle { lane, namespace, id, when_blocked } = message;
            let pool = work.pool.clone();
            let job = move || work.bundles.remove(&namespace, &id);
            let done = pool.undo_locked(&lane.bundle, UNDO_GRACE, "remove the bundle", when_blocked, job).await;
            match done.map_err(StepError::Job)? {
                None => Ok(Undone::Later),
                Some(result) => result.map(|()| Undone::Now).map_err(StepError::Bundle),
            }
        })
    }
}

impl Handler<ListBundles> for BundleActor {
    type Result = ResponseFuture<Result<Vec<BundleKey>, StepError>>;

    fn handle(&mut self, _message: ListBundles, _ctx: &mut Self::Context) -> Self::Result {
        let work = Arc::clone(&self.work);
        Box::pin(async move {
            let pool = work.pool.clone();
            let found = pool.run("list the bundles", move || work.bundles.list()).await.map_err(StepError::Job)?;
            found.map_err(StepError::Bundle)
        })
    }
}

#[cfg(any(test, feature = "testing"))]
crate::lineage::panics_on_demand!(BundleActor);
