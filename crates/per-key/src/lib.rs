//! One thing for each key, such as a lock: made when it is wanted, gone with the last who holds it.
//!
//! Takes in: keys. Gives out: shared things. Never does: wait, or know what a thing is for.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// One thing for each key; it goes with the last who holds it.
#[derive(Debug)]
pub struct PerKey<K, T>(Mutex<HashMap<K, Weak<T>>>);

impl<K, T> Default for PerKey<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, T> PerKey<K, T> {
    /// Returns what there is for a key, the same one for as long as anybody holds it, or makes it.
    pub fn of(&self, key: &K, make: impl FnOnce() -> T) -> Arc<T> {
        // A panic of `make` leaves the map as it was.
        let mut things = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thing) = things.get(key).and_then(Weak::upgrade) {
            return thing;
        }
        // Doubling keeps the sweep cheap: each entry is looked at a constant number of times on average.
        if things.len() == things.capacity() {
            things.retain(|_, thing| thing.strong_count() > 0);
        }
        let thing = Arc::new(make());
        things.insert(key.clone(), Arc::downgrade(&thing));
        thing
    }

    /// Does something with each that is held.
    pub fn each(&self, mut act: impl FnMut(&T)) {
        let things = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        things.values().filter_map(Weak::upgrade).for_each(|thing| act(&thing));
    }
}

/// Waits for a lock that guards no data, so a panic of an earlier holder has left nothing half-changed.
pub fn hold(lock: &Mutex<()>) -> MutexGuard<'_, ()> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn things_are_shared_while_held_and_forgotten_afterwards() {
        let things = PerKey::<u32, Mutex<()>>::default();
        let (one, other) = (things.of(&1, Mutex::default), things.of(&1, Mutex::default));
        assert!(Arc::ptr_eq(&one, &other));
        assert!(!Arc::ptr_eq(&one, &things.of(&2, Mutex::default)));
        drop((one, other));
        for key in 0..200 {
            drop(things.of(&key, Mutex::default));
        }
        assert!(things.0.lock().unwrap().len() < 20, "dead things pile up");
    }

    #[test]
    fn one_key_has_one_holder_and_other_keys_do_not_wait() {
        let locks = PerKey::<&str, Mutex<()>>::default();
        let inside = AtomicUsize::new(0);
        let other = locks.of(&"other", Mutex::default);
        let _held = other.lock().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let lock = locks.of(&"one", Mutex::default);
                        let _held = lock.lock().unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }
}
