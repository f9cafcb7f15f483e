//! Reads the rows of a `.fl` as if an enemy had written it: SQLite is told to run nothing, and every value is checked.

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row};

use super::error::{Malformed, MetadataError};
use super::{MAX_BLOCKS, MAX_HEAD_BYTES, MAX_INODES, MAX_ROUTES, MAX_TAGS, MAX_TEXT_BYTES, Route};
use crate::clock::Deadline;
use crate::hash::{BlockId, BlockKey, BlockRef};
use crate::regular::{self, Opened};
use crate::source::MAX_FLIST_BYTES;

/// The longest that reading may take. 20,000 inodes take 25 ms; a slow generated column could take for ever.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// SQLite instructions between two looks at the clock: well under a millisecond.
const PROGRESS_STEP: i32 = 20_000;

/// The longest value of any row: our largest honest one is a symlink target of 4 KiB. The schema's text counts too.
const MAX_VALUE_BYTES: i32 = 64 * 1024;

/// The most objects of a schema: ours has five tables, three indexes and a sequence.
const MAX_SCHEMA_OBJECTS: usize = 64;

/// What every SQLite 3 file starts with.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Bytes of SQLite's header.
pub const HEADER_LEN: usize = 100;

/// The tables of a format, and the columns of each in order.
pub type Tables = &'static [(&'static str, &'static [&'static str])];

/// The columns of each table, in order. Anything else is not this format.
const TABLES: Tables = &[
    ("inode", &["ino", "parent", "name", "size", "uid", "gid", "mode", "rdev", "ctime", "mtime"]),
    ("extra", &["ino", "data"]),
    ("block", &["ino", "id", "key"]),
    ("tag", &["key", "value"]),
    ("route", &["start", "end", "url"]),
];

/// One row of `inode`, its types and ranges checked, its meaning not yet.
#[derive(Debug, Default)]
pub struct InodeRow {
    /// Its number, from 1.
    pub ino: u64,
    /// The number of its directory; 0 for the root.
    pub parent: u64,
    /// Its name; empty for the root.
    pub name: Vec<u8>,
    /// Bytes of its content, or of its target.
    pub size: u64,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The whole `st_mode`.
    pub mode: u32,
    /// The device number as glibc's `dev_t`; 0 for all that is not a device.
    pub rdev: u64,
    /// Last change of the inode, in seconds since 1970.
    pub ctime: i64,
    /// Last change of the content, in seconds since 1970.
    pub mtime: i64,
}

/// All rows of a flist.
#[derive(Debug)]
pub struct Rows {
    /// In any order; the root has number 1.
    pub inodes: Vec<InodeRow>,
    /// Targets of symbolic links, by number of the link.
    pub links: Vec<(u64, Vec<u8>)>,
    /// Blocks by number of their file; those of one file in the order of its content.
    pub blocks: Vec<(u64, BlockRef)>,
    /// Keys and values, sorted.
    pub tags: Vec<(String, String)>,
    /// Where the blocks are, in the order in which stores are asked.
    pub routes: Vec<Route>,
}

/// Reads all of a flist and closes it.
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

/// Reads only the tags, which takes a millisecond whatever the size of the tree. A file of another format has none.
pub(super) fn read_tags(path: &Path) -> Result<Vec<(String, String)>, MetadataError> {
    check_file(path)?;
    match regular::open_file(path) {
        Ok(file) if is_database(&file) => Reader::open(path)?.tags(),
        _ => Ok(Vec::new()),
    }
}

/// Tells whether a file begins as a flist of today does.
pub(crate) fn is_database(file: &fs::File) -> bool {
    let mut magic = [0; MAGIC.len()];
    file.read_exact_at(&mut magic, 0).is_ok() && magic == MAGIC
}

/// Refuses what is not a regular file of a sane length, before SQLite sees it.
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
        // Too short for a header: SQLite will say so.
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

