//! The node: owns the namespaces' actors and the services, and the factories of them all.
//!
//! Answers every verb of [`crate::messages`]: a run by its namespace, a verb for a container by that one's actor, straight;
//! [`InspectContainer`](crate::messages::InspectContainer), the lists and [`NodeStatus`](crate::messages::NodeStatus) from the view, without a hop. Rebuilds a lost child, with back-off and a limit. Its own loss is the node's: see
//! [`crate::until_ended`].
//!
//! Start: read all records, look which shims there are, hand each namespace its records, sweep what no record knows. Requests
//! wait for the first two, which takes milliseconds.

mod children;
mod down;
mod looks;
mod route;
mod verbs;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use actix::fut::ActorFutureExt;
use actix::{Actor, AsyncContext, Context, ResponseActFuture, ResponseFuture, WrapFuture};
use actix_rt::Arbiter;
use contd_rootfs::RootfsProvider;
use contd_shim_client::FoundShim;
use contd_store::{EventJournal, Loaded};
use contd_types::{ApiError, Backoff, ContainerEvent, ErrorKind, NamespaceId};
use tokio::sync::{mpsc, watch};
use tracing::{error, info};

use crate::addresses::Addresses;
use crate::containers::Containers;
use crate::error::one_line;
use crate::messages::RECOVERY_WAIT;
use crate::namespace::{Found, NamespaceActor};
use crate::random::jitter;
use crate::records::{RecordError, found_info};
use crate::services::Services;
use crate::shared::Shared;
use crate::supervision::Lifeline;
use crate::sweep::{Known, has_lease, report_damage, sweep};
use children::{Branch, Kit};

/// How long the list of shims may take before the start goes on without it: it reads a few directories.
const SHIM_LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries to read the records.
const LOAD_RETRY: Backoff = Backoff::RESTART;

/// The boundaries that only the supervisor's services need.
#[derive(Debug)]
pub(crate) struct Boundaries {
    pub(crate) rootfs: Arc<dyn RootfsProvider>,
    pub(crate) journal: EventJournal,
    /// The other end of [`Shared::events`].
    pub(crate) events: mpsc::Receiver<ContainerEvent>,
}

/// How far the start is.
#[derive(Debug, Clone)]
enum Phase {
    /// The records are being read.
    Loading,
    /// Every record has its actor.
    Ready,
    /// The records cannot be read; tried again.
    Failed(ApiError),
    /// A shutdown has begun.
    Closing,
}

/// The actor; see the module.
#[derive(Debug)]
pub struct Supervisor {
    shared: Arc<Shared>,
    services: Arc<Services>,
    containers: Arc<Containers>,
    kit: Kit,
    lifeline: Lifeline,
    arbiters: Vec<Arbiter>,
    branches: HashMap<NamespaceId, Branch>,
    namespaces: Arc<Addresses<NamespaceId, NamespaceActor>>,
    phase: watch::Sender<Phase>,
    records_set_aside: u32,
}

impl Supervisor {
    pub(crate) fn new(shared: Arc<Shared>, boundaries: Boundaries) -> Self {
        let arbiters: Vec<Arbiter> = (0..shared.config.arbiters).map(|_| new_arbiter()).collect();
        let (lifeline, _nobody_yet) = watch::channel(());
        let containers = Arc::new(Containers::new(Arc::clone(&shared)));
        let kit = Kit::new(&shared, &containers, boundaries);
        let (phase, _nobody_waits) = watch::channel(Phase::Loading);
        Self {
            services: Arc::default(),
            containers,
            shared,
            kit,
            lifeline,
            arbiters,
            branches: HashMap::new(),
            namespaces: Arc::default(),
            phase,
            records_set_aside: 0,
        }
    }

