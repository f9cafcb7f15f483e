//! Rows that are valid each, but form no tree.

use contd_flist::Flist;
use contd_flist::metadata::Malformed;

use super::{FILE, LINK, malformed};
use crate::support::Fixture;

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
    // /a/b/c becomes its own grandparent: c, d and their children become unreachable.
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
fn names_that_no_file_system_has_are_refused_in_text_and_blob() {
    for name in ["x'00'", "x'61006200'", "x'2f'", "x'2e'", "x'2e2e'", "x'612f62'", "x''", "zeroblob(300)"] {
        let reason = malformed(&format!("UPDATE inode SET name = {name} WHERE ino = {FILE}"));
        assert!(matches!(reason, Malformed::Name { .. }), "{name}: {reason}");
    }
    for len in [256, 300, 60_000] {
        let reason = malformed(&format!("UPDATE inode SET name = printf('%0{len}d', 1) WHERE ino = {FILE}"));
        assert!(matches!(&reason, Malformed::Name { .. }) && reason.to_string().len() < 400, "{len}");
    }
    let fixture = Fixture::copy_metadata("small");
    fixture.sql(&format!("UPDATE inode SET name = printf('%0255d', 1) WHERE ino = {FILE}"));
    Flist::open(&fixture.fl).unwrap();
}

#[test]
fn the_same_name_as_text_and_as_blob_is_there_twice() {
    let sql = format!("UPDATE inode SET parent = 1, name = cast('etc' as blob) WHERE ino = {FILE}");
    assert!(matches!(malformed(&sql), Malformed::DuplicateName { parent: 1, name } if name == "etc"));
}

#[test]
fn one_block_too_many_for_a_file_is_refused() {
    let sql = format!("INSERT INTO block SELECT ino, id, key FROM block WHERE ino = {FILE}");
    assert!(matches!(malformed(&sql), Malformed::BlockCount { found: 2, expected: 1, .. }));
}

#[test]
fn long_circles_and_long_chains_end() {
    let many = |root: &str| {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 60999)
             INSERT INTO inode SELECT i, CASE i WHEN 1000 THEN {root} ELSE i - 1 END, 'd', 4096, 0, 0, 16877, 0, 0, 0 FROM n"
        )
    };
    let fixture = Fixture::copy_metadata("small");
    fixture.sql(&many("60999"));
    assert_eq!(Flist::open(&fixture.fl).unwrap().inode_count(), 77);
    let fixture = Fixture::copy_metadata("small");
    fixture.sql(&many("1"));
    let flist = Flist::open(&fixture.fl).unwrap();
    assert_eq!((flist.inode_count(), flist.inode(60_999).unwrap().path().len()), (60_077, 119_999));
}

#[test]
fn times_and_owners_at_their_ends_are_kept() {
    let fixture = Fixture::copy_metadata("small");
    fixture.sql(&format!(
        "UPDATE inode SET mtime = -9223372036854775808, ctime = 9223372036854775807, uid = 4294967295, gid = 4294967294
         WHERE ino = {FILE}"
    ));
    let flist = Flist::open(&fixture.fl).unwrap();
    let file = flist.resolve(b"etc/hostname").unwrap();
    assert_eq!((file.mtime(), file.ctime(), file.uid(), file.gid()), (i64::MIN, i64::MAX, u32::MAX, u32::MAX - 1));
}
