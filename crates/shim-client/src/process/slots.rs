//! The pool of warm shims: each has its container's id, lease, socket and cgroup already, and waits for a task.
//!
//! ```text
//! make (background) ─► idle ─ reserve ─► taken ─ spawn ─► assign: task file, one byte on the leash, hello
//!                                          └ given up, or too long unused: the leash ends, and with it the slot
//! ```
//!
//! A slot lives on its leash, the standard input that we hold: when this process ends in whatever way, all slots end. One whose
//! holder has died is given up as well: nobody would be told the exit code of its container, should it die too.

use std::collections::{HashMap, VecDeque};
use std::io::{PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contd_durable::{Fs, RealFs};
use contd_failpoint::Failpoint;
use contd_lease::{LeaseDir, LeaseError, LeaseState};
use contd_protocol::shim::{SLOT_SPEC_VERSION, SlotSpec, TaskSpec, files};
use contd_types::{ContainerId, NamespaceId, one_line};
use tokio::time::Instant;

use super::keep::Keep;
use super::launch;
use super::shim::ProcessShim;
use super::{Place, ProcessShimClient, blocking, clean_up};
use crate::{ShimError, deadline};

const VERB: &str = "start the warm shim of";

/// A slot whose id was taken and whose container has not come after so long is given up: preparing a root may take
/// minutes, but a slot that waits that long is not worth keeping.
const TAKEN_TIMEOUT: Duration = Duration::from_secs(60);

/// After a failure to make one, the next try waits: the node lacks something, and containers start without it.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long no slot must have been taken before another is made: a start from a slot takes some milliseconds.
const QUIET_FOR: Duration = Duration::from_millis(15);

/// How long a slot may take to remove what it has made.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two looks whether it has.
const END_LOOK: Duration = Duration::from_millis(2);

/// The namespace that owns the leases of slots: no namespace can have this name.
const OWNER: &str = ".slot";

/// How many slots, and for which runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotConfig {
    /// How many wait at most; 0 is none.
    pub count: usize,
    /// The cgroup below which containers are put, absolute: `/contd`.
    pub cgroup_parent: PathBuf,
    /// The directory of compiled seccomp filters.
    pub filters: PathBuf,
    /// `contd-seccomp`.
    pub compiler: PathBuf,
}

/// A warm shim.
#[derive(Debug)]
pub(super) struct Slot {
    id: ContainerId,
    leash: PipeWriter,
    /// The pid of its holder.
    holder: Option<i32>,
}

#[derive(Debug, Default)]
struct State {
    idle: VecDeque<Slot>,
    taken: HashMap<ContainerId, (Slot, Instant)>,
    /// The one that is being made.
    making: Option<ContainerId>,
    /// Those that could not be removed, for lack of descriptors for example; tried again before the next is made.
    litter: Vec<ContainerId>,
    is_refilling: bool,
    /// When one was taken last.
    taken_at: Option<Instant>,
    is_closed: bool,
}

/// All slots of a node.
#[derive(Debug)]
pub(super) struct Slots {
    config: SlotConfig,
    state: Mutex<State>,
}

