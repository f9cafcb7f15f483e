//! Inspects and prunes a cache from outside the processes that use it, by files and locks only. Creates nothing.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::evict::{Evictor, MAX_CANDIDATES};
use super::limits::Space;
use super::report::{ByKind, CacheUsage, FlistUsage, KindUsage, Prune, PruneReport};
use super::room::{counted, full_disk_excess, since_1970};
use super::scan::{Entry, NAME_SUFFIX, ObjectKind, walk};
use super::servers::FlistsInUse;
use super::tally::{CacheLock, Tally};
use super::{CacheError, CacheOptions};
use crate::clock::Deadline;

/// The longest wait of pruning for another process that evicts: it scans a million blocks in some seconds.
const PRUNE_WAIT: Duration = Duration::from_secs(60);
const PRUNE_PAUSE: Duration = Duration::from_millis(20);

/// The longest name of a flist that is shown.
const MAX_NAME_BYTES: u64 = 4096;

/// Lists the use of the cache below a root. A missing root counts as empty.
#[must_use]
pub fn usage(root: &Path, options: &CacheOptions) -> CacheUsage {
    let flists_in_use = FlistsInUse::read(options.servers.as_deref());
    let (mut kinds, mut flists) = (ByKind::<KindUsage>::default(), Vec::new());
    let unseen = walk(root, &mut |entry| {
        kinds.of_mut(entry.kind).add(entry.bytes, used(&entry));
        if entry.kind == ObjectKind::Flist {
            flists.push(describe(root, &entry, &flists_in_use));
        }
    });
    flists.sort_by(|one: &FlistUsage, other| one.hash.cmp(&other.hash));
    let free_bytes = Space::of(root).ok().map(|space| space.free_bytes);
    CacheUsage { kinds, flists, limits: options.limits, free_bytes, failure: unseen.failure }
}

fn used(entry: &Entry) -> Duration {
    Duration::from_nanos(u64::try_from(entry.used).unwrap_or(0))
}

fn describe(root: &Path, entry: &Entry, in_use: &FlistsInUse) -> FlistUsage {
    let is_in_use = match in_use {
        FlistsInUse::Unknown => None,
        FlistsInUse::Named(_) => Some(in_use.contain(&entry.path)),
    };
    FlistUsage {
        hash: entry.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
        name: name_of(&root.join(&entry.path)),
        bytes: entry.bytes,
        last_use: used(entry),
        is_in_use,
    }
}

/// Returns the latest origin of a flist in the cache.
pub(crate) fn name_of(flist: &Path) -> Option<String> {
    let mut name = String::new();
    let file = File::open(flist.with_extension(NAME_SUFFIX)).ok()?;
    file.take(MAX_NAME_BYTES).read_to_string(&mut name).ok()?;
    (!name.is_empty()).then_some(name)
}

/// Removes selected objects that are not in use. Safe while other processes use the cache: a read in progress ends
/// normally. With `is_dry` nothing is removed, and the report says what would be.
///
/// # Errors
/// [`CacheError`] if the cache cannot be locked; objects that could not be removed are in the report.
pub fn prune(root: &Path, options: &CacheOptions, what: Prune, is_dry: bool) -> Result<PruneReport, CacheError> {
    let _lock = match fs::metadata(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(PruneReport::default()),
        _ if is_dry => None,
        _ => Some(lock(root)?),
    };
    let flists = FlistsInUse::read(options.servers.as_deref());
    let evictor = Evictor { root, flists, now: since_1970(), is_dry, max_candidates: MAX_CANDIDATES };
    let work = || match what {
        Prune::ToLimits => {
            evictor.shrink(&|total| Space::of(root).map_or(0, |space| options.limits.excess(total, space)))
        }
        Prune::To(bytes) => evictor.shrink(&|total| total.saturating_sub(bytes)),
        Prune::OlderThan(age) => evictor.remove_unused_since(evictor.now.saturating_sub(age)),
        // Includes objects dated in the future by a wrong clock.
        Prune::All => evictor.remove_unused_since(Duration::MAX),
    };
    Ok(if is_dry { work() } else { counted(root, work) })
}

fn lock(root: &Path) -> Result<CacheLock, CacheError> {
    let deadline = Deadline::after(PRUNE_WAIT);
    loop {
        match CacheLock::try_take(root) {
            Ok(Some(lock)) => return Ok(lock),
            Ok(None) if deadline.has_passed() => {
                return Err(CacheError::Busy { path: root.to_owned(), waited: PRUNE_WAIT });
            }
            Ok(None) => thread::sleep(PRUNE_PAUSE),
            Err(source) => return Err(CacheError::Lock { path: root.to_owned(), source }),
        }
    }
}

/// Evicts blocks for a flist that found the disk full. `false` if there was not enough to evict.
pub(crate) fn make_room_for_flist(root: &Path, bytes: u64) -> bool {
    // No flist is removed, because the caller may not know all servers.
    let options = CacheOptions::default();
    let total = usage(root, &options).total().bytes;
    let target = total.saturating_sub(full_disk_excess(total, bytes));
    let report = prune(root, &options, Prune::To(target), false);
    report.is_ok_and(|report| report.removed.total().bytes >= bytes.max(1))
}

/// Records that a flist was added.
pub(crate) fn note_flist(root: &Path, bytes: u64) {
    if let Err(error) = Tally::post(root, bytes) {
        // The next scan corrects the size.
        tracing::debug!(%error, "cache size not noted");
    }
}
