//! A provider that mounts nothing: it follows a script and writes down what it was asked.
//!
//! Clones share one node: a "new daemon" in a test is given a clone and finds with [`RootfsProvider::recover`] what the
//! "old" one prepared.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contd_flist::ImageDefaults;
use contd_types::{ApiError, ContainerId, ErrorKind, NamespaceId};

use crate::grant::Sources;
use crate::provider::{
    FetchProgress, LostRootfs, PrepareRootfs, PreparedLayer, PreparedRootfs, RecoveredRootfs, RootfsError,
    RootfsProvider,
};

/// How long [`Outcome::Hang`] hangs when nobody lets go: long enough for every deadline of a caller, short enough that
/// a broken test ends.
const LONGEST_HANG: Duration = Duration::from_secs(60);

/// The bytes that the fake pretends to fetch for a flist.
const PRETENDED_FLIST_BYTES: u64 = 4096;

/// How one call shall go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should; also what happens when the script is at its end.
    Succeed,
    /// As it should, after so long (real time: the calls block).
    Delay(Duration),
    /// Blocks until [`FakeRootfs::let_go`], then succeeds; gives up by itself after a minute.
    Hang,
    /// Fails with this kind and changes nothing.
    Fail(ErrorKind),
    /// Fails because the first container that has a root has the caller's directory.
    UpperInUse,
    /// Panics, as a bug would.
    Panic,
}

/// A call of the fake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// [`RootfsProvider::prepare`].
    Prepare(PrepareRootfs),
    /// [`RootfsProvider::release`].
    Release {
        /// The namespace.
        namespace: NamespaceId,
        /// The container.
        id: ContainerId,
    },
    /// [`RootfsProvider::free_memory`].
    FreeMemory {
        /// The namespace.
        namespace: NamespaceId,
        /// The container.
        id: ContainerId,
    },
    /// [`RootfsProvider::take_down`].
    TakeDown,
    /// [`RootfsProvider::recover`].
    Recover,
}

/// The scripted provider. Cheap to clone; clones share everything.
#[derive(Debug, Clone, Default)]
pub struct FakeRootfs {
    node: Arc<Node>,
}

#[derive(Debug, Default)]
struct Node {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    base: Option<PathBuf>,
    missing: BTreeSet<String>,
    images: BTreeMap<String, ImageDefaults>,
    prepares: VecDeque<Outcome>,
    releases: VecDeque<Outcome>,
    recovers: VecDeque<Outcome>,
    calls: Vec<Call>,
    live: BTreeMap<(NamespaceId, ContainerId), PreparedRootfs>,
    lost: Vec<LostRootfs>,
    loss_count: usize,
    hanging: usize,
    under_way: usize,
    /// Counts the calls of `let_go`, so that a hang ends with the next one and not with an earlier.
    releases_of_hangs: u64,
}

impl FakeRootfs {
    /// Makes a fake whose roots are only names: nothing is on disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a fake whose roots are real, empty directories `<base>/<namespace>/<id>/rootfs`, removed on release.
    #[must_use]
    pub fn in_dir(base: impl Into<PathBuf>) -> Self {
        let fake = Self::default();
        fake.state().base = Some(base.into());
        fake
    }

    /// Declares a flist that does not exist: preparing it fails with `NotFound`.
    pub fn declare_missing(&self, flist: impl Into<String>) {
        self.state().missing.insert(flist.into());
    }

    /// Declares that the server of this container's flist has ended, until the next call.
    pub fn lose(&self, lost: impl IntoIterator<Item = LostRootfs>) {
        self.state().lost = lost.into_iter().collect();
    }

    /// Counts the calls of [`RootfsProvider::lost`].
    #[must_use]
    pub fn loss_count(&self) -> usize {
        self.state().loss_count
    }

    /// Declares that a flist is that of an image, and how it is run.
    pub fn declare_image(&self, flist: impl Into<String>, image: ImageDefaults) {
        self.state().images.insert(flist.into(), image);
    }

    /// Says how the next calls of `prepare` go, one by one, behind those already said.
    pub fn script_prepare(&self, outcomes: impl IntoIterator<Item = Outcome>) {
        self.state().prepares.extend(outcomes);
    }

    /// Says how the next calls of `release` go.
    pub fn script_release(&self, outcomes: impl IntoIterator<Item = Outcome>) {
        self.state().releases.extend(outcomes);
    }

    /// Says how the next calls of `recover` go.
    pub fn script_recover(&self, outcomes: impl IntoIterator<Item = Outcome>) {
        self.state().recovers.extend(outcomes);
    }

    /// Has every call go as it should from now on: whatever scripts are left are forgotten.
    pub fn heal(&self) {
        let mut state = self.state();
        state.prepares.clear();
        state.releases.clear();
        state.recovers.clear();
    }

    /// Lets every call go on that hangs now.
    pub fn let_go(&self) {
        self.state().releases_of_hangs += 1;
        self.node.changed.notify_all();
    }

