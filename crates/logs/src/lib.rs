//! Container logs: the line format, a writer that rotates, a reader that tails and follows.
//!
//! Takes in: bytes of two streams, in any chunks. Gives out: files of lines in the CRI form, and their records again.
//! Never does: wait, start threads, decide what happens when a disk is full (the caller does, by a typed error), touch
//! any file but its own. Used by the shim (writer) and by the daemon (reader).
//!
//! ```text
//! 2026-11-23T10:11:12.123456789Z stdout F text        a line that ends here (F), or goes on in the next record (P)
//!
//! name.log     written        ── at max_bytes: rename ──►  name.log.1 ──► name.log.2 ──► … removed
//! ```
//!
//! - The directory is shared with the host. A file or directory is ours when it bears our mark ([`LogFiles`]); no other
//!   file is opened, written, moved or removed.
//! - No bytes wait in memory: a part of a line is a `P` record at once; the newline that comes later is an `F`, perhaps an
//!   empty one. So the bytes of a stream are exactly: the content of each record, and a newline after each `F`.
//! - A part is at most 16 KiB of content; all records of one call share one time stamp and one `write(2)`.
#![forbid(unsafe_code)]

mod error;
mod files;
mod format;
mod mark;
mod prepare;
mod reader;
mod removed;
mod rotation;
mod stored;
mod tail;
mod writer;

pub use error::LogError;
pub use files::LogFiles;
pub use format::{LogRecord, MAX_CONTENT_BYTES, Stream};
pub use prepare::RunStart;
pub use reader::{LogItem, LogReader, Tail};
pub use rotation::Rotation;
pub use stored::{LogDisk, Part, StoredFile, StoredLogs};
pub use writer::{LogWriter, Position};
