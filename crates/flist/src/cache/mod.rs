//! The cache of flists, blocks and whole files on a node's disk, shared by all flists and all processes.
//!
//! ```text
//! <root>/blocks/<2 hex>/<64 hex>   blocks in plain text, named by their hash
//! <root>/files/<2 hex>/<name>      whole files, assembled for the kernel to read from
//! <root>/fl/<64 hex>.fl, .name     fetched flists, and the origin of each
//! <root>/usage, turns              the total size (`tally`); locks for fetches (`turn`)
//! ```
//!
//! The name determines the content, so the cache needs no index and recovers from damage: a block is used only after this
//! process has checked its length and hash, and a damaged one is replaced. Files appear by rename, so several processes can
//! share one cache. A cache that cannot be written makes reading slower, never wrong.
//!
//! Blocks are not synced: a block damaged by a power loss fails its check. With a sync for each block, a cold read of 8,000
//! small files took 9.0 s instead of 0.74 s.
//!
//! Parts: `checked` (which blocks were checked), `room` (limits, full disk, starting eviction), `evict` (removes objects),
//! `hold` (protects objects in use), `scan` (lists objects), `tally` (total size), `turn` (one fetch per block). See
//! docs/flist-cache.md.

mod checked;
mod evict;
mod hold;
mod limits;
mod manage;
mod report;
mod room;
mod scan;
mod servers;
mod tally;
mod turn;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use hold::HeldObject;
pub use limits::CacheLimits;
pub use manage::{prune, usage};
pub use report::{Amount, ByKind, CacheUsage, FlistUsage, KindUsage, Prune, PruneReport};
pub use scan::ObjectKind;

pub(crate) use hold::{note_use, note_use_if_due};
pub(crate) use manage::{make_room_for_flist, name_of, note_flist};
pub(crate) use scan::{FLIST_SUFFIX, FLISTS, NAME_SUFFIX};

use crate::atomic::TempFile;
use crate::block::BLOCK_SIZE;
use crate::error::FlistErrorKind;
use crate::hash::BlockKey;
use checked::{Checked, Match, NOTE_USE_EVERY, Stamp};
use room::Room;
use turn::{Asked, Turns};

/// A cache could not be opened or pruned. Later failures are not errors: blocks are then served from memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The folder could not be made.
    #[error("create block cache {}", path.display())]
    Create {
        /// The folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The folder could not be locked.
    #[error("lock cache {}", path.display())]
    Lock {
        /// The folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another process has been evicting for a long time.
    #[error("lock cache {}: another process has been pruning it for {waited:?}", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
        /// The time waited.
        waited: Duration,
    },
}

impl CacheError {
    /// Returns the next step for the user.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Create { .. } => "check the permissions and the free space of the cache directory",
            Self::Lock { .. } => "check the permissions of the cache directory, and that this is root",
            Self::Busy { .. } => "see who has it: grep FLOCK /proc/locks; then try again",
        }
    }

    /// Returns the category of the error.
    #[must_use]
    pub fn kind(&self) -> FlistErrorKind {
        FlistErrorKind::Io
    }
}

/// The cache of a node, shared by all flists and threads.
#[derive(Debug)]
pub struct BlockCache {
    root: PathBuf,
    checked: Checked,
    room: Room,
    turns: Turns,
}

/// The options of a cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheOptions {
    /// The limits on its size.
    pub limits: CacheLimits,
    /// The directory with the lease directories of all flist servers that use the cache, `<run>/f`. Without it no fetched
    /// flist is ever removed.
    pub servers: Option<PathBuf>,
}

impl BlockCache {
    /// Opens the cache below `cache_root` with the default limits, and creates its directory if necessary.
    ///
    /// # Errors
    /// [`CacheError::Create`] if the directory cannot be created.
    pub fn open(cache_root: &Path) -> Result<Self, CacheError> {
        Self::open_with(cache_root, CacheOptions::default())
    }

    /// Opens the cache below `cache_root`.
    ///
    /// # Errors
    /// As [`BlockCache::open`].
    pub fn open_with(cache_root: &Path, options: CacheOptions) -> Result<Self, CacheError> {
        let folder = cache_root.join(scan::BLOCKS);
        fs::create_dir_all(&folder).map_err(|source| CacheError::Create { path: folder, source })?;
        Ok(Self::at(cache_root, options))
    }

