//! Flists that an enemy or a bad disk made: each is refused with its reason, quickly, and nothing is written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

mod support;

use contd_flist::metadata::Malformed;
use contd_flist::{Flist, FlistErrorKind, MetadataError};
use support::{Fixture, chain};

/// Spoils a copy of `small` by SQL, and gives what the reader says.
#[track_caller]
fn refused(sql: &str) -> MetadataError {
    let fixture = Fixture::copy_metadata("small");
    fixture.sql(sql);
    let error = Flist::open(&fixture.fl).expect_err(sql);
    assert!(!error.hint().is_empty());
    error
}

#[track_caller]
fn malformed(sql: &str) -> Malformed {
    let error = refused(sql);
    assert_eq!(error.kind(), FlistErrorKind::Corrupt, "{sql}: {}", chain(&error));
    match error {
        MetadataError::Schema { reason, .. } | MetadataError::Malformed { reason, .. } => reason,
        other => panic!("{sql}: {}", chain(&other)),
    }
}

/// A number of a file that exists in `small`: `/etc/hostname`.
const FILE: &str = "(SELECT ino FROM inode WHERE name = 'hostname')";
const LINK: &str = "(SELECT ino FROM inode WHERE name = 'dangling')";

#[test]
fn a_view_in_place_of_a_table_is_refused() {
    let endless = "ALTER TABLE inode RENAME TO hidden;
        CREATE VIEW inode AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
        SELECT i AS ino, 1 AS parent, 'x' AS name, 0 AS size, 0 AS uid, 0 AS gid, 33188 AS mode, 0 AS rdev,
        0 AS ctime, 0 AS mtime FROM n";
    assert!(matches!(malformed(endless), Malformed::ForeignObject { found, .. } if found.contains("view")));
}

#[test]
fn triggers_and_virtual_tables_are_refused() {
    let trigger = "CREATE TRIGGER t AFTER INSERT ON tag BEGIN DELETE FROM inode; END";
    assert!(matches!(malformed(trigger), Malformed::ForeignObject { found, .. } if found.contains("trigger")));
    let virtual_table = "CREATE VIRTUAL TABLE v USING fts5(x)";
    assert!(matches!(malformed(virtual_table), Malformed::ForeignObject { .. }));
}

#[test]
fn generated_missing_and_additional_columns_are_refused() {
    let generated = "DROP TABLE tag; CREATE TABLE tag (key TEXT, value TEXT AS (hex(zeroblob(100000000))))";
    assert!(matches!(malformed(generated), Malformed::Columns { table: "tag", .. }));
    assert!(matches!(malformed("ALTER TABLE block DROP COLUMN key"), Malformed::Columns { table: "block", .. }));
    let shadowed = "DROP TABLE block; CREATE TABLE block (ino, id, key, rowid)";
    assert!(matches!(malformed(shadowed), Malformed::Columns { table: "block", .. }));
    for table in ["inode", "extra", "block", "tag", "route"] {
        let reason = malformed(&format!("DROP TABLE {table}"));
        assert!(matches!(reason, Malformed::NoTable { table: missing } if missing == table), "{reason}");
    }
}

#[test]
fn a_table_without_rowids_is_refused() {
    let error =
        refused("DROP TABLE block; CREATE TABLE block (ino INTEGER, id BLOB PRIMARY KEY, key BLOB) WITHOUT ROWID");
    assert!(matches!(error, MetadataError::Database { what: "block", .. }), "{}", chain(&error));
}

#[test]
fn wrong_types_and_ranges_in_any_column_are_refused() {
    const NO_INTEGER: &[&str] = &["NULL", "x'00ff'", "1.5", "'text'"];
    const NO_U32: &[&str] = &["NULL", "x'00ff'", "1.5", "'text'", "-1", "4294967296"];
    const NO_U63: &[&str] = &["NULL", "x'00ff'", "1.5", "'text'", "-1"];
    const NO_BYTE: &[&str] = &["NULL", "x'00ff'", "1.5", "'text'", "-1", "256"];
    // The column turns numbers into text, and a blob is a name that is not UTF-8.
    const NO_NAME: &[&str] = &["NULL"];
    const NO_UTF8: &[&str] = &["NULL", "x'00ff'", "cast(x'ff' as text)"];
    const NO_BLOB: &[&str] = &["NULL", "'text'", "1"];
    const NO_DIGEST: &[&str] = &["NULL", "'text'", "1", "x'00ff'", "zeroblob(33)", "zeroblob(100000)"];
    for (table, column, wrong) in [
        ("inode", "parent", NO_U63),
        ("inode", "name", NO_NAME),
        ("inode", "size", NO_U63),
        ("inode", "uid", NO_U32),
        ("inode", "gid", NO_U32),
        ("inode", "mode", NO_U32),
        ("inode", "rdev", NO_U63),
        ("inode", "ctime", NO_INTEGER),
        ("inode", "mtime", NO_INTEGER),
        ("extra", "data", NO_BLOB),
        ("block", "ino", NO_U63),
        ("block", "id", NO_DIGEST),
        ("block", "key", NO_DIGEST),
        ("tag", "key", NO_UTF8),
        ("tag", "value", NO_UTF8),
        ("route", "start", NO_BYTE),
        ("route", "end", NO_BYTE),
        ("route", "url", NO_UTF8),
    ] {
        for value in wrong {
            let sql = format!("UPDATE {table} SET {column} = {value} WHERE rowid = (SELECT max(rowid) FROM {table})");
            let error = refused(&sql);
            match error {
                MetadataError::Schema {
                    reason: Malformed::Value { table: in_table, column: in_column, .. }, ..
                } => {
                    assert_eq!((in_table, in_column), (table, column), "{sql}");
                }
                // A value above our limit on lengths is refused by SQLite itself.
                MetadataError::Database { .. } if value.contains("100000") => {}
                other => panic!("{sql}: {}", chain(&other)),
            }
        }
    }
}

