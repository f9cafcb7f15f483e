//! Checks that every block of a flist can be had and is what the flist says: id, key and length.

use std::convert::Infallible;
use std::num::NonZeroUsize;

use crate::content::ReadError;
use crate::hash::BlockId;
use crate::metadata::Flist;
use crate::sweep::{BlockProgress, BlockSource, Sweep};

/// The most files that are named for one bad block: a block of zeros may belong to a million.
pub const MAX_FILES_NAMED: usize = 100;

/// A block that could not be had, or is another than the flist says.
#[derive(Debug)]
pub struct BadBlock {
    /// Its name in the stores.
    pub id: BlockId,
    /// Why it is bad.
    pub reason: ReadError,
    /// The inodes of the files that it belongs to, each once, at most [`MAX_FILES_NAMED`].
    pub files: Vec<u64>,
    /// How many files it belongs to.
    pub file_count: usize,
}

/// What [`verify`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyReport {
    /// Distinct blocks.
    pub blocks: u64,
    /// Those of them that are bad.
    pub bad_blocks: u64,
    /// Bytes of the good ones.
    pub good_bytes: u64,
}

/// Fetches every distinct block once. `bad` hears of each bad one and `progress` of each step, both on this thread.
///
/// Goes on after a bad block, so that one run finds them all.
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
