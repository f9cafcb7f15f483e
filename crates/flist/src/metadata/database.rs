//! Reads the rows of a `.fl` that may be hostile: SQLite runs nothing from it, and every value is checked.

mod cells;

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::error::{Malformed, MetadataError};
use super::rows::{InodeRow, Rows};
use super::{MAX_BLOCKS, MAX_HEAD_BYTES, MAX_INODES, MAX_ROUTES, MAX_TAGS, MAX_TEXT_BYTES, Route};
use crate::clock::Deadline;
use crate::hash::{BlockId, BlockKey, BlockRef};
use crate::regular::{self, Opened};
use crate::source::MAX_FLIST_BYTES;
pub use cells::Cells;

/// The longest time for reading. 20,000 inodes take 25 ms; a hostile generated column could take for ever.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The SQLite instructions between two checks of the clock: well under a millisecond.
const PROGRESS_STEP: i32 = 20_000;

/// The longest value in a row: the longest in valid flists is a symlink target of 4 KiB. It also limits the schema's text.
const MAX_VALUE_BYTES: i32 = 64 * 1024;

/// The most schema objects: a flist has five tables, three indexes and a sequence.
const MAX_SCHEMA_OBJECTS: usize = 64;

/// The magic number of SQLite 3 files.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// The length of SQLite's header in bytes.
pub const HEADER_LEN: usize = 100;

/// The tables of a format, and the columns of each in order.
pub type Tables = &'static [(&'static str, &'static [&'static str])];

/// The columns of each table, in order. Other columns mean another format.
const TABLES: Tables = &[
    ("inode", &["ino", "parent", "name", "size", "uid", "gid", "mode", "rdev", "ctime", "mtime"]),
    ("extra", &["ino", "data"]),
    ("block", &["ino", "id", "key"]),
    ("tag", &["key", "value"]),
    ("route", &["start", "end", "url"]),
];

/// Reads a whole flist and closes it.
pub(super) fn read(path: &Path) -> Result<Rows, MetadataError> {
    check_file(path)?;
    let reader = Reader::open(path)?;
    let tags = reader.tags()?;
    Ok(Rows {
        inodes: reader.rows("inode", MAX_INODES, inode_row)?,
        links: reader.rows("extra", MAX_INODES, |cells| Ok((cells.unsigned(0, "ino")?, cells.bytes(1, "data")?)))?,
        blocks: reader.rows("block", MAX_BLOCKS, block_row)?,
        tags,
        routes: reader.rows("route", MAX_ROUTES, route_row)?,
    })
}

/// Reads only the tags, which takes a millisecond for any size of tree. A file of another format has none.
pub(super) fn read_tags(path: &Path) -> Result<Vec<(String, String)>, MetadataError> {
    check_file(path)?;
    match regular::open_file(path) {
        Ok(file) if is_database(&file) => Reader::open(path)?.tags(),
        _ => Ok(Vec::new()),
    }
}

/// Tells whether a file begins with the magic number of SQLite, as current flists do.
pub(crate) fn is_database(file: &fs::File) -> bool {
    let mut magic = [0; MAGIC.len()];
    file.read_exact_at(&mut magic, 0).is_ok() && magic == MAGIC
}

/// Checks that the file is regular and of a plausible length, before SQLite opens it.
fn check_file(path: &Path) -> Result<(), MetadataError> {
    let owned = || path.to_owned();
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => MetadataError::NotFound { path: owned() },
        _ => MetadataError::Open { path: owned(), source },
    };
    let file = match regular::open(path).map_err(failed)? {
        Opened::File(file) => file,
        Opened::Directory(_) => return Err(MetadataError::NotAFile { path: owned(), what: "a directory".to_owned() }),
        Opened::Other(odd) => return Err(MetadataError::NotAFile { path: owned(), what: odd.to_string() }),
    };
    let metadata = file.metadata().map_err(failed)?;
    if metadata.len() > MAX_FLIST_BYTES {
        return Err(MetadataError::TooLarge { path: owned(), len: metadata.len(), limit: MAX_FLIST_BYTES });
    }
    let mut header = [0; HEADER_LEN];
    match file.read_exact_at(&mut header, 0) {
        // Too short for a header: SQLite reports it.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
        read => read.map_err(failed)?,
    }
    match announced_len(&header) {
        Some(announced) if announced != metadata.len() => {
            Err(MetadataError::CutShort { path: owned(), len: metadata.len(), announced })
        }
        _ => Ok(()),
    }
}