#[test]
fn names_that_leave_their_directory_are_refused() {
    for name in
        ["'..'", "'.'", "''", "'a/b'", "'../../etc/passwd'", "'/'", "cast(x'610062' as text)", "x'612f62'", "x'00'"]
    {
        let reason = malformed(&format!("UPDATE inode SET name = {name} WHERE ino = {FILE}"));
        assert!(matches!(reason, Malformed::Name { .. }), "{name}: {reason}");
    }
    let long = "n".repeat(256);
    let reason = malformed(&format!("UPDATE inode SET name = '{long}' WHERE ino = {FILE}"));
    assert!(matches!(reason, Malformed::Name { .. }), "{reason}");
}

#[test]
fn two_entries_of_one_name_are_refused() {
    let sql = format!("UPDATE inode SET parent = 1, name = 'etc' WHERE ino = {FILE}");
    assert!(matches!(malformed(&sql), Malformed::DuplicateName { parent: 1, name } if name == "etc"));
}

#[test]
fn a_tree_needs_one_root_and_parents_that_are_directories() {
    assert!(matches!(malformed("UPDATE inode SET ino = 1000 WHERE ino = 1"), Malformed::NoRoot));
    assert!(matches!(malformed("UPDATE inode SET parent = 1 WHERE ino = 1"), Malformed::BadRoot));
    assert!(matches!(malformed("UPDATE inode SET mode = 33188 WHERE ino = 1"), Malformed::BadRoot));
    assert!(matches!(malformed("UPDATE inode SET parent = 0 WHERE name = 'etc'"), Malformed::SecondRoot { .. }));
    assert!(matches!(
        malformed("UPDATE inode SET parent = 999 WHERE name = 'etc'"),
        Malformed::NoParent { parent: 999, .. }
    ));
    let in_file = format!("UPDATE inode SET parent = {FILE} WHERE name = 'links'");
    assert!(matches!(malformed(&in_file), Malformed::ParentNotDirectory { .. }));
    assert!(matches!(malformed("INSERT INTO inode SELECT 0, 1, 'zero', 0, 0, 0, 33188, 0, 0, 0"), Malformed::NoRoot));
}

#[test]
fn circles_that_hang_on_nothing_are_left_out() {
    let fixture = Fixture::copy_metadata("small");
    let before = Flist::open(&fixture.fl).unwrap().inode_count();
    // /a/b/c becomes its own grandparent: c, d and what is in them can no longer be reached.
    fixture.sql("UPDATE inode SET parent = (SELECT ino FROM inode WHERE name = 'd') WHERE name = 'c' AND mode & 16384");
    let flist = Flist::open(&fixture.fl).unwrap();
    assert!(flist.inode_count() < before);
    assert!(flist.resolve(b"a/b").is_some() && flist.resolve(b"a/b/c").is_none());
    fixture.sql("INSERT INTO inode SELECT 5000, 5000, 'self', 4096, 0, 0, 16877, 0, 0, 0");
    assert!(Flist::open(&fixture.fl).unwrap().inode(5000).is_none());
}

#[test]
fn sizes_that_the_blocks_do_not_cover_are_refused() {
    let terabyte = malformed("UPDATE inode SET size = 1099511627776 WHERE name = 'exact-512k-plus-1'");
    assert!(matches!(terabyte, Malformed::BlockCount { found: 2, expected: 2_097_152, .. }), "{terabyte}");
    let huge = malformed("UPDATE inode SET size = 9223372036854775807 WHERE name = 'exact-512k-plus-1'");
    assert!(matches!(huge, Malformed::BlockCount { .. }), "{huge}");
    let missing = malformed(&format!("DELETE FROM block WHERE ino = {FILE}"));
    assert!(matches!(missing, Malformed::BlockCount { found: 0, expected: 1, .. }), "{missing}");
    let empty = malformed(&format!("UPDATE inode SET size = 0 WHERE ino = {FILE}"));
    assert!(matches!(empty, Malformed::BlockCount { found: 1, expected: 0, .. }), "{empty}");
}

