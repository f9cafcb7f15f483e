//! Which blocks this process has checked, so that each is hashed once and not at every read.

use std::collections::HashMap;
use std::fs::Metadata;
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::hash::BlockKey;

/// How many checked blocks are remembered: 500 GiB of cache in 50 MiB of memory. Beyond it all are checked again.
const MAX_REMEMBERED: usize = 1 << 20;

/// How exact the last use of a block is: a block that is read all the time is noted on disk this often.
pub(super) const NOTE_USE_EVERY: Duration = Duration::from_secs(60);

/// What a checked file looked like, in few bytes: there is one of these for each block of a flist. A file that looks
/// otherwise is checked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(u64);

#[derive(Debug, Clone, Copy)]
struct Known {
    stamp: Stamp,
    /// Seconds since `begin` when its use was noted last.
    noted: u32,
}

/// What was found of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// This very file was checked.
    Checked {
        /// Whether its use should be noted on disk now.
        is_use_due: bool,
    },
    /// It looks otherwise, or was never checked.
    Unknown,
}

/// The checked blocks, by the first eight bytes of their keys: whoever makes two of the same beginning makes only that
/// one's file look like another, and it is checked again.
#[derive(Debug)]
pub(super) struct Checked {
    blocks: Mutex<HashMap<u64, Known>>,
    /// Secret of this process: nobody can choose a file that looks like a checked one.
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

    /// Describes a file. Its time of access is ours, and says nothing of its content.
    pub(super) fn stamp(&self, metadata: &Metadata) -> Stamp {
        let identity = (metadata.dev(), metadata.ino(), metadata.len());
        Stamp(self.stamps.hash_one((identity, metadata.mtime(), metadata.mtime_nsec())))
    }

    /// Tells whether a block may have been checked: cheap, before its file is opened.
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
        // A panic between two plain map operations leaves the map whole.
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(key: &BlockKey) -> u64 {
    key.as_bytes().iter().take(8).fold(0, |place, byte| (place << 8) | u64::from(*byte))
}