/// Computes the length of the file from SQLite's header. SQLite itself would accept a file without its last bytes.
///
/// `None` if the file is not SQLite, or was written by a version before 3.7, which did not set the field.
#[must_use]
pub fn announced_len(header: &[u8; HEADER_LEN]) -> Option<u64> {
    let word = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let page_size = u16::from_be_bytes(header.get(16..18)?.try_into().ok()?);
    let page_size = if page_size == 1 { 65_536 } else { u64::from(page_size) };
    let (changes, pages, valid_for) = (word(24)?, word(28)?, word(92)?);
    (header.starts_with(MAGIC) && changes == valid_for && pages > 0).then(|| u64::from(pages) * page_size)
}

/// Opens the database read-only.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // `immutable`: SQLite takes no locks, looks for no journal or WAL beside the file, and never writes.
    let absolute = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let uri = format!("file:{}?mode=ro&immutable=1", escape(absolute.as_os_str().as_bytes()));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(uri, flags)
}

/// Disables everything active in a database: untrusted schema, no views, triggers or extensions, bounded values and time.
fn harden(connection: &mut Connection, max_value_bytes: i32, deadline: Deadline) -> rusqlite::Result<()> {
    for (setting, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
    ] {
        connection.set_db_config(setting, on)?;
    }
    for (limit, value) in [
        (Limit::SQLITE_LIMIT_LENGTH, max_value_bytes),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, MAX_VALUE_BYTES),
        (Limit::SQLITE_LIMIT_COLUMN, 64),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 20),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 2),
        (Limit::SQLITE_LIMIT_VDBE_OP, 10_000),
        (Limit::SQLITE_LIMIT_FUNCTION_ARG, 8),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 100),
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 8),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, value)?;
    }
    connection.progress_handler(PROGRESS_STEP, Some(move || deadline.has_passed()))?;
    connection.execute_batch("PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY;")
}

/// Escapes a path for a `file:` URI, byte by byte.
fn escape(path: &[u8]) -> String {
    use std::fmt::Write as _;
    path.iter().fold(String::new(), |mut uri, byte| {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            let _infallible = write!(uri, "%{byte:02X}");
        }
        uri
    })
}

/// Distinguishes a timeout from a damaged database; `what` is the part that was being read.
#[must_use]
pub fn classify(path: &Path, what: &'static str, source: rusqlite::Error) -> MetadataError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => MetadataError::TooSlow { path, limit: READ_TIMEOUT },
        _ => MetadataError::Database { path, what, source },
    }
}

/// A hardened database and the tables to read from it.
#[derive(Debug)]
pub struct Reader<'a> {
    path: &'a Path,
    connection: Connection,
    tables: Tables,
    deadline: Deadline,
}

impl<'a> Reader<'a> {
    /// Opens a `.fl` and checks its schema.
    fn open(path: &'a Path) -> Result<Self, MetadataError> {
        let connection = connect(path).map_err(|source| classify(path, "the header", source))?;
        let mut reader = Self::harden(path, connection, MAX_VALUE_BYTES)?;
        reader.check_schema(TABLES)?;
        Ok(reader)
    }

