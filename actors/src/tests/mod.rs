//! The actors on scripted boundaries, with tokio's clock paused. Each test that ends a container checks that nothing is left.

pub(crate) mod cost;
mod ending;
mod event_cost;
mod exec;
mod extremes;
mod fairness;
mod image;
mod layers;
mod limits;
mod logs_and_events;
mod modules;
mod pausing;
mod recovery;
pub(crate) mod replay;
mod resistance;
mod rollback;
mod schedules;
mod shutdown;
mod supervision;
mod update;
mod verbs;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use contd_bundle::{Bundles, FakeBundles};
use contd_durable::RealFs;
use contd_meters::FakeMeters;
use contd_protocol::api::Target;
use contd_rootfs::fake::FakeRootfs;
use contd_shim_client::fake::FakeShimClient;
use contd_store::{EventJournal, FakeStore};
use contd_types::{
    ApiError, ContainerId, ContainerInfo, ContainerName, ContainerRef, ContainerSpec, Entrypoint, NamespaceId,
    RestartPolicy, StateName,
};

use crate::messages::{DeleteContainer, InspectContainer, RunContainer, StartContainer, StopContainer, WaitContainer};
use crate::{NodeConfig, NodeRuntime, Parts, Runtimes, Supervisor, ask_api, start};

/// Longer than anything these tests wait for on the paused clock.
const LONG: Duration = Duration::from_secs(100_000);
/// How often a condition is looked at before it is given up; each look lets every task run.
const LOOKS: usize = 20_000;

/// A node's boundaries; they outlive the daemon of a test.
struct World {
    store: Arc<FakeStore>,
    shims: FakeShimClient,
    rootfs: FakeRootfs,
    bundles: Arc<FakeBundles>,
    meters: FakeMeters,
    dir: tempfile::TempDir,
    boot_id: String,
}

impl World {
    fn new() -> Self {
        tokio::time::pause();
        Self::another()
    }

    /// One more in the same test, where the clock is paused already.
    fn another() -> Self {
        Self {
            store: Arc::new(FakeStore::new()),
            shims: FakeShimClient::new(),
            rootfs: FakeRootfs::new(),
            bundles: Arc::new(FakeBundles::new()),
            meters: FakeMeters::default(),
            dir: tempfile::tempdir().unwrap(),
            boot_id: "boot-1".into(),
        }
    }

    fn config(&self) -> NodeConfig {
        Self::config_in(self.dir.path().join("log"), self.boot_id.clone())
    }

    fn config_in(log_dir: PathBuf, boot_id: String) -> NodeConfig {
        let runtime = Runtimes::new(NodeRuntime::Oci { binary: "/runc".into(), root: "/run/runc".into() });
        // Where the fake bundles pretend to be.
        let state = Path::new("/nonexistent").to_owned();
        let mut config = NodeConfig::new(state, log_dir, boot_id, runtime);
        config.settings.log_retention = None;
        config.arbiters = 0;
        config
    }

    /// Where the log of a container of the first namespace is.
    fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("log/a/{name}.log"))
    }

    fn start(&self) -> Addr<Supervisor> {
        self.start_with(self.config())
    }

    fn start_with(&self, config: NodeConfig) -> Addr<Supervisor> {
        let journal = EventJournal::open(Arc::new(RealFs), self.dir.path().join("events"), 1 << 20).unwrap();
        self.start_on(config, journal)
    }

    fn start_on(&self, config: NodeConfig, journal: EventJournal) -> Addr<Supervisor> {
        let (store, bundles) = (Arc::clone(&self.store) as _, Arc::clone(&self.bundles) as _);
        let (shims, rootfs) = (Arc::new(self.shims.clone()), Arc::new(self.rootfs.clone()));
        let mut parts = Parts::new(store, shims, rootfs, bundles, journal);
        parts.meters = Arc::new(self.meters.clone());
        start(config, parts)
    }

    /// Waits until nothing of any container is left anywhere.
    #[track_caller]
    fn assert_empty(&self) {
        assert_eq!(self.store.records(), [], "records are left");
        assert_eq!(self.rootfs.live(), [], "roots are left");
        assert_eq!(self.shims.leases(), [], "leases are left");
        assert_eq!(self.shims.live_containers(), [], "containers are left");
        assert_eq!(self.bundles.list().unwrap(), [], "bundles are left");
        let list = |dir: &Path| -> Vec<PathBuf> {
            std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
        };
        let logs: Vec<_> = list(&self.dir.path().join("log")).into_iter().map(|dir| (list(&dir), dir)).collect();
        assert!(logs.is_empty(), "logs are left: {logs:?}");
    }
}