impl Slots {
    pub(super) fn new(config: SlotConfig) -> Self {
        Self { config, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // No code under the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the id of an idle slot whose holder lives.
    pub(super) fn reserve(&self, holder: Option<i32>) -> Option<ContainerId> {
        let mut state = self.state();
        state.taken_at = Some(Instant::now());
        let slot = state.idle.pop_front_if(|slot| slot.holder == holder)?;
        let id = slot.id.clone();
        state.taken.insert(id.clone(), (slot, Instant::now() + TAKEN_TIMEOUT));
        Some(id)
    }

    /// Tells whether a lease directory is that of a slot of ours.
    pub(super) fn owns(&self, dir_name: &str) -> bool {
        let state = self.state();
        let idle = state.idle.iter().map(|slot| &slot.id);
        let mut ids = idle.chain(state.taken.keys()).chain(&state.making).chain(&state.litter);
        ids.any(|id| super::dir_name(id) == dir_name)
    }

    /// Returns the slot whose id was reserved.
    pub(super) fn taken(&self, id: &ContainerId) -> Option<Slot> {
        self.state().taken.remove(id).map(|(slot, _)| slot)
    }

    /// Makes what is missing, one after the other, in the background.
    pub(super) fn refill(self: &Arc<Self>, client: &ProcessShimClient) {
        {
            let mut state = self.state();
            let holder = client.holder.pid();
            let is_full = state.idle.iter().filter(|slot| slot.holder == holder).count() >= self.config.count;
            if is_full || state.is_refilling || state.is_closed {
                return;
            }
            state.is_refilling = true;
        }
        let (slots, client) = (Arc::clone(self), client.clone());
        tokio::spawn(async move { slots.fill(&client).await });
    }

    async fn fill(&self, client: &ProcessShimClient) {
        loop {
            self.until_quiet().await;
            self.end_forlorn(client).await;
            {
                let mut state = self.state();
                let now = Instant::now();
                state.taken.retain(|_, (_, until)| *until > now);
                if state.is_closed || state.idle.len() >= self.config.count {
                    state.is_refilling = false;
                    return;
                }
            }
            self.sweep(client).await;
            match self.make(client).await {
                Ok(slot) => {
                    let mut state = self.state();
                    state.making = None;
                    state.idle.push_back(slot);
                }
                Err(error) => {
                    tracing::warn!(error = %one_line(&error), "warm shim not started");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    /// Waits until the container that took the last slot has probably started: making the next one would take the CPU from
    /// it. When none is left, the next container waits for one all the same.
    async fn until_quiet(&self) {
        loop {
            let wait = {
                let state = self.state();
                let quiet_at = state.taken_at.filter(|_| !state.idle.is_empty()).map(|at| at + QUIET_FOR);
                quiet_at.and_then(|at| at.checked_duration_since(Instant::now())).filter(|left| !left.is_zero())
            };
            match wait {
                Some(left) => tokio::time::sleep(left).await,
                None => return,
            }
        }
    }

    /// Lets go of slots whose holder has died.
    async fn end_forlorn(&self, client: &ProcessShimClient) {
        let forlorn: Vec<Slot> = {
            let mut state = self.state();
            let holder = client.holder.pid();
            let (idle, forlorn) = std::mem::take(&mut state.idle).into_iter().partition(|slot| slot.holder == holder);
            state.idle = idle;
            forlorn.into_iter().collect()
        };
        for slot in forlorn {
            if let Ok(place) = client.place(&slot.id) {
                self.end(slot, &place).await;
            }
        }
    }

    async fn make(&self, client: &ProcessShimClient) -> Result<Slot, ShimError> {
        let id = random_id()?;
        let place = client.place(&id)?;
        // As it is before: a slot that another one has started by then is given up for nothing, and no forlorn one is kept.
        let holder = client.holder.pid();
        self.state().making = Some(id.clone());
        let made = self.make_at(client, &place, &id).await;
        if made.is_err() {
            self.discard(&place).await;
            self.state().making = None;
        }
        Ok(Slot { id, leash: made?, holder: holder.or_else(|| client.holder.pid()) })
    }

    async fn make_at(
        &self,
        client: &ProcessShimClient,
        place: &Place,
        id: &ContainerId,
    ) -> Result<PipeWriter, ShimError> {
        let spec = SlotSpec {
            version: SLOT_SPEC_VERSION,
            id: id.clone(),
            cgroup: self.config.cgroup_parent.join(id.as_str()),
            filters: self.config.filters.clone(),
            compiler: self.config.compiler.clone(),
        };
        let run_dir = client.config.run_dir.clone();
        blocking(place, VERB, move |place| prepare(place, &run_dir, &spec)).await?;
        let spawn = |source| ShimError::Spawn { id: id.clone(), binary: place.shim_binary.clone(), source };
        let (theirs, leash) = std::io::pipe().map_err(spawn)?;
        launch::launch(&client.holder, place, Some("--slot"), Some(theirs.into())).await?;
        Ok(leash)
    }

    /// Removes what a slot has left, now or before the next is made.
    async fn discard(&self, place: &Place) {
        if !discard(place).await {
            self.state().litter.push(place.id.clone());
        }
    }

    /// Lets go of a slot and waits until nothing of it is left.
    pub(super) async fn end(&self, slot: Slot, place: &Place) {
        if !end(slot, place).await {
            self.state().litter.push(place.id.clone());
        }
    }

    /// Removes what could not be removed before.
    async fn sweep(&self, client: &ProcessShimClient) {
        let litter = std::mem::take(&mut self.state().litter);
        for id in litter {
            let Ok(place) = client.place(&id) else { continue };
            self.discard(&place).await;
        }
    }

    /// Ends all slots and makes no more.
    pub(super) async fn drain(&self, client: &ProcessShimClient) {
        self.sweep(client).await;
        let (idle, taken) = {
            let mut state = self.state();
            state.is_closed = true;
            (std::mem::take(&mut state.idle), std::mem::take(&mut state.taken))
        };
        let all = idle.into_iter().chain(taken.into_values().map(|(slot, _)| slot));
        let ends = all.filter_map(|slot| Some((client.place(&slot.id).ok()?, slot)));
        futures_util::future::join_all(ends.map(|(place, slot)| async move { end(slot, &place).await })).await;
    }
}

fn random_id() -> Result<ContainerId, ShimError> {
    let mut bits = [0; 16];
    // The kernel's generator does not fail on a running system; if it does, there are no slots.
    let source =
        |error: getrandom::Error| ShimError::List { path: "/dev/urandom".into(), source: std::io::Error::other(error) };
    getrandom::fill(&mut bits).map_err(source)?;
    Ok(ContainerId::from_random(bits))
}

fn prepare(place: &Place, run_dir: &Path, spec: &SlotSpec) -> Result<(), ShimError> {
    launch::make_dirs(place, run_dir)?;
    let lease_failed = |source| place.lease_failed(source);
    place.lease.reserve(&format!("{OWNER}/{}", place.id), &place.socket).map_err(lease_failed)?;
    launch::write_json(place, files::SLOT, spec)
}

/// Gives a slot its task, and greets what is now the shim of a container.
pub(super) async fn assign(
    slot: Slot,
    keep: &Arc<Keep>,
    place: &Place,
    task: &TaskSpec,
) -> Result<ProcessShim, ShimError> {
    let given = give(slot, place, task);
    contd_failpoint::hit(Failpoint::SlotTold);
    let result = match given {
        Ok(()) => ProcessShim::connect(place, Arc::clone(keep), VERB).await,
        Err(error) => Err(error),
    };
    if result.is_err() {
        discard(place).await;
    }
    result
}

/// Two small files on a tmpfs and a byte into an empty pipe: none of them waits.
fn give(mut slot: Slot, place: &Place, task: &TaskSpec) -> Result<(), ShimError> {
    launch::write_json(place, files::TASK, task)?;
    let told = slot.leash.write_all(b"t");
    told.map_err(|source| ShimError::WriteTask { id: place.id.clone(), path: place.file(files::TASK), source })
}

/// Lets go of a slot and waits; `false` when something stays.
async fn end(slot: Slot, place: &Place) -> bool {
    drop(slot);
    let until = Instant::now() + END_TIMEOUT;
    while place.lease.path().exists() && Instant::now() < until {
        let lives = matches!(place.lease.probe(), Ok(LeaseState::Held(_)));
        // One that is just removing itself has no lease any more, but its lock still: it is neither living nor ours.
        if !lives && !matches!(remove(place).await, Err(ShimError::StillAlive { .. })) {
            break;
        }
        tokio::time::sleep(END_LOOK).await;
    }
    discard(place).await
}

/// Removes what a slot that is dead or dying has left; `false` when something stays.
async fn discard(place: &Place) -> bool {
    if let Err(error) = remove(place).await
        // It may have removed itself under our eyes, which is what it is there for.
        && place.lease.path().exists()
    {
        tracing::warn!(container = %place.id, error = %one_line(&error), "warm shim not removed");
        return false;
    }
    true
}

async fn remove(place: &Place) -> Result<(), ShimError> {
    if !place.lease.path().exists() {
        return Ok(());
    }
    blocking(place, VERB, launch::end_silent).await?;
    if let Some(spec) = place.read::<SlotSpec>(files::SLOT) {
        clean_up::remove_cgroup(place, spec.cgroup).await?;
    }
    blocking(place, VERB, Place::retire).await
}

/// Whether a lease is a slot's without a container.
pub(super) fn is_slot(namespace: &str) -> bool {
    namespace == OWNER
}

/// Returns the namespace of a slot that got its task.
pub(super) fn namespace_of(path: &Path) -> Option<NamespaceId> {
    let bytes = RealFs.read(&path.join(files::TASK), super::MAX_FILE_BYTES).ok()?;
    serde_json::from_slice::<TaskSpec>(&bytes).ok().map(|task| task.namespace)
}

/// Removes a slot that an earlier daemon left: one that still lives is about to end by itself, its leash being gone.
pub(super) fn remove_abandoned(path: &Path) -> Result<(), String> {
    let lease = LeaseDir::new(path);
    if matches!(lease.probe(), Ok(LeaseState::Held(_))) {
        return Ok(());
    }
    let bytes = RealFs.read(&path.join(files::SLOT), super::MAX_FILE_BYTES);
    if let Some(spec) = bytes.ok().and_then(|bytes| serde_json::from_slice::<SlotSpec>(&bytes).ok()) {
        let remove = || -> Result<(), contd_cgroup::CgroupError> {
            let hierarchies = contd_cgroup::Hierarchies::read()?;
            let Some(cgroup) = contd_cgroup::Cgroup::open(&hierarchies, &spec.cgroup)? else { return Ok(()) };
            cgroup.kill_all()?;
            cgroup.remove(deadline::KILLED)
        };
        remove().map_err(|error| one_line(&error))?;
    }
    match lease.retire() {
        Ok(()) | Err(LeaseError::Held { .. }) => Ok(()),
        Err(error) => Err(one_line(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ShimClientConfig;

    fn slots() -> Slots {
        let none = PathBuf::from("/nonexistent");
        Slots::new(SlotConfig { count: 1, cgroup_parent: none.clone(), filters: none.clone(), compiler: none })
    }

    #[tokio::test]
    async fn a_slot_that_could_not_be_made_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let config = ShimClientConfig { shim_binary: "/nonexistent".into(), run_dir: dir.path().to_owned() };
        let client = ProcessShimClient::new(config);
        let slots = slots();
        let error = slots.make(&client).await.unwrap_err();
        assert!(matches!(error, ShimError::Spawn { .. }), "{error}");
        assert!(slots.state().making.is_none() && slots.state().litter.is_empty());
        let made = client.place(&random_id().unwrap()).unwrap();
        let leases = std::fs::read_dir(made.lease.path().parent().unwrap()).unwrap().count();
        assert_eq!(leases, 0);
    }

    #[test]
    fn a_slot_without_its_holder_is_not_taken() {
        let slots = slots();
        let (_theirs, leash) = std::io::pipe().unwrap();
        let id = random_id().unwrap();
        slots.state().idle.push_back(Slot { id: id.clone(), leash, holder: Some(1) });
        assert_eq!([Some(2), None].map(|holder| slots.reserve(holder)), [None, None]);
        assert_eq!(slots.reserve(Some(1)), Some(id));
    }

    #[tokio::test]
    async fn a_slot_that_is_removing_itself_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let config = ShimClientConfig { shim_binary: "/nonexistent".into(), run_dir: dir.path().to_owned() };
        let id = random_id().unwrap();
        let place = ProcessShimClient::new(config).place(&id).unwrap();
        let slots = slots();
        place.lease.reserve(&format!("{OWNER}/{id}"), &place.socket).unwrap();
        let held = place.lease.claim("test").unwrap();
        std::fs::remove_file(place.file("lease.json")).unwrap();
        let (_theirs, leash) = std::io::pipe().unwrap();
        let let_go = async {
            tokio::time::sleep(END_LOOK * 20).await;
            drop(held);
        };
        tokio::join!(slots.end(Slot { id, leash, holder: None }, &place), let_go);
        assert!(!place.lease.path().exists(), "the directory was given up while its lock was still taken");
    }
}
