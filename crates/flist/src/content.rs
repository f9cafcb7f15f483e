//! Reads the content of files, exact up to the end, or fails. Never returns zeros, too few or another file's bytes.
//!
//! ```text
//! read_at ──> cache, already checked (read in place) ──> recent blocks (memory) ──> flight: one thread per block
//!                                                                                   cache, check it │ else routes
//! ```

mod flight;
mod recent;
mod whole;

use std::sync::Arc;

use crate::block::BLOCK_SIZE;
use crate::cache::BlockCache;
use crate::error::FlistErrorKind;
use crate::hash::BlockRef;
use crate::metadata::{FileKind, Flist, Inode};
use crate::store::{Routes, StoreError};
use flight::Flights;
use recent::Recent;
use whole::WholeFiles;
pub use whole::{Effort, MAX_EAGER_BYTES, MAX_WHOLE_BYTES};

/// A block in memory, shared by the readers that wait for it.
type Plain = Arc<Vec<u8>>;

/// A read failed. In a file system all of these but the first three are `EIO`.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The flist has no such inode.
    #[error("read inode {ino}: not found")]
    NoInode {
        /// The number.
        ino: u64,
    },
    /// The file has no such block.
    #[error("read block {index} of file {ino}: it has fewer")]
    NoBlock {
        /// The file.
        ino: u64,
        /// The block, from 0.
        index: u64,
    },
    /// Only regular files have content.
    #[error("read inode {ino}: it is a {kind:?}")]
    NotAFile {
        /// The number.
        ino: u64,
        /// The kind of the inode.
        kind: FileKind,
    },
    /// The block was neither in the cache nor available from a store.
    #[error("read block {index} of file {ino}")]
    Block {
        /// The file.
        ino: u64,
        /// The block, from 0.
        index: u64,
        /// The error of the stores; shared, since several readers may have waited for it.
        source: Arc<StoreError>,
    },
    /// The block matches its hashes, but its length does not fit the file's size. Using it would shift the bytes after it.
    #[error("read block {index} of file {ino}: it has {found} bytes, not {expected}")]
    BlockLength {
        /// The file.
        ino: u64,
        /// The block, from 0.
        index: u64,
        /// The length of the block.
        found: usize,
        /// The length according to the size of the file.
        expected: usize,
    },
    /// Another thread is fetching the block and did not end within its own deadlines.
    #[error("read block {index} of file {ino}: its fetch by another reader never ended")]
    Stuck {
        /// The file.
        ino: u64,
        /// The block, from 0.
        index: u64,
    },
}

impl ReadError {
    /// Returns the next step for the user.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoInode { .. } | Self::NoBlock { .. } | Self::NotAFile { .. } => {
                "ask for a regular file of this flist"
            }
            Self::Block { source, .. } => source.hint(),
            Self::BlockLength { .. } => "the file changed while the flist was packed: pack it again",
            Self::Stuck { .. } => "check the disk of the cache and the stores, then retry",
        }
    }

    /// Returns the category of the error.
    #[must_use]
    pub fn kind(&self) -> FlistErrorKind {
        match self {
            Self::NoInode { .. } | Self::NoBlock { .. } => FlistErrorKind::NotFound,
            Self::NotAFile { .. } => FlistErrorKind::Invalid,
            Self::Block { source, .. } => source.kind(),
            Self::BlockLength { .. } => FlistErrorKind::Corrupt,
            Self::Stuck { .. } => FlistErrorKind::Unreachable,
        }
    }
}

/// Reads the files of one flist. Any number of threads may read at once.
#[derive(Debug)]
pub struct Content {
    flist: Arc<Flist>,
    routes: Routes,
    cache: Arc<BlockCache>,
    recent: Recent,
    flights: Flights,
    whole: WholeFiles,
}

/// One block of one file.
#[derive(Debug, Clone, Copy)]
struct Place {
    ino: u64,
    index: u64,
    block: BlockRef,
    /// The length according to the size of the file.
    len: usize,
}