    /// Hardens a connection to a database that may be hostile: nothing in it is executed, values are limited to this many
    /// bytes, and all reading ends after [`READ_TIMEOUT`]. Call [`Self::check_schema`] before reading. `path` is for errors.
    ///
    /// # Errors
    /// The file is not a database.
    pub fn harden(path: &'a Path, mut connection: Connection, max_value_bytes: i32) -> Result<Self, MetadataError> {
        let deadline = Deadline::after(READ_TIMEOUT);
        let hardened = harden(&mut connection, max_value_bytes, deadline);
        hardened.map_err(|source| classify(path, "the header", source))?;
        Ok(Self { path, connection, tables: &[], deadline })
    }

    /// Returns the path of the file, for errors.
    #[must_use]
    pub fn path(&self) -> &'a Path {
        self.path
    }

    /// Returns the connection, for queries that [`Self::rows`] does not cover.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Checks the deadline for a series of short queries; SQLite's progress handler ends a long one.
    ///
    /// # Errors
    /// [`READ_TIMEOUT`] has passed.
    pub fn check_time(&self) -> Result<(), MetadataError> {
        let too_slow = || MetadataError::TooSlow { path: self.path.to_owned(), limit: READ_TIMEOUT };
        if self.deadline.has_passed() { Err(too_slow()) } else { Ok(()) }
    }

    fn tags(&self) -> Result<Vec<(String, String)>, MetadataError> {
        let mut tags = self.rows("tag", MAX_TAGS, |cells| Ok((cells.text(0, "key")?, cells.text(1, "value")?)))?;
        tags.sort_unstable();
        Ok(tags)
    }

    /// Returns the error for a database with another schema.
    #[must_use]
    pub fn refuse(&self, reason: Malformed) -> MetadataError {
        MetadataError::Schema { path: self.path.to_owned(), reason }
    }

    /// Accepts only plain tables, and these with exactly the given columns. Reads the schema as text, so that nothing in it
    /// is used before the check.
    ///
    /// # Errors
    /// The first object of another form, or a missing table.
    pub fn check_schema(&mut self, tables: Tables) -> Result<(), MetadataError> {
        self.tables = tables;
        let objects = self.schema_objects().map_err(|source| classify(self.path, "the schema", source))?;
        if objects.len() > MAX_SCHEMA_OBJECTS {
            return Err(self.refuse(Malformed::TooManyRows { table: "sqlite_schema", limit: MAX_SCHEMA_OBJECTS }));
        }
        for object in &objects {
            if let Some(found) = object.foreign() {
                return Err(self.refuse(Malformed::ForeignObject { name: object.name.clone(), found }));
            }
        }
        for (table, columns) in self.tables.iter().copied() {
            if !objects.iter().any(|object| object.kind == "table" && object.name == table) {
                return Err(self.refuse(Malformed::NoTable { table }));
            }
            let found = self.columns(table).map_err(|source| classify(self.path, "the columns", source))?;
            let plain = found.iter().all(|(_, hidden)| *hidden == 0);
            if !plain || !found.iter().map(|(name, _)| name.as_str()).eq(columns.iter().copied()) {
                let found = found.iter().map(|(name, hidden)| format!("{name:?}/{hidden}")).collect::<Vec<_>>();
                return Err(self.refuse(Malformed::Columns { table, found: found.join(" ") }));
            }
        }
        Ok(())
    }

    fn schema_objects(&self) -> rusqlite::Result<Vec<SchemaObject>> {
        let mut statement = self.connection.prepare("SELECT type, name, rootpage, sql FROM sqlite_schema")?;
        let objects = statement.query_map([], |row| {
            Ok(SchemaObject { kind: row.get(0)?, name: row.get(1)?, root_page: row.get(2)?, sql: row.get(3)? })
        })?;
        objects.take(MAX_SCHEMA_OBJECTS + 1).collect()
    }

    /// Returns the name and the `hidden` flag of each column; not 0 means virtual or generated.
    fn columns(&self, table: &str) -> rusqlite::Result<Vec<(String, i64)>> {
        // `table` is one of our constants.
        let mut statement = self.connection.prepare(&format!("PRAGMA table_xinfo({table})"))?;
        let columns = statement.query_map([], |row| Ok((row.get("name")?, row.get("hidden")?)))?;
        columns.collect()
    }

    /// Reads a whole table by its own b-tree (an index may be wrong), in the order of the rowids; at most `limit` rows.
    ///
    /// # Errors
    /// The table is damaged, has too many rows, or `convert` refuses one.
    pub fn rows<T>(
        &self,
        table: &'static str,
        limit: usize,
        convert: impl Fn(&Cells<'_>) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, MetadataError> {
        let columns =
            self.tables.iter().find(|(name, _)| *name == table).map(|(_, columns)| *columns).unwrap_or_default();
        let columns = columns.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ");
        let sql = format!("SELECT {columns}, rowid FROM main.\"{table}\" NOT INDEXED ORDER BY rowid");
        let failed = |source| classify(self.path, table, source);
        let mut statement = self.connection.prepare(&sql).map_err(failed)?;
        let rowid_column = statement.column_count().saturating_sub(1);
        let mut rows = statement.query([]).map_err(failed)?;
        let mut converted = Vec::new();
        let text_limit = if matches!(table, "tag" | "route") { MAX_HEAD_BYTES } else { MAX_TEXT_BYTES };
        let text_left = Cell::new(text_limit);
        let mut last_rowid = None;
        while let Some(row) = rows.next().map_err(failed)? {
            if converted.len() >= limit {
                return Err(self.refuse(Malformed::TooManyRows { table, limit }));
            }
            let rowid = row.get(rowid_column).map_err(failed)?;
            if last_rowid.is_some_and(|last| last >= rowid) {
                return Err(self.refuse(Malformed::RowOrder { table, rowid }));
            }
            last_rowid = Some(rowid);
            converted.push(
                convert(&Cells { table, rowid, row, text_limit, text_left: &text_left })
                    .map_err(|reason| self.refuse(reason))?,
            );
        }
        Ok(converted)
    }
}

