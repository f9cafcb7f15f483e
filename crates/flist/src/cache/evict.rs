//! Makes a cache smaller: removes the least recently used objects, except those in use.
//!
//! ```text
//! walk: every entry ──> the oldest few thousand, in memory ──> exclusive lock │ in use: skipped ──> unlink
//!        └─ their sum                     └─ repeated from there, until enough was removed
//! ```
//!
//! A process that has a removed file open keeps its content, so a read in progress ends normally.

use std::collections::BinaryHeap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::hold;
use super::report::PruneReport;
use super::scan::{Entry, NAME_SUFFIX, ObjectKind, charge, last_use, walk};
use super::servers::FlistsInUse;
use crate::atomic::TEMP_PREFIX;

/// The most objects in memory at once: 2 MiB, which a flist server can spare for a moment. More objects need another walk
/// of the cache.
pub(super) const MAX_CANDIDATES: usize = 1 << 14;

/// The time for which a fetched flist is kept: its server starts milliseconds later, and until then no file names it.
const FLIST_GRACE: Duration = Duration::from_secs(10 * 60);

/// A use this far in the future was noted by a wrong clock. It counts as the oldest, or the object would never be removed.
const FUTURE: Duration = Duration::from_secs(60 * 60);

/// A temporary file is kept for this time even if its writer seems gone: the writer may be in another pid namespace.
const TEMP_SETTLED: Duration = Duration::from_secs(60);

/// The longest time of a write: afterwards, a process with the pid of the writer is another one. A download has ten minutes.
const TEMP_MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// One run of eviction or pruning on a cache.
#[derive(Debug)]
pub(super) struct Evictor<'a> {
    pub(super) root: &'a Path,
    pub(super) flists: FlistsInUse,
    /// The wall-clock time since 1970.
    pub(super) now: Duration,
    /// Whether objects are only counted, not removed.
    pub(super) is_dry: bool,
    /// [`MAX_CANDIDATES`], or fewer in a test.
    pub(super) max_candidates: usize,
}