impl Content {
    /// Combines a flist, its stores and a cache.
    #[must_use]
    pub fn new(flist: Arc<Flist>, routes: Routes, cache: Arc<BlockCache>) -> Self {
        Self {
            flist,
            routes,
            cache,
            recent: Recent::default(),
            flights: Flights::default(),
            whole: WholeFiles::default(),
        }
    }

    /// Returns the flist.
    #[must_use]
    pub fn flist(&self) -> &Flist {
        &self.flist
    }

    /// Returns the cache.
    #[must_use]
    pub fn cache(&self) -> &BlockCache {
        &self.cache
    }

    /// Fills `buf` from `offset` on, and returns the number of bytes read: less than asked only at the end of the file.
    ///
    /// May download, and so take up to 30 s per block of the range; metadata calls on the [`Flist`] never wait for it.
    ///
    /// # Errors
    /// Some byte of the range could not be fetched or verified. `buf` may be partly written; do not use it.
    pub fn read_at(&self, ino: u64, offset: u64, buf: &mut [u8]) -> Result<usize, ReadError> {
        self.read_by(ino, offset, buf, |place, within, part| match self.read_ready(place, within, part)? {
            true => Ok(true),
            false => copy(place, &self.load(place)?, within, part).map(|()| true),
        })
        .map(Option::unwrap_or_default)
    }

