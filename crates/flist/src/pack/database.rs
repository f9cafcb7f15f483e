//! Writes the five tables of `rfs`: one transaction, rows in the order of the tree, indexes last.

use std::path::Path;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, ToSql, Transaction, params};

use super::tree::{EntryKind, Tree};
use crate::hash::BlockRef;
use crate::metadata::Route;

/// The schema of `rfs`. AUTOINCREMENT makes SQLite add its own table `sqlite_sequence`.
const TABLES: &str = "
CREATE TABLE inode (
    ino INTEGER PRIMARY KEY AUTOINCREMENT,
    parent INTEGER,
    name VARCHAR(255),
    size INTEGER,
    uid INTEGER,
    gid INTEGER,
    mode INTEGER,
    rdev INTEGER,
    ctime INTEGER,
    mtime INTEGER
);
CREATE TABLE extra (ino INTEGER PRIMARY KEY, data VARCHAR(4096));
CREATE TABLE block (ino INTEGER, id VARCHAR(32), key VARCHAR(32));
CREATE TABLE tag (key VARCHAR(10) PRIMARY KEY, value VARCHAR(255));
CREATE TABLE route (start integer, end integer, url VARCHAR(2048));
";

const INDEXES: &str = "
CREATE INDEX parents ON inode (parent);
CREATE INDEX names ON inode (name);
CREATE INDEX block_ino ON block (ino);
";

/// Fills the empty file at `path`. The caller syncs and renames it, so SQLite keeps no journal and does not sync.
pub(super) fn write(
    path: &Path,
    tree: &Tree,
    blocks: &[Vec<BlockRef>],
    routes: &[Route],
    tags: &[(String, String)],
) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch(
        "PRAGMA page_size = 4096; PRAGMA encoding = 'UTF-8'; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;",
    )?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    write_inodes(&transaction, tree)?;
    write_blocks(&transaction, blocks)?;
    let mut tag = transaction.prepare("INSERT INTO tag (key, value) VALUES (?1, ?2)")?;
    for (key, value) in tags {
        tag.execute(params![key, value])?;
    }
    drop(tag);
    write_routes(&transaction, routes)?;
    transaction.execute_batch(INDEXES)?;
    transaction.commit()?;
    connection.close().map_err(|(_connection, source)| source)
}

/// Adds routes in the given order.
pub(crate) fn write_routes(transaction: &Transaction<'_>, routes: &[Route]) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare("INSERT INTO route (start, end, url) VALUES (?1, ?2, ?3)")?;
    for route in routes {
        insert.execute(params![route.start, route.end, route.url])?;
    }
    Ok(())
}

fn write_inodes(transaction: &Transaction<'_>, tree: &Tree) -> rusqlite::Result<()> {
    let mut inode = transaction.prepare(
        "INSERT INTO inode (ino, parent, name, size, uid, gid, mode, rdev, ctime, mtime)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    let mut extra = transaction.prepare("INSERT INTO extra (ino, data) VALUES (?1, ?2)")?;
    for (ino, (parent, entry)) in (1_i64..).zip(&tree.entries) {
        // No file system has files of 8 EiB, and no device number needs the sign bit.
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        inode.execute(params![
            ino,
            parent,
            Name(entry.name()),
            number(entry.size()),
            entry.uid,
            entry.gid,
            entry.st_mode(),
            number(entry.rdev()),
            entry.ctime,
            entry.mtime
        ])?;
        if let EntryKind::Symlink { target } = &entry.kind {
            extra.execute(params![ino, target])?;
        }
    }
    Ok(())
}

/// A name as `rfs` writes it: text. A name that is not UTF-8, if allowed, is written as a blob.
struct Name<'a>(&'a [u8]);

impl ToSql for Name<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let is_text = std::str::from_utf8(self.0).is_ok();
        Ok(ToSqlOutput::Borrowed(if is_text { ValueRef::Text(self.0) } else { ValueRef::Blob(self.0) }))
    }
}

fn write_blocks(transaction: &Transaction<'_>, blocks: &[Vec<BlockRef>]) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare("INSERT INTO block (ino, id, key) VALUES (?1, ?2, ?3)")?;
    for (ino, of_file) in (1_i64..).zip(blocks) {
        for block in of_file {
            insert.execute(params![ino, block.id.as_bytes(), block.key.as_bytes()])?;
        }
    }
    Ok(())
}
