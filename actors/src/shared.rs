//! What all actors of a node hold in common: settings, boundaries, locks, the view, and the addresses of the services.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Context, Handler, Message};
use contd_logs::LogFiles;
use contd_shim_client::ShimClient;
use contd_types::{Backoff, Clock, ContainerEvent, ContainerId, ContainerName, NamespaceId};
use tokio::sync::{Semaphore, watch};

use crate::admission::Admission;
use crate::bundle::BundleActor;
use crate::call::{CallError, ask, tell};
use crate::random::jitter;
use crate::config::{NodeConfig, Settings};
use crate::event::EventActor;
use crate::flist::FlistActor;
use crate::judge::{Judge, Places};
use crate::locks::LocksById;
use crate::log::LogActor;
use crate::messages::node::PublishEvent;
use crate::records::Records;
use crate::view::View;

/// How often a service is asked again when its actor was lost: with [`Backoff::REBUILD`] that is some 0.6 s, longer
/// than a rebuild takes, shorter than any deadline of a step.
const SERVICE_ATTEMPTS: u32 = 6;

/// One per node; see the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: NodeConfig,
    pub(crate) records: Records,
    pub(crate) shims: Arc<dyn ShimClient>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) judge: Arc<dyn Judge>,
    /// How many containers callers with limited rights have.
    pub(crate) places: Arc<Places>,
    pub(crate) view: View,
    pub(crate) locks: LocksById,
    /// What of the settings may change; the rest of them is in `config`.
    pub(crate) settings: RwLock<Settings>,
    /// A place for each run and restart on the way.
    pub(crate) admission: Admission,
    /// One permit per container that is being re-attached.
    pub(crate) recoveries: Arc<Semaphore>,
    pub(crate) flist: Slot<FlistActor>,
    pub(crate) bundle: Slot<BundleActor>,
    pub(crate) log: Slot<LogActor>,
    pub(crate) event: Slot<EventActor>,
    /// See [`Self::unmarked_logs`].
    pub(crate) unmarked_logs: Mutex<HashSet<ContainerId>>,
    /// How many actors were rebuilt.
    pub(crate) rebuilt: AtomicU32,
    /// How many operations on containers are under way; a shutdown waits for them.
    pub(crate) operations: watch::Sender<usize>,
    /// Whether the node goes down: see [`Shared::go_down`].
    pub(crate) is_going_down: AtomicBool,
}

/// Counts one operation while it lives.
#[derive(Debug)]
pub(crate) struct OperationGuard(Arc<Shared>);

impl OperationGuard {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        shared.operations.send_modify(|count| *count += 1);
        Self(Arc::clone(shared))
    }
}

impl Drop for OperationGuard {
    fn drop(&mut self) {
        self.0.operations.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Shared {
    /// Returns where a container's log is.
    pub(crate) fn log_path(&self, namespace: &NamespaceId, name: &ContainerName) -> PathBuf {
        self.config.log_dir.join(namespace.as_str()).join(format!("{name}.log"))
    }

    /// Names the log files of a container.
    pub(crate) fn log_files(&self, namespace: &NamespaceId, name: &ContainerName, id: &ContainerId) -> LogFiles {
        self.marked_log(&self.log_path(namespace, name), id)
    }

    /// Names the log files of a container whose log is there.
    pub(crate) fn marked_log(&self, path: &Path, id: &ContainerId) -> LogFiles {
        let files = LogFiles::marked(path, id.as_str(), self.config.log_notes());
        if self.unmarked_logs().contains(id) { files.with_unmarked() } else { files }
    }

    /// Holds the containers whose logs were made before there were marks: they are theirs by their records.
    pub(crate) fn unmarked_logs(&self) -> MutexGuard<'_, HashSet<ContainerId>> {
        self.unmarked_logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns where a container's bundle is, as `contd_bundle::DirBundles` lays it out.
    pub(crate) fn bundle_dir(&self, namespace: &NamespaceId, id: &ContainerId) -> PathBuf {
        self.config.state_dir.join(namespace.as_str()).join(id.as_str()).join("bundle")
    }

    /// From here on nothing is started any more; there is no way back but another daemon.
    pub(crate) fn go_down(&self) {
        self.is_going_down.store(true, Ordering::SeqCst);
    }

    /// Tells whether nothing is started any more.
    pub(crate) fn is_going_down(&self) -> bool {
        self.is_going_down.load(Ordering::SeqCst)
    }

    /// Publishes an event; lost only when the journal's actor is beyond repair.
    pub(crate) fn publish(&self, event: ContainerEvent) {
        if let Some(addr) = self.event.get() {
            tell(&addr, PublishEvent(event));
        }
    }

    /// Returns what holds now of what may change.
    pub(crate) fn settings(&self) -> Settings {
        *self.settings.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes other settings over. They count for what begins from now on.
    pub(crate) fn set_settings(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        self.admission.resize(&settings.limits);
    }

    /// Counts one rebuilt actor.
    pub(crate) fn count_rebuild(&self) {
        self.rebuilt.fetch_add(1, Ordering::Relaxed);
    }
}

/// Where the address of a service is; its parent replaces it after a rebuild.
#[derive(Debug)]
pub(crate) struct Slot<A: Actor>(RwLock<Option<Addr<A>>>);

impl<A: Actor> Default for Slot<A> {
    fn default() -> Self {
        Self(RwLock::new(None))
    }
}

impl<A: Actor<Context = Context<A>>> Slot<A> {
    /// Returns the address, once there is one.
    pub(crate) fn get(&self) -> Option<Addr<A>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands the address of a new actor to everyone.
    pub(crate) fn set(&self, addr: Option<Addr<A>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = addr;
    }

    /// Asks the service; when its actor is lost, asks the rebuilt one.
    pub(crate) async fn ask<M>(&self, message: M, deadline: Duration) -> Result<M::Result, CallError>
    where
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        M: Message + Clone + Send + 'static,
        M::Result: Send,
    {
        let mut lost = CallError::ActorLost { actor: std::any::type_name::<A>() };
        for attempt in 1..=SERVICE_ATTEMPTS {
            if let Some(addr) = self.get() {
                match ask(&addr, message.clone(), deadline).await {
                    Err(error @ CallError::ActorLost { .. }) => lost = error,
                    answer => return answer,
                }
            }
            tokio::time::sleep(Backoff::REBUILD.delay(attempt, jitter())).await;
        }
        Err(lost)
    }
}
