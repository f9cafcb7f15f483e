//! Bundles that keep nothing on disk, remember every call and follow a script.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contd_types::{ContainerId, NamespaceId};

use crate::bundles::{BundleKey, Bundles};
use crate::config::check_spec;
use crate::error::BundleError;
use crate::request::BundleRequest;

/// One call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// [`Bundles::write`].
    Write(BundleKey),
    /// [`Bundles::remove`].
    Remove(BundleKey),
    /// [`Bundles::list`].
    List,
}

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// What the real one does.
    Work,
    /// An I/O error of this kind; nothing changes.
    Fail(io::ErrorKind),
    /// The call blocks its thread for so long, then works.
    Delay(Duration),
}

/// A stand-in for [`crate::DirBundles`] that keeps the same contract.
#[derive(Debug, Default)]
pub struct FakeBundles {
    state: Mutex<State>,
    let_go: Condvar,
}

#[derive(Debug, Default)]
struct State {
    script: VecDeque<Outcome>,
    calls: Vec<Call>,
    there: BTreeSet<BundleKey>,
    /// The namespaces whose roots do not answer.
    hung: BTreeSet<NamespaceId>,
    hanging: usize,
}

impl FakeBundles {
    /// Makes one where every call works.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes one whose first calls, of any kind, end as scripted; the rest work.
    pub fn scripted(outcomes: impl IntoIterator<Item = Outcome>) -> Self {
        let fake = Self::new();
        fake.lock().script.extend(outcomes);
        fake
    }

    /// Adds to the script.
    pub fn push(&self, outcome: Outcome) {
        self.lock().script.push_back(outcome);
    }

    /// Has every call work from now on: what is left of the script is forgotten.
    pub fn heal(&self) {
        self.lock().script.clear();
    }

    /// Has every write of a namespace hang, as one does that looks into a root whose store is silent, until [`Self::let_go`].
    pub fn hang(&self, namespace: NamespaceId) {
        self.lock().hung.insert(namespace);
    }

    /// Lets everything go on that hangs.
    pub fn let_go(&self) {
        self.lock().hung.clear();
        self.let_go.notify_all();
    }

    /// Returns how many writes hang.
    pub fn hanging(&self) -> usize {
        self.lock().hanging
    }

    /// Returns the bundles that are there, without counting as a call.
    pub fn there(&self) -> Vec<BundleKey> {
        self.lock().there.iter().cloned().collect()
    }

    /// Returns the calls so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panicking test must not turn every later look into a second panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while_hung(&self, namespace: &NamespaceId) {
        let mut state = self.lock();
        state.hanging += 1;
        while state.hung.contains(namespace) {
            state = self.let_go.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.hanging -= 1;
    }

    fn follow_script(&self, call: Call) -> io::Result<()> {
        let outcome = {
            let mut state = self.lock();
            state.calls.push(call);
            state.script.pop_front().unwrap_or(Outcome::Work)
        };
        match outcome {
            Outcome::Work => Ok(()),
            Outcome::Fail(kind) => Err(kind.into()),
            Outcome::Delay(duration) => {
                std::thread::sleep(duration);
                Ok(())
            }
        }
    }
}

/// Where a container's bundle pretends to be; nothing is ever there.
fn path_of(key: &BundleKey) -> PathBuf {
    ["/nonexistent", key.namespace.as_str(), key.id.as_str(), "bundle"].iter().collect()
}

impl Bundles for FakeBundles {
    fn write(&self, request: &BundleRequest<'_>) -> Result<PathBuf, BundleError> {
        let key = BundleKey { namespace: request.namespace.clone(), id: request.id.clone() };
        let path = path_of(&key);
        self.wait_while_hung(&key.namespace);
        self.follow_script(Call::Write(key.clone())).map_err(|source| BundleError::Store {
            path: path.clone(),
            source: contd_durable::DurableError::Write { path: path.join("config.json"), source },
        })?;
        // What can be refused without a disk is refused: a test of a caller must not pass on a spec that could never run.
        // The root is not looked at, since that of such a test is a fake as well.
        check_spec(request.spec)?;
        self.lock().there.insert(key);
        Ok(path)
    }

    fn dir(&self, namespace: &NamespaceId, id: &ContainerId) -> PathBuf {
        path_of(&BundleKey { namespace: namespace.clone(), id: id.clone() })
    }

    fn remove(&self, namespace: &NamespaceId, id: &ContainerId) -> Result<(), BundleError> {
        let key = BundleKey { namespace: namespace.clone(), id: id.clone() };
        self.follow_script(Call::Remove(key.clone()))
            .map_err(|source| BundleError::Remove { path: path_of(&key), source })?;
        self.lock().there.remove(&key);
        Ok(())
    }

    fn list(&self) -> Result<Vec<BundleKey>, BundleError> {
        self.follow_script(Call::List)
            .map_err(|source| BundleError::List { path: PathBuf::from("/nonexistent"), source })?;
        Ok(self.lock().there.iter().cloned().collect())
    }
}
