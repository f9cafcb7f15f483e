//! The archive of a legacy flist: a gzip tar, of which two members are read. Nothing is unpacked to disk.
//!
//! Members are selected by name and otherwise skipped, so a path in the archive cannot lead anywhere. Extensions for long
//! names are not decoded: both names are short, and the tar crate would read a long name of any size into memory.

use std::io::{self, BufReader, Read};

use flate2::read::MultiGzDecoder;

use crate::error::LegacyError;
use contd_flist::metadata::database::{HEADER_LEN, announced_len};

/// The member with the tree.
const DATABASE: &str = "flistdb.sqlite3";

/// The member with the routes to the blocks. Optional.
const ROUTER: &str = "router.yaml";

/// The largest database: some 600,000 entries. While it is read it is in memory, for a moment twice.
const MAX_DATABASE_BYTES: u64 = 128 * 1024 * 1024;

/// The largest `router.yaml`: the longest valid one has a line per first byte.
const MAX_ROUTER_BYTES: u64 = 64 * 1024;

/// The most bytes that an archive unpacks to: the database and some more. Skipping a zip bomb takes half a second.
const MAX_ARCHIVE_BYTES: u64 = MAX_DATABASE_BYTES + 16 * 1024 * 1024;

/// Names at the top level that only the form with rocksdb has.
const ROCKSDB_NAMES: [&str; 3] = ["CURRENT", "IDENTITY", "LOCK"];

/// The members that are read.
#[derive(Debug)]
pub(super) struct Archive {
    pub(super) database: Vec<u8>,
    pub(super) router: Option<String>,
}

impl Archive {
    /// Reads the two members, and the rest of the stream too, which verifies the checksum at the end.
    pub(super) fn read(file: impl Read) -> Result<Self, LegacyError> {
        let unpacked = Capped { inner: MultiGzDecoder::new(BufReader::new(file)), left: MAX_ARCHIVE_BYTES };
        let mut tar = tar::Archive::new(unpacked);
        let outcome = scan(&mut tar);
        let mut unpacked = tar.into_inner();
        let drained = outcome.and_then(|archive| {
            io::copy(&mut unpacked, &mut io::sink()).map_err(|source| LegacyError::Archive { source })?;
            archive.whole()
        });
        // Reaching the limit looks like a truncated archive.
        if unpacked.left == 0 { Err(LegacyError::ArchiveTooLarge { limit: MAX_ARCHIVE_BYTES }) } else { drained }
    }
}

/// The members found so far.
#[derive(Debug, Default)]
struct Found {
    database: Option<Vec<u8>>,
    router: Option<Vec<u8>>,
    has_rocksdb: bool,
}

impl Found {
    fn whole(self) -> Result<Archive, LegacyError> {
        let database = match self.database {
            Some(database) => database,
            None if self.has_rocksdb => return Err(LegacyError::RocksDb),
            None => return Err(LegacyError::NoDatabase),
        };
        if let Some(announced) = database.first_chunk::<HEADER_LEN>().and_then(announced_len)
            && announced != database.len() as u64
        {
            return Err(LegacyError::CutShort { len: database.len() as u64, announced });
        }
        let router = self.router.map(String::from_utf8).transpose();
        let not_text = |_| LegacyError::Stores { part: ROUTER, reason: "it is not text" };
        Ok(Archive { database, router: router.map_err(not_text)? })
    }
}

fn scan(tar: &mut tar::Archive<impl Read>) -> Result<Found, LegacyError> {
    let failed = |source| LegacyError::Archive { source };
    let mut found = Found::default();
    for member in tar.entries().map_err(failed)?.raw(true) {
        let mut member = member.map_err(failed)?;
        let path = member.path_bytes().into_owned();
        let name = path.strip_prefix(b"./").unwrap_or(&path);
        if name == DATABASE.as_bytes() {
            take(&mut member, DATABASE, MAX_DATABASE_BYTES, &mut found.database)?;
        } else if name == ROUTER.as_bytes() {
            take(&mut member, ROUTER, MAX_ROUTER_BYTES, &mut found.router)?;
        } else if ROCKSDB_NAMES.iter().any(|other| name == other.as_bytes()) {
            found.has_rocksdb = true;
        }
    }
    Ok(found)
}

/// Reads one member completely; a second one is refused.
fn take(
    from: &mut tar::Entry<'_, impl Read>,
    member: &'static str,
    limit: u64,
    to: &mut Option<Vec<u8>>,
) -> Result<(), LegacyError> {
    let len = from.size();
    if to.is_some() {
        return Err(LegacyError::Member { member, found: "there twice" });
    }
    if !from.header().entry_type().is_file() {
        return Err(LegacyError::Member { member, found: "not a regular file" });
    }
    if len > limit {
        return Err(LegacyError::MemberTooLarge { member, len, limit });
    }
    // The length is only announced, but the kernel allocates the zeroed pages only when they are written.
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    from.read_exact(&mut bytes).map_err(|source| LegacyError::Archive { source })?;
    *to = Some(bytes);
    Ok(())
}

/// A reader that ends after a number of bytes.
#[derive(Debug)]
struct Capped<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let read = self.inner.read(buf.get_mut(..wanted).unwrap_or_default())?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}
