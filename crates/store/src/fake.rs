//! A store in memory for the tests of other crates: records its calls and fails by script.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};

use contd_durable::DurableError;
use contd_types::{ContainerId, NamespaceId};

use crate::error::StoreError;
use crate::record::ContainerRecord;
use crate::sequencer::{Key, Sequencer, lock};
use crate::store::{Loaded, Store};

/// One call of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreCall {
    /// [`Store::put`], with the whole record.
    Put(Box<ContainerRecord>),
    /// [`Store::remove`].
    Remove(NamespaceId, ContainerId),
    /// [`Store::get`].
    Get(NamespaceId, ContainerId),
    /// [`Store::load_all`].
    LoadAll,
}

/// The outcome of a scripted call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The call succeeds.
    Succeed,
    /// The call fails and does nothing.
    Fail,
    /// The call fails after it has done its work.
    FailAfter,
    /// The call waits until [`FakeStore::heal`], and succeeds.
    Hang,
}

/// A store in memory. Each call takes the next outcome of the script; calls succeed when the script is used up.
#[derive(Debug, Default)]
pub struct FakeStore {
    inner: Mutex<Inner>,
    healed: Condvar,
    sequencer: Sequencer,
}

#[derive(Debug, Default)]
struct Inner {
    records: BTreeMap<Key, ContainerRecord>,
    calls: Vec<StoreCall>,
    script: VecDeque<Outcome>,
    heals: u64,
}

impl FakeStore {
    /// Makes an empty store that does not fail.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a store that already has these records, as after a restart.
    pub fn with_records(records: impl IntoIterator<Item = ContainerRecord>) -> Self {
        let fake = Self::new();
        lock(&fake.inner).records =
            records.into_iter().map(|record| ((record.namespace.clone(), record.id.clone()), record)).collect();
        fake
    }

    /// Appends outcomes to the script.
    pub fn script(&self, outcomes: impl IntoIterator<Item = Outcome>) {
        lock(&self.inner).script.extend(outcomes);
    }

    /// Clears the script: every call succeeds from now on.
    pub fn heal(&self) {
        let mut inner = lock(&self.inner);
        inner.script.clear();
        inner.heals += 1;
        self.healed.notify_all();
    }

    /// Returns all calls so far, in order, the failed ones included.
    pub fn calls(&self) -> Vec<StoreCall> {
        lock(&self.inner).calls.clone()
    }

    /// Returns the stored records; this does not count as a call.
    pub fn records(&self) -> Vec<ContainerRecord> {
        lock(&self.inner).records.values().cloned().collect()
    }

    fn run<T>(
        &self,
        call: StoreCall,
        work: impl FnOnce(&mut Inner) -> Result<T, StoreError>,
        error: impl FnOnce() -> StoreError,
    ) -> Result<T, StoreError> {
        let mut inner = lock(&self.inner);
        inner.calls.push(call);
        match inner.script.pop_front().unwrap_or(Outcome::Succeed) {
            Outcome::Succeed => work(&mut inner),
            Outcome::Fail => Err(error()),
            Outcome::FailAfter => work(&mut inner).and_then(|_| Err(error())),
            Outcome::Hang => {
                let before = inner.heals;
                while inner.heals == before {
                    inner = self.healed.wait(inner).unwrap_or_else(PoisonError::into_inner);
                }
                work(&mut inner)
            }
        }
    }
}

fn scripted() -> io::Error {
    io::Error::other("scripted failure")
}

fn path() -> PathBuf {
    PathBuf::from("fake")
}

impl Store for FakeStore {
    fn put(&self, record: &ContainerRecord) -> Result<(), StoreError> {
        let key = (record.namespace.clone(), record.id.clone());
        let (namespace, id) = key.clone();
        let slot = self.sequencer.slot(&key);
        let mut slot = lock(&slot);
        let work = |inner: &mut Inner| {
            if slot.is_removed {
                return Err(StoreError::Removed { namespace, id });
            }
            if record.generation < slot.generation {
                return Err(StoreError::Stale { namespace, id, given: record.generation, stored: slot.generation });
            }
            slot.generation = record.generation;
            inner.records.insert(key.clone(), record.clone());
            Ok(())
        };
        self.run(StoreCall::Put(Box::new(record.clone())), work, || StoreError::Write {
            namespace: record.namespace.clone(),
            id: record.id.clone(),
            source: DurableError::Sync { path: path(), source: scripted() },
        })
    }

    fn remove(&self, namespace: &NamespaceId, id: &ContainerId) -> Result<(), StoreError> {
        let key = (namespace.clone(), id.clone());
        let slot = self.sequencer.slot(&key);
        let mut slot = lock(&slot);
        let work = |inner: &mut Inner| {
            inner.records.remove(&key);
            slot.is_removed = true;
            Ok(())
        };
        self.run(StoreCall::Remove(namespace.clone(), id.clone()), work, || StoreError::Remove {
            namespace: namespace.clone(),
            id: id.clone(),
            source: DurableError::Remove { path: path(), source: scripted() },
        })
    }

    fn get(&self, namespace: &NamespaceId, id: &ContainerId) -> Result<Option<ContainerRecord>, StoreError> {
        let work = |inner: &mut Inner| Ok(inner.records.get(&(namespace.clone(), id.clone())).cloned());
        let error = || StoreError::Read { path: path(), source: scripted() };
        self.run(StoreCall::Get(namespace.clone(), id.clone()), work, error)
    }

    fn load_all(&self) -> Result<Loaded, StoreError> {
        let work =
            |inner: &mut Inner| Ok(Loaded { records: inner.records.values().cloned().collect(), damaged: Vec::new() });
        self.run(StoreCall::LoadAll, work, || StoreError::List { path: path(), source: scripted() })
    }
}