/// Computes the length of the file from SQLite's header. SQLite itself would read a file without its last bytes.
///
/// `None` if it is not SQLite, or was written by a version so old (before 3.7) that the field means nothing.
#[must_use]
pub fn announced_len(header: &[u8; HEADER_LEN]) -> Option<u64> {
    let word = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let page_size = u16::from_be_bytes(header.get(16..18)?.try_into().ok()?);
    let page_size = if page_size == 1 { 65_536 } else { u64::from(page_size) };
    let (changes, pages, valid_for) = (word(24)?, word(28)?, word(92)?);
    (header.starts_with(MAGIC) && changes == valid_for && pages > 0).then(|| u64::from(pages) * page_size)
}

/// Opens the database so that nothing is written.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // Immutable: no locks, no journal and no WAL is looked for beside the file, and nothing is ever written.
    let absolute = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let uri = format!("file:{}?mode=ro&immutable=1", escape(absolute.as_os_str().as_bytes()));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(uri, flags)
}

/// Lets nothing in a database act: untrusted schema, no views, triggers or extensions, bounded values and time.
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

/// Tells a database that is too slow from one that is damaged; `what` is the part that was being read.
#[must_use]
pub fn classify(path: &Path, what: &'static str, source: rusqlite::Error) -> MetadataError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => MetadataError::TooSlow { path, limit: READ_TIMEOUT },
        _ => MetadataError::Database { path, what, source },
    }
}

/// A hardened database and the tables that are read from it.
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

    /// Takes a database that an enemy may have written: nothing in it can act, no value is longer than the limit in bytes, and
    /// all reading together ends after [`READ_TIMEOUT`]. Nothing is read before [`Self::check_schema`]. `path` is for errors.
    ///
    /// # Errors
    /// It is no database.
    pub fn harden(path: &'a Path, mut connection: Connection, max_value_bytes: i32) -> Result<Self, MetadataError> {
        let deadline = Deadline::after(READ_TIMEOUT);
        let hardened = harden(&mut connection, max_value_bytes, deadline);
        hardened.map_err(|source| classify(path, "the header", source))?;
        Ok(Self { path, connection, tables: &[], deadline })
    }

    /// Gives the file, for errors.
    #[must_use]
    pub fn path(&self) -> &'a Path {
        self.path
    }

    /// Gives the database, for queries that [`Self::rows`] has no form for.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Ends the sum of many short queries; SQLite's own handler ends a long one.
    ///
    /// # Errors
    /// [`READ_TIMEOUT`] is over.
    pub fn check_time(&self) -> Result<(), MetadataError> {
        let too_slow = || MetadataError::TooSlow { path: self.path.to_owned(), limit: READ_TIMEOUT };
        if self.deadline.has_passed() { Err(too_slow()) } else { Ok(()) }
    }

    fn tags(&self) -> Result<Vec<(String, String)>, MetadataError> {
        let mut tags = self.rows("tag", MAX_TAGS, |cells| Ok((cells.text(0, "key")?, cells.text(1, "value")?)))?;
        tags.sort_unstable();
        Ok(tags)
    }

    /// Makes the error for a database of another shape.
    #[must_use]
    pub fn refuse(&self, reason: Malformed) -> MetadataError {
        MetadataError::Schema { path: self.path.to_owned(), reason }
    }

    /// Accepts only plain tables, and these with exactly their columns. Reads the schema as text, so that nothing in it is used
    /// yet.
    ///
    /// # Errors
    /// The first object that is of another shape, or a table that is missing.
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

    /// Gives name and `hidden` (not 0: virtual or generated) of each column.
    fn columns(&self, table: &str) -> rusqlite::Result<Vec<(String, i64)>> {
        // `table` is one of our constants.
        let mut statement = self.connection.prepare(&format!("PRAGMA table_xinfo({table})"))?;
        let columns = statement.query_map([], |row| Ok((row.get("name")?, row.get("hidden")?)))?;
        columns.collect()
    }

    /// Reads a whole table by its own b-tree (an index could lie), in the order of the rowids; at most `limit` rows.
    ///
    /// # Errors
    /// A damaged table, too many rows, or what `convert` refuses.
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
    /// Says what it is if it is neither a plain table nor an index of one.
    fn foreign(&self) -> Option<String> {
        let sql = self.sql.as_deref().unwrap_or_default();
        let starts = |prefix: &str| sql.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
        // SQLite parses the text whatever the type says, so both must agree.
        let agrees = match self.kind.as_str() {
            "table" => starts("CREATE TABLE"),
            "index" => self.sql.is_none() || starts("CREATE INDEX") || starts("CREATE UNIQUE INDEX"),
            _ => false,
        };
        let stored = self.root_page.is_some_and(|page| page > 0);
        (!agrees || !stored).then(|| if stored { self.kind.clone() } else { format!("virtual or stray {}", self.kind) })
    }
}

