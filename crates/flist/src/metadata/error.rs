//! Why a flist was refused.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::FlistErrorKind;

/// What went wrong while opening a flist.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// There is no file of that name.
    #[error("open flist {}: no such file", path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// A directory, device, pipe or socket.
    #[error("open flist {}: it is {what}, not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// The system refused.
    #[error("open flist {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Above the cap on flists.
    #[error("open flist {}: {len} bytes, the limit is {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
        /// The cap.
        limit: u64,
    },
    /// The file is longer or shorter than its own header says.
    #[error("open flist {}: {len} bytes, its header says {announced}", path.display())]
    CutShort {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
        /// What it should be.
        announced: u64,
    },
    /// SQLite cannot read it: not a database, cut off, damaged, or without the tables.
    #[error("read {what} of flist {}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// The part that was being read.
        what: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Reading took too long; an honest flist takes milliseconds.
    #[error("read flist {}: not done within {limit:?}", path.display())]
    TooSlow {
        /// The file.
        path: PathBuf,
        /// The bound.
        limit: Duration,
    },
    /// It is a database, but not of the expected shape.
    #[error("accept the tables of flist {}", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// What is there that must not be, or the reverse.
        #[source]
        reason: Malformed,
    },
    /// It is of another format, whose reader refuses it.
    #[error("open {format} {}", path.display())]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// The format, such as `legacy flist`.
        format: &'static str,
        /// What to do next.
        hint: &'static str,
        /// What sort of trouble it is.
        kind: FlistErrorKind,
        /// Why; an error of the crate that reads the format.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The tables are right, what they hold is not a file tree.
    #[error("accept the content of flist {}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The first thing found.
        #[source]
        reason: Malformed,
    },
}

/// One way in which a database is not a flist. Names are shown escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A view, trigger, virtual table or something unknown.
    #[error("schema object {name:?} is a {found}, only plain tables and indexes are allowed")]
    ForeignObject {
        /// Its name.
        name: String,
        /// What it is.
        found: String,
    },
    /// One of the five tables is not there.
    #[error("table {table} is missing")]
    NoTable {
        /// The table.
        table: &'static str,
    },
    /// A table has other columns, or generated ones.
    #[error("table {table} has other columns than the format says: {found}")]
    Columns {
        /// The table.
        table: &'static str,
        /// What it has.
        found: String,
    },
    /// Rows are not in the order of their ids: a damaged file.
    #[error("table {table}: row {rowid} is out of order")]
    RowOrder {
        /// The table.
        table: &'static str,
        /// The row.
        rowid: i64,
    },
    /// Longer texts than we are ready to hold.
    #[error("table {table} has more than {limit} bytes of text")]
    TooMuchText {
        /// The table.
        table: &'static str,
        /// The cap.
        limit: usize,
    },
    /// More rows than we are ready to hold.
    #[error("table {table} has more than {limit} rows")]
    TooManyRows {
        /// The table.
        table: &'static str,
        /// The cap.
        limit: usize,
    },
    /// A column holds another type, a value out of range or a wrong length.
    #[error("table {table}, row {rowid}: column {column} holds {found}")]
    Value {
        /// The table.
        table: &'static str,
        /// The row.
        rowid: i64,
        /// The column.
        column: &'static str,
        /// What was found, in words.
        found: String,
    },
    /// No inode 1.
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
    /// Two rows with one number.
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
    /// Empty, too long, `.`, `..`, or with `/` or NUL.
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
    /// The type bits of the mode name no file type.
    #[error("inode {ino} has mode {mode:o}, which is no file type")]
    Mode {
        /// The inode.
        ino: u64,
        /// The mode.
        mode: u32,
    },
    /// A device number that the kernel has no room for.
    #[error("inode {ino} is device {major}:{minor}, which cannot exist")]
    Device {
        /// The inode.
        ino: u64,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// The blocks do not add up to the size.
    #[error("file {ino} of {size} bytes has {found} blocks, not {expected}")]
    BlockCount {
        /// The file.
        ino: u64,
        /// Its size in bytes.
        size: u64,
        /// The blocks there are.
        found: u64,
        /// The blocks there must be.
        expected: u64,
    },
    /// A block of something that is not a file.
    #[error("there are blocks of {ino}, which is not a regular file")]
    StrayBlock {
        /// The number in the block table.
        ino: u64,
    },
    /// A symbolic link without target.
    #[error("symbolic link {ino} has no target")]
    NoTarget {
        /// The link.
        ino: u64,
    },
    /// Empty, too long, or with NUL.
    #[error("symbolic link {ino} has a forbidden target of {len} bytes")]
    Target {
        /// The link.
        ino: u64,
        /// The target's length.
        len: usize,
    },
    /// A target of something that is not a symbolic link.
    #[error("there is a link target of {ino}, which is not a symbolic link")]
    StrayTarget {
        /// The number in the extra table.
        ino: u64,
    },
}

impl MetadataError {
    /// Says what to do next.
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

    /// Says what sort of trouble it is.
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
