//! Whole files in the cache, for kernel passthrough: one file that has the content of a file of the flist and nothing else.
//!
//! ```text
//! one block     <cache>/blocks/xx/<key>      the block itself: no second copy
//! more blocks   <cache>/files/xx/<name>      copied together; the name is the hash of the keys and the size
//! ```
//!
//! Like a block, such a file counts only after this process has hashed it, block by block; a damaged one, or one of
//! another length, is made again. Whoever gets one gets it with a shared `flock`, which lasts as long as any copy of the descriptor, the
//! kernel's too: what is in use is not evicted.

use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Content, Plain, ReadError};
use crate::atomic::TempFile;
use crate::block::BLOCK_SIZE;
use crate::hash::{BlockRef, finish, hasher, hex};
use crate::metadata::Inode;

/// Files up to this size are brought whole when they are first opened: programs and their libraries, which are read
/// nearly whole anyway, and whose first way of being served lasts as long as a process has them open. 16 blocks.
pub const MAX_EAGER_BYTES: u64 = 16 * BLOCK_SIZE as u64;

/// Files above this size stay in blocks: a second copy would push too much else out of the cache.
pub const MAX_WHOLE_BYTES: u64 = 1024 * 1024 * 1024;

/// How many checked files are remembered, in 4 MiB. Beyond it all are checked again.
const MAX_REMEMBERED: usize = 1 << 16;

/// The folder of files that are copied together, below the root of the cache.
const FOLDER: &str = "files";

/// The files that this process has checked.
#[derive(Debug, Default)]
pub(super) struct WholeFiles {
    checked: Mutex<HashMap<ShortName, Stamp>>,
}

/// What a file must hold: the key of its one block, or the hash of its keys and its size.
type Name = [u8; 32];

/// Half of it, to find it by: the whole name was compared when the file was checked, and is where its path leads.
type ShortName = [u8; 16];

fn short(name: &Name) -> ShortName {
    let (half, _) = name.split_first_chunk().unwrap_or((&[0; 16], &[]));
    *half
}

/// What a checked file of the right length looked like. A file that looks otherwise is checked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    /// In nanoseconds.
    mtime: i64,
}

impl Stamp {
    /// `None` for what cannot be the file: of another kind or length.
    fn of(metadata: &Metadata, len: u64) -> Option<Self> {
        // An evictor that was faster than the lock leaves no link.
        let fits = metadata.is_file() && metadata.nlink() > 0 && metadata.len() == len;
        let mtime = metadata.mtime().wrapping_mul(1_000_000_000).wrapping_add(metadata.mtime_nsec());
        fits.then(|| Self { inode: metadata.ino(), mtime })
    }
}

/// How much work may be done for a whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// None: only a file that this process has checked before. Never slow.
    Look,
    /// Hash and copy what is in the cache. Takes a second per GiB; downloads nothing.
    Assemble,
    /// Download what is missing, for files of up to [`MAX_EAGER_BYTES`]; above that as [`Effort::Assemble`].
    Fetch,
}

impl WholeFiles {
    fn is_checked(&self, name: &Name, stamp: Stamp) -> bool {
        self.checked().get(&short(name)) == Some(&stamp)
    }

    fn remember(&self, name: Name, stamp: Stamp) {
        let mut checked = self.checked();
        if checked.len() >= MAX_REMEMBERED {
            checked.clear();
        }
        checked.insert(short(&name), stamp);
    }

    fn checked(&self) -> MutexGuard<'_, HashMap<ShortName, Stamp>> {
        // A panic between two plain map operations leaves the map whole.
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    /// Opens one file that has the whole content of a file, checked, locked against eviction, fit for passthrough.
    ///
    /// `None` if there is none and the effort does not reach to make one: read by blocks then.
    ///
    /// # Errors
    /// As [`Content::read_at`]; trouble with the cache is no error but `None`.
    pub fn open_whole(&self, ino: u64, effort: Effort) -> Result<Option<File>, ReadError> {
        let file = self.file(ino)?;
        let blocks = self.flist.blocks(ino);
        let (name, path) = match blocks {
            [] => return Ok(None),
            [block] => (block.key.widened(), self.cache.path_of(&block.key)),
            _ if file.size() > MAX_WHOLE_BYTES => return Ok(None),
            blocks => {
                let name = name_of(blocks, file.size());
                (name, self.assembled_path(&name))
            }
        };
        let opened = open_locked(&path, file.size());
        match opened {
            Some((opened, stamp)) if self.whole.is_checked(&name, stamp) => return Ok(Some(opened)),
            _ if effort == Effort::Look => return Ok(None),
            Some((opened, stamp)) if holds(&opened, blocks, file.size()) => {
                self.whole.remember(name, stamp);
                return Ok(Some(opened));
            }
            Some(_damaged) => {
                tracing::warn!(file = %path.display(), "a file in the cache is damaged, making it again");
                // If it cannot be removed it cannot be replaced either, and is found damaged again.
                let _told_later = fs::remove_file(&path);
            }
            None => {}
        }
        if !self.make(file, &path, effort)? {
            return Ok(None);
        }
        // What was made was checked block by block on its way into the file that is opened here.
        let Some((opened, stamp)) = open_locked(&path, file.size()) else { return Ok(None) };
        self.whole.remember(name, stamp);
        Ok(Some(opened))
    }

