//! Visits every distinct block of a flist once, on several threads; used by verifying and unpacking.
//!
//! ```text
//! flist ──plan──> places, grouped by block ──> workers: fetch, verify, act ──> results to the calling thread
//! ```

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use crate::block::BLOCK_SIZE;
use crate::content::{Content, ReadError};
use crate::hash::BlockRef;
use crate::metadata::{FileKind, Flist, Inode};
use crate::store::Routes;

/// The most results that wait for the collecting thread: enough to keep all workers busy.
const MAX_WAITING_RESULTS: usize = 256;

/// The most threads that fetch at once: with more, the store or the network is the bottleneck.
const MAX_JOBS: usize = 64;

/// The source of blocks.
#[derive(Debug, Clone, Copy)]
pub enum BlockSource<'a> {
    /// The stores, without the cache.
    Stores(&'a Routes),
    /// The node's cache; missing blocks come from the stores, and the cache keeps them.
    Cached(&'a Content),
}

/// The progress of a sweep over all blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockProgress {
    /// Bytes of content visited so far.
    pub done_bytes: u64,
    /// Bytes of content in total.
    pub total_bytes: u64,
}

/// One block of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) ino: u64,
    /// The index of the block in its file, from 0.
    pub(crate) index: u32,
}

impl Place {
    /// Returns the offset of the block in its file.
    pub(crate) fn offset(self) -> u64 {
        u64::from(self.index) * BLOCK_SIZE as u64
    }

    fn block(self, flist: &Flist) -> Option<&BlockRef> {
        flist.blocks(self.ino).get(usize::try_from(self.index).ok()?)
    }

    /// Returns the length of the block according to the size of the file.
    fn len(self, flist: &Flist) -> usize {
        let size = flist.inode(self.ino).map_or(0, Inode::size);
        usize::try_from(size.saturating_sub(self.offset())).unwrap_or(usize::MAX).min(BLOCK_SIZE)
    }
}

/// All places of one block, in the order of the flist.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group<'a> {
    pub(crate) block: BlockRef,
    pub(crate) len: usize,
    pub(crate) places: &'a [Place],
}

impl Group<'_> {
    /// Fetches the block and checks its id, its key and its length.
    pub(crate) fn fetch(&self, source: BlockSource<'_>) -> Result<Vec<u8>, ReadError> {
        let Some(&Place { ino, index }) = self.places.first() else { return Ok(Vec::new()) };
        let (index, expected) = (u64::from(index), self.len);
        let plain = match source {
            BlockSource::Stores(routes) => {
                routes.fetch(&self.block).map_err(|source| ReadError::Block { ino, index, source: Arc::new(source) })?
            }
            BlockSource::Cached(content) => {
                let mut plain = vec![0; expected];
                let read = content.read_at(ino, index * BLOCK_SIZE as u64, &mut plain)?;
                plain.truncate(read);
                plain
            }
        };
        let found = plain.len();
        if found == expected { Ok(plain) } else { Err(ReadError::BlockLength { ino, index, found, expected }) }
    }
}

/// The plan of a sweep: 16 bytes for each block of each file, and 8 for each distinct block.
#[derive(Debug)]
pub(crate) struct Sweep {
    places: Vec<Place>,
    /// First place and number of places, in the order in which the flist first names them.
    groups: Vec<(u32, u32)>,
}

impl Sweep {
    /// Groups the blocks of all files. A block with two lengths in the flist makes two groups, and one of them fails.
    pub(crate) fn of(flist: &Flist) -> Self {
        let mut places = Vec::new();
        for file in flist.inodes().filter(|inode| inode.kind() == FileKind::File) {
            places.extend((0_u32..).zip(flist.blocks(file.ino())).map(|(index, _)| Place { ino: file.ino(), index }));
        }
        let name = |place: &Place| (place.block(flist).map(|block| (&block.id, &block.key)), place.len(flist));
        // The sort is stable, so the places of a block stay in the order of the flist.
        places.sort_by(|a, b| name(a).cmp(&name(b)));
        let mut groups = Vec::new();
        let mut start = 0_u32;
        // The limit on blocks keeps all counts far below 4 G.
        for group in places.chunk_by(|a, b| name(a) == name(b)) {
            let len = u32::try_from(group.len()).unwrap_or(u32::MAX);
            groups.push((start, len));
            start = start.saturating_add(len);
        }
        let mut sweep = Self { places, groups };
        let mut groups = std::mem::take(&mut sweep.groups);
        groups.sort_by_key(|group| sweep.places_of(*group).first().map(|place| (place.ino, place.index)));
        sweep.groups = groups;
        sweep
    }

    /// Returns the number of distinct blocks.
    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    fn places_of(&self, (start, len): (u32, u32)) -> &[Place] {
        let (start, len) = (usize::try_from(start).unwrap_or(usize::MAX), usize::try_from(len).unwrap_or(usize::MAX));
        self.places.get(start..start.saturating_add(len)).unwrap_or_default()
    }

    /// Iterates over the groups.
    pub(crate) fn groups<'a>(&'a self, flist: &'a Flist) -> impl Iterator<Item = Group<'a>> {
        (0..self.groups.len()).filter_map(move |number| self.group(flist, number))
    }

    fn group<'a>(&'a self, flist: &'a Flist, number: usize) -> Option<Group<'a>> {
        let places = self.places_of(*self.groups.get(number)?);
        let first = places.first()?;
        Some(Group { block: *first.block(flist)?, len: first.len(flist), places })
    }

    /// Runs `work` for every group on up to `jobs` threads, and passes each result to `take` on the calling thread, in any
    /// order. Ends early when `take` fails.
    pub(crate) fn run<T: Send, E>(
        &self,
        flist: &Flist,
        jobs: Option<NonZeroUsize>,
        work: impl Fn(&Group<'_>) -> T + Sync,
        mut take: impl FnMut(Group<'_>, T) -> Result<(), E>,
    ) -> Result<(), E> {
        let jobs = jobs.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            let (sender, results) = mpsc::sync_channel(MAX_WAITING_RESULTS);
            for _ in 0..jobs.min(MAX_JOBS).min(self.groups.len()) {
                let (sender, next, work) = (sender.clone(), &next, &work);
                scope.spawn(move || {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(group) = self.group(flist, number) else { return };
                        // The receiver is gone once `take` has failed.
                        if sender.send((number, work(&group))).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            for (number, result) in results {
                if let Some(group) = self.group(flist, number) {
                    take(group, result)?;
                }
            }
            Ok(())
        })
    }
}
