//! The errors of opening a flist.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::FlistErrorKind;

/// A flist could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// The file does not exist.
    #[error("open flist {}: no such file", path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// The path is a directory, device, pipe or socket.
    #[error("open flist {}: it is {what}, not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// The kind of file.
        what: String,
    },
    /// The file could not be read.
    #[error("open flist {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file exceeds the size limit.
    #[error("open flist {}: {len} bytes, the limit is {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The file's length in bytes.
        len: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The length of the file differs from the one in its header.
    #[error("open flist {}: {len} bytes, its header says {announced}", path.display())]
    CutShort {
        /// The file.
        path: PathBuf,
        /// The file's length in bytes.
        len: u64,
        /// The length in the header.
        announced: u64,
    },
    /// SQLite cannot read the file: not a database, truncated, damaged, or without the tables.
    #[error("read {what} of flist {}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// The part that was being read.
        what: &'static str,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// Reading exceeded the time limit; a valid flist takes milliseconds.
    #[error("read flist {}: not done within {limit:?}", path.display())]
    TooSlow {
        /// The file.
        path: PathBuf,
        /// The time limit.
        limit: Duration,
    },
    /// The file is a database, but its tables are not those of the format.
    #[error("accept the tables of flist {}", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// The difference.
        #[source]
        reason: Malformed,
    },
    /// The file has another format, whose reader refused it.
    #[error("open {format} {}", path.display())]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// The format, such as `legacy flist`.
        format: &'static str,
        /// The next step for the user.
        hint: &'static str,
        /// The category of the error.
        kind: FlistErrorKind,
        /// The error of the crate that reads the format.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The tables are right, but their content is not a file tree.
    #[error("accept the content of flist {}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The first fault found.
        #[source]
        reason: Malformed,
    },
}

