//! Remembers which blocks this process has checked, so that each is hashed once and not at every read.

use std::collections::HashMap;
use std::fs::Metadata;
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::hash::BlockKey;

/// The most checked blocks remembered: 500 GiB of cache in 50 MiB of memory. Above it all are forgotten and checked again.
const MAX_REMEMBERED: usize = 1 << 20;

/// The interval at which the last use of a frequently read block is noted on disk.
pub(super) const NOTE_USE_EVERY: Duration = Duration::from_secs(60);

/// The identity of a checked file, in few bytes, because there is one for each block of a flist. A file with another stamp
/// is checked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(u64);

#[derive(Debug, Clone, Copy)]
struct Known {
    stamp: Stamp,
    /// Seconds from `begin` to the last note of its use.
    noted: u32,
}

/// The result of looking up a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// Exactly this file was checked.
    Checked {
        /// Whether its use should be noted on disk now.
        is_use_due: bool,
    },
    /// The file has another stamp, or was never checked.
    Unknown,
}

/// The checked blocks, by the first eight bytes of their keys. If two keys have the same beginning, the stamps differ, so the
/// other file is checked again.
#[derive(Debug)]
pub(super) struct Checked {
    blocks: Mutex<HashMap<u64, Known>>,
    /// A secret of this process, so that no one can make a file with the stamp of a checked one.
    stamps: RandomState,
    begin: Instant,
    note_use_every: u32,
}

impl Checked {
    pub(super) fn new(note_use_every: Duration) -> Self {
        Self {
            blocks: Mutex::default(),
            stamps: RandomState::new(),
            begin: clock::now(),
            note_use_every: u32::try_from(note_use_every.as_secs()).unwrap_or(u32::MAX),
        }
    }

    /// Computes the stamp of a file. The access time is excluded: the cache sets it, and it does not concern the content.
    pub(super) fn stamp(&self, metadata: &Metadata) -> Stamp {
        let identity = (metadata.dev(), metadata.ino(), metadata.len());
        Stamp(self.stamps.hash_one((identity, metadata.mtime(), metadata.mtime_nsec())))
    }

    /// Tells whether a block may have been checked: a cheap test before its file is opened.
    pub(super) fn knows(&self, key: &BlockKey) -> bool {
        self.blocks().contains_key(&place(key))
    }

    /// Compares the file of a block with the checked one.
    pub(super) fn look(&self, key: &BlockKey, stamp: Stamp) -> Match {
        let now = self.now();
        match self.blocks().get_mut(&place(key)).filter(|known| known.stamp == stamp) {
            None => Match::Unknown,
            Some(known) => {
                let is_use_due = now.saturating_sub(known.noted) >= self.note_use_every;
                if is_use_due {
                    known.noted = now;
                }
                Match::Checked { is_use_due }
            }
        }
    }

    /// Remembers a file as checked and used now.
    pub(super) fn remember(&self, key: &BlockKey, stamp: Stamp) {
        let noted = self.now();
        let mut blocks = self.blocks();
        if blocks.len() >= MAX_REMEMBERED {
            blocks.clear();
        }
        blocks.insert(place(key), Known { stamp, noted });
    }

    pub(super) fn forget(&self, key: &BlockKey) {
        self.blocks().remove(&place(key));
    }

    fn now(&self) -> u32 {
        u32::try_from(clock::now().saturating_duration_since(self.begin).as_secs()).unwrap_or(u32::MAX)
    }

    fn blocks(&self) -> MutexGuard<'_, HashMap<u64, Known>> {
        // A panic between two plain map operations leaves the map consistent.
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(key: &BlockKey) -> u64 {
    key.as_bytes().iter().take(8).fold(0, |place, byte| (place << 8) | u64::from(*byte))
}
