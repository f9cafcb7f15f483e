//! Checks that every block of a flist is available and matches the flist: id, key and length.

use std::convert::Infallible;
use std::num::NonZeroUsize;

use crate::content::ReadError;
use crate::hash::BlockId;
use crate::metadata::Flist;
use crate::sweep::{BlockProgress, BlockSource, Sweep};

/// The most files that are listed for one bad block: a block of zeros may belong to a million.
pub const MAX_FILES_NAMED: usize = 100;

/// A block that could not be fetched, or does not match the flist.
#[derive(Debug)]
pub struct BadBlock {
    /// Its name in the stores.
    pub id: BlockId,
    /// The failure of the fetch or of the check.
    pub reason: ReadError,
    /// The inodes of the files with this block, each once, at most [`MAX_FILES_NAMED`].
    pub files: Vec<u64>,
    /// The number of files with this block.
    pub file_count: usize,
}

/// The result of [`verify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyReport {
    /// The number of distinct blocks.
    pub blocks: u64,
    /// The number of bad blocks among them.
    pub bad_blocks: u64,
    /// The plain bytes of the good blocks.
    pub good_bytes: u64,
}

/// Fetches and checks every distinct block once. Calls `bad` for each bad block and `progress` after each block, both on
/// the calling thread. Continues after a bad block, so that one run finds all.
pub fn verify(
    flist: &Flist,
    source: BlockSource<'_>,
    jobs: Option<NonZeroUsize>,
    bad: &mut dyn FnMut(BadBlock),
    progress: &dyn Fn(BlockProgress),
) -> VerifyReport {
    let sweep = Sweep::of(flist);
    let total_bytes = sweep.groups(flist).map(|group| group.len as u64).sum();
    let mut report = VerifyReport { blocks: sweep.len() as u64, bad_blocks: 0, good_bytes: 0 };
    let mut done_bytes = 0;
    progress(BlockProgress { done_bytes, total_bytes });
    let never_fails = sweep.run(
        flist,
        jobs,
        |group| group.fetch(source).map(drop),
        |group, result| {
            match result {
                Ok(()) => report.good_bytes += group.len as u64,
                Err(reason) => {
                    report.bad_blocks += 1;
                    let mut files = group.places.iter().map(|place| place.ino).collect::<Vec<_>>();
                    files.dedup();
                    let file_count = files.len();
                    files.truncate(MAX_FILES_NAMED);
                    bad(BadBlock { id: group.block.id, reason, files, file_count });
                }
            }
            done_bytes += group.len as u64;
            progress(BlockProgress { done_bytes, total_bytes });
            Ok::<(), Infallible>(())
        },
    );
    match never_fails {
        Ok(()) => report,
    }
}
