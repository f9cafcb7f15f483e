//! Values of a wrong type in every column, independent of the declared type.

use contd_flist::metadata::Malformed;
use contd_flist::{Flist, FlistErrorKind, MetadataError};

use super::refused;
use crate::support::{Fixture, chain};

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

/// Whole numbers that a lenient reader would accept: as text, and as a fraction.
#[test]
fn without_types_in_the_schema_the_values_must_still_have_theirs() {
    for (table, columns) in [
        ("inode", "ino, parent, name, size, uid, gid, mode, rdev, ctime, mtime"),
        ("extra", "ino, data"),
        ("block", "ino, id, key"),
        ("tag", "key, value"),
        ("route", "start, end, url"),
    ] {
        let untyped = format!(
            "ALTER TABLE {table} RENAME TO old; CREATE TABLE {table} ({columns}); INSERT INTO {table} SELECT * FROM old;
             DROP TABLE old;"
        );
        let fixture = Fixture::copy_metadata("small");
        fixture.sql(&untyped);
        let opened = Flist::open(&fixture.fl);
        assert_eq!(opened.unwrap_or_else(|error| panic!("{table}: {}", chain(&error))).inode_count(), 77);
        for column in columns.split(", ") {
            let is_text = matches!(column, "name" | "value" | "url") || (table, column) == ("tag", "key");
            let is_blob = matches!((table, column), ("extra", "data") | ("block", "id" | "key"));
            // Every value in another form than its own. A name may be text or blob.
            let wrong = match (is_text, is_blob) {
                (_, true) => ["cast({} as text)", "1", "1.5", "NULL"],
                (true, _) if column == "name" => ["1", "1.5", "NULL", "zeroblob(0)"],
                (true, _) => ["cast({} as blob)", "1", "1.5", "NULL"],
                _ => ["cast({} as text)", "cast({} as real)", "cast({} as blob)", "NULL"],
            };
            for value in wrong.map(|value| value.replace("{}", column)) {
                let change =
                    format!("UPDATE {table} SET {column} = {value} WHERE rowid = (SELECT max(rowid) FROM {table})");
                let error = refused(&format!("{untyped} {change}"));
                assert_eq!(error.kind(), FlistErrorKind::Corrupt, "{change}: {}", chain(&error));
            }
        }
    }
}
