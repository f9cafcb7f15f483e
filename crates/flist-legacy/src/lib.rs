//! Reads legacy flists, which 0-fs (`g8ufs`) mounts and `zflist` packs, into the same tree as a `.fl`.
//!
//! ```text
//! x.flist ──archive: gzip, tar, two members, limits──> flistdb.sqlite3 (in memory) ──walk: from the root by key──> rows
//!                                                      │ entries: Cap'n Proto       values ─┘                    │
//!                                                      │ metadata: backend ──stores──> routes                metadata::tree
//!                                                    router.yaml ──router──────────────┘
//! ```
//!
//! A legacy flist is recognized by its content: [`open`] reads either format. Takes in a path, gives out a [`Flist`] of
//! `contd-flist`, which also has the cipher of the blocks. Never writes, never asks a store.
//!
//! The format has no inode numbers: they are assigned in the order of the walk, which depends only on the file, so they
//! stay the same when a server restarts. Nothing is unpacked to disk. Differences from a `.fl`, and unsupported forms,
//! are in `docs/flist-legacy.md`.
#![forbid(unsafe_code)]

mod archive;
mod capnp;
mod error;
mod router;
mod stores;
mod values;
mod walk;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rusqlite::Connection;

use archive::Archive;
use contd_flist::metadata::database::{Reader, Tables, classify};
use contd_flist::metadata::{MAX_TAGS, Malformed, Rows};
use contd_flist::source::MAX_FLIST_BYTES;
use contd_flist::{Flist, MetadataError, regular};

pub use capnp::CapnpError;
pub use error::{LegacyError, Misfit};

/// The magic number of gzip files.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The longest value of the database: the limit of 0-fs on a message with a directory. `zflist` writes 4 MiB at most.
const MAX_VALUE_BYTES: i32 = 64 * 1024 * 1024;

/// The most bytes of all values in the table `metadata`: they are a few words each, or a readme.
const MAX_METADATA_BYTES: usize = 1024 * 1024;

/// The table with the tree.
const ENTRIES: (&str, &[&str]) = ("entries", &["key", "value"]);

/// The table with the origin of the flist and the store of its blocks.
const METADATA: (&str, &[&str]) = ("metadata", &["key", "value"]);

/// The first flists had only one table.
const WITHOUT_METADATA: Tables = &[ENTRIES];
const WITH_METADATA: Tables = &[ENTRIES, METADATA];

/// Reads a flist of either format: a legacy one if it is a gzip archive, else a `.fl`.
///
/// # Errors
/// As [`Flist::open`]; a fault specific to legacy flists is a [`LegacyError`] in [`MetadataError::OtherFormat`].
pub fn open(path: &Path) -> Result<Flist, MetadataError> {
    if is_archive(path) { Flist::from_rows(path, read(path)?) } else { Flist::open(path) }
}

/// Tells by its first bytes whether a file is a legacy flist. Unreadable files are none: opening them as `.fl` reports why.
fn is_archive(path: &Path) -> bool {
    let mut magic = [0; GZIP_MAGIC.len()];
    open_file(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == GZIP_MAGIC
}

/// Reads a whole legacy flist and closes it.
fn read(path: &Path) -> Result<Rows, MetadataError> {
    let failed = |source| MetadataError::Open { path: path.to_owned(), source };
    let file = open_file(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    if len > MAX_FLIST_BYTES {
        return Err(MetadataError::TooLarge { path: path.to_owned(), len, limit: MAX_FLIST_BYTES });
    }
    let archive = Archive::read(file).map_err(|source| refuse(path, source))?;
    let router = archive.router;
    let reader = database(path, archive.database)?;
    let metadata = metadata(&reader)?;
    let routes =
        stores::routes(router.as_deref(), metadata.backend.as_deref()).map_err(|source| refuse(path, source))?;
    let tree = walk::walk(&reader)?;
    Ok(Rows { inodes: tree.inodes, links: tree.links, blocks: tree.blocks, tags: metadata.tags, routes })
}

fn open_file(path: &Path) -> io::Result<File> {
    regular::open_file(path)
}

fn refuse(path: &Path, source: LegacyError) -> MetadataError {
    let (hint, kind) = (source.hint(), source.kind());
    MetadataError::OtherFormat { path: path.to_owned(), format: "legacy flist", hint, kind, source: Box::new(source) }
}

/// Opens a database in memory and hardens it.
fn database(path: &Path, bytes: Vec<u8>) -> Result<Reader<'_>, MetadataError> {
    let failed = |source| classify(path, "the header", source);
    let mut connection = Connection::open_in_memory().map_err(failed)?;
    connection.deserialize_read_exact("main", bytes.as_slice(), bytes.len(), true).map_err(failed)?;
    drop(bytes);
    let mut reader = Reader::harden(path, connection, MAX_VALUE_BYTES)?;
    reader.check_schema(if has_metadata(&reader)? { WITH_METADATA } else { WITHOUT_METADATA })?;
    Ok(reader)
}

fn has_metadata(reader: &Reader<'_>) -> Result<bool, MetadataError> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name = 'metadata'";
    let count = reader.connection().query_row(sql, [], |row| row.get::<_, u32>(0));
    Ok(count.map_err(|source| classify(reader.path(), "the header", source))? > 0)
}

/// The content of the table `metadata`.
#[derive(Debug, Default)]
struct Metadata {
    /// The store of the blocks. It may hold a password, so it does not become a tag.
    backend: Option<String>,
    /// The other rows, as tags.
    tags: Vec<(String, String)>,
}

fn metadata(reader: &Reader<'_>) -> Result<Metadata, MetadataError> {
    let mut metadata = Metadata::default();
    if !has_metadata(reader)? {
        return Ok(metadata);
    }
    let mut left = MAX_METADATA_BYTES;
    let limit = MAX_METADATA_BYTES;
    let rows = reader.rows(METADATA.0, MAX_TAGS, |cells| Ok((cells.text(0, "key")?, cells.text(1, "value")?)))?;
    for (key, value) in rows {
        left = left
            .checked_sub(key.len() + value.len())
            .ok_or_else(|| reader.refuse(Malformed::TooMuchText { table: METADATA.0, limit }))?;
        if key == "backend" {
            metadata.backend = Some(value);
        } else {
            metadata.tags.push((key, value));
        }
    }
    metadata.tags.sort_unstable();
    Ok(metadata)
}

/// Entry points of the decoders for the fuzzer. Each returns the number of objects decoded.
#[doc(hidden)]
pub mod fuzzing {
    use super::{router, stores, walk};

    /// Decodes a value of the database in every form; counts directories, entries and blocks.
    #[must_use]
    pub fn value(bytes: &[u8]) -> usize {
        walk::decode_any(bytes)
    }

    /// Decodes a text as `router.yaml` and as `backend`; counts routes.
    #[must_use]
    pub fn stores(text: &str) -> usize {
        let router = router::routes(text).map_or(0, |routes| routes.len());
        router + stores::routes(None, Some(text)).map_or(0, |routes| routes.len())
    }
}
