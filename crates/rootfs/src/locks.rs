//! One lock per name, made when it is wanted and forgotten when it is free.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Locks by name, for callers on a blocking pool: as many wait as the pool has threads.
#[derive(Debug, Default)]
pub(crate) struct KeyedLocks {
    held: Mutex<HashSet<String>>,
    freed: Condvar,
}

/// Holds one name until it is dropped.
#[derive(Debug)]
pub(crate) struct KeyGuard<'a> {
    locks: &'a KeyedLocks,
    key: String,
}

impl KeyedLocks {
    /// Waits until nobody holds this name, and takes it.
    pub(crate) fn lock(&self, key: impl Into<String>) -> KeyGuard<'_> {
        let key = key.into();
        let held = self.freed.wait_while(self.held(), |held| held.contains(&key));
        held.unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        KeyGuard { locks: self, key }
    }

    fn held(&self) -> MutexGuard<'_, HashSet<String>> {
        // Only inserts and removes happen under it: a panic leaves the set whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for KeyGuard<'_> {
    fn drop(&mut self) {
        self.locks.held().remove(&self.key);
        self.locks.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn one_name_has_one_holder_and_other_names_do_not_wait() {
        let locks = KeyedLocks::default();
        let inside = AtomicUsize::new(0);
        let _other = locks.lock("other");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _guard = locks.lock("one");
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(locks.held().len(), 1);
    }
}
