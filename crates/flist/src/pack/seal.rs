//! Reads, seals and stores the content of all files on several threads. The unit of work is a block, so that one large
//! file keeps all threads busy. Results are placed by number, so the order of the threads does not matter.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use super::tree::{DiskFile, Entry, FileContent, Tree};
use super::{PackError, PackProgress, Target};
use crate::block::{self, BLOCK_SIZE, Sealer};
use crate::hash::{BlockId, BlockKey, BlockRef};
use crate::metadata::blocks_for;

/// The most results that wait for the collecting thread: enough to keep all workers busy.
const MAX_WAITING_RESULTS: usize = 256;

/// One block of one file.
#[derive(Debug, Clone, Copy)]
struct Job {
    /// The position of the file in the tree.
    entry: usize,
    /// The index of the block in its file, from 0.
    index: u64,
}

/// Seals all blocks, and returns those of each entry in order; other kinds than files have none.
pub(super) fn seal_all(
    tree: &Tree,
    targets: &[Target],
    workers: NonZeroUsize,
    progress: &dyn Fn(PackProgress),
) -> Result<Vec<Vec<BlockRef>>, PackError> {
    let mut jobs = Vec::new();
    for (position, (_, entry)) in tree.entries.iter().enumerate() {
        let len = entry.content().map_or(0, FileContent::len);
        jobs.extend((0..blocks_for(len)).map(|index| Job { entry: position, index }));
    }
    let shared = Shared { tree, targets, jobs: &jobs, next: AtomicUsize::new(0), stored: Mutex::default() };
    let mut sealed: Vec<Option<BlockRef>> = vec![None; jobs.len()];
    thread::scope(|scope| {
        let (sender, results) = mpsc::sync_channel(MAX_WAITING_RESULTS);
        for _ in 0..workers.get().min(jobs.len().max(1)) {
            let (sender, shared) = (sender.clone(), &shared);
            scope.spawn(move || shared.work(&sender));
        }
        drop(sender);
        collect(&results, tree.content_bytes, &mut sealed, progress)
        // On an error the receiver is dropped here, so the workers' next send fails and they end.
    })?;
    in_order(tree, &jobs, &sealed)
}

/// The report of a worker: the number of the job, its block, and the bytes that the block covers.
type Sealed = Result<(usize, BlockRef, u64), PackError>;

fn collect(
    results: &mpsc::Receiver<Sealed>,
    total_bytes: u64,
    sealed: &mut [Option<BlockRef>],
    progress: &dyn Fn(PackProgress),
) -> Result<(), PackError> {
    let mut done_bytes = 0;
    progress(PackProgress { done_bytes, total_bytes });
    for result in results {
        let (job, block, bytes) = result?;
        if let Some(slot) = sealed.get_mut(job) {
            *slot = Some(block);
        }
        done_bytes += bytes;
        progress(PackProgress { done_bytes, total_bytes });
    }
    Ok(())
}

fn in_order(tree: &Tree, jobs: &[Job], sealed: &[Option<BlockRef>]) -> Result<Vec<Vec<BlockRef>>, PackError> {
    let mut blocks = vec![Vec::new(); tree.entries.len()];
    for (job, block) in jobs.iter().zip(sealed) {
        let (Some(of_file), Some(block)) = (blocks.get_mut(job.entry), block) else {
            let path = tree.entries.get(job.entry).map(|(_, entry)| entry.shown_path()).unwrap_or_default();
            return Err(PackError::WorkerLost { path });
        };
        of_file.push(*block);
    }
    Ok(blocks)
}

/// State shared by the workers.
struct Shared<'a> {
    tree: &'a Tree,
    targets: &'a [Target],
    jobs: &'a [Job],
    next: AtomicUsize,
    /// Blocks that this run has stored or is storing: equal blocks are sealed and stored once.
    stored: Mutex<HashMap<BlockKey, BlockId>>,
}

impl Shared<'_> {
    fn work(&self, results: &mpsc::SyncSender<Sealed>) {
        let (mut plain, mut sealer) = (Vec::with_capacity(BLOCK_SIZE), Sealer::new());
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = self.jobs.get(number) else { return };
            let Some((_, entry)) = self.tree.entries.get(job.entry) else { return };
            let sealed = self.seal(entry, job.index, &mut plain, &mut sealer);
            let failed = sealed.is_err();
            let report = sealed.map(|block| (number, block, plain.len() as u64));
            // The receiver is gone once another worker has failed.
            if results.send(report).is_err() || failed {
                return;
            }
        }
    }

    fn seal(&self, entry: &Entry, index: u64, plain: &mut Vec<u8>, sealer: &mut Sealer) -> Result<BlockRef, PackError> {
        read(entry, index, plain)?;
        let key = block::key_of(plain);
        if let Some(id) = self.stored().get(&key) {
            return Ok(BlockRef { id: *id, key });
        }
        let names = sealer.seal(plain, key).map_err(|source| PackError::Seal { path: entry.shown_path(), source })?;
        let id = names.id;
        // Another worker may have sealed the same content meanwhile.
        if self.stored().insert(key, id).is_none() {
            for target in self.targets.iter().filter(|target| target.range.covers(&id)) {
                target.store.put(&id, sealer.stored()).map_err(|source| PackError::Store { source })?;
            }
        }
        Ok(names)
    }

    fn stored(&self) -> MutexGuard<'_, HashMap<BlockKey, BlockId>> {
        // A panic between two plain map operations leaves the map whole.
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads one block of an entry.
fn read(entry: &Entry, index: u64, plain: &mut Vec<u8>) -> Result<(), PackError> {
    let start = index.saturating_mul(BLOCK_SIZE as u64);
    let Some(content) = entry.content() else {
        plain.clear();
        return Ok(());
    };
    let len = usize::try_from(content.len().saturating_sub(start)).unwrap_or(usize::MAX).min(BLOCK_SIZE);
    plain.resize(len, 0);
    match content {
        FileContent::Disk(file) => read_disk(file, start, plain),
        FileContent::Part { file, offset, .. } => {
            read_exact(file, offset.saturating_add(start), plain, &entry.shown_path())
        }
        FileContent::Bytes(bytes) => {
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            let bytes = bytes.get(start..).and_then(|rest| rest.get(..len)).unwrap_or_default();
            plain.clear();
            plain.extend_from_slice(bytes);
            Ok(())
        }
    }
}

/// Reads a block of a file on disk. The file is opened for each block: one descriptor per file would limit the tree.
fn read_disk(expected: &DiskFile, start: u64, plain: &mut [u8]) -> Result<(), PackError> {
    let path = &expected.path;
    let failed = |source| PackError::Walk { path: path.clone(), source };
    // If the path is no longer the file of the walk, neither follow a link nor wait for a pipe.
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    read_exact(&file, start, plain, path)?;
    // Checked after reading, so that a change before or during it shows in length or time.
    let unchanged = expected.is_unchanged(&file.metadata().map_err(failed)?);
    if unchanged { Ok(()) } else { Err(PackError::Changed { path: path.clone() }) }
}

fn read_exact(file: &File, start: u64, plain: &mut [u8], path: &Path) -> Result<(), PackError> {
    file.read_exact_at(plain, start).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => PackError::Changed { path: path.to_owned() },
        _ => PackError::Walk { path: path.to_owned(), source },
    })
}
