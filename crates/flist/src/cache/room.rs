//! Decides whether objects may be added to a cache, and starts eviction.
//!
//! ```text
//! written ──every QUANTUM──> tally + statvfs ──> all well
//!                                            ├─> nearly full: a thread evicts, writing continues
//!                                            └─> full: a thread evicts; until then nothing is stored, reads are served
//! ENOSPC, EDQUOT ──> evict at once, retry once
//! ```
//!
//! The writing process evicts, so no daemon is needed. The lock of the cache lets one process evict at a time.

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

/// The interval at which writers check a full cache again.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The time without eviction after one that did not free enough: the rest is in use, or other files fill the disk.
const EVICTION_PAUSE: Duration = Duration::from_secs(30);

/// The age at which a sum is replaced by a scan, which notices objects removed by hand.
const SCAN_EVERY: Duration = Duration::from_secs(6 * 60 * 60);

/// The bytes evicted from a full disk, besides those needed: room for the next hundred blocks, or this part of a small
/// cache.
const FULL_DISK_STEP: u64 = 32 << 20;
const FULL_DISK_PART: u64 = 8;

/// A full disk is logged once in this time.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The room in one cache, as seen by one process.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    limits: CacheLimits,
    servers: Option<PathBuf>,
    /// Bytes written but not yet added to the tally.
    unposted: AtomicU64,
    is_full: AtomicBool,
    is_evicting: AtomicBool,
    begin: Instant,
    /// Milliseconds since `begin`.
    next_check: AtomicU64,
    paused_until: AtomicU64,
    next_log: AtomicU64,
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
            next_check: AtomicU64::new(0),
            paused_until: AtomicU64::new(0),
            next_log: AtomicU64::new(0),
        }))
    }

    /// Tells whether objects may be written.
    pub(super) fn has_room(&self) -> bool {
        if self.0.is_full.load(Ordering::Relaxed) && self.0.is_due(&self.0.next_check, CHECK_EVERY) {
            self.check();
        }
        !self.0.is_full.load(Ordering::Relaxed)
    }

    /// Records bytes written.
    pub(super) fn note(&self, bytes: u64) {
        let before = self.0.unposted.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) < QUANTUM {
            return;
        }
        let bytes = self.0.unposted.swap(0, Ordering::Relaxed);
        if let Err(error) = Tally::post(&self.0.root, bytes) {
            // The next scan corrects the size; until then the cache looks smaller than it is.
            tracing::debug!(%error, "cache size not noted");
        }
        self.check();
    }

    /// Checks whether there is room, and starts a thread that evicts if there is little.
    pub(super) fn check(&self) {
        let shared = &self.0;
        let tally = Tally::read(&shared.root);
        let Ok(space) = Space::of(&shared.root) else { return };
        let total = tally.map(|tally| tally.total());
        shared.is_full.store(total.is_some_and(|total| shared.limits.forbid(total, space)), Ordering::Relaxed);
        let is_known = tally.is_some_and(|tally| !is_old(tally));
        let is_well = is_known && total.is_some_and(|total| shared.limits.excess(total, space) == 0);
        if is_well || shared.is_paused() || shared.is_evicting.swap(true, Ordering::AcqRel) {
            return;
        }
        let room = self.clone();
        let started = thread::Builder::new().name("cache-evict".to_owned()).spawn(move || {
            let room = EvictionGuard(room);
            room.0.evict_to_limits();
        });
        if let Err(error) = started {
            shared.is_evicting.store(false, Ordering::Release);
            tracing::warn!(%error, "cache eviction not started");
            shared.pause();
        }
    }

    /// Evicts down to the limits, unless another process does.
    pub(super) fn evict_to_limits(&self) {
        let shared = &self.0;
        let Ok(Some(_lock)) = CacheLock::try_take(&shared.root) else { return };
        let excess = |total| Space::of(&shared.root).map_or(0, |space| shared.limits.excess(total, space));
        // Another process may just have evicted.
        if Tally::read(&shared.root).is_some_and(|tally| !is_old(tally) && excess(tally.total()) == 0) {
            self.recover();
            return;
        }
        let report = self.shrink(&excess);
        if excess(report.left_bytes) > 0 {
            shared.pause();
        }
        self.recover();
    }

    /// Evicts for a write that found the disk full; `false` if not enough can be freed now.
    pub(super) fn make_room(&self, wanted: u64) -> bool {
        let shared = &self.0;
        if shared.is_paused() {
            return false;
        }
        let Ok(Some(_lock)) = CacheLock::try_take(&shared.root) else { return false };
        let report = self.shrink(&|total| full_disk_excess(total, wanted));
        let has_helped = report.removed.total().bytes >= wanted;
        if !has_helped {
            shared.pause();
        }
        has_helped
    }

    /// Stops writing for a while, because the disk is full.
    pub(super) fn stop_writing(&self) {
        self.0.is_full.store(true, Ordering::Relaxed);
        self.0.put_off(&self.0.next_check, CHECK_EVERY);
    }

    /// Tells whether a failure to write should be logged now: at most once a minute.
    pub(super) fn should_log(&self) -> bool {
        self.0.is_due(&self.0.next_log, LOG_EVERY)
    }

    /// Evicts. The caller holds the lock of the cache.
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
            tracing::info!(count, bytes, left_bytes, in_use, "cache objects evicted");
        }
        if let Some((path, error)) = &report.failure {
            tracing::warn!(path = %path.display(), %error, "cache not fully scanned or evicted");
        }
        report
    }

    fn recover(&self) {
        let shared = &self.0;
        let (Some(tally), Ok(space)) = (Tally::read(&shared.root), Space::of(&shared.root)) else { return };
        shared.is_full.store(shared.limits.forbid(tally.total(), space), Ordering::Relaxed);
    }
}

