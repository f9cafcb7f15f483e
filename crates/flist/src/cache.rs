//! Blocks on the local disk, in plain text under the hash of it: `<root>/blocks/<2 hex>/<64 hex of the key>`,
//! or 32 hex of a block of a legacy flist.
//!
//! The name says what the content must be, so the cache needs no index and cannot be wrong for long: a file counts only
//! after its length and hash were checked by this process; a damaged one is replaced. Files appear by rename, so several
//! processes can share one cache. A cache that cannot be written makes reading slower, never wrong.
//!
//! Blocks are not synced: what a power loss tears, the check finds. A sync for each made a cold read of 8,000 small
//! files take 9.0 s instead of 0.74.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::atomic::TempFile;
use crate::block::BLOCK_SIZE;
use crate::error::FlistErrorKind;
use crate::hash::BlockKey;

/// How many checked blocks are remembered: 500 GiB of cache in 80 MiB of memory. Beyond it all are checked again.
const MAX_REMEMBERED: usize = 1 << 20;

/// Why a cache could not be opened. Later trouble is no error: blocks are then served from memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The folder could not be made.
    #[error("create block cache {}", path.display())]
    Create {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl CacheError {
    /// Says what to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        "check the permissions and the free space of the cache directory"
    }

    /// Says what sort of trouble it is.
    #[must_use]
    pub fn kind(&self) -> FlistErrorKind {
        FlistErrorKind::Io
    }
}

/// The block cache of a node. `Send + Sync`, shared by all flists.
#[derive(Debug)]
pub struct BlockCache {
    folder: PathBuf,
    checked: Mutex<HashMap<BlockKey, Stamp>>,
    write_failure_told: AtomicBool,
}

/// What a checked file looked like. A file that looks otherwise is checked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    mtime: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { inode: metadata.ino(), len: metadata.len(), mtime: (metadata.mtime(), metadata.mtime_nsec()) })
    }
}

impl BlockCache {
    /// Opens the cache below `cache_root`, and makes its folder if it is not there.
    ///
    /// # Errors
    /// [`CacheError::Create`] if the folder cannot be made.
    pub fn open(cache_root: &Path) -> Result<Self, CacheError> {
        let folder = cache_root.join("blocks");
        fs::create_dir_all(&folder).map_err(|source| CacheError::Create { path: folder.clone(), source })?;
        Ok(Self { folder, checked: Mutex::default(), write_failure_told: AtomicBool::new(false) })
    }

    /// Gives the root of the cache, which has other things beside blocks.
    pub(crate) fn root(&self) -> &Path {
        self.folder.parent().unwrap_or(&self.folder)
    }

    /// Says where a block is, or would be. The file of a one-block file is that file: fit for passthrough once checked.
    #[must_use]
    pub fn path_of(&self, key: &BlockKey) -> PathBuf {
        self.folder.join(key.shard()).join(key.to_hex())
    }

    /// Fills `buf` from a block that this process has checked before. `false` if it has not, if the file has changed
    /// since, or if the block has another length than `len`.
    pub(crate) fn read_checked(&self, key: &BlockKey, len: usize, offset: u64, buf: &mut [u8]) -> bool {
        let known = self.checked().get(key).copied();
        let Some(known) = known.filter(|known| known.len == len as u64) else { return false };
        let read = self.open_file(key).and_then(|file| {
            if Stamp::of(&file)? != known {
                return Ok(false);
            }
            file.read_exact_at(buf, offset).map(|()| true)
        });
        read.unwrap_or(false)
    }

    /// Reads a whole block and checks it. `None` if it is not there or not what its name says: fetch it again.
    pub(crate) fn load(&self, key: &BlockKey, len: usize) -> Option<Vec<u8>> {
        match self.read_and_check(key, len) {
            Ok(plain) => Some(plain),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.checked().remove(key);
                tracing::warn!(block = %key, %error, "a cached block is damaged, fetching it again");
                None
            }
        }
    }

    fn read_and_check(&self, key: &BlockKey, len: usize) -> io::Result<Vec<u8>> {
        let file = self.open_file(key)?;
        let stamp = Stamp::of(&file)?;
        let mut plain = Vec::with_capacity(len);
        if stamp.len == len as u64 {
            (&file).take(BLOCK_SIZE as u64).read_to_end(&mut plain)?;
        }
        if plain.len() != len || key.again(&plain) != *key {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        self.remember(*key, stamp);
        Ok(plain)
    }

    /// Keeps a block whose plain text was checked. A failure is told once and is no error: the caller has the block.
    pub(crate) fn keep(&self, key: &BlockKey, plain: &[u8]) {
        match self.write(key, plain) {
            Ok(stamp) => self.remember(*key, stamp),
            Err(error) if !self.write_failure_told.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, cache = %self.folder.display(), "blocks cannot be cached, serving from memory");
            }
            Err(_told_before) => {}
        }
    }

    fn write(&self, key: &BlockKey, plain: &[u8]) -> io::Result<Stamp> {
        let path = self.path_of(key);
        let folder = path.parent().unwrap_or(&self.folder);
        let mut temp = match TempFile::create_in(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(folder)?;
                TempFile::create_in(folder)?
            }
            other => other?,
        };
        temp.file().write_all(plain)?;
        let stamp = Stamp::of(temp.file())?;
        temp.rename(&path)?;
        Ok(stamp)
    }

    fn open_file(&self, key: &BlockKey) -> io::Result<File> {
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        OpenOptions::new().read(true).custom_flags(flags).open(self.path_of(key))
    }

    fn remember(&self, key: BlockKey, stamp: Stamp) {
        let mut checked = self.checked();
        if checked.len() >= MAX_REMEMBERED {
            checked.clear();
        }
        checked.insert(key, stamp);
    }

    fn checked(&self) -> std::sync::MutexGuard<'_, HashMap<BlockKey, Stamp>> {
        // A panic between two plain map operations leaves the map whole.
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
