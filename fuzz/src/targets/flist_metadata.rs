//! A `.fl` from anywhere: it is refused with a reason, or is a tree.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use contd_flist::{FileKind, Flist, Inode, ROOT_INO};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::Scratch;

/// The five tables, as `rfs` declares them and without types, with the number of their columns.
const TYPED: &str = "
    CREATE TABLE inode (ino INTEGER PRIMARY KEY AUTOINCREMENT, parent INTEGER, name VARCHAR(255), size INTEGER,
        uid INTEGER, gid INTEGER, mode INTEGER, rdev INTEGER, ctime INTEGER, mtime INTEGER);
    CREATE TABLE extra (ino INTEGER PRIMARY KEY, data VARCHAR(4096));
    CREATE TABLE block (ino INTEGER, id VARCHAR(32), key VARCHAR(32));
    CREATE TABLE tag (key VARCHAR(10) PRIMARY KEY, value VARCHAR(255));
    CREATE TABLE route (start integer, end integer, url VARCHAR(2048));";
const UNTYPED: &str = "
    CREATE TABLE inode (ino, parent, name, size, uid, gid, mode, rdev, ctime, mtime);
    CREATE TABLE extra (ino, data);
    CREATE TABLE block (ino, id, key);
    CREATE TABLE tag (key, value);
    CREATE TABLE route (start, end, url);";
const TABLES: [(&str, usize); 5] = [("inode", 10), ("extra", 2), ("block", 3), ("tag", 2), ("route", 3)];

/// The most rows of one input: more find nothing that fewer do not.
const MAX_ROWS: usize = 64;

/// If the first byte is even, the rest is the file; otherwise the rest describes rows of the tables.
pub fn check(data: &[u8]) {
    let Some((way, rest)) = data.split_first() else { return };
    let scratch = Scratch::new();
    let path = if way & 1 == 0 { scratch.file("x.fl", rest) } else { write_rows(scratch.path(), *way, rest) };
    let before = std::fs::read(&path).unwrap();
    match Flist::open(&path) {
        Ok(flist) => is_a_tree(&flist),
        Err(refused) => {
            let mut text = refused.to_string();
            let mut at: &dyn std::error::Error = &refused;
            while let Some(source) = at.source() {
                text = format!("{text}: {source}");
                at = source;
            }
            assert!(!refused.hint().is_empty() && text.len() < 64 * 1024, "a refusal of {} bytes", text.len());
        }
    }
    assert!(std::fs::read(&path).unwrap() == before, "the flist was changed");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1, "something is beside the flist");
}

fn is_a_tree(flist: &Flist) {
    let mut reached = HashSet::new();
    let mut waiting = vec![flist.root()];
    while let Some(inode) = waiting.pop() {
        assert!(reached.insert(inode.ino()), "{inode:?} is in two places");
        let children = flist.children(inode.ino());
        assert!(children.is_empty() || inode.kind() == FileKind::Directory);
        for child in children.iter() {
            assert_eq!(child.parent(), inode.ino());
            assert_eq!(flist.lookup(inode.ino(), child.name()).map(Inode::ino), Some(child.ino()));
            waiting.push(child);
        }
    }
    assert_eq!(reached.len(), flist.inode_count());
    for inode in flist.inodes() {
        let name = inode.name();
        assert_eq!(name.is_empty(), inode.ino() == ROOT_INO);
        assert!(name.len() <= 255 && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0));
        let blocks = flist.blocks(inode.ino()).len() as u64;
        let expected = if inode.kind() == FileKind::File { inode.size().div_ceil(512 * 1024) } else { 0 };
        assert_eq!(blocks, expected, "{inode:?}");
        let target = flist.symlink_target(inode.ino());
        assert_eq!(target.is_some(), inode.kind() == FileKind::Symlink);
        assert!(target.is_none_or(|target| (1..=4095).contains(&target.len()) && !target.contains(&0)));
    }
}

fn write_rows(folder: &Path, way: u8, mut rest: &[u8]) -> PathBuf {
    let path = folder.join("x.fl");
    let database = Connection::open(&path).unwrap();
    database
        .execute_batch("PRAGMA page_size = 512; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN")
        .unwrap();
    database.execute_batch(if way & 2 == 0 { TYPED } else { UNTYPED }).unwrap();
    if way & 4 == 0 {
        database.execute_batch("INSERT INTO inode VALUES (1, 0, '/', 4096, 0, 0, 16877, 0, 0, 0)").unwrap();
    }
    for _ in 0..MAX_ROWS {
        let Some((table, columns)) = take(&mut rest).map(|byte| TABLES[usize::from(byte) % TABLES.len()]) else {
            break;
        };
        let row: Vec<Value> = (0..columns).map(|_| value(&mut rest)).collect();
        let places = vec!["?"; columns].join(", ");
        // Rows that SQLite refuses, such as duplicate keys, are not tested here.
        let _refused = database.execute(&format!("INSERT INTO {table} VALUES ({places})"), params_from_iter(row));
    }
    database.execute_batch("COMMIT").unwrap();
    drop(database);
    path
}

/// Returns a value of any type; small numbers and whole digests are frequent, since many checks depend on them.
fn value(rest: &mut &[u8]) -> Value {
    match take(rest).unwrap_or(0) {
        small @ 0..=99 => Value::Integer(i64::from(small)),
        kind @ 100..=119 => {
            let kinds = [0o100_644, 0o040_755, 0o120_777, 0o020_600, 0o060_600, 0o010_600, 0o140_600, 0o104_755];
            Value::Integer(kinds[usize::from(kind) % kinds.len()])
        }
        120..=149 => Value::Integer(i64::from_le_bytes(std::array::from_fn(|_| take(rest).unwrap_or(0)))),
        150..=159 => Value::Null,
        160..=169 => Value::Real(f64::from(take(rest).unwrap_or(0)) / 4.0),
        170..=199 => Value::Blob(vec![take(rest).unwrap_or(0); 32]),
        200..=229 => Value::Text(String::from_utf8_lossy(bytes(rest)).into_owned()),
        _ => Value::Blob(bytes(rest).to_vec()),
    }
}

/// Returns as many bytes as the first byte says, at most.
fn bytes<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let length = usize::from(take(rest).unwrap_or(0)).min(rest.len());
    let (taken, left) = rest.split_at(length);
    *rest = left;
    taken
}

fn take(rest: &mut &[u8]) -> Option<u8> {
    let (first, left) = rest.split_first()?;
    *rest = left;
    Some(*first)
}