fn ns(name: &str) -> NamespaceId {
    NamespaceId::new(name).unwrap()
}

fn spec(name: &str) -> ContainerSpec {
    let mut spec = ContainerSpec::new(ContainerName::new(name).unwrap(), "/x.fl");
    spec.entrypoint = Some(Entrypoint::Args(vec!["/bin/sh".into()]));
    spec
}

fn restarting(name: &str) -> ContainerSpec {
    ContainerSpec { restart: RestartPolicy::Always, ..spec(name) }
}

fn target(container: &str) -> Target {
    Target { namespace: ns("a"), container: ContainerRef::new(container).unwrap() }
}

fn run_message(spec: ContainerSpec) -> RunContainer {
    RunContainer { namespace: ns("a"), spec, caller: None, idempotency_key: None, progress: None, hold: None }
}

async fn run(node: &Addr<Supervisor>, spec: ContainerSpec) -> Result<ContainerId, ApiError> {
    ask_api(node, run_message(spec), LONG).await
}

async fn stop(node: &Addr<Supervisor>, name: &str) -> Result<contd_types::Exit, ApiError> {
    let stopped = ask_api(node, StopContainer { target: target(name), timeout: None }, LONG).await;
    stopped.map(|(_, exit)| exit)
}

async fn start_again(node: &Addr<Supervisor>, name: &str) -> Result<(), ApiError> {
    ask_api(node, StartContainer { target: target(name) }, LONG).await
}

async fn wait(node: &Addr<Supervisor>, name: &str) -> Result<contd_types::Exit, ApiError> {
    ask_api(node, WaitContainer { target: target(name) }, LONG).await.map(|(_, exit)| exit)
}

async fn delete(node: &Addr<Supervisor>, name: &str, force: bool) -> Result<(), ApiError> {
    ask_api(node, DeleteContainer { target: target(name), force, timeout: None }, LONG).await
}

async fn inspect(node: &Addr<Supervisor>, name: &str) -> Result<ContainerInfo, ApiError> {
    ask_api(node, InspectContainer { target: target(name) }, LONG).await
}

async fn state(node: &Addr<Supervisor>, name: &str) -> Option<StateName> {
    inspect(node, name).await.ok().map(|info| info.state.name())
}

/// Ends a node without any word to it, as a kill does.
async fn end(node: Addr<Supervisor>) {
    crate::tell(&node, crate::messages::PlantPanic(crate::messages::PanicIn::Supervisor));
    crate::until_ended(&node).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Lets everything run until a condition holds. The clock moves only as far as nothing else can.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..LOOKS {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("waited in vain until {what}");
}

/// Waits until a root that was let go on has been made and is released again: it is there for a moment once its thread has had a turn.
async fn until_late_roots_are_gone(world: &World) {
    until("no call of the provider is under way, and no root is left", async || {
        world.rootfs.under_way() == 0 && world.rootfs.live().is_empty()
    })
    .await;
}

async fn until_state(node: &Addr<Supervisor>, name: &str, wanted: StateName) {
    until(&format!("{name} is {wanted}"), async || state(node, name).await == Some(wanted)).await;
}

/// Awaits something while a thread hangs: that holds the paused clock, so it is moved by hand.
async fn while_hanging<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    for _ in 0..LOOKS {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::task::yield_now() => {}
        }
        // Threads need real time to answer: one round trip through them for each bit of pretended time.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        tokio::time::advance(Duration::from_millis(5)).await;
    }
    panic!("waited in vain while a thread hangs");
}
