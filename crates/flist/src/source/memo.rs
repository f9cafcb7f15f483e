//! Remembers which local files were copied into the cache by this process, so that starting the hundredth container of a
//! flist does not read and hash the flist again.
//!
//! A file is the same as long as device, inode, size, and the times of its content and of its metadata are the same: a change
//! of the content changes at least the last. A file that was changed just before its copying is not remembered.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::FetchedFlist;

/// The most files remembered: far more flists than a node uses. Above it all are forgotten, which costs a copy each.
const MAX_KNOWN: usize = 4096;

/// The age from which a file counts as settled: after a more recent change, another one may leave the same time stamp,
/// because clocks of file systems tick in milliseconds, some in seconds.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

static KNOWN: LazyLock<Mutex<HashMap<Key, Known>>> = LazyLock::new(Mutex::default);

type Key = (PathBuf, Identity);

/// The copy, and the identity of its file.
#[derive(Debug, Clone)]
struct Known {
    fetched: FetchedFlist,
    copy: Identity,
}

/// The metadata that distinguishes one content of a file from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(u64::try_from(self.changed.0).unwrap_or(u64::MAX));
        now.checked_sub(changed).is_some_and(|age| age > SETTLED_AFTER)
    }
}

/// Returns the earlier copy of a file, if it is unchanged in the cache.
pub(super) fn recall(folder: &Path, identity: &Identity) -> Option<FetchedFlist> {
    let known = {
        let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(folder.to_owned(), identity.clone())).cloned()?
    };
    let copy = Identity::of(&fs::symlink_metadata(&known.fetched.path).ok()?);
    (copy == known.copy).then_some(known.fetched)
}

/// Remembers a copy, unless the original changed too recently.
#[expect(clippy::disallowed_methods, reason = "the age of a file is counted on the clock of its time stamps")]
pub(super) fn keep(folder: &Path, identity: Identity, fetched: &FetchedFlist) {
    let Ok(copy) = fs::symlink_metadata(&fetched.path) else { return };
    if !identity.is_settled(SystemTime::now()) {
        return;
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= MAX_KNOWN {
        known.clear();
    }
    known.insert((folder.to_owned(), identity), Known { fetched: fetched.clone(), copy: Identity::of(&copy) });
}

#[cfg(test)]
mod tests {
    use super::super::{FlistSource, fetch};
    use super::*;

    /// Sets old times on a file, which count as settled.
    fn age(path: &Path) {
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    }

    #[test]
    fn a_file_that_was_just_changed_is_read_again_and_so_is_one_whose_copy_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, cache) = (dir.path().join("a.fl"), dir.path().join("cache"));
        let bring = || fetch(&FlistSource::File(path.clone()), &cache, &|_| {}).unwrap();
        fs::write(&path, "one").unwrap();
        age(&path);
        let first = bring();
        // Its metadata has only just changed, so it was not remembered: equal length and time stamp do not deceive us.
        fs::write(&path, "two").unwrap();
        age(&path);
        assert_ne!(bring().hash, first.hash);
        let identity = Identity { changed: (0, 0), ..Identity::of(&fs::metadata(&path).unwrap()) };
        let folder = cache.join("fl");
        keep(&folder, identity.clone(), &first);
        assert_eq!(recall(&folder, &identity).unwrap(), first);
        fs::write(&first.path, "damaged").unwrap();
        assert_eq!(recall(&folder, &identity), None);
        fs::remove_file(&first.path).unwrap();
        assert_eq!(recall(&folder, &identity), None);
    }
}
