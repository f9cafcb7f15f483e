//! Keeps the last few blocks that the cache could not store in memory: with a full disk reads still work, slowly.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::Plain;
use crate::hash::BlockKey;

/// The most blocks kept: 2 MiB, one for each of a few sequential readers.
const MAX_RECENT: usize = 4;

/// The most recently used blocks, the latest at the back. Four keys need no index.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<VecDeque<(BlockKey, Plain)>>);

impl Recent {
    /// Returns a block if it is here, and makes it the latest.
    pub(super) fn get(&self, key: &BlockKey) -> Option<Plain> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = blocks.iter().position(|(of, _)| of == key)?;
        let entry = blocks.remove(found)?;
        let plain = Plain::clone(&entry.1);
        blocks.push_back(entry);
        Some(plain)
    }

    /// Adds a block as the latest, and drops the oldest if there are too many.
    pub(super) fn put(&self, key: BlockKey, plain: Plain) {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.retain(|(of, _)| *of != key);
        if blocks.len() >= MAX_RECENT {
            blocks.pop_front();
        }
        blocks.push_back((key, plain));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_block_goes_first() {
        let recent = Recent::default();
        let key = |n: u8| BlockKey::new([n; 32]);
        for n in 0..4 {
            recent.put(key(n), Plain::new(vec![n]));
        }
        assert_eq!(recent.get(&key(0)).unwrap().as_slice(), [0]);
        recent.put(key(4), Plain::new(vec![4]));
        assert!(recent.get(&key(1)).is_none(), "1 was the least recently used");
        assert!(recent.get(&key(0)).is_some() && recent.get(&key(4)).is_some());
        assert_eq!(recent.0.lock().unwrap().len(), MAX_RECENT);
    }
}
