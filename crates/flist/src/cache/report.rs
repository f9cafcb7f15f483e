//! Reports of inspecting and pruning a cache.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::limits::CacheLimits;
use super::scan::ObjectKind;

/// A number of objects and their size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// The number of objects.
    pub count: u64,
    /// The bytes that they take on the disk.
    pub bytes: u64,
}

impl Amount {
    pub(super) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// One value for each kind of object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByKind<T> {
    /// For blocks.
    pub blocks: T,
    /// For whole files.
    pub files: T,
    /// For fetched flists.
    pub flists: T,
    /// For temporary files.
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

/// The objects to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prune {
    /// As many as the limits require.
    ToLimits,
    /// The least recently used, until the rest takes at most this many bytes.
    To(u64),
    /// Objects that were not used for this time.
    OlderThan(Duration),
    /// All objects that are not in use.
    All,
}

/// The result of pruning. Bytes are those on the disk.
#[derive(Debug, Default)]
pub struct PruneReport {
    /// Objects removed by this run, not by other processes.
    pub removed: ByKind<Amount>,
    /// Objects selected but in use, or just used.
    pub in_use: Amount,
    /// Objects that could not be removed.
    pub failed: Amount,
    /// The first failure, including those to read a directory.
    pub failure: Option<(PathBuf, io::Error)>,
    /// The bytes left in the cache.
    pub left_bytes: u64,
}

/// The amount of one kind of object, and when it was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KindUsage {
    /// Number and size.
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
    /// Its hash, as 64 hex digits.
    pub hash: String,
    /// The latest origin, without a password, if known.
    pub name: Option<String>,
    /// The bytes that it takes on the disk.
    pub bytes: u64,
    /// The time of the last fetch, since 1970.
    pub last_use: Duration,
    /// Whether a server uses it; `None` if unknown.
    pub is_in_use: Option<bool>,
}

/// The content of a cache.
#[derive(Debug)]
pub struct CacheUsage {
    /// Numbers, sizes and times of use.
    pub kinds: ByKind<KindUsage>,
    /// The fetched flists, sorted by hash.
    pub flists: Vec<FlistUsage>,
    /// The limits given.
    pub limits: CacheLimits,
    /// The free bytes of the file system, if known.
    pub free_bytes: Option<u64>,
    /// The first directory that could not be read, and the error.
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
