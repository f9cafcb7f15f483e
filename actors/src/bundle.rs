//! The node's bundles: has them written, shown and removed in threads.
//!
//! Owns nothing but the way to them: the state is the directories, which a successor finds as they are.
//!
//! Answers [`WriteBundle`], [`PreviewBundle`], [`LookUpUser`], [`RemoveBundle`], [`ListBundles`]. Resolves the network namespace at each
//! write, so that a restart joins the one that has the name then. Never looks into a root but through `contd_bundle`.

use std::sync::Arc;

use actix::{Actor, Context, Handler, ResponseFuture};
use contd_bundle::{BundleKey, BundleRequest, Identity, Netns, netns};
use contd_store::MadeWith;
use contd_types::Network;

use crate::error::StepError;
use crate::messages::node::{BundleSpec, ListBundles, LookUpUser, PreviewBundle, RemoveBundle, Undone, WriteBundle};
use crate::pool::{NamespacePools, Pool, UNDO_GRACE};
use crate::shared::Shared;
use crate::supervision::ParentLink;

/// Bundles of one namespace written or shown at once: users and groups are looked up in its roots, which may hang.
const WRITES_PER_NAMESPACE: usize = 16;
/// Bundles removed or listed at once; each is a few milliseconds of fsync, and no root is looked into.
const REMOVALS: usize = 16;

/// The boundary and the threads, which outlive the actor: a job that hangs keeps its thread when the actor is lost.
#[derive(Debug)]
pub(crate) struct BundleParts {
    shared: Arc<Shared>,
    writes: NamespacePools,
    removals: Pool,
}

impl BundleParts {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, writes: NamespacePools::new(WRITES_PER_NAMESPACE), removals: Pool::new(REMOVALS) }
    }

    /// Calls `make` with the complete request, and tells what the flist added to it. Blocks.
    fn with_request<T>(
        &self,
        wanted: &BundleSpec,
        make: impl FnOnce(&BundleRequest<'_>) -> Result<T, contd_bundle::BundleError>,
    ) -> Result<(T, Option<MadeWith>), StepError> {
        let BundleSpec { namespace, id, spec: given, defaults, root, image } = wanted;
        let netns = match &given.network {
            Network::Private => Netns::Private,
            Network::Named(name) => {
                Netns::Path(netns::resolve(name, &self.shared.config.netns_dir).map_err(StepError::Netns)?)
            }
        };
        let spec = crate::startup::complete(given, root, image)
            .and_then(|spec| crate::startup::check_exec(spec, self.shared.config.exec_limit_bytes))
            .map_err(StepError::Startup)?;
        let cgroup_parent = &self.shared.config.cgroup_parent;
        let request = BundleRequest { namespace, id, spec: &spec, root, netns, cgroup_parent, defaults };
        let made = make(&request).map_err(|error| StepError::Bundle(Box::new(error)))?;
        Ok((made, MadeWith::of(&spec, given)))
    }
}

/// The actor; see the module.
#[derive(Debug)]
pub(crate) struct BundleActor {
    pub(crate) parts: Arc<BundleParts>,
    pub(crate) parent_link: ParentLink,
}

impl Actor for BundleActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.parent_link.follow(ctx);
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.parent_link.tell_parent();
    }
}

impl Handler<WriteBundle> for BundleActor {
    type Result = ResponseFuture<Result<Option<MadeWith>, StepError>>;

    fn handle(&mut self, message: WriteBundle, _ctx: &mut Self::Context) -> Self::Result {
        let parts = Arc::clone(&self.parts);
        Box::pin(async move {
            let WriteBundle { locks, wanted, bundle } = message;
            let still = wanted.clone();
            let pool = parts.writes.of(&bundle.namespace);
            let job = move || {
                if wanted.is_given_up() {
                    return Err(StepError::Cancelled);
                }
                let write = |request: &BundleRequest<'_>| parts.shared.bundles.write(request);
                parts.with_request(&bundle, write).map(|(_dir, made_with)| made_with)
            };
            let written = pool.run_locked(&locks.bundle, "write the bundle", job);
            still.unless_given_up(written).await.ok_or(StepError::Cancelled)?.map_err(StepError::Job)?
        })
    }
}

impl Handler<PreviewBundle> for BundleActor {
    type Result = ResponseFuture<Result<String, StepError>>;

    fn handle(&mut self, message: PreviewBundle, _ctx: &mut Self::Context) -> Self::Result {
        let parts = Arc::clone(&self.parts);
        Box::pin(async move {
            let PreviewBundle { wanted, bundle } = message;
            let pool = parts.writes.of(&bundle.namespace);
            let job = move || {
                let preview = parts.with_request(&bundle, contd_bundle::preview);
                preview.map(|(config_json, _)| config_json)
            };
            let shown = pool.run("preview the bundle", job);
            wanted.unless_given_up(shown).await.ok_or(StepError::Cancelled)?.map_err(StepError::Job)?
        })
    }
}

impl Handler<LookUpUser> for BundleActor {
    type Result = ResponseFuture<Result<Identity, StepError>>;

    fn handle(&mut self, message: LookUpUser, _ctx: &mut Self::Context) -> Self::Result {
        let parts = Arc::clone(&self.parts);
        Box::pin(async move {
            let LookUpUser { namespace, root, user } = message;
            let pool = parts.writes.of(&namespace);
            let found = pool.run("look up a user", move || contd_bundle::look_up_user(&root, Some(&user))).await;
            found.map_err(StepError::Job)?.map_err(|error| StepError::Bundle(Box::new(error)))
        })
    }
}

impl Handler<RemoveBundle> for BundleActor {
    type Result = ResponseFuture<Result<Undone, StepError>>;

    fn handle(&mut self, message: RemoveBundle, _ctx: &mut Self::Context) -> Self::Result {
        let parts = Arc::clone(&self.parts);
        Box::pin(async move {
            let RemoveBundle { locks, namespace, id, when_blocked } = message;
            let pool = parts.removals.clone();
            let job = move || parts.shared.bundles.remove(&namespace, &id);
            let done = pool.undo_locked(&locks.bundle, UNDO_GRACE, "remove the bundle", when_blocked, job).await;
            match done.map_err(StepError::Job)? {
                None => Ok(Undone::Later),
                Some(result) => result.map(|()| Undone::Now).map_err(|error| StepError::Bundle(Box::new(error))),
            }
        })
    }
}

impl Handler<ListBundles> for BundleActor {
    type Result = ResponseFuture<Result<Vec<BundleKey>, StepError>>;

    fn handle(&mut self, _message: ListBundles, _ctx: &mut Self::Context) -> Self::Result {
        let parts = Arc::clone(&self.parts);
        Box::pin(async move {
            let pool = parts.removals.clone();
            let found =
                pool.run("list the bundles", move || parts.shared.bundles.list()).await.map_err(StepError::Job)?;
            found.map_err(|error| StepError::Bundle(Box::new(error)))
        })
    }
}

#[cfg(any(test, feature = "testing"))]
crate::supervision::panics_on_demand!(BundleActor);
