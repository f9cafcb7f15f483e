//! Whole files in the cache, for kernel passthrough: each holds exactly the content of one file of the flist.
//!
//! ```text
//! one block     <cache>/blocks/xx/<key>      the block itself: no second copy
//! more blocks   <cache>/files/xx/<name>      copied together; the name is the hash of the keys and the size
//! ```
//!
//! Like a block, such a file is used only after this process has hashed it, block by block; a damaged one, or one of
//! another length, is made again. It is opened with a shared `flock`, which lasts as long as any copy of the descriptor,
//! the kernel's included, so a file in use is not evicted.

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

/// The largest file that is cached whole when it is first opened. Programs and libraries are read nearly whole anyway, and
/// the way a file is first served lasts as long as a process has it open. 16 blocks.
pub const MAX_EAGER_BYTES: u64 = 16 * BLOCK_SIZE as u64;

/// The largest file that is cached whole: a larger second copy would evict too much else.
pub const MAX_WHOLE_BYTES: u64 = 1024 * 1024 * 1024;

/// The most checked files remembered, in 4 MiB. Above it all are forgotten and checked again.
const MAX_REMEMBERED: usize = 1 << 16;

/// The directory of assembled files, below the root of the cache.
const FOLDER: &str = "files";

/// The files that this process has checked.
#[derive(Debug, Default)]
pub(super) struct WholeFiles {
    checked: Mutex<HashMap<ShortName, Stamp>>,
}

/// The name of a whole file: the key of its only block, or the hash of its keys and its size.
type Name = [u8; 32];

/// The first half of a name, as a key: the whole name was compared when the file was checked, and is part of its path.
type ShortName = [u8; 16];

fn short(name: &Name) -> ShortName {
    let (half, _) = name.split_first_chunk().unwrap_or((&[0; 16], &[]));
    *half
}

/// The identity of a checked file of the right length. A file with another identity is checked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    /// The modification time in nanoseconds.
    mtime: i64,
}

impl Stamp {
    /// Returns the stamp of a file; `None` for another kind or length.
    fn of(metadata: &Metadata, len: u64) -> Option<Self> {
        // A file without links was evicted before it was locked.
        let fits = metadata.is_file() && metadata.nlink() > 0 && metadata.len() == len;
        let mtime = metadata.mtime().wrapping_mul(1_000_000_000).wrapping_add(metadata.mtime_nsec());
        fits.then(|| Self { inode: metadata.ino(), mtime })
    }
}

/// The work that may be done to open a whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// No work: only opens a file that this process has checked before. Never slow.
    Look,
    /// Hashes and copies blocks of the cache. Takes a second per GiB; downloads nothing.
    Assemble,
    /// Downloads missing blocks, for files of up to [`MAX_EAGER_BYTES`]; larger files as with [`Effort::Assemble`].
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
    /// Opens one file with the whole content of an inode, checked and locked against eviction, for passthrough.
    ///
    /// `None` if there is none and the effort does not suffice to make one: read by blocks then.
    ///
    /// # Errors
    /// As [`Content::read_at`]; trouble with the cache gives `None`.
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
                tracing::warn!(file = %path.display(), "cached file damaged, made again");
                // If it cannot be removed, it cannot be replaced either, and is found damaged again.
                let _told_later = fs::remove_file(&path);
            }
            None => {}
        }
        if !self.make(file, &path, effort)? {
            return Ok(None);
        }
        // The file opened here was checked block by block while it was written.
        let Some((opened, stamp)) = open_locked(&path, file.size()) else { return Ok(None) };
        self.whole.remember(name, stamp);
        Ok(Some(opened))
    }

    /// Makes the file if the effort suffices. For a file of one block, the cache stores the block.
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

    /// Tells whether all blocks are in the cache, by length only: they are hashed when they are copied.
    fn has_all(&self, file: Inode<'_>, blocks: &[BlockRef]) -> bool {
        (0_u64..).zip(blocks).all(|(index, block)| {
            let len = self.place(file, index).map(|place| place.len as u64).ok();
            let found = fs::symlink_metadata(self.cache.path_of(&block.key)).map(|metadata| metadata.len()).ok();
            len.is_some() && found == len
        })
    }

    /// Assembles the file. Each block is checked when it is loaded, by the cache or by the fetch from a store.
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

    /// Turns a failure to write the cache into `None`, and logs it once.
    fn kept<T>(&self, result: io::Result<T>) -> Option<T> {
        result
            .inspect_err(|error| {
                // The cache logs the failure and makes room for the next write.
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

/// Opens a file of the cache and takes its shared lock; `None` if it does not exist, has another length, or is being
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

/// Hashes a whole file, block by block, and compares the keys.
fn holds(file: &File, blocks: &[BlockRef], size: u64) -> bool {
    let mut buffer = vec![0; BLOCK_SIZE];
    let mut start = 0;
    blocks.iter().all(|block| {
        let len = usize::try_from(size - start).unwrap_or(usize::MAX).min(BLOCK_SIZE);
        let part = buffer.get_mut(..len).unwrap_or_default();
        let is_true = file.read_exact_at(part, start).is_ok() && block.key.rehash(part) == block.key;
        start += len as u64;
        is_true
    })
}
