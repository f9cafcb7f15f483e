//! Looks at a cache and prunes it, from outside of whoever uses it: by files and locks alone, nothing is created.

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

/// How long pruning waits for another process that makes room: it walks a million blocks in some seconds.
const PRUNE_WAIT: Duration = Duration::from_secs(60);
const PRUNE_PAUSE: Duration = Duration::from_millis(20);

/// The longest note of a flist's name that is shown.
const MAX_NAME_BYTES: u64 = 4096;

/// Looks at all that lies below a cache root. A root that is not there holds nothing.
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

/// Returns where a flist of the cache was fetched from last.
pub(crate) fn name_of(flist: &Path) -> Option<String> {
    let mut name = String::new();
    let file = File::open(flist.with_extension(NAME_SUFFIX)).ok()?;
    file.take(MAX_NAME_BYTES).read_to_string(&mut name).ok()?;
    (!name.is_empty()).then_some(name)
}

/// Removes what is not wanted any more and not in use. Safe beside whoever uses the cache: a read that is under way ends as
/// it began. With `is_dry` nothing is removed, and the report tells what would be.
///
/// # Errors
/// [`CacheError`] when the cache cannot be locked; what could not be removed stands in the report.
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
        // Also what a wrong clock has dated to come.
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

/// Frees space for a flist that found the disk full, at the cost of blocks. `false` if there is none to be had.
pub(crate) fn make_room_for_flist(root: &Path, bytes: u64) -> bool {
    // No flist is removed: whoever fetches may not know all servers.
    let options = CacheOptions::default();
    let total = usage(root, &options).total().bytes;
    let target = total.saturating_sub(full_disk_excess(total, bytes));
    let report = prune(root, &options, Prune::To(target), false);
    report.is_ok_and(|report| report.removed.total().bytes >= bytes.max(1))
}

/// Notes that a flist was added.
pub(crate) fn note_flist(root: &Path, bytes: u64) {
    if let Err(error) = Tally::post(root, bytes) {
        // The next scan finds it.
        tracing::debug!(%error, "what was written to the cache could not be noted");
    }
}
