//! Reads the members of a tar from a stream in sequence: the header of each, then its content.
//!
//! The `tar` crate decodes headers. The iteration is ours, because that crate reads a PAX header of any size into memory,
//! and splits its records at line ends, which the values of extended attributes may contain.
//!
//! ```text
//! next(): [L long name] [K long link] [x PAX] header ──> Member      content(): data, holes as gaps      next() …
//! ```

use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use crate::digest::CHUNK_BYTES;
use crate::pax::{self, Pax};

/// The block size of a tar.
const BLOCK_BYTES: u64 = 512;
const BLOCK: usize = 512;

/// The most bytes of a long name, a long link or a PAX header. Go, which writes most images, accepts 1 MiB.
const MAX_EXTENSION_BYTES: u64 = 1024 * 1024;

/// The most pieces of a sparse file: each takes 16 bytes in memory.
const MAX_PIECES: usize = 64 * 1024;

/// The next member of a tar could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream ended early, or could not be read.
    #[error("read at byte {at}")]
    Read {
        /// The byte offset in the tar.
        at: u64,
        /// The error of the operating system or the decompressor.
        source: io::Error,
    },
    /// The stream is not a valid tar.
    #[error("read at byte {at}: {reason}")]
    Format {
        /// The byte offset in the tar.
        at: u64,
        /// The violation of the format.
        reason: &'static str,
    },
}

/// The kind of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemberKind {
    File,
    HardLink,
    Symlink,
    Directory,
    CharDevice,
    BlockDevice,
    Fifo,
    /// A type that this code does not know.
    Unknown,
}

/// One member. Names are raw bytes from the header and not to be trusted.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) kind: MemberKind,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) mtime: i64,
    pub(super) device: (u32, u32),
    /// The size of the content in bytes, holes included.
    pub(super) size: u64,
    pub(super) xattrs: u64,
    /// The offset of the content in the stream. The content of a sparse file is in pieces.
    pub(super) position: u64,
    pub(super) pieces: Option<Vec<Piece>>,
}

/// A range of a sparse file that is stored; the gaps between pieces are zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) at: u64,
    pub(super) len: u64,
}

/// A stream that can skip bytes.
pub(super) trait Source: Read {
    /// Skips exactly this many bytes; fails if there are fewer.
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

/// Skips bytes by reading them, for streams that cannot seek.
pub(super) fn skip_by_reading(source: &mut impl Read, bytes: u64) -> io::Result<()> {
    let passed = io::copy(&mut source.take(bytes), &mut io::sink())?;
    if passed == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

impl Source for &[u8] {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        skip_by_reading(self, bytes)
    }
}

/// Iterates over the members of a tar.
#[derive(Debug)]
pub(super) struct Members<R> {
    source: R,
    position: u64,
    /// The unread bytes of the last member's content, and of the padding after it.
    left: u64,
    padding: u64,
}

impl<R: Source> Members<R> {
    /// Starts at the first header.
    pub(super) fn new(source: R) -> Self {
        Self { source, position: 0, left: 0, padding: 0 }
    }

    /// Skips the unread content of the last member and returns the next one; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Member>, TarError> {
        let (mut path, mut link, mut pax) = (None, None, None);
        loop {
            let Some(header) = self.header()? else {
                let is_alone = path.is_some() || link.is_some() || pax.is_some();
                return if is_alone { Err(self.wrong("a long name without its member")) } else { Ok(None) };
            };
            let slot = match header.entry_type() {
                EntryType::GNULongName => &mut path,
                EntryType::GNULongLink => &mut link,
                EntryType::XHeader => &mut pax,
                // Global headers are ignored, as by the tools that make images.
                EntryType::XGlobalHeader => {
                    self.begin(self.size_of(&header)?);
                    continue;
                }
                _ => return self.member(&header, path, link, pax.as_deref()).map(Some),
            };
            let extension = self.extension(&header)?;
            if slot.replace(extension).is_some() {
                return Err(self.wrong("a long name or PAX header twice for one member"));
            }
        }
    }

    /// Passes the content of the last member to `sink`, in parts with the offset of each.
    pub(super) fn content<E: From<TarError>>(
        &mut self,
        member: &Member,
        mut sink: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let whole = [Piece { at: 0, len: member.size }];
        let mut chunk = vec![0; CHUNK_BYTES];
        for piece in member.pieces.as_deref().unwrap_or(&whole) {
            let (mut at, mut left) = (piece.at, piece.len);
            while left > 0 {
                let want = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
                let part = chunk.get_mut(..want).unwrap_or_default();
                self.fill(part)?;
                self.left = self.left.saturating_sub(want as u64);
                sink(at, part)?;
                (at, left) = (at.saturating_add(want as u64), left - want as u64);
            }
        }
        Ok(())
    }

