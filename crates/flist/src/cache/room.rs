//! Whether there is room for another object, and who makes it.
//!
//! ```text
//! written ──every QUANTUM──> tally + statvfs ──> all well
//!                                            ├─> nearly full: a thread evicts, writing goes on
//!                                            └─> full: a thread evicts; until then nothing is kept, reads are served
//! ENOSPC, EDQUOT ──> evict here and now, try once more
//! ```
//!
//! The process that writes is the one that evicts, so no daemon is needed. One evicts at a time, by the lock of the cache.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::evict::{Evictor, MAX_CANDIDATES};
use super::limits::{CacheLimits, Space};
use super::report::PruneReport;
use super::servers::FlistsInUse;
use super::tally::{CacheLock, QUANTUM, Tally};
use crate::clock;

/// How often a cache that is full is looked at again by its writers.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long nobody tries to evict after it did not help: what is left is in use, or others fill the disk.
const REST: Duration = Duration::from_secs(30);

/// A sum that is older is checked by a scan, so that what was removed by hand is noticed.
const SCAN_EVERY: Duration = Duration::from_secs(6 * 60 * 60);

/// What is freed when the disk is full, besides what is wanted: room for the next hundred blocks, or this part of a small
/// cache.
const FULL_DISK_STEP: u64 = 32 << 20;
const FULL_DISK_PART: u64 = 8;

/// A full disk is told once in this time.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The room of one cache, as one process sees it.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    limits: CacheLimits,
    servers: Option<PathBuf>,
    /// Bytes written that stand in no tally yet.
    unposted: AtomicU64,
    is_full: AtomicBool,
    is_evicting: AtomicBool,
    begin: Instant,
    /// Milliseconds since `begin`.
    next_look: AtomicU64,
    rest_until: AtomicU64,
    next_word: AtomicU64,
}

impl Room {
    pub(super) fn new(root: &Path, limits: CacheLimits, servers: Option<PathBuf>) -> Self {
        Self(Arc::new(Shared {
            root: root.to_owned(),
            limits,
            servers,
            unposted: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            is_evicting: AtomicBool::new(false),
            begin: clock::now(),
            next_look: AtomicU64::new(0),
            rest_until: AtomicU64::new(0),
            next_word: AtomicU64::new(0),
        }))
    }

    /// Tells whether something may be written.
    pub(super) fn is_there(&self) -> bool {
        if self.0.is_full.load(Ordering::Relaxed) && self.0.is_due(&self.0.next_look, LOOK_EVERY) {
            self.look();
        }
        !self.0.is_full.load(Ordering::Relaxed)
    }

