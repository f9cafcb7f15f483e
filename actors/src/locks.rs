//! The locks of containers: their operations happen one after the other, also when an actor was rebuilt meanwhile.
//!
//! The locks live here and not in the container's actor because abandoned work outlives actors: a prepare that hangs
//! keeps its lock until it returns, and the release queued behind it undoes its late result.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use contd_per_key::PerKey;
use contd_types::{ContainerId, NamespaceId};
use tokio::sync::watch;

/// Says whether the work of a task is still wanted. A call that was given up may still be on its way to its lock, behind
/// the undo: it looks here first, under the lock, and then does nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    is_given_up: Arc<watch::Sender<bool>>,
}

impl Wanted {
    /// Gives up all calls that carry it; to be said before their undo begins.
    pub(crate) fn give_up(&self) {
        self.is_given_up.send_replace(true);
    }

    /// Tells whether they were given up; to be asked under the lock.
    pub(crate) fn is_given_up(&self) -> bool {
        *self.is_given_up.borrow()
    }

    /// Awaits a call, but not longer than it is wanted: one that still waits for its lock or its thread then waits no more,
    /// and one that is in its thread goes on there.
    pub(crate) async fn unless_given_up<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        let mut flag = self.is_given_up.subscribe();
        tokio::select! {
            biased;
            done = call => Some(done),
            _given_up = flag.wait_for(|is_given_up| *is_given_up) => None,
        }
    }
}

/// The locks of one container.
#[derive(Debug, Default)]
pub(crate) struct ContainerLocks {
    /// Held by the task that makes, recovers, settles or removes it.
    pub(crate) operation: Arc<tokio::sync::Mutex<()>>,
    /// Held by each call about its root.
    pub(crate) root: Arc<tokio::sync::Mutex<()>>,
    /// Held by each call about its bundle.
    pub(crate) bundle: Arc<tokio::sync::Mutex<()>>,
    /// Held by each call that changes its log.
    pub(crate) log: Arc<tokio::sync::Mutex<()>>,
    /// Held by each write of its record.
    pub(crate) record: Arc<tokio::sync::Mutex<()>>,
    /// Which actor is the writer: a rebuilt one gets the next number, and older ones write no more.
    writer: AtomicU64,
}

impl ContainerLocks {
    /// Makes the caller the only writer of the record.
    pub(crate) fn become_writer(&self) -> u64 {
        self.writer.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Tells whether this writer was replaced by a later one.
    pub(crate) fn is_replaced(&self, writer: u64) -> bool {
        self.writer.load(Ordering::SeqCst) != writer
    }
}

/// One thing for each namespace.
pub(crate) type PerNamespace<T> = PerKey<NamespaceId, T>;

/// The locks of all containers.
#[derive(Debug, Default)]
pub(crate) struct LocksById(PerKey<ContainerId, ContainerLocks>);

impl LocksById {
    /// Returns the locks of a container; the same one for as long as anybody holds it.
    pub(crate) fn of(&self, id: &ContainerId) -> Arc<ContainerLocks> {
        self.0.of(id, ContainerLocks::default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebuilt_writer_replaces_the_older_one() {
        let locks = ContainerLocks::default();
        let old = locks.become_writer();
        assert!(!locks.is_replaced(old));
        let new = locks.become_writer();
        assert!(locks.is_replaced(old) && !locks.is_replaced(new));
    }
}