    /// Makes a cache object without touching the disk, for inspection; directories are created when a block is stored.
    #[must_use]
    pub fn at(cache_root: &Path, CacheOptions { limits, servers }: CacheOptions) -> Self {
        Self {
            root: cache_root.to_owned(),
            checked: Checked::new(NOTE_USE_EVERY),
            room: Room::new(cache_root, limits, servers),
            turns: Turns::of(cache_root),
        }
    }

    /// Starts a thread that evicts, if the cache is larger than its limits or its size is unknown. Writing does so anyway.
    pub fn enforce_limits(&self) {
        self.room.check();
    }

    /// Returns the root of the cache, which contains more than blocks.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the path of a block, whether it is cached or not. For a file of one block this is the whole file: fit for
    /// passthrough once checked, as long as it is held ([`BlockCache::hold`]).
    #[must_use]
    pub fn path_of(&self, key: &BlockKey) -> PathBuf {
        let name = key.to_hex();
        // Built in one allocation, because every read needs it.
        let mut path = PathBuf::with_capacity(self.root.as_os_str().len() + 80);
        path.push(&self.root);
        path.extend([scan::BLOCKS, name.get(..2).unwrap_or("00"), &name]);
        path
    }

    /// Returns the path of a whole file of this name, whether it exists or not. To add one, call [`BlockCache::has_room`],
    /// write it under a temporary name beside this path, rename it, and call [`BlockCache::note_written`]. The name should
    /// determine the content, and begin with two evenly distributed hex digits.
    #[must_use]
    pub fn file_path_of(&self, name: &str) -> PathBuf {
        self.root.join(scan::FILES).join(name.get(..2).unwrap_or("00")).join(name)
    }

    /// Opens an object of the cache, a block or a whole file, and protects it from eviction while the result lives.
    /// Does not check its content.
    ///
    /// # Errors
    /// `NotFound` if it does not exist, or is being evicted; otherwise the error of the operating system.
    pub fn hold(&self, object: &Path) -> io::Result<HeldObject> {
        HeldObject::open(object)
    }

    /// Tells whether objects may be added now. If not, eviction is in progress, or other files fill the disk.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.room.has_room()
    }

    /// Records that an object of this size was added, and starts eviction if little room is left.
    pub fn note_written(&self, bytes: u64) {
        self.room.note(bytes);
    }

    /// Reports a failure to add an object. Returns `true` if the disk was full and room was made: retry once.
    pub fn note_unwritten(&self, error: &io::Error, wanted_bytes: u64) -> bool {
        if is_full(error) {
            if self.room.make_room(wanted_bytes) {
                return true;
            }
            self.room.stop_writing();
        }
        if self.room.should_log() {
            tracing::warn!(%error, cache = %self.root.display(), "block not cached, served from memory");
        }
        false
    }

    /// Tells whether this process has checked the block before.
    pub(crate) fn knows(&self, key: &BlockKey) -> bool {
        self.checked.knows(key)
    }

    /// Fills `buf` from a block that this process has checked before. `false` if it has not, if the file has changed
    /// since, or if the length of the block is not `len`.
    pub(crate) fn read_checked(&self, key: &BlockKey, len: usize, offset: u64, buf: &mut [u8]) -> bool {
        if !self.checked.knows(key) {
            return false;
        }
        let read = self.open_file(key).and_then(|(file, stamp, found)| {
            let Match::Checked { is_use_due } = self.checked.look(key, stamp) else { return Ok(false) };
            if found != len as u64 {
                return Ok(false);
            }
            file.read_exact_at(buf, offset)?;
            if is_use_due {
                note_use(&file);
            }
            Ok(true)
        });
        read.unwrap_or(false)
    }

    /// Reads a whole block and checks it. `None` if it is missing or its content does not match: fetch it again.
    pub(crate) fn load(&self, key: &BlockKey, len: usize) -> Option<Vec<u8>> {
        match self.read_and_check(key, len) {
            Ok(plain) => Some(plain),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.checked.forget(key);
                tracing::warn!(block = %key, %error, "cached block damaged, fetched again");
                None
            }
        }
    }

    /// Gets a block that [`BlockCache::load`] did not find: with `fetch`, which should [`BlockCache::keep`] it, or from
    /// the cache if another process has fetched it meanwhile.
    pub(crate) fn load_or<T>(
        &self,
        key: &BlockKey,
        len: usize,
        found: impl FnOnce(Vec<u8>) -> T,
        fetch: impl FnOnce() -> T,
    ) -> T {
        let _turn = match self.turns.ask(key) {
            Asked::Taken(turn) => Some(turn),
            Asked::Unknown => None,
            Asked::Waited(turn) => match self.load(key, len) {
                Some(plain) => return found(plain),
                None => turn,
            },
        };
        fetch()
    }

    fn read_and_check(&self, key: &BlockKey, len: usize) -> io::Result<Vec<u8>> {
        let (file, stamp, found) = self.open_file(key)?;
        let mut plain = Vec::with_capacity(len);
        if found == len as u64 {
            (&file).take(BLOCK_SIZE as u64).read_to_end(&mut plain)?;
        }
        if plain.len() != len || key.rehash(&plain) != *key {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        note_use(&file);
        self.checked.remember(key, stamp);
        Ok(plain)
    }

    /// Stores a checked block. A failure is logged at most once a minute and not returned: the caller has the block in
    /// memory.
    pub(crate) fn keep(&self, key: &BlockKey, plain: &[u8]) {
        if !self.room.has_room() {
            return;
        }
        let mut written = self.write(key, plain);
        if let Err(error) = &written
            && self.note_unwritten(error, plain.len() as u64)
        {
            written = self.write(key, plain);
            if let Err(error) = &written
                && is_full(error)
            {
                self.room.stop_writing();
            }
        }
        if let Ok((stamp, bytes)) = written {
            self.checked.remember(key, stamp);
            self.room.note(bytes);
        }
    }

    fn write(&self, key: &BlockKey, plain: &[u8]) -> io::Result<(Stamp, u64)> {
        let path = self.path_of(key);
        let folder = path.parent().unwrap_or(&self.root);
        let mut temp = match TempFile::create_in(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(folder)?;
                TempFile::create_in(folder)?
            }
            other => other?,
        };
        temp.file().write_all(plain)?;
        let metadata = temp.file().metadata()?;
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            move_aside(&path)?;
        }
        temp.rename(&path)?;
        Ok((self.checked.stamp(&metadata), scan::charge(&metadata)))
    }

    /// Opens the file of a block; returns it with its stamp and its length.
    fn open_file(&self, key: &BlockKey) -> io::Result<(File, Stamp, u64)> {
        let file = hold::open(&self.path_of(key))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let stamp = self.checked.stamp(&metadata);
        Ok((file, stamp, metadata.len()))
    }
}