/// A fault by which a database is not a flist. Names are shown escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The schema has a view, trigger, virtual table or an unknown object.
    #[error("schema object {name:?} is a {found}, only plain tables and indexes are allowed")]
    ForeignObject {
        /// The object's name.
        name: String,
        /// The object's kind.
        found: String,
    },
    /// One of the five tables is missing.
    #[error("table {table} is missing")]
    NoTable {
        /// The table.
        table: &'static str,
    },
    /// A table has other columns than the format, or generated ones.
    #[error("table {table} has other columns than the format says: {found}")]
    Columns {
        /// The table.
        table: &'static str,
        /// The columns found.
        found: String,
    },
    /// Rows are not ordered by id: the file is damaged.
    #[error("table {table}: row {rowid} is out of order")]
    RowOrder {
        /// The table.
        table: &'static str,
        /// The row.
        rowid: i64,
    },
    /// The text exceeds the limit on memory.
    #[error("table {table} has more than {limit} bytes of text")]
    TooMuchText {
        /// The table.
        table: &'static str,
        /// The cap.
        limit: usize,
    },
    /// The number of rows exceeds the limit on memory.
    #[error("table {table} has more than {limit} rows")]
    TooManyRows {
        /// The table.
        table: &'static str,
        /// The cap.
        limit: usize,
    },
    /// A column has another type, a value out of range or a wrong length.
    #[error("table {table}, row {rowid}: column {column} holds {found}")]
    Value {
        /// The table.
        table: &'static str,
        /// The row.
        rowid: i64,
        /// The column.
        column: &'static str,
        /// A description of the value found.
        found: String,
    },
    /// Inode 1 is missing.
    #[error("there is no root (inode 1 with parent 0)")]
    NoRoot,
    /// Inode 1 is not a directory without parent.
    #[error("inode 1 is not a directory with parent 0")]
    BadRoot,
    /// An inode with parent 0 that is not the root.
    #[error("inode {ino} is a second root")]
    SecondRoot {
        /// The inode.
        ino: u64,
    },
    /// Two rows have the same inode number.
    #[error("inode {ino} appears twice")]
    DuplicateInode {
        /// The inode.
        ino: u64,
    },
    /// The parent does not exist.
    #[error("inode {ino} is in directory {parent}, which does not exist")]
    NoParent {
        /// The inode.
        ino: u64,
        /// The parent's number.
        parent: u64,
    },
    /// The parent is not a directory.
    #[error("inode {ino} is in {parent}, which is not a directory")]
    ParentNotDirectory {
        /// The inode.
        ino: u64,
        /// The parent's number.
        parent: u64,
    },
    /// The name is empty, too long, `.`, `..`, or contains `/` or NUL.
    #[error("inode {ino} has the forbidden name {name:?}")]
    Name {
        /// The inode.
        ino: u64,
        /// The name, lossily.
        name: String,
    },
    /// Two entries of one directory have one name.
    #[error("directory {parent} has two entries {name:?}")]
    DuplicateName {
        /// The directory.
        parent: u64,
        /// The name, lossily.
        name: String,
    },
    /// The type bits of the mode are not a file type.
    #[error("inode {ino} has mode {mode:o}, which is no file type")]
    Mode {
        /// The inode.
        ino: u64,
        /// The mode.
        mode: u32,
    },
    /// The device number does not fit the kernel's.
    #[error("inode {ino} is device {major}:{minor}, which cannot exist")]
    Device {
        /// The inode.
        ino: u64,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// The number of blocks does not fit the size.
    #[error("file {ino} of {size} bytes has {found} blocks, not {expected}")]
    BlockCount {
        /// The file.
        ino: u64,
        /// Its size in bytes.
        size: u64,
        /// The number of blocks found.
        found: u64,
        /// The number of blocks expected.
        expected: u64,
    },
    /// The block table names an inode that is not a file.
    #[error("there are blocks of {ino}, which is not a regular file")]
    StrayBlock {
        /// The number in the block table.
        ino: u64,
    },
    /// A symbolic link has no target.
    #[error("symbolic link {ino} has no target")]
    NoTarget {
        /// The link.
        ino: u64,
    },
    /// The target is empty, too long, or contains NUL.
    #[error("symbolic link {ino} has a forbidden target of {len} bytes")]
    Target {
        /// The link.
        ino: u64,
        /// The target's length.
        len: usize,
    },
    /// The extra table names an inode that is not a symbolic link.
    #[error("there is a link target of {ino}, which is not a symbolic link")]
    StrayTarget {
        /// The number in the extra table.
        ino: u64,
    },
}

impl MetadataError {
    /// Returns the next step for the user.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "check the name of the flist",
            Self::NotAFile { .. } => "name a .fl file, or use dir:/path for a directory",
            Self::Open { .. } => "check the permissions of the file and of its folders",
            Self::TooLarge { .. } | Self::TooSlow { .. } => "split the tree in several flists",
            Self::CutShort { .. } => "the file was not copied whole: fetch it again",
            Self::Database { .. } => "the file is damaged or not a flist: fetch it again",
            Self::OtherFormat { hint, .. } => hint,
            Self::Schema { .. } | Self::Malformed { .. } => "the flist is damaged or hostile: pack it again",
        }
    }

    /// Returns the category of the error.
    #[must_use]
    pub fn kind(&self) -> FlistErrorKind {
        match self {
            Self::NotFound { .. } => FlistErrorKind::NotFound,
            Self::NotAFile { .. } => FlistErrorKind::Invalid,
            Self::Open { .. } => FlistErrorKind::Io,
            Self::TooLarge { .. } | Self::TooSlow { .. } => FlistErrorKind::Unsupported,
            Self::Database { source, .. } => match source.sqlite_error_code() {
                Some(rusqlite::ErrorCode::SystemIoFailure | rusqlite::ErrorCode::CannotOpen) => FlistErrorKind::Io,
                _ => FlistErrorKind::Corrupt,
            },
            Self::OtherFormat { kind, .. } => *kind,
            Self::CutShort { .. } | Self::Schema { .. } | Self::Malformed { .. } => FlistErrorKind::Corrupt,
        }
    }
}