    /// Returns all calls so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// Counts the calls of `prepare`.
    #[must_use]
    pub fn prepare_count(&self) -> usize {
        self.state().calls.iter().filter(|call| matches!(call, Call::Prepare(_))).count()
    }

    /// Counts the calls of `release`.
    #[must_use]
    pub fn release_count(&self) -> usize {
        self.state().calls.iter().filter(|call| matches!(call, Call::Release { .. })).count()
    }

    /// Tells how many calls hang right now.
    #[must_use]
    pub fn hanging(&self) -> usize {
        self.state().hanging
    }

    /// Tells how many calls have not returned yet. One that was let go on has its effect before it returns.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.state().under_way
    }

    /// Counts a call until it returns.
    fn begin(&self, call: Call) -> UnderWay<'_> {
        let mut state = self.state();
        state.calls.push(call);
        state.under_way += 1;
        UnderWay(self)
    }

    /// Waits until so many calls hang; `false` when that does not happen in time.
    #[must_use]
    pub fn wait_until_hanging(&self, count: usize, timeout: Duration) -> bool {
        let waited = self.node.changed.wait_timeout_while(self.state(), timeout, |state| state.hanging < count);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Returns the roots that were prepared and not released: what leaked, when all containers are gone.
    #[must_use]
    pub fn live(&self) -> Vec<(NamespaceId, ContainerId)> {
        self.state().live.keys().cloned().collect()
    }

    /// Forgets all roots, as a reboot does.
    pub fn reboot(&self) {
        self.state().live.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A scripted panic happens without the lock, so a poisoned state is still whole.
        self.node.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn act_out(&self, outcome: Outcome, what: &str) -> Result<(), RootfsError> {
        let failed = |kind| RootfsError::Server {
            flist: what.to_owned(),
            source: ApiError::new(kind, "the script says so").with_hint("change the script"),
        };
        match outcome {
            Outcome::Succeed => Ok(()),
            Outcome::Delay(time) => {
                // Waits on something that never comes rather than sleeping: the lock is free meanwhile.
                let _timed_out = self.node.changed.wait_timeout_while(self.state(), time, |_| true);
                Ok(())
            }
            Outcome::Hang => self.hang(what),
            Outcome::Fail(kind) => Err(failed(kind)),
            Outcome::UpperInUse => {
                let Some((namespace, id)) = self.live().into_iter().next() else { return Ok(()) };
                let path = PathBuf::from("/up").into();
                Err(RootfsError::UpperInUse { path, namespace, id, name: None, how: "writes to it" })
            }
            Outcome::Panic => {
                #[expect(clippy::panic, reason = "a test asked for it, to see its callers survive")]
                {
                    panic!("the script of the fake rootfs says so")
                }
            }
        }
    }

    fn hang(&self, what: &str) -> Result<(), RootfsError> {
        let mut state = self.state();
        let seen = state.releases_of_hangs;
        state.hanging += 1;
        self.node.changed.notify_all();
        let waited = self.node.changed.wait_timeout_while(state, LONGEST_HANG, |now| now.releases_of_hangs == seen);
        let (mut state, result) = waited.unwrap_or_else(PoisonError::into_inner);
        state.hanging -= 1;
        drop(state);
        self.node.changed.notify_all();
        if result.timed_out() {
            Err(RootfsError::ServerSilent { flist: what.to_owned(), waited: LONGEST_HANG })
        } else {
            Ok(())
        }
    }
}

/// A call that has not returned yet.
struct UnderWay<'a>(&'a FakeRootfs);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.state().under_way -= 1;
    }
}

impl RootfsProvider for FakeRootfs {
    fn prepare(
        &self,
        request: &PrepareRootfs,
        progress: &(dyn Fn(FetchProgress) + Send + Sync),
    ) -> Result<PreparedRootfs, RootfsError> {
        let _under_way = self.begin(Call::Prepare(request.clone()));
        let outcome = self.state().prepares.pop_front().unwrap_or(Outcome::Succeed);
        let step = |done_bytes| FetchProgress {
            what: "fetch the flist".to_owned(),
            done_bytes,
            total_bytes: Some(PRETENDED_FLIST_BYTES),
        };
        let is_directory = request.flist.starts_with("dir:");
        if !is_directory {
            progress(step(0));
        }
        self.act_out(outcome, &request.flist)?;
        let mut state = self.state();
        let key = (request.namespace.clone(), request.id.clone());
        if let Some(there) = state.live.get(&key) {
            return Ok(there.clone());
        }
        if state.missing.contains(&request.flist) {
            let source = ApiError::new(ErrorKind::NotFound, "no such flist").with_hint("check its name");
            return Err(RootfsError::Flist { flist: request.flist.clone(), source });
        }
        let base = state.base.clone();
        let root = base.clone().unwrap_or_else(|| PathBuf::from("/fake-rootfs"));
        let root = root.join(&request.namespace).join(request.id.as_str()).join("rootfs");
        if base.is_some() {
            let failed = |source| RootfsError::Disk { what: "make", path: root.clone(), source };
            std::fs::create_dir_all(&root).map_err(failed)?;
        }
        let flist_hash = (!is_directory).then(|| pretended_hash(&request.flist));
        let image = state.images.get(&request.flist).cloned().unwrap_or_default();
        let is_plain = request.upper_dir.is_none() && !request.is_read_only;
        let layer = is_plain.then_some(PreparedLayer { kind: request.layer, limit_bytes: Some(request.size_bytes) });
        let prepared = PreparedRootfs { root, flist_hash, image, layer, sources: Sources::new() };
        state.live.insert(key, prepared.clone());
        drop(state);
        if !is_directory {
            progress(step(PRETENDED_FLIST_BYTES));
        }
        Ok(prepared)
    }

