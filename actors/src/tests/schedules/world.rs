//! The boundaries of a node that outlive its daemon, and the daemon's life as a process.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use actix::Addr;
use contd_bundle::FakeBundles;
use contd_rootfs::fake::FakeRootfs;
use contd_shim_client::fake::FakeShimClient;
use contd_store::{ContainerRecord, Desired, FakeStore, Loaded, Store, StoreError};
use contd_types::{Clock, ContainerId, NamespaceId, State, Timestamp};

use super::plan::Place;
use crate::tests::{World, ns};
use crate::{Parts, Supervisor, start};

/// A bug at the boundary that the checks must find, or they prove nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planted {
    /// The write that says that a container runs is skipped.
    Running,
    /// The write that says that a container was told to stop is skipped.
    Stop,
    /// The removal of a record is skipped.
    Removal,
}

/// The store, which counts what it refused, and has the planted bug.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) store: FakeStore,
    refused: AtomicUsize,
    planted: Option<Planted>,
}

impl Disk {
    /// Returns how many calls have failed.
    pub(super) fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    fn count<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if !matches!(result, Ok(_) | Err(StoreError::Stale { .. })) {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

impl Store for Disk {
    fn put(&self, record: &ContainerRecord) -> Result<(), StoreError> {
        let is_lost = match self.planted {
            Some(Planted::Running) => matches!(record.state, State::Running { .. }),
            Some(Planted::Stop) => record.desired == Desired::Stop,
            Some(Planted::Removal) | None => false,
        };
        if is_lost { Ok(()) } else { self.count(self.store.put(record)) }
    }

    fn remove(&self, namespace: &NamespaceId, id: &ContainerId) -> Result<(), StoreError> {
        if self.planted == Some(Planted::Removal) {
            return Ok(());
        }
        self.count(self.store.remove(namespace, id))
    }

    fn get(&self, namespace: &NamespaceId, id: &ContainerId) -> Result<Option<ContainerRecord>, StoreError> {
        self.count(self.store.get(namespace, id))
    }

    fn load_all(&self) -> Result<Loaded, StoreError> {
        self.count(self.store.load_all())
    }
}

/// A time of day that jumps as told, and is never the same twice: so two exits are never equal by chance.
#[derive(Debug)]
pub(super) struct Wall(AtomicU64);

/// Some day in 2026.
const BEGIN: u64 = 1_780_000_000_000_000_000;

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.fetch_add(1_000_003, Ordering::Relaxed))
    }
}

impl Wall {
    pub(super) fn jump(&self, back: bool, by: std::time::Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap();
        // An odd step, so that the same time does not come again.
        let moved = |now: u64| Some(if back { now.saturating_sub(by) + 1 } else { now + by });
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved).unwrap();
    }
}

/// The parts of a node that outlive the daemon.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) disk: Arc<Disk>,
    pub(super) wall: Arc<Wall>,
    pub(super) shims: FakeShimClient,
    pub(super) rootfs: FakeRootfs,
    pub(super) bundles: Arc<FakeBundles>,
    dir: Arc<tempfile::TempDir>,
    boots: Arc<Mutex<u32>>,
}

impl Node {
    pub(super) fn new(planted: Option<Planted>) -> Self {
        let wall = Arc::new(Wall(AtomicU64::new(BEGIN)));
        Self {
            disk: Arc::new(Disk { store: FakeStore::new(), refused: AtomicUsize::new(0), planted }),
            shims: FakeShimClient::with_clock(Arc::clone(&wall) as _),
            wall,
            rootfs: FakeRootfs::new(),
            bundles: Arc::new(FakeBundles::new()),
            dir: Arc::new(tempfile::tempdir().unwrap()),
            boots: Arc::new(Mutex::new(1)),
        }
    }

    /// Starts a daemon on what the earlier ones left, with a handle of its own to the shims.
    pub(super) fn start(&self, shims: &FakeShimClient) -> Addr<Supervisor> {
        let (boot_id, log_dir) = (format!("boot-{}", self.boots.lock().unwrap()), self.dir.path().join("log"));
        let mut config = World::config_in(log_dir, boot_id);
        config.rootfs_timeout = std::time::Duration::from_secs(60);
        let fs = Arc::new(contd_durable::RealFs);
        let journal = contd_store::EventJournal::open(fs, self.dir.path().join("events"), 1 << 16).unwrap();
        let (store, bundles) = (Arc::clone(&self.disk) as _, Arc::clone(&self.bundles) as _);
        let (shims, rootfs) = (Arc::new(shims.clone()), Arc::new(self.rootfs.clone()));
        let mut parts = Parts::new(store, shims, rootfs, bundles, journal);
        parts.clock = Arc::clone(&self.wall) as _;
        start(config, parts)
    }

    /// The kernel starts anew: no process, no mount; what is on disk stays.
    pub(super) fn reboot(&self) {
        self.shims.reboot();
        self.rootfs.reboot();
        *self.boots.lock().unwrap() += 1;
    }

    /// Every boundary works from now on.
    pub(super) fn heal(&self) {
        self.shims.heal();
        self.rootfs.heal();
        self.bundles.heal();
        self.disk.store.heal();
    }

    pub(super) fn records(&self) -> Vec<ContainerRecord> {
        self.disk.store.records()
    }

    /// Returns what the disk says is at a place.
    pub(super) fn id_at(&self, place: Place) -> Option<ContainerId> {
        let namespace = ns(place.namespace);
        let is_there =
            |record: &ContainerRecord| record.namespace == namespace && record.spec.name.as_str() == place.name;
        self.records().into_iter().find(is_there).map(|record| record.id)
    }

    /// Returns every id of which something is there, beside its record.
    pub(super) fn parts(&self) -> BTreeSet<(&'static str, ContainerId)> {
        let leases = self.shims.leases().into_iter().map(|id| ("a lease", id));
        let roots = self.rootfs.live().into_iter().map(|(_, id)| ("a root", id));
        let bundles = self.bundles.there().into_iter().map(|key| ("a bundle", key.id));
        leases.chain(roots).chain(bundles).collect()
    }

    /// Returns the names of log files, as `<namespace>/<file>`.
    pub(super) fn logs(&self) -> Vec<String> {
        let list = |dir: &std::path::Path| std::fs::read_dir(dir).into_iter().flatten().flatten().collect::<Vec<_>>();
        let namespaces = list(&self.dir.path().join("log"));
        let mut found: Vec<String> = Vec::new();
        for namespace in namespaces {
            let files = list(&namespace.path());
            let name = namespace.file_name().into_string().unwrap();
            found.extend(files.iter().map(|file| format!("{name}/{}", file.file_name().to_string_lossy())));
            if files.is_empty() {
                found.push(name);
            }
        }
        found.sort();
        found
    }
}