/// Clears the flag of the evicting thread when it ends, also by a panic.
struct EvictionGuard(Room);

impl Drop for EvictionGuard {
    fn drop(&mut self) {
        self.0.0.is_evicting.store(false, Ordering::Release);
    }
}

impl Shared {
    fn elapsed(&self) -> u64 {
        u64::try_from(clock::now().saturating_duration_since(self.begin).as_millis()).unwrap_or(u64::MAX)
    }

    /// Tells whether a time has come, and moves it on; of several threads that ask at once, one gets `true`.
    fn is_due(&self, next: &AtomicU64, every: Duration) -> bool {
        let (now, due) = (self.elapsed(), next.load(Ordering::Relaxed));
        now >= due && next.compare_exchange(due, now + millis(every), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn put_off(&self, next: &AtomicU64, after: Duration) {
        next.store(self.elapsed() + millis(after), Ordering::Relaxed);
    }

    fn is_paused(&self) -> bool {
        self.elapsed() < self.paused_until.load(Ordering::Relaxed)
    }

    fn pause(&self) {
        self.put_off(&self.paused_until, EVICTION_PAUSE);
    }
}

/// Runs an eviction and writes the remaining size to the tally. Bytes that other processes write meanwhile are added; some
/// may count twice, which the next scan corrects. Omitting them would let the cache grow.
pub(super) fn counted(root: &Path, work: impl FnOnce() -> PruneReport) -> PruneReport {
    let began = Tally::read(root).map_or_else(
        || {
            // Create the tally, so that bytes written during the scan can be added.
            let _found_by_the_next_scan = Tally::write(root, 0, Duration::ZERO);
            0
        },
        |tally| tally.posts,
    );
    let report = work();
    let meanwhile = Tally::read(root).map_or(0, |tally| tally.posts.saturating_sub(began)).saturating_mul(QUANTUM);
    if let Err(error) = Tally::write(root, report.left_bytes.saturating_add(meanwhile), since_1970()) {
        tracing::debug!(%error, "cache size not noted");
    }
    report
}

/// Returns how many bytes to evict from a cache of this size for a write that found the disk full.
pub(super) fn full_disk_excess(total: u64, wanted: u64) -> u64 {
    wanted.saturating_add(FULL_DISK_STEP.min(total / FULL_DISK_PART))
}

fn is_old(tally: Tally) -> bool {
    // A scan in the future was dated by a wrong clock.
    since_1970().checked_sub(tally.scanned_at).is_none_or(|age| age > SCAN_EVERY)
}

/// Returns the wall-clock time, on the scale of file time stamps.
pub(super) fn since_1970() -> Duration {
    clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