    /// Reads the next header; `None` at the end of the tar.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        self.pass(self.left)?;
        let padding = self.padding;
        (self.left, self.padding) = (0, 0);
        match self.pass(padding) {
            // `umoci insert` omits the padding after the last member. Go, and so every engine, accepts that.
            Err(TarError::Read { source, .. }) if source.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            passed => passed?,
        }
        let mut header = Header::new_old();
        if !self.block(header.as_mut_bytes())? {
            return Ok(None);
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            let mut second = [0; BLOCK];
            let is_end = !self.block(&mut second)? || second.iter().all(|byte| *byte == 0);
            return if is_end { Ok(None) } else { Err(self.wrong("something behind half an end")) };
        }
        let bytes = header.as_bytes();
        let sum = bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        let own = bytes.get(148..156).unwrap_or_default().iter().map(|byte| u32::from(*byte)).sum::<u32>();
        // The checksum is computed with blanks in its own field.
        let expected = sum - own + 8 * u32::from(b' ');
        match header.cksum() {
            Ok(found) if found == expected => Ok(Some(header)),
            _ => Err(self.wrong("the checksum of a header is wrong")),
        }
    }

    fn member(
        &mut self,
        header: &Header,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        pax: Option<&[u8]>,
    ) -> Result<Member, TarError> {
        let pax = match pax {
            Some(records) => Pax::parse(records).map_err(|reason| self.wrong(reason))?,
            None => Pax::default(),
        };
        let number = |value: io::Result<u64>, reason| value.map_err(|_unreadable| self.wrong(reason));
        let path = pax.path.clone().or(long_path).unwrap_or_else(|| header.path_bytes().into_owned());
        let link = pax.link.clone().or(long_link);
        let link = link.unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        let mtime = match pax.mtime {
            Some(seconds) => seconds,
            // Times before 1970 are stored as two's complement in the same field.
            None => number(header.mtime(), "a time cannot be read")?.cast_signed(),
        };
        let device = |value: io::Result<Option<u32>>| match value {
            Ok(number) => Ok(number.unwrap_or_default()),
            Err(_unreadable) => Err(self.wrong("a device number cannot be read")),
        };
        let mut member = Member {
            kind: kind(header.entry_type(), &path),
            mode: header.mode().map_err(|_unreadable| self.wrong("a mode cannot be read"))? & 0o7777,
            uid: pax.uid.map_or_else(|| number(header.uid(), "a uid cannot be read"), Ok)?,
            gid: pax.gid.map_or_else(|| number(header.gid(), "a gid cannot be read"), Ok)?,
            mtime,
            device: (0, 0),
            size: 0,
            xattrs: pax.xattrs,
            position: self.position,
            pieces: None,
            path,
            link,
        };
        match member.kind {
            MemberKind::CharDevice | MemberKind::BlockDevice => {
                member.device = (device(header.device_major())?, device(header.device_minor())?);
            }
            MemberKind::File | MemberKind::Unknown => {
                let size = pax.size.map_or_else(|| self.size_of(header), Ok)?;
                self.begin(size);
                member.size = size;
                self.find_pieces(header, &pax, &mut member)?;
                member.position = self.position;
            }
            // Other kinds have no content, whatever size the header gives; Go reads them so.
            _ => {}
        }
        Ok(member)
    }

    /// Reads the map of a sparse file, if the member is one.
    fn find_pieces(&mut self, header: &Header, pax: &Pax, member: &mut Member) -> Result<(), TarError> {
        let (pieces, size) = if header.entry_type().is_gnu_sparse() {
            self.gnu_pieces(header)?
        } else if let Some(sparse) = &pax.sparse {
            let (place, size) = sparse.form().map_err(|reason| self.wrong(reason))?;
            if let Some(name) = &sparse.name {
                member.path.clone_from(name);
            }
            let pieces = match place {
                pax::MapPlace::Content => self.pax_pieces()?,
                pax::MapPlace::Records => {
                    let pairs = sparse.pairs().map_err(|reason| self.wrong(reason))?;
                    pairs.map(|(at, len)| Piece { at, len }).take(MAX_PIECES + 1).collect()
                }
            };
            if pieces.len() > MAX_PIECES {
                return Err(self.wrong("a sparse file in too many pieces"));
            }
            (pieces, size)
        } else {
            return Ok(());
        };
        let mut end = 0_u64;
        for piece in &pieces {
            let next = piece.at.checked_add(piece.len).filter(|next| piece.at >= end && *next <= size);
            end = next.ok_or_else(|| self.wrong("the pieces of a sparse file overlap or leave it"))?;
        }
        if pieces.iter().map(|piece| piece.len).sum::<u64>() != self.left {
            return Err(self.wrong("the pieces of a sparse file are not its content"));
        }
        (member.size, member.pieces) = (size, Some(pieces));
        Ok(())
    }

    /// Reads the map of the old GNU form, from the header and the blocks after it.
    fn gnu_pieces(&mut self, header: &Header) -> Result<(Vec<Piece>, u64), TarError> {
        let Some(gnu) = header.as_gnu() else { return Err(self.wrong("a sparse file without its map")) };
        let size = gnu.real_size().map_err(|_unreadable| self.wrong("a size cannot be read"))?;
        let mut pieces = Vec::new();
        self.add_gnu_pieces(&gnu.sparse, &mut pieces)?;
        let mut is_extended = gnu.is_extended();
        while is_extended {
            let mut more = GnuExtSparseHeader::new();
            if !self.block(more.as_mut_bytes())? {
                return Err(self.wrong("a sparse file without the end of its map"));
            }
            self.add_gnu_pieces(&more.sparse, &mut pieces)?;
            is_extended = more.is_extended();
        }
        Ok((pieces, size))
    }

    fn add_gnu_pieces(&self, from: &[GnuSparseHeader], pieces: &mut Vec<Piece>) -> Result<(), TarError> {
        for piece in from.iter().filter(|piece| !piece.is_empty()) {
            let (Ok(at), Ok(len)) = (piece.offset(), piece.length()) else {
                return Err(self.wrong("the map of a sparse file cannot be read"));
            };
            if pieces.len() >= MAX_PIECES {
                return Err(self.wrong("a sparse file in too many pieces"));
            }
            pieces.push(Piece { at, len });
        }
        Ok(())
    }

    /// Reads the map of the PAX form 1.0: decimal lines at the beginning of the content, padded to a block.
    fn pax_pieces(&mut self) -> Result<Vec<Piece>, TarError> {
        let mut numbers = pax::Numbers::default();
        let mut block = [0; BLOCK];
        while !numbers.is_complete() {
            if self.left < BLOCK_BYTES {
                return Err(self.wrong("a sparse file without the end of its map"));
            }
            self.fill(&mut block)?;
            self.left -= BLOCK_BYTES;
            numbers.feed(&block, MAX_PIECES).map_err(|reason| self.wrong(reason))?;
        }
        Ok(numbers.pairs().map(|(at, len)| Piece { at, len }).collect())
    }

    /// Reads the content of an extension header; a long name ends at its NUL.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let size = self.size_of(header)?;
        if size > MAX_EXTENSION_BYTES {
            return Err(self.wrong("a long name or PAX header of more than 1 MiB"));
        }
        self.begin(size);
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        self.fill(&mut bytes)?;
        self.left = 0;
        if !header.entry_type().is_pax_local_extensions()
            && let Some(end) = bytes.iter().position(|byte| *byte == 0)
        {
            bytes.truncate(end);
        }
        Ok(bytes)
    }

    /// Notes how much content follows.
    fn begin(&mut self, size: u64) {
        (self.left, self.padding) = (size, size.wrapping_neg() % BLOCK_BYTES);
    }

    fn size_of(&self, header: &Header) -> Result<u64, TarError> {
        header.entry_size().map_err(|_unreadable| self.wrong("a size cannot be read"))
    }

    /// Reads one block; `false` if the stream ends before it.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        let mut have = 0;
        while have < BLOCK {
            let read = self.source.read(block.get_mut(have..).unwrap_or_default());
            match read {
                Ok(0) if have == 0 => return Ok(false),
                Ok(0) => return Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => have += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.failed(source)),
            }
        }
        self.position = self.position.saturating_add(BLOCK_BYTES);
        Ok(true)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), TarError> {
        self.source.read_exact(bytes).map_err(|source| self.failed(source))?;
        self.position = self.position.saturating_add(bytes.len() as u64);
        Ok(())
    }

    fn pass(&mut self, bytes: u64) -> Result<(), TarError> {
        if bytes > 0 {
            self.source.skip(bytes).map_err(|source| self.failed(source))?;
            self.position = self.position.saturating_add(bytes);
        }
        Ok(())
    }

    fn failed(&self, source: io::Error) -> TarError {
        TarError::Read { at: self.position, source }
    }

    fn wrong(&self, reason: &'static str) -> TarError {
        TarError::Format { at: self.position, reason }
    }
}

fn kind(entry_type: EntryType, path: &[u8]) -> MemberKind {
    match entry_type {
        // The oldest tars know directories by their name.
        EntryType::Regular if path.ends_with(b"/") => MemberKind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => MemberKind::File,
        EntryType::Link => MemberKind::HardLink,
        EntryType::Symlink => MemberKind::Symlink,
        EntryType::Directory => MemberKind::Directory,
        EntryType::Char => MemberKind::CharDevice,
        EntryType::Block => MemberKind::BlockDevice,
        EntryType::Fifo => MemberKind::Fifo,
        _ => MemberKind::Unknown,
    }
}