    fn release(&self, namespace: &NamespaceId, id: &ContainerId) -> Result<(), RootfsError> {
        let _under_way = self.begin(Call::Release { namespace: namespace.clone(), id: id.clone() });
        let outcome = self.state().releases.pop_front().unwrap_or(Outcome::Succeed);
        self.act_out(outcome, id.as_str())?;
        let mut state = self.state();
        let Some(was) = state.live.remove(&(namespace.clone(), id.clone())) else { return Ok(()) };
        if state.base.is_some() {
            let above = was.root.parent().unwrap_or(&was.root);
            let failed = |source| RootfsError::Disk { what: "remove", path: above.to_owned(), source };
            std::fs::remove_dir_all(above).map_err(failed)?;
        }
        Ok(())
    }

    fn recover(&self) -> Result<Vec<RecoveredRootfs>, RootfsError> {
        let _under_way = self.begin(Call::Recover);
        let outcome = self.state().recovers.pop_front().unwrap_or(Outcome::Succeed);
        self.act_out(outcome, "recover")?;
        let state = self.state();
        let root = |((namespace, id), rootfs): (&(NamespaceId, ContainerId), &PreparedRootfs)| RecoveredRootfs {
            namespace: namespace.clone(),
            id: id.clone(),
            rootfs: PreparedRootfs { layer: None, ..rootfs.clone() },
        };
        Ok(state.live.iter().map(root).collect())
    }

    fn free_memory(&self, namespace: &NamespaceId, id: &ContainerId) -> Result<(), RootfsError> {
        self.state().calls.push(Call::FreeMemory { namespace: namespace.clone(), id: id.clone() });
        Ok(())
    }

    fn take_down(&self) -> Result<(), RootfsError> {
        self.state().calls.push(Call::TakeDown);
        Ok(())
    }

    fn tidy(&self) -> Result<(), RootfsError> {
        Ok(())
    }

    fn lost(&self) -> Result<Vec<LostRootfs>, RootfsError> {
        let mut state = self.state();
        state.loss_count += 1;
        Ok(state.lost.clone())
    }
}

/// Gives each flist another hash of the right form (FNV-1a, written four times).
fn pretended_hash(flist: &str) -> String {
    let hash = flist
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}").repeat(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_types::{Explain, LayerKind};

    fn request(flist: &str, byte: u8) -> PrepareRootfs {
        PrepareRootfs {
            namespace: NamespaceId::new("ns").unwrap(),
            id: ContainerId::from_random([byte; 16]),
            flist: flist.to_owned(),
            is_read_only: false,
            layer: LayerKind::Disk,
            is_layer_required: false,
            size_bytes: 1 << 20,
            is_size_required: false,
            upper_dir: None,
            is_trusted: false,
            grant: None,
            operation: None,
        }
    }

    #[test]
    fn a_failure_follows_the_script_and_leaves_nothing() {
        let fake = FakeRootfs::new();
        fake.script_prepare([Outcome::Fail(ErrorKind::Unavailable), Outcome::Succeed]);
        let error = fake.prepare(&request("a.fl", 1), &|_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(fake.live().is_empty());
        fake.prepare(&request("a.fl", 1), &|_| {}).unwrap();
        assert_eq!(fake.live().len(), 1);
        assert_eq!(fake.prepare_count(), 2);
    }

    #[test]
    fn a_hanging_call_goes_on_when_it_is_let_go() {
        let fake = FakeRootfs::new();
        fake.script_prepare([Outcome::Hang]);
        let other = fake.clone();
        let thread = std::thread::spawn(move || other.prepare(&request("a.fl", 1), &|_| {}));
        assert!(fake.wait_until_hanging(1, Duration::from_secs(10)), "the call does not hang");
        assert!(fake.live().is_empty());
        fake.let_go();
        thread.join().unwrap().unwrap();
        assert_eq!(fake.hanging(), 0);
        assert_eq!(fake.live().len(), 1);
    }

    #[test]
    fn a_scripted_panic_leaves_a_fake_that_works() {
        let fake = FakeRootfs::new();
        fake.script_release([Outcome::Panic]);
        let other = fake.clone();
        let one = request("a.fl", 1);
        let (namespace, id) = (one.namespace.clone(), one.id.clone());
        assert!(std::thread::spawn(move || other.release(&namespace, &id)).join().is_err());
        fake.prepare(&one, &|_| {}).unwrap();
        assert_eq!(fake.release_count(), 1);
    }
}
