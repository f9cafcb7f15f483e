//! What a look at a cache, or its pruning, tells.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::limits::CacheLimits;
use super::scan::ObjectKind;

/// How much of something there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// What they take of the disk.
    pub bytes: u64,
}

impl Amount {
    pub(super) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Something of each kind of object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByKind<T> {
    /// Of the blocks.
    pub blocks: T,
    /// Of the whole files.
    pub files: T,
    /// Of the fetched flists.
    pub flists: T,
    /// Of the temporary files.
    pub temps: T,
}

impl<T> ByKind<T> {
    pub(super) fn of_mut(&mut self, kind: ObjectKind) -> &mut T {
        match kind {
            ObjectKind::Block => &mut self.blocks,
            ObjectKind::File => &mut self.files,
            ObjectKind::Flist => &mut self.flists,
            ObjectKind::Temp => &mut self.temps,
        }
    }
}

impl ByKind<Amount> {
    /// Returns the sum.
    #[must_use]
    pub fn total(&self) -> Amount {
        let all = [self.blocks, self.files, self.flists, self.temps];
        all.into_iter().fold(Amount::default(), |sum, one| Amount {
            count: sum.count + one.count,
            bytes: sum.bytes.saturating_add(one.bytes),
        })
    }
}

/// What is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prune {
    /// What the limits ask for.
    ToLimits,
    /// The least recently used, until all takes no more bytes than this.
    To(u64),
    /// What was not used for this time.
    OlderThan(Duration),
    /// Everything that is not in use.
    All,
}

/// What was removed. All bytes are those of the disk.
#[derive(Debug, Default)]
pub struct PruneReport {
    /// By us; what others removed meanwhile is not in it.
    pub removed: ByKind<Amount>,
    /// What would have gone but is in use, or was used in this moment.
    pub in_use: Amount,
    /// What could not be removed.
    pub failed: Amount,
    /// The first reason, also why a folder could not be looked at.
    pub failure: Option<(PathBuf, io::Error)>,
    /// What is there now.
    pub left_bytes: u64,
}

/// When the objects of a kind were used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KindUsage {
    /// How much.
    pub amount: Amount,
    /// The oldest use, since 1970.
    pub oldest_use: Option<Duration>,
    /// The latest use, since 1970.
    pub latest_use: Option<Duration>,
}

impl KindUsage {
    pub(super) fn add(&mut self, bytes: u64, used: Duration) {
        self.amount.add(bytes);
        self.oldest_use = Some(self.oldest_use.map_or(used, |oldest| oldest.min(used)));
        self.latest_use = Some(self.latest_use.map_or(used, |latest| latest.max(used)));
    }
}

/// A fetched flist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlistUsage {
    /// Its hash.
    pub hash: String,
    /// Where it was fetched from last, without a password; where that is known.
    pub name: Option<String>,
    /// What it takes.
    pub bytes: u64,
    /// When it was fetched last, since 1970.
    pub last_use: Duration,
    /// Whether a server has it; `None` when nobody can tell.
    pub is_in_use: Option<bool>,
}

/// What a cache holds.
#[derive(Debug)]
pub struct CacheUsage {
    /// Counts, sizes and ages.
    pub kinds: ByKind<KindUsage>,
    /// What was fetched, by hash.
    pub flists: Vec<FlistUsage>,
    /// The limits that were given.
    pub limits: CacheLimits,
    /// What is free on the file system, where that is known.
    pub free_bytes: Option<u64>,
    /// The first folder that could not be looked at, and why.
    pub failure: Option<(PathBuf, io::Error)>,
}

impl CacheUsage {
    /// Returns the sum of all objects.
    #[must_use]
    pub fn total(&self) -> Amount {
        let ByKind { blocks, files, flists, temps } = self.kinds;
        ByKind { blocks: blocks.amount, files: files.amount, flists: flists.amount, temps: temps.amount }.total()
    }
}