#[test]
fn blocks_and_targets_of_the_wrong_inode_are_refused() {
    let block = malformed("INSERT INTO block SELECT 1, id, key FROM block LIMIT 1");
    assert!(matches!(block, Malformed::StrayBlock { ino: 1 }), "{block}");
    let nowhere = malformed("INSERT INTO block SELECT 12345, id, key FROM block LIMIT 1");
    assert!(matches!(nowhere, Malformed::StrayBlock { ino: 12345 }), "{nowhere}");
    let target = malformed("INSERT INTO extra VALUES (1, x'2f')");
    assert!(matches!(target, Malformed::StrayTarget { ino: 1 }), "{target}");
    assert!(matches!(malformed(&format!("DELETE FROM extra WHERE ino = {LINK}")), Malformed::NoTarget { .. }));
    for data in ["x''", "x'2f00'", "zeroblob(4096)"] {
        let reason = malformed(&format!("UPDATE extra SET data = {data} WHERE ino = {LINK}"));
        assert!(matches!(reason, Malformed::Target { .. }), "{data}: {reason}");
    }
}

#[test]
fn modes_and_devices_that_cannot_exist_are_refused() {
    for mode in ["0", "511", "4294967295", "1000000"] {
        let reason = malformed(&format!("UPDATE inode SET mode = {mode} WHERE ino = {FILE}"));
        assert!(matches!(reason, Malformed::Mode { .. }), "{mode}: {reason}");
    }
    let reason = malformed("UPDATE inode SET rdev = 9223372036854775807 WHERE name = 'null'");
    assert!(matches!(reason, Malformed::Device { .. }), "{reason}");
}

#[test]
fn too_many_routes_are_refused() {
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
        INSERT INTO route SELECT 0, 255, 'http://10.0.0.1/' || i FROM n";
    assert!(matches!(malformed(sql), Malformed::TooManyRows { table: "route", .. }));
}

#[test]
fn what_is_no_database_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("x.fl");
    assert!(matches!(Flist::open(&path), Err(MetadataError::NotFound { .. })));
    assert!(matches!(Flist::open(scratch.path()), Err(MetadataError::NotAFile { .. })));
    for content in [b"".as_slice(), b"not a database", b"SQLite format 3\0", &[0xff; 8192]] {
        std::fs::write(&path, content).unwrap();
        let error = Flist::open(&path).unwrap_err();
        assert_eq!(error.kind(), FlistErrorKind::Corrupt, "{}", chain(&error));
    }
    std::fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(Flist::open(&path), Err(MetadataError::NotAFile { .. })), "a pipe must not hang the reader");
}

#[test]
fn a_flist_cut_off_anywhere_is_refused() {
    let fixture = Fixture::copy_metadata("small");
    let whole = std::fs::read(&fixture.fl).unwrap();
    for len in (0..whole.len()).step_by(1024).chain([whole.len() - 1]) {
        std::fs::write(&fixture.fl, &whole[..len]).unwrap();
        assert!(Flist::open(&fixture.fl).is_err(), "cut to {len} of {} bytes", whole.len());
    }
}

#[test]
fn a_flist_with_any_byte_damaged_is_refused_or_is_still_a_tree() {
    let fixture = Fixture::copy_metadata("small");
    let whole = std::fs::read(&fixture.fl).unwrap();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut refused = 0;
    for _ in 0..400 {
        let mut damaged = whole.clone();
        for _ in 0..4 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let position = usize::try_from(seed >> 33).unwrap() % damaged.len();
            damaged[position] ^= 1 << (seed & 7);
        }
        std::fs::write(&fixture.fl, &damaged).unwrap();
        match Flist::open(&fixture.fl) {
            Ok(flist) => {
                // Whatever was accepted is a tree: every inode is reached once from the root.
                let mut reached = 0;
                let mut waiting = vec![flist.root()];
                while let Some(inode) = waiting.pop() {
                    reached += 1;
                    waiting.extend(flist.children(inode.ino()).iter());
                }
                assert_eq!(reached, flist.inode_count());
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 20, "only {refused} of 400 damaged flists were refused");
}

#[test]
fn a_flist_in_wal_mode_is_read_and_not_converted() {
    let fixture = Fixture::copy_metadata("small");
    fixture.sql("PRAGMA journal_mode = WAL; UPDATE tag SET value = '2' WHERE key = 'version';");
    let before = std::fs::read(&fixture.fl).unwrap();
    assert_eq!(Flist::open(&fixture.fl).unwrap().tag("version"), Some("2"));
    assert_eq!(std::fs::read(&fixture.fl).unwrap(), before);
}
