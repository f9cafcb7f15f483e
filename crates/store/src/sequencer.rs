//! Orders the calls for each container: one at a time, and late ones are refused.
//!
//! Writes run on a pool of threads, so two writes of one container may overtake each other. The sequencer lets the
//! later generation win, and keeps a removed container removed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contd_types::{ContainerId, NamespaceId};

/// How many removed containers are remembered: far more than writes that can be in flight.
const MAX_REMOVED: usize = 512;

pub(crate) type Key = (NamespaceId, ContainerId);

/// The sequencer's knowledge of one container's record.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// The highest generation that was tried to be written.
    pub(crate) generation: u64,
    /// Whether the container's directory exists durably.
    pub(crate) has_directory: bool,
    /// Whether there is no intent for certain.
    pub(crate) is_intent_gone: bool,
    /// Whether the record on the disk says that the container is being deleted.
    pub(crate) is_removal_announced: bool,
    /// Whether the record was removed.
    pub(crate) is_removed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Sequencer {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    slots: HashMap<Key, Arc<Mutex<Slot>>>,
    removed: VecDeque<Key>,
}

impl Sequencer {
    /// Returns the slot of a container; the caller locks it for the length of its work on the disk.
    pub(crate) fn slot(&self, key: &Key) -> Arc<Mutex<Slot>> {
        Arc::clone(lock(&self.known).slots.entry(key.clone()).or_default())
    }

    /// Remembers a removal, and forgets the oldest one when there are too many.
    pub(crate) fn note_removed(&self, key: &Key) {
        let mut known = lock(&self.known);
        known.removed.push_back(key.clone());
        if known.removed.len() > MAX_REMOVED
            && let Some(oldest) = known.removed.pop_front()
        {
            known.slots.remove(&oldest);
        }
    }
}

/// Locks. A thread that panicked leaves nothing half-changed behind these locks, so poison is ignored.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