/// One row, whose cells are taken out with their type and range checked.
#[derive(Debug)]
pub struct Cells<'a> {
    table: &'static str,
    rowid: i64,
    row: &'a Row<'a>,
    text_limit: usize,
    /// What is left of the limit for the rows to come.
    text_left: &'a Cell<usize>,
}

impl Cells<'_> {
    fn wrong(&self, column: &'static str, found: String) -> Malformed {
        Malformed::Value { table: self.table, rowid: self.rowid, column, found }
    }

    fn cell(&self, index: usize, column: &'static str) -> Result<ValueRef<'_>, Malformed> {
        self.row.get_ref(index).map_err(|_unreadable| self.wrong(column, "nothing readable".to_owned()))
    }

    fn integer(&self, index: usize, column: &'static str) -> Result<i64, Malformed> {
        match self.cell(index, column)? {
            ValueRef::Integer(value) => Ok(value),
            other => Err(self.wrong(column, format!("{}, not an integer", other.data_type()))),
        }
    }

    fn ranged<T: TryFrom<i64>>(&self, index: usize, column: &'static str) -> Result<T, Malformed> {
        let value = self.integer(index, column)?;
        T::try_from(value).map_err(|_out_of_range| self.wrong(column, format!("{value}, which is out of range")))
    }

    fn unsigned(&self, index: usize, column: &'static str) -> Result<u64, Malformed> {
        self.ranged(index, column)
    }

    /// Counts bytes that will be kept.
    fn keep<'b>(&self, bytes: &'b [u8]) -> Result<&'b [u8], Malformed> {
        let left = self.text_left.get().checked_sub(bytes.len());
        self.text_left.set(left.ok_or(Malformed::TooMuchText { table: self.table, limit: self.text_limit })?);
        Ok(bytes)
    }

    /// Takes text as bytes: `rfs` writes names as text, and names that are not UTF-8 are blobs.
    fn name(&self, index: usize, column: &'static str) -> Result<&[u8], Malformed> {
        match self.cell(index, column)? {
            ValueRef::Text(name) | ValueRef::Blob(name) => self.keep(name),
            other => Err(self.wrong(column, format!("{}, not text", other.data_type()))),
        }
    }

    fn text_bytes(&self, index: usize, column: &'static str) -> Result<&[u8], Malformed> {
        match self.cell(index, column)? {
            ValueRef::Text(text) => self.keep(text),
            other => Err(self.wrong(column, format!("{}, not text", other.data_type()))),
        }
    }

    /// Takes text, and counts it against the limit on all text.
    ///
    /// # Errors
    /// Another type, not UTF-8, or too much text.
    pub fn text(&self, index: usize, column: &'static str) -> Result<String, Malformed> {
        let bytes = self.text_bytes(index, column)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.wrong(column, "text that is not UTF-8".to_owned()))
    }

    fn bytes(&self, index: usize, column: &'static str) -> Result<Vec<u8>, Malformed> {
        match self.cell(index, column)? {
            ValueRef::Blob(bytes) => Ok(self.keep(bytes)?.to_vec()),
            other => Err(self.wrong(column, format!("{}, not a blob", other.data_type()))),
        }
    }

    fn digest(&self, index: usize, column: &'static str) -> Result<[u8; 32], Malformed> {
        let found = match self.cell(index, column)? {
            ValueRef::Blob(bytes) => match <[u8; 32]>::try_from(bytes) {
                Ok(digest) => return Ok(digest),
                Err(_) => format!("{} bytes, not 32", bytes.len()),
            },
            other => format!("{}, not a blob", other.data_type()),
        };
        Err(self.wrong(column, found))
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