struct SchemaObject {
    kind: String,
    name: String,
    root_page: Option<i64>,
    sql: Option<String>,
}

impl SchemaObject {
    /// Returns the kind of an object that is neither a plain table nor an index of one.
    fn foreign(&self) -> Option<String> {
        let sql = self.sql.as_deref().unwrap_or_default();
        let starts = |prefix: &str| sql.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
        // SQLite parses the text regardless of the type, so both must agree.
        let agrees = match self.kind.as_str() {
            "table" => starts("CREATE TABLE"),
            "index" => self.sql.is_none() || starts("CREATE INDEX") || starts("CREATE UNIQUE INDEX"),
            _ => false,
        };
        let stored = self.root_page.is_some_and(|page| page > 0);
        (!agrees || !stored).then(|| if stored { self.kind.clone() } else { format!("virtual or stray {}", self.kind) })
    }
}

fn inode_row(cells: &Cells<'_>) -> Result<InodeRow, Malformed> {
    Ok(InodeRow {
        ino: cells.ranged(0, "ino")?,
        parent: cells.ranged(1, "parent")?,
        name: cells.name(2, "name")?.to_vec(),
        size: cells.ranged(3, "size")?,
        uid: cells.ranged(4, "uid")?,
        gid: cells.ranged(5, "gid")?,
        mode: cells.ranged(6, "mode")?,
        rdev: cells.ranged(7, "rdev")?,
        ctime: cells.integer(8, "ctime")?,
        mtime: cells.integer(9, "mtime")?,
    })
}

fn block_row(cells: &Cells<'_>) -> Result<(u64, BlockRef), Malformed> {
    let (id, key) = (BlockId::new(cells.digest(1, "id")?), BlockKey::new(cells.digest(2, "key")?));
    Ok((cells.unsigned(0, "ino")?, BlockRef { id, key }))
}

fn route_row(cells: &Cells<'_>) -> Result<Route, Malformed> {
    Ok(Route { start: cells.ranged(0, "start")?, end: cells.ranged(1, "end")?, url: cells.text(2, "url")? })
}
