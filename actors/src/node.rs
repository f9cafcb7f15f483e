//! Starts a node: from settings and boundaries to a supervisor that answers.

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use actix::{Actor, Addr};
use contd_bundle::Bundles;
use contd_meters::{Meters, NoMeters};
use contd_rootfs::RootfsProvider;
use contd_shim_client::ShimClient;
use contd_store::{EventJournal, Store};
use contd_types::{Clock, SystemClock};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::admission::Admission;
use crate::call::ask;
use crate::config::NodeConfig;
use crate::event::QUEUE_EVENTS;
use crate::judge::{Judge, NoRules};
use crate::locks::LocksById;
use crate::messages::supervisor::AwaitEnd;
use crate::pool::Pool;
use crate::records::Records;
use crate::shared::Shared;
use crate::supervisor::{Boundaries, Supervisor};
use crate::view::View;

/// Looks at running containers at once: two callers with a page each, or one and the metrics.
const METER_THREADS: usize = 2;

/// The boundaries of a node to the rest of the world; fakes in tests and for embedders.
#[derive(Debug)]
#[non_exhaustive]
pub struct Parts {
    /// Container records.
    pub store: Arc<dyn Store>,
    /// The shims.
    pub shims: Arc<dyn ShimClient>,
    /// Root file systems.
    pub rootfs: Arc<dyn RootfsProvider>,
    /// OCI bundles.
    pub bundles: Arc<dyn Bundles>,
    /// The journal of events.
    pub journal: EventJournal,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// The rules for callers with limited rights.
    pub judge: Arc<dyn Judge>,
    /// The meters of running containers.
    pub meters: Arc<dyn Meters>,
}

impl Parts {
    /// Puts boundaries together, with the clock of this machine, no rules for callers and no meters.
    pub fn new(
        store: Arc<dyn Store>,
        shims: Arc<dyn ShimClient>,
        rootfs: Arc<dyn RootfsProvider>,
        bundles: Arc<dyn Bundles>,
        journal: EventJournal,
    ) -> Self {
        Self {
            store,
            shims,
            rootfs,
            bundles,
            journal,
            clock: Arc::new(SystemClock),
            judge: Arc::new(NoRules),
            meters: Arc::new(NoMeters),
        }
    }
}

/// A node that is not started yet.
#[derive(Debug)]
pub struct Node {
    /// Its settings.
    pub config: NodeConfig,
    /// Its boundaries.
    pub parts: Parts,
}

impl Node {
    /// Starts it; see [`start`].
    pub fn start(self) -> Addr<Supervisor> {
        start(self.config, self.parts)
    }
}

/// Starts the actors of a node and returns the one that answers all of [`crate::messages`]. It answers at once;
/// containers of an earlier daemon are shown as `Recovering` until they are re-attached.
///
/// Call it inside an actix system. Keep the address: when the last one is dropped, the node ends, and its containers run
/// on.
pub fn start(config: NodeConfig, parts: Parts) -> Addr<Supervisor> {
    let Parts { store, shims, rootfs, bundles, journal, clock, judge, meters } = parts;
    let (sender, events) = mpsc::channel(QUEUE_EVENTS);
    let shared = Arc::new(Shared {
        records: Records::new(store),
        shims,
        bundles,
        clock,
        judge,
        meters,
        meter_pool: Pool::new(METER_THREADS),
        places: Arc::default(),
        view: View::default(),
        locks: LocksById::default(),
        settings: RwLock::new(config.settings),
        admission: Admission::new(&config.settings.limits),
        recoveries: Arc::new(Semaphore::new(config.recover_parallelism.max(1))),
        events: sender,
        unmarked_logs: Mutex::default(),
        rebuilt: AtomicU32::new(0),
        operations: watch::Sender::new(0),
        is_going_down: AtomicBool::new(false),
        config,
    });
    Supervisor::new(shared, Boundaries { rootfs, journal, events }).start()
}

/// Waits until the node has ended, by a shutdown or by a panic of its supervisor. The daemon then ends as well and is
/// started again by whoever looks after it; the containers do not notice.
pub async fn until_ended(supervisor: &Addr<Supervisor>) {
    // The only answer that can come is the loss of the actor.
    let _lost = ask(supervisor, AwaitEnd, Duration::MAX).await;
}