/// Moves a foreign directory out of the path of a block. Its content is not the cache's, so it is not removed.
fn move_aside(folder: &Path) -> io::Result<()> {
    fs::remove_dir(folder).or_else(|_not_empty| fs::rename(folder, folder.with_extension("aside")))
}

/// Tells whether the disk, or its quota, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a checked block and each part of that read; prints what they cost. As a measurement, alone, on an idle machine:
    /// `cargo test --release -p contd-flist --lib -- --nocapture a_hit`.
    #[test]
    fn each_part_of_a_hit_succeeds_again_and_again() {
        const ROUNDS: u32 = if cfg!(debug_assertions) { 10 } else { 20_000 };
        let dir = tempfile::tempdir().unwrap();
        let cache = BlockCache::open(dir.path()).unwrap();
        let plain = vec![0x5a; BLOCK_SIZE];
        let key = crate::block::key_of(&plain);
        cache.keep(&key, &plain);
        let file = File::open(cache.path_of(&key)).unwrap();
        let measure = |what: &str, mut work: Box<dyn FnMut() + '_>| {
            let begin = crate::clock::now();
            (0..ROUNDS).for_each(|_| work());
            println!("{what:<44} {:>8.2} µs", begin.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
        };
        for len in [4096, 128 << 10, BLOCK_SIZE] {
            let (mut one, mut other) = (vec![0; len], vec![0; len]);
            measure(&format!("{len} bytes: pread alone"), Box::new(|| file.read_exact_at(&mut one, 0).unwrap()));
            let read = || assert!(cache.read_checked(&key, BLOCK_SIZE, 0, &mut other));
            measure(&format!("{len} bytes: read_checked"), Box::new(read));
        }
        measure("fstat of an open file", Box::new(|| assert!(file.metadata().is_ok())));
        measure("open and close", Box::new(|| drop(hold::open(&cache.path_of(&key)).unwrap())));
        measure("the path", Box::new(|| drop(cache.path_of(&key))));
        measure("load: open, read, hash", Box::new(|| assert!(cache.load(&key, BLOCK_SIZE).is_some())));
    }
}