    /// Does something once every record has its actor.
    fn when_ready<T: 'static>(
        &self,
        act: impl FnOnce(&mut Self, &mut Context<Self>) -> ResponseFuture<Result<T, ApiError>> + 'static,
    ) -> ResponseActFuture<Self, Result<T, ApiError>> {
        let mut phase = self.phase.subscribe();
        let wait = async move {
            let known = phase.wait_for(|phase| !matches!(phase, Phase::Loading));
            match tokio::time::timeout(RECOVERY_WAIT, known).await {
                Ok(Ok(phase)) => match &*phase {
                    Phase::Failed(why) => Err(why.clone()),
                    Phase::Closing => Err(closing()),
                    Phase::Loading | Phase::Ready => Ok(()),
                },
                Ok(Err(_gone)) => Err(closing()),
                Err(_elapsed) => Err(ApiError::new(ErrorKind::Unavailable, "the records are still being read")
                    .with_hint("retry; if it goes on, look at the disk of the state directory")),
            }
        };
        Box::pin(wait.into_actor(self).then(|ready, actor, ctx| {
            let done: ResponseFuture<Result<T, ApiError>> = match ready {
                Ok(()) => act(actor, ctx),
                Err(refused) => Box::pin(std::future::ready(Err(refused))),
            };
            done.into_actor(actor)
        }))
    }

    fn load(&self, attempt: u32, ctx: &mut Context<Self>) {
        let (records, shims) = (self.shared.records.clone(), Arc::clone(&self.shared.shims));
        let read = async move {
            let loaded = records.load_all().await?;
            let shims = match tokio::time::timeout(SHIM_LIST_TIMEOUT, shims.list()).await {
                Ok(Ok(found)) => Some(found),
                Ok(Err(failure)) => {
                    error!(error = one_line(&failure), "shims cannot be listed, each is looked for");
                    None
                }
                Err(_elapsed) => {
                    error!("the list of shims takes too long, each is looked for");
                    None
                }
            };
            Ok::<_, RecordError>((loaded, shims))
        };
        ctx.spawn(read.into_actor(self).map(move |result, actor, ctx| match result {
            Ok((loaded, shims)) => actor.adopt(loaded, shims, ctx),
            Err(failure) => {
                error!(error = one_line(&failure), attempt, "records cannot be read");
                actor.phase.send_replace(Phase::Failed(ApiError::from_error(&failure)));
                ctx.run_later(LOAD_RETRY.delay(attempt, jitter()), move |actor, ctx| {
                    actor.load(attempt.saturating_add(1), ctx);
                });
            }
        }));
    }

    /// Gives every record its actor, and has the rest swept.
    fn adopt(&mut self, loaded: Loaded, shims: Option<Vec<FoundShim>>, ctx: &mut Context<Self>) {
        let mut known = Known::default();
        for damaged in &loaded.damaged {
            report_damage(damaged);
            known.spare(damaged);
        }
        self.records_set_aside = u32::try_from(loaded.damaged.len()).unwrap_or(u32::MAX);
        info!(records = loaded.records.len(), damaged = loaded.damaged.len(), "records read");
        let mut by_namespace: BTreeMap<NamespaceId, Vec<Found>> = BTreeMap::new();
        for record in loaded.records {
            known.add(record.id.clone());
            let may_have_shim = has_lease(shims.as_deref(), &record.id);
            if !record.has_log_marks {
                self.shared.unmarked_logs().insert(record.id.clone());
            }
            // Before its actor has started, so that the first list is complete.
            self.shared.view.publish(found_info(&record));
            by_namespace
                .entry(record.namespace.clone())
                .or_default()
                .push(Found::Record { record: Box::new(record), may_have_shim });
        }
        for (namespace, found) in by_namespace {
            self.start_namespace(&namespace, found, ctx);
        }
        actix_rt::spawn(sweep(Arc::clone(&self.shared), Arc::clone(&self.services), known, shims.unwrap_or_default()));
        self.phase.send_replace(Phase::Ready);
    }
}

#[expect(clippy::expect_used, reason = "without its threads there is no node; actix itself panics then")]
fn new_arbiter() -> Arbiter {
    Arbiter::with_tokio_rt(|| crate::pool::runtime().expect("make the runtime of an arbiter"))
}

fn closing() -> ApiError {
    ApiError::new(ErrorKind::Unavailable, "the node is shutting down").with_hint("retry when it is back")
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.start_services(ctx);
        self.load(1, ctx);
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        if std::thread::panicking() {
            error!("the supervisor panicked, the node ends; containers run on");
        }
        self.phase.send_replace(Phase::Closing);
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
    }
}
