//! Bundles in memory for tests: record every call and follow a script.

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

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// [`Bundles::write`].
    Write(BundleKey),
    /// [`Bundles::remove`].
    Remove(BundleKey),
    /// [`Bundles::list`].
    List,
}

/// The outcome of a scripted call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The call works, as with the real implementation.
    Work,
    /// The call fails with an I/O error of this kind and changes nothing.
    Fail(io::ErrorKind),
    /// The call blocks its thread for this long, then works.
    Delay(Duration),
}

/// A fake of [`crate::DirBundles`] that fulfils the same contract.
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
    /// Makes a fake where every call works.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a fake whose first calls, of any kind, end as scripted; later calls work.
    pub fn scripted(outcomes: impl IntoIterator<Item = Outcome>) -> Self {
        let fake = Self::new();
        fake.lock().script.extend(outcomes);
        fake
    }

    /// Appends an outcome to the script.
    pub fn push(&self, outcome: Outcome) {
        self.lock().script.push_back(outcome);
    }

    /// Clears the script: every call works from now on.
    pub fn heal(&self) {
        self.lock().script.clear();
    }

    /// Makes every write of a namespace hang until [`Self::let_go`], as with a root whose store does not answer.
    pub fn hang(&self, namespace: NamespaceId) {
        self.lock().hung.insert(namespace);
    }

    /// Ends the effect of [`Self::hang`]: hanging writes continue.
    pub fn let_go(&self) {
        self.lock().hung.clear();
        self.let_go.notify_all();
    }

    /// Returns the number of writes that hang.
    pub fn hanging(&self) -> usize {
        self.lock().hanging
    }

    /// Returns the containers that have a bundle; this does not count as a call.
    pub fn there(&self) -> Vec<BundleKey> {
        self.lock().there.iter().cloned().collect()
    }

    /// Returns the calls so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Ignore poison: a panicking test must not cause a second panic.
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

/// Returns the path that a container's bundle would have; no file is ever made there.
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
        // Check the spec as far as possible without a disk, so that no test passes with a spec that could never run.
        // The root is not examined: in such tests it is a fake too.
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