    /// As [`Content::read_at`], but only from memory and checked blocks, without download and hash. `None` if one is missing.
    ///
    /// # Errors
    /// As [`Content::read_at`].
    pub fn read_ready_at(&self, ino: u64, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadError> {
        self.read_by(ino, offset, buf, |place, within, part| self.read_ready(place, within, part))
    }

    /// As [`Content::read_ready_at`], but also hashes unchecked blocks of the cache: a millisecond per block, no download.
    ///
    /// # Errors
    /// As [`Content::read_at`].
    pub fn read_cached_at(&self, ino: u64, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadError> {
        self.read_by(ino, offset, buf, |place, within, part| {
            if self.read_ready(place, within, part)? {
                return Ok(true);
            }
            match self.cache.load(&place.block.key, place.len) {
                Some(plain) => copy(place, &plain, within, part).map(|()| true),
                None => Ok(false),
            }
        })
    }

    /// Calls `read` for each block of a range; `None` as soon as it returns `false`.
    fn read_by(
        &self,
        ino: u64,
        offset: u64,
        buf: &mut [u8],
        read: impl Fn(Place, usize, &mut [u8]) -> Result<bool, ReadError>,
    ) -> Result<Option<usize>, ReadError> {
        let file = self.file(ino)?;
        let left = usize::try_from(file.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = left.min(buf.len());
        let mut rest = buf.get_mut(..wanted).unwrap_or_default();
        let mut position = offset;
        while !rest.is_empty() {
            let place = self.place(file, position / BLOCK_SIZE as u64)?;
            let within = usize::try_from(position % BLOCK_SIZE as u64).unwrap_or(0);
            let (part, remainder) = rest.split_at_mut(rest.len().min(place.len.saturating_sub(within)));
            if !read(place, within, part)? {
                return Ok(None);
            }
            position += part.len() as u64;
            rest = remainder;
        }
        Ok(Some(wanted))
    }

    /// Brings one block into the cache, for read-ahead and before passthrough. Quick if a checked block is there.
    ///
    /// # Errors
    /// As [`Content::read_at`]. A cache that cannot be written is no error: check the file before relying on it.
    pub fn ensure_cached(&self, ino: u64, index: u64) -> Result<(), ReadError> {
        let place = self.place(self.file(ino)?, index)?;
        if self.cache.read_checked(&place.block.key, place.len, 0, &mut []) {
            return Ok(());
        }
        self.load(place).map(drop)
    }

    /// Tells whether a block was checked before, so that reading it is quick unless it was evicted. Makes no system call.
    #[must_use]
    pub fn knows_block(&self, ino: u64, index: usize) -> bool {
        self.flist.blocks(ino).get(index).is_none_or(|block| self.cache.knows(&block.key))
    }

    fn file(&self, ino: u64) -> Result<Inode<'_>, ReadError> {
        let inode = self.flist.inode(ino).ok_or(ReadError::NoInode { ino })?;
        match inode.kind() {
            FileKind::File => Ok(inode),
            kind => Err(ReadError::NotAFile { ino, kind }),
        }
    }

    fn place(&self, file: Inode<'_>, index: u64) -> Result<Place, ReadError> {
        let ino = file.ino();
        let blocks = self.flist.blocks(ino);
        let block = usize::try_from(index).ok().and_then(|index| blocks.get(index)).copied();
        let block = block.ok_or(ReadError::NoBlock { ino, index })?;
        let start = index.saturating_mul(BLOCK_SIZE as u64);
        let len = usize::try_from(file.size().saturating_sub(start)).unwrap_or(usize::MAX).min(BLOCK_SIZE);
        Ok(Place { ino, index, block, len })
    }

    /// Reads from memory or from a block file that was checked before.
    fn read_ready(&self, place: Place, within: usize, part: &mut [u8]) -> Result<bool, ReadError> {
        let key = &place.block.key;
        if self.cache.read_checked(key, place.len, within as u64, part) {
            return Ok(true);
        }
        match self.recent.get(key).filter(|plain| plain.len() == place.len) {
            Some(plain) => copy(place, &plain, within, part).map(|()| true),
            None => Ok(false),
        }
    }

    /// Loads a whole block; one thread does so for all that wait for it.
    fn load(&self, place: Place) -> Result<Plain, ReadError> {
        let outcome = self.flights.run(place.block.key, || self.load_alone(place));
        let plain = match outcome {
            Some(Ok(plain)) => plain,
            Some(Err(source)) => return Err(ReadError::Block { ino: place.ino, index: place.index, source }),
            None => return Err(ReadError::Stuck { ino: place.ino, index: place.index }),
        };
        check_len(place, plain.len())?;
        Ok(plain)
    }

    fn load_alone(&self, place: Place) -> Result<Plain, Arc<StoreError>> {
        let (key, len) = (&place.block.key, place.len);
        if let Some(plain) = self.cache.load(key, len) {
            return Ok(Arc::new(plain));
        }
        // If several processes of this node miss the block, one of them fetches it.
        self.cache.load_or(key, len, |plain| Ok(Arc::new(plain)), || self.fetch(place))
    }

    fn fetch(&self, place: Place) -> Result<Plain, Arc<StoreError>> {
        let key = &place.block.key;
        let plain = Arc::new(self.routes.fetch(&place.block).map_err(Arc::new)?);
        // The bytes match the key, even if their length does not fit the file.
        self.cache.keep(key, &plain);
        if !self.cache.read_checked(key, plain.len(), 0, &mut []) {
            self.recent.put(*key, Arc::clone(&plain));
        }
        Ok(plain)
    }
}

fn check_len(place: Place, found: usize) -> Result<(), ReadError> {
    let Place { ino, index, len: expected, .. } = place;
    if found == expected { Ok(()) } else { Err(ReadError::BlockLength { ino, index, found, expected }) }
}

fn copy(place: Place, plain: &[u8], within: usize, part: &mut [u8]) -> Result<(), ReadError> {
    check_len(place, plain.len())?;
    match plain.get(within..within.saturating_add(part.len())) {
        Some(bytes) => {
            part.copy_from_slice(bytes);
            Ok(())
        }
        None => Err(ReadError::BlockLength {
            ino: place.ino,
            index: place.index,
            found: plain.len(),
            expected: within.saturating_add(part.len()),
        }),
    }
}