    /// Makes the file if the effort reaches. A single block's file is the cache's own work.
    fn make(&self, file: Inode<'_>, path: &Path, effort: Effort) -> Result<bool, ReadError> {
        let fetches = effort == Effort::Fetch && file.size() <= MAX_EAGER_BYTES;
        match self.flist.blocks(file.ino()) {
            [_] if fetches => self.load(self.place(file, 0)?).map(|_plain| true),
            [_] => Ok(false),
            blocks if fetches || self.has_all(file, blocks) => self.assemble(file, path, fetches),
            _ => Ok(false),
        }
    }

    fn assembled_path(&self, name: &Name) -> PathBuf {
        let hex = hex(name);
        self.cache.root().join(FOLDER).join(hex.get(..2).unwrap_or_default()).join(&hex)
    }

    /// Looks whether all blocks lie in the cache, by their length only: they are hashed when they are copied.
    fn has_all(&self, file: Inode<'_>, blocks: &[BlockRef]) -> bool {
        (0_u64..).zip(blocks).all(|(index, block)| {
            let len = self.place(file, index).map(|place| place.len as u64).ok();
            let found = fs::symlink_metadata(self.cache.path_of(&block.key)).map(|metadata| metadata.len()).ok();
            len.is_some() && found == len
        })
    }

    /// Copies the blocks together. Each is checked on its way: by the cache, or by the store's fetch.
    fn assemble(&self, file: Inode<'_>, path: &Path, fetches: bool) -> Result<bool, ReadError> {
        if !self.cache.has_room() {
            return Ok(false);
        }
        let folder = path.parent().unwrap_or(path);
        let temp = fs::create_dir_all(folder).and_then(|()| TempFile::create_in(folder));
        let Some(mut temp) = self.kept(temp) else { return Ok(false) };
        let count = self.flist.blocks(file.ino()).len() as u64;
        for index in 0..count {
            let place = self.place(file, index)?;
            let key = &place.block.key;
            let here = self.recent.get(key).or_else(|| self.cache.load(key, place.len).map(Plain::new));
            let plain = match here.filter(|plain| plain.len() == place.len) {
                Some(plain) => plain,
                None if fetches => self.load(place)?,
                None => return Ok(false),
            };
            if self.kept(temp.file().write_all(&plain)).is_none() {
                return Ok(false);
            }
        }
        let is_there = self.kept(temp.rename(path)).is_some();
        if is_there {
            self.cache.note_written(file.size());
        }
        Ok(is_there)
    }

    /// Tells once that the cache cannot be written.
    fn kept<T>(&self, result: io::Result<T>) -> Option<T> {
        result
            .inspect_err(|error| {
                // It tells, and sees to it that there is room for the next one.
                let _worth_another_try = self.cache.note_unwritten(error, MAX_EAGER_BYTES);
            })
            .ok()
    }
}

fn name_of(blocks: &[BlockRef], size: u64) -> Name {
    let mut state = hasher();
    for block in blocks {
        state.update(block.key.as_bytes());
    }
    state.update(&size.to_le_bytes());
    finish(&state)
}

/// Opens a file of the cache and takes its shared lock; `None` if it is not there, of another length, or just being
/// evicted.
fn open_locked(path: &Path, len: u64) -> Option<(File, Stamp)> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    file.try_lock_shared().ok()?;
    let metadata = file.metadata().ok()?;
    let stamp = Stamp::of(&metadata, len)?;
    crate::cache::note_use_if_due(&file, &metadata);
    Some((file, stamp))
}

/// Hashes a whole file, block by block.
fn holds(file: &File, blocks: &[BlockRef], size: u64) -> bool {
    let mut buffer = vec![0; BLOCK_SIZE];
    let mut start = 0;
    blocks.iter().all(|block| {
        let len = usize::try_from(size - start).unwrap_or(usize::MAX).min(BLOCK_SIZE);
        let part = buffer.get_mut(..len).unwrap_or_default();
        let is_true = file.read_exact_at(part, start).is_ok() && block.key.again(part) == block.key;
        start += len as u64;
        is_true
    })
}
