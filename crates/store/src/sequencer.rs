//! One call at a time per container, and none that comes too late.
//!
//! Writes run on a pool of threads, so two of one container may overtake each other. Here the later generation wins, and
//! a removed container stays removed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contd_types::{ContainerId, NamespaceId};

/// How many removed containers are remembered: far more than writes can be in flight.
const MAX_REMOVED: usize = 512;

pub(crate) type Key = (NamespaceId, ContainerId);

/// What is known of one container's record.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// The highest generation that was tried to be written.
    pub(crate) generation: u64,
    /// Whether its directory is there, durably.
    pub(crate) has_directory: bool,
    /// Whether the disk has a record that says that the container is being deleted.
    pub(crate) is_removal_announced: bool,
    /// Whether it was removed.
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

/// Locks; a panic of another thread leaves nothing half-done behind these locks.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