impl Evictor<'_> {
    /// Removes the least recently used objects, and leftovers of interrupted writers. `excess` returns how many bytes must be
    /// removed from a cache of the given total size.
    pub(super) fn shrink(&self, excess: &dyn Fn(u64) -> u64) -> PruneReport {
        let mut report = self.remove_stale_temps();
        let target = report.left_bytes.saturating_sub(excess(report.left_bytes));
        let mut last = None;
        while report.left_bytes > target {
            let (total, oldest) = self.oldest(last.as_ref(), target, &mut report);
            report.left_bytes = total;
            if oldest.is_empty() {
                break;
            }
            for entry in oldest {
                if report.left_bytes <= target {
                    break;
                }
                report.left_bytes = report.left_bytes.saturating_sub(self.remove(&entry, &mut report));
                last = Some(entry);
            }
        }
        report
    }

    /// Removes leftovers of interrupted writers, and sums up the rest.
    fn remove_stale_temps(&self) -> PruneReport {
        self.remove_where(&|entry| entry.kind == ObjectKind::Temp && self.is_stale(entry))
    }

    /// Removes all objects not used since the given time.
    pub(super) fn remove_unused_since(&self, since: Duration) -> PruneReport {
        self.remove_where(&|entry| match entry.kind {
            ObjectKind::Temp => self.is_stale(entry),
            ObjectKind::Block | ObjectKind::File | ObjectKind::Flist => entry.used <= nanos(since),
        })
    }

    fn remove_where(&self, is_wanted: &dyn Fn(&Entry) -> bool) -> PruneReport {
        let (mut report, mut left_bytes) = (PruneReport::default(), 0_u64);
        let unseen = walk(self.root, &mut |entry| {
            let freed = if is_wanted(&entry) { self.remove(&entry, &mut report) } else { 0 };
            left_bytes += entry.bytes.saturating_sub(freed);
        });
        PruneReport { left_bytes, failure: report.failure.or(unseen.failure), ..report }
    }

    /// Returns the total size, and the oldest objects after `last`: as many as must be removed, but no more than
    /// `max_candidates`.
    fn oldest(&self, last: Option<&Entry>, target: u64, report: &mut PruneReport) -> (u64, Vec<Entry>) {
        let wanted = report.left_bytes.saturating_sub(target);
        let (mut total, mut heap, mut heap_bytes) = (0_u64, BinaryHeap::<Entry>::new(), 0_u64);
        let unseen = walk(self.root, &mut |mut entry| {
            total = total.saturating_add(entry.bytes);
            if entry.used > nanos(self.now + FUTURE) {
                entry.used = i64::MIN;
            }
            if entry.kind == ObjectKind::Temp || last.is_some_and(|last| entry <= *last) {
                return;
            }
            heap_bytes += entry.bytes;
            heap.push(entry);
            let is_spare = |newest: &Entry| heap.len() > self.max_candidates || heap_bytes - newest.bytes >= wanted;
            if heap.peek().is_some_and(is_spare) {
                heap_bytes -= heap.pop().map_or(0, |newest| newest.bytes);
            }
        });
        if report.failure.is_none() {
            report.failure = unseen.failure;
        }
        let counted = if self.is_dry { report.removed.total().bytes } else { 0 };
        (total.saturating_sub(counted), heap.into_sorted_vec())
    }

    /// Removes one object unless it is in use; returns the bytes freed.
    fn remove(&self, entry: &Entry, report: &mut PruneReport) -> u64 {
        match self.try_remove(entry) {
            Ok(Some(freed)) => {
                report.removed.of_mut(entry.kind).add(freed);
                freed
            }
            Ok(None) => {
                report.in_use.add(entry.bytes);
                0
            }
            // Another process has removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => entry.bytes,
            Err(error) => {
                report.failed.add(entry.bytes);
                report.failure.get_or_insert_with(|| (self.root.join(&entry.path), error));
                0
            }
        }
    }

    /// Removes one object and returns the bytes freed; `None` if it is in use.
    fn try_remove(&self, entry: &Entry) -> io::Result<Option<u64>> {
        let path = self.root.join(&entry.path);
        let Some(file) = hold::lock_for_removal(&path)? else { return Ok(None) };
        let metadata = file.metadata()?;
        let was_used = entry.used != i64::MIN && last_use(entry.kind, &metadata) > entry.used;
        let is_needed = entry.kind == ObjectKind::Flist && self.is_needed(entry);
        if was_used || is_needed || metadata.ino() != entry.inode {
            file.unlock()?;
            return Ok(None);
        }
        let mut freed = if metadata.nlink() == 1 { charge(&metadata) } else { 0 };
        if entry.kind == ObjectKind::Flist {
            freed += self.remove_note(&path)?;
        }
        if !self.is_dry {
            fs::remove_file(&path)?;
        }
        file.unlock()?;
        Ok(Some(freed))
    }

    /// Removes the note with the origin of a flist.
    fn remove_note(&self, flist: &Path) -> io::Result<u64> {
        let note = flist.with_extension(NAME_SUFFIX);
        let bytes = match fs::symlink_metadata(&note) {
            Ok(metadata) => charge(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        if !self.is_dry {
            fs::remove_file(&note)?;
        }
        Ok(bytes)
    }

    /// Tells whether a server uses this flist or is about to.
    fn is_needed(&self, entry: &Entry) -> bool {
        let age = nanos(self.now).saturating_sub(entry.used);
        age < nanos(FLIST_GRACE) || self.flists.contain(&entry.path)
    }

    /// Tells whether the writer of a temporary file is gone.
    fn is_stale(&self, entry: &Entry) -> bool {
        let age = nanos(self.now).saturating_sub(entry.used);
        age > nanos(TEMP_MAX_AGE) || (age > nanos(TEMP_SETTLED) && !has_writer(&entry.path))
    }
}

/// Tells whether a process has the pid in the name of a temporary file.
fn has_writer(path: &Path) -> bool {
    let name = path.file_name().and_then(std::ffi::OsStr::to_str).and_then(|name| name.strip_prefix(TEMP_PREFIX));
    let pid = name.and_then(|name| name.split_once('-')?.0.parse::<u32>().ok());
    pid.is_some_and(|pid| PathBuf::from(format!("/proc/{pid}")).exists())
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::report::Amount;
    use super::super::scan::{BLOCKS, FILES, FLISTS};
    use super::*;
    use proptest::prelude::*;
    use std::fs::{File, FileTimes};
    use std::time::UNIX_EPOCH;

    const NOW: Duration = Duration::from_secs(1_800_000_000);
    const PAGE: u64 = 4096;

    fn evictor(root: &Path) -> Evictor<'_> {
        Evictor { root, flists: FlistsInUse::Named(vec![]), now: NOW, is_dry: false, max_candidates: MAX_CANDIDATES }
    }

    /// Creates an object of some pages, used and written `age` ago.
    fn put(root: &Path, path: &str, pages: u64, age: Duration) -> File {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, vec![7; usize::try_from(pages * PAGE).unwrap()]).unwrap();
        let file = File::open(path).unwrap();
        let then = UNIX_EPOCH + NOW - age;
        file.set_times(FileTimes::new().set_accessed(then).set_modified(then)).unwrap();
        file
    }

    fn names(root: &Path) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        let _seen = walk(root, &mut |entry| paths.push(entry.path));
        paths.sort();
        paths
    }

    #[derive(Debug, Clone)]
    struct Object {
        is_file: bool,
        pages: u64,
        /// Few values, so that equal ages are frequent.
        age: u64,
        is_held: bool,
    }

    fn object() -> impl Strategy<Value = Object> {
        (any::<bool>(), 1..5_u64, 0..12_u64, prop::bool::weighted(0.2))
            .prop_map(|(is_file, pages, age, is_held)| Object { is_file, pages, age, is_held })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Compares with the obvious model: sort by last use, remove the oldest until enough was removed, skip held objects.
        #[test]
        fn the_least_recently_used_go_and_the_held_stay(
            objects in prop::collection::vec(object(), 0..40),
            target in 0..120_u64,
            max_candidates in 1..20_usize,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path();
            let mut model = Vec::new();
            let mut held = Vec::new();
            for (number, object) in objects.iter().enumerate() {
                let (folder, kind) = if object.is_file { (FILES, ObjectKind::File) } else { (BLOCKS, ObjectKind::Block) };
                let path = format!("{folder}/{:02x}/{number:064x}", number % 3);
                let file = put(root, &path, object.pages, Duration::from_secs(object.age * 100));
                if object.is_held {
                    file.try_lock_shared().unwrap();
                    held.push(file);
                }
                model.push((std::cmp::Reverse(object.age), kind, PathBuf::from(path), object));
            }
            model.sort_by(|one, other| (one.0, one.1, &one.2).cmp(&(other.0, other.1, &other.2)));
            let mut left: u64 = objects.iter().map(|object| object.pages * PAGE).sum();
            let (mut stays, mut removed, mut in_use) = (Vec::new(), Amount::default(), Amount::default());
            for (_, _, path, object) in model {
                if left <= target * PAGE || object.is_held {
                    if left > target * PAGE {
                        in_use.add(object.pages * PAGE);
                    }
                    stays.push(path);
                } else {
                    left -= object.pages * PAGE;
                    removed.add(object.pages * PAGE);
                }
            }
            stays.sort();

            let excess = |total: u64| total.saturating_sub(target * PAGE);
            let dry = Evictor { is_dry: true, max_candidates, ..evictor(root) }.shrink(&excess);
            prop_assert_eq!(names(root).len(), objects.len(), "a dry run removes nothing");
            let report = Evictor { max_candidates, ..evictor(root) }.shrink(&excess);
            prop_assert_eq!(names(root), stays);
            for report in [dry, report] {
                prop_assert_eq!((report.removed.total(), report.in_use, report.left_bytes), (removed, in_use, left));
                prop_assert!(report.failure.is_none());
            }
        }
    }

    #[test]
    fn objects_dated_in_the_future_are_removed_first() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "blocks/00/old", 1, Duration::from_secs(1000));
        let file = put(dir.path(), "blocks/00/to-come", 1, Duration::ZERO);
        file.set_times(FileTimes::new().set_accessed(UNIX_EPOCH + NOW + 2 * FUTURE)).unwrap();
        let report = evictor(dir.path()).shrink(&|_| 1);
        assert_eq!((report.removed.blocks.count, names(dir.path())), (1, vec![PathBuf::from("blocks/00/old")]));
    }

    #[test]
    fn leftovers_of_dead_writers_go_with_any_visit_and_those_of_living_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::process::id();
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        for (path, age) in [
            (format!("blocks/00/.tmp-{own}-1"), minutes(30)),
            (format!("blocks/00/.tmp-{own}-2"), minutes(61)),
            ("blocks/00/.tmp-4194999-1".to_owned(), Duration::from_secs(59)),
            ("blocks/00/.tmp-4194999-2".to_owned(), minutes(2)),
            ("files/00/.tmp-4194999-3".to_owned(), minutes(2)),
            ("fl/.tmp-4194999-4".to_owned(), minutes(2)),
            (".tmp-4194999-5".to_owned(), minutes(2)),
            (format!("fl/{}.name", "a".repeat(64)), minutes(2)),
            ("turns".to_owned(), minutes(999)),
        ] {
            put(dir.path(), &path, 1, age);
        }
        let report = evictor(dir.path()).shrink(&|_| 0);
        assert_eq!(report.removed.temps, Amount { count: 6, bytes: 6 * PAGE });
        let left = [format!("blocks/00/.tmp-{own}-1"), "blocks/00/.tmp-4194999-1".to_owned()];
        let mut left = left.map(PathBuf::from);
        left.sort();
        assert_eq!(names(dir.path()), left);
        assert!(dir.path().join("turns").exists(), "not of the objects");
        assert_eq!(report.left_bytes, 2 * PAGE);
    }

    #[test]
    fn a_flist_goes_with_its_note_when_no_server_has_it_and_it_was_not_just_fetched() {
        let dir = tempfile::tempdir().unwrap();
        let flist = |digit: &str, suffix: &str| format!("{FLISTS}/{}.{suffix}", digit.repeat(64));
        let hour = Duration::from_secs(3600);
        for (digit, age) in [("a", hour), ("b", hour), ("c", FLIST_GRACE - Duration::from_secs(1))] {
            put(dir.path(), &flist(digit, "fl"), 2, age);
            put(dir.path(), &flist(digit, "name"), 1, age);
        }
        let served = format!("{{\"hash\":\"{}\"}}", "b".repeat(64));
        let with = |flists| Evictor { flists, ..evictor(dir.path()) };
        let report = with(FlistsInUse::Unknown).remove_unused_since(Duration::MAX);
        assert_eq!((report.removed.total().count, report.in_use.count), (0, 3), "nobody can tell");
        let report = with(FlistsInUse::Named(vec![served.into_bytes()])).remove_unused_since(Duration::MAX);
        assert_eq!(report.removed.flists, Amount { count: 1, bytes: 3 * PAGE });
        assert_eq!((report.in_use, report.left_bytes), (Amount { count: 2, bytes: 6 * PAGE }, 6 * PAGE));
        assert_eq!(names(dir.path()), [flist("b", "fl"), flist("c", "fl")].map(PathBuf::from));
        assert!(!dir.path().join(flist("a", "name")).exists());
    }

    #[test]
    fn foreign_files_are_no_objects_and_failed_removals_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let shard = dir.path().join("blocks/00");
        fs::create_dir_all(shard.join("a directory")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", shard.join("a link")).unwrap();
        nix::unistd::mkfifo(&shard.join("a pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        fs::write(dir.path().join("files"), "no directory").unwrap();
        let report = evictor(dir.path()).remove_unused_since(Duration::MAX);
        assert_eq!(report.removed.total(), Amount::default());
        assert!(matches!(&report.failure, Some((path, _)) if path.ends_with("files")), "{:?}", report.failure);
        assert_eq!(fs::read_dir(&shard).unwrap().count(), 3);
    }

    #[test]
    fn an_object_that_was_used_after_the_look_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = put(dir.path(), "blocks/00/used", 1, Duration::from_secs(1000));
        let mut seen = Vec::new();
        let _seen = walk(dir.path(), &mut |entry| seen.push(entry));
        file.set_times(FileTimes::new().set_accessed(UNIX_EPOCH + NOW)).unwrap();
        assert_eq!(evictor(dir.path()).try_remove(&seen[0]).unwrap(), None);
        fs::remove_file(dir.path().join("blocks/00/used")).unwrap();
        put(dir.path(), "blocks/00/other", 1, Duration::from_secs(1000));
        fs::rename(dir.path().join("blocks/00/other"), dir.path().join("blocks/00/used")).unwrap();
        assert_eq!(evictor(dir.path()).try_remove(&seen[0]).unwrap(), None, "another file of that name");
    }
}
