//! Databases with an active schema or another one.

use contd_flist::metadata::Malformed;
use contd_flist::{Flist, FlistErrorKind, MetadataError};

use super::{malformed, refused};
use crate::support::{Fixture, chain};

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
fn expressions_in_the_schema_are_never_run() {
    let fixture = Fixture::copy_metadata("small");
    let honest = Flist::open(&fixture.fl).unwrap().inode_count();
    for sql in [
        "CREATE INDEX e ON inode (abs(size) || hex(zeroblob(1000)))",
        "CREATE INDEX p ON inode (name) WHERE length(name) > 3",
        "CREATE UNIQUE INDEX u ON inode (ino, name COLLATE NOCASE)",
        "DROP TABLE tag; CREATE TABLE tag (key DEFAULT (randomblob(1000)), value CHECK (length(value) < 9))",
        "DROP TABLE extra; CREATE TABLE extra (ino REFERENCES nowhere ON DELETE CASCADE, data UNIQUE);
         DELETE FROM inode WHERE mode & 61440 = 40960",
    ] {
        let fixture = Fixture::copy_metadata("small");
        fixture.sql(sql);
        let opened = Flist::open(&fixture.fl);
        let count = opened.unwrap_or_else(|error| panic!("{sql}: {}", chain(&error))).inode_count();
        assert!(count == honest || sql.contains("DELETE"), "{sql}");
    }
}

#[test]
fn a_schema_that_was_edited_by_hand_is_refused() {
    for (edit, part) in [
        // SQLite would parse these texts when it opens the schema.
        ("sql = 'CREATE VIEW tag AS SELECT 1 AS key, 2 AS value' WHERE name = 'tag'", "view"),
        ("sql = 'CREATE VIRTUAL TABLE tag USING fts5(key, value)' WHERE name = 'tag'", "virtual"),
        ("sql = 'CREATE TABLE tag AS SELECT load_extension(''x'') AS key, 1 AS value' WHERE name = 'tag'", "as"),
        ("sql = 'CREATE TABLE other (key, value)' WHERE name = 'tag'", "name"),
        ("sql = NULL WHERE name = 'tag'", "no text"),
        ("sql = 'CREATE TABLE tag (key COLLATE nosuch, value)' WHERE name = 'tag'", "collation"),
        ("type = 'trigger' WHERE name = 'parents'", "type"),
        ("rootpage = 0 WHERE name = 'tag'", "no page"),
        ("rootpage = 100000 WHERE name = 'tag'", "beyond the end"),
        ("rootpage = -1 WHERE name = 'tag'", "before the start"),
        ("rootpage = 1 WHERE name = 'tag'", "the schema itself"),
        ("rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'names') WHERE name = 'inode'", "an index"),
        ("rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'block') WHERE name = 'inode'", "another table"),
    ] {
        let fixture = Fixture::copy_metadata("small");
        fixture.edit_schema(edit);
        match Flist::open(&fixture.fl) {
            // An unknown collation does not matter, because the reader never compares.
            Ok(flist) => assert!(part == "collation" && flist.inode_count() == 77, "{part} was accepted"),
            Err(error) => assert_eq!(error.kind(), FlistErrorKind::Corrupt, "{part}: {}", chain(&error)),
        }
    }
}

#[test]
fn a_schema_of_thousands_is_refused() {
    let fixture = Fixture::copy_metadata("small");
    let tables = (0..3000).map(|n| format!("CREATE TABLE t{n} (a);")).collect::<String>();
    fixture.sql(&format!("BEGIN; {tables} COMMIT"));
    let error = Flist::open(&fixture.fl).unwrap_err();
    assert!(chain(&error).contains("more than 64 rows"), "{}", chain(&error));
}
