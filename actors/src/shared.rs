//! The values that all actors of a node have in common: settings, boundaries, locks, the view.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use contd_bundle::Bundles;
use contd_logs::LogFiles;
use contd_meters::Meters;
use contd_shim_client::ShimClient;
use contd_types::{Clock, ContainerEvent, ContainerId, ContainerName, NamespaceId};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, watch};
use tracing::error;

use crate::admission::Admission;
use crate::config::{NodeConfig, Settings};
use crate::judge::{Judge, Places};
use crate::locks::LocksById;
use crate::pool::Pool;
use crate::records::Records;
use crate::view::View;

/// One per node; see the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: NodeConfig,
    pub(crate) records: Records,
    pub(crate) shims: Arc<dyn ShimClient>,
    pub(crate) bundles: Arc<dyn Bundles>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) judge: Arc<dyn Judge>,
    pub(crate) meters: Arc<dyn Meters>,
    /// Threads that look at running containers.
    pub(crate) meter_pool: Pool,
    /// How many containers callers with limited rights have.
    pub(crate) places: Arc<Places>,
    pub(crate) view: View,
    pub(crate) locks: LocksById,
    /// The settings that may change; the rest of them is in `config`.
    pub(crate) settings: RwLock<Settings>,
    /// A place for each run and restart on the way.
    pub(crate) admission: Admission,
    /// One permit per container that is being re-attached.
    pub(crate) recoveries: Arc<Semaphore>,
    /// Events on their way to the journal; bounded, and never waited for.
    pub(crate) events: mpsc::Sender<ContainerEvent>,
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

    /// From here on nothing is started any more; there is no way back but another daemon.
    pub(crate) fn go_down(&self) {
        self.is_going_down.store(true, Ordering::SeqCst);
    }

    /// Tells whether nothing is started any more.
    pub(crate) fn is_going_down(&self) -> bool {
        self.is_going_down.load(Ordering::SeqCst)
    }

    /// Publishes an event; lost only when the journal does not keep up. After the end of the node it is its successor's to
    /// publish, as what it is about is to be recorded.
    pub(crate) fn publish(&self, event: ContainerEvent) {
        if let Err(TrySendError::Full(_)) = self.events.try_send(event) {
            error!("the journal does not keep up, an event is lost");
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