    /// Notes what was written.
    pub(super) fn note(&self, bytes: u64) {
        let before = self.0.unposted.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) < QUANTUM {
            return;
        }
        let bytes = self.0.unposted.swap(0, Ordering::Relaxed);
        if let Err(error) = Tally::post(&self.0.root, bytes) {
            // The next scan finds it; until then the cache looks smaller than it is.
            tracing::debug!(%error, "what was written to the cache could not be noted");
        }
        self.look();
    }

    /// Finds out whether there is room, and has it made if there is little.
    pub(super) fn look(&self) {
        let shared = &self.0;
        let tally = Tally::read(&shared.root);
        let Ok(space) = Space::of(&shared.root) else { return };
        let total = tally.map(|tally| tally.total());
        shared.is_full.store(total.is_some_and(|total| shared.limits.forbid(total, space)), Ordering::Relaxed);
        let is_known = tally.is_some_and(|tally| !is_old(tally));
        let is_well = is_known && total.is_some_and(|total| shared.limits.excess(total, space) == 0);
        if is_well || shared.is_resting() || shared.is_evicting.swap(true, Ordering::AcqRel) {
            return;
        }
        let room = self.clone();
        let started = thread::Builder::new().name("cache-evict".to_owned()).spawn(move || {
            let room = Settling(room);
            room.0.settle();
        });
        if let Err(error) = started {
            shared.is_evicting.store(false, Ordering::Release);
            tracing::warn!(%error, "no thread to make room in the cache, trying again later");
            shared.rest();
        }
    }

    /// Makes the cache as small as its limits want it, if nobody else is at it.
    pub(super) fn settle(&self) {
        let shared = &self.0;
        let Ok(Some(_lock)) = CacheLock::try_take(&shared.root) else { return };
        let excess = |total| Space::of(&shared.root).map_or(0, |space| shared.limits.excess(total, space));
        // Somebody may have done it just before us.
        if Tally::read(&shared.root).is_some_and(|tally| !is_old(tally) && excess(tally.total()) == 0) {
            self.recover();
            return;
        }
        let report = self.shrink(&excess);
        if excess(report.left_bytes) > 0 {
            shared.rest();
        }
        self.recover();
    }

    /// Makes room for something that found the disk full; `false` when that is not to be had now.
    pub(super) fn make(&self, wanted: u64) -> bool {
        let shared = &self.0;
        if shared.is_resting() {
            return false;
        }
        let Ok(Some(_lock)) = CacheLock::try_take(&shared.root) else { return false };
        let report = self.shrink(&|total| full_disk_excess(total, wanted));
        let has_helped = report.removed.total().bytes >= wanted;
        if !has_helped {
            shared.rest();
        }
        has_helped
    }

    /// Writes nothing for a while: the disk is full.
    pub(super) fn close(&self) {
        self.0.is_full.store(true, Ordering::Relaxed);
        self.0.put_off(&self.0.next_look, LOOK_EVERY);
    }

    /// Tells whether a failure to write should be told now: not more often than once a minute.
    pub(super) fn should_tell(&self) -> bool {
        self.0.is_due(&self.0.next_word, TELL_EVERY)
    }

    /// Needs the lock of the cache.
    fn shrink(&self, excess: &dyn Fn(u64) -> u64) -> PruneReport {
        let shared = &self.0;
        let evictor = Evictor {
            root: &shared.root,
            flists: FlistsInUse::read(shared.servers.as_deref()),
            now: since_1970(),
            is_dry: false,
            max_candidates: MAX_CANDIDATES,
        };
        let report = counted(&shared.root, || evictor.shrink(excess));
        let (removed, in_use) = (report.removed.total(), report.in_use.count);
        if removed.count > 0 {
            let (count, bytes, left_bytes) = (removed.count, removed.bytes, report.left_bytes);
            tracing::info!(count, bytes, left_bytes, in_use, "made room in the cache");
        }
        if let Some((path, error)) = &report.failure {
            tracing::warn!(path = %path.display(), %error, "a part of the cache could not be looked at or removed");
        }
        report
    }

    fn recover(&self) {
        let shared = &self.0;
        let (Some(tally), Ok(space)) = (Tally::read(&shared.root), Space::of(&shared.root)) else { return };
        shared.is_full.store(shared.limits.forbid(tally.total(), space), Ordering::Relaxed);
    }
}

/// Lets the next one begin when it ends, however it ends.
struct Settling(Room);

impl Drop for Settling {
    fn drop(&mut self) {
        self.0.0.is_evicting.store(false, Ordering::Release);
    }
}

impl Shared {
    fn elapsed(&self) -> u64 {
        u64::try_from(clock::now().saturating_duration_since(self.begin).as_millis()).unwrap_or(u64::MAX)
    }

    /// Tells whether a time has come, and puts it off; for one of those who ask at once.
    fn is_due(&self, next: &AtomicU64, every: Duration) -> bool {
        let (now, due) = (self.elapsed(), next.load(Ordering::Relaxed));
        now >= due && next.compare_exchange(due, now + millis(every), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn put_off(&self, next: &AtomicU64, after: Duration) {
        next.store(self.elapsed() + millis(after), Ordering::Relaxed);
    }

    fn is_resting(&self) -> bool {
        self.elapsed() < self.rest_until.load(Ordering::Relaxed)
    }

    fn rest(&self) {
        self.put_off(&self.rest_until, REST);
    }
}

/// Runs what walks the cache and tells what is left, and writes that down. What others write meanwhile is added: some of
/// it was seen and counts twice, which the next scan corrects; to lose it would let the cache grow.
pub(super) fn counted(root: &Path, work: impl FnOnce() -> PruneReport) -> PruneReport {
    let began = Tally::read(root).map_or_else(
        || {
            // So that what is written during the scan has a place to be noted.
            let _found_by_the_next_scan = Tally::write(root, 0, Duration::ZERO);
            0
        },
        |tally| tally.posts,
    );
    let report = work();
    let meanwhile = Tally::read(root).map_or(0, |tally| tally.posts.saturating_sub(began)).saturating_mul(QUANTUM);
    if let Err(error) = Tally::write(root, report.left_bytes.saturating_add(meanwhile), since_1970()) {
        tracing::debug!(%error, "the size of the cache could not be noted");
    }
    report
}

/// Says how much of a cache of this size goes for what found the disk full.
pub(super) fn full_disk_excess(total: u64, wanted: u64) -> u64 {
    wanted.saturating_add(FULL_DISK_STEP.min(total / FULL_DISK_PART))
}

fn is_old(tally: Tally) -> bool {
    // A scan in the future was on a wrong clock.
    since_1970().checked_sub(tally.scanned_at).is_none_or(|age| age > SCAN_EVERY)
}

/// The wall clock as time stamps of files have it.
pub(super) fn since_1970() -> Duration {
    clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
