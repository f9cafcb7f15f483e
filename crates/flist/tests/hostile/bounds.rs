//! Memory and time that hostile flists cost: each is opened by a separate process, which is measured.
#![allow(clippy::print_stdout, reason = "the child tells by it, and the figures are worth seeing")]

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use contd_flist::Flist;
use contd_flist::metadata::MAX_INODES;
use contd_flist::source::MAX_FLIST_BYTES;

use crate::support::{Fixture, chain};

/// The variable that passes the flist to the child.
const VARIABLE: &str = "CONTD_TEST_HOSTILE_FLIST";

/// Above the 30 s that reading may take; `timeout` ends a child that hangs, with code 124.
const CHILD_SECONDS: &str = "100";

/// The highest peak of memory for any flist but the largest: the test itself and SQLite need some 10 MiB.
const SMALL_MIB: u64 = 48;

/// The child: opens one flist and prints the result.
#[test]
fn child() {
    let Ok(path) = std::env::var(VARIABLE) else { return };
    let outcome = match Flist::open(Path::new(&path)) {
        Ok(flist) => format!("tree of {}", flist.inode_count()),
        Err(error) => format!("refused: {}", chain(&error)),
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("\nOUTCOME {} {outcome}", peak.trim().trim_end_matches(" kB"));
}

/// Opens a flist in a child and returns the child's output; fails if the child needed more than this memory.
#[track_caller]
fn opened(fl: &Path, limit_mib: u64) -> String {
    let output = Command::new("timeout")
        .arg(CHILD_SECONDS)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "hostile::bounds::child", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, fl)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|line| line.strip_prefix("OUTCOME ")).expect("the child says how it went");
    let (peak_kib, outcome) = line.split_once(' ').unwrap();
    let peak_mib = peak_kib.parse::<u64>().unwrap() >> 10;
    println!("{peak_mib} MiB: {outcome}");
    assert!(peak_mib <= limit_mib, "{peak_mib} MiB at its peak: {outcome}");
    outcome.to_owned()
}

#[test]
fn an_honest_flist_needs_little() {
    assert_eq!(opened(&Fixture::copy_metadata("small").fl, SMALL_MIB), "tree of 77");
}

#[test]
fn a_gibibyte_of_nothing_costs_nothing() {
    let fixture = Fixture::copy_metadata("small");
    let file = std::fs::File::options().write(true).open(&fixture.fl).unwrap();
    // Its header announces this size, too: a database with a quarter of a million unused pages.
    file.set_len(MAX_FLIST_BYTES).unwrap();
    file.write_all_at(&u32::try_from(MAX_FLIST_BYTES / 4096).unwrap().to_be_bytes(), 28).unwrap();
    assert_eq!(opened(&fixture.fl, SMALL_MIB), "tree of 77");
    file.set_len(MAX_FLIST_BYTES + 1).unwrap();
    assert!(opened(&fixture.fl, SMALL_MIB).contains("the limit is"));
    file.set_len(0).unwrap();
    file.set_len(MAX_FLIST_BYTES).unwrap();
    assert!(opened(&fixture.fl, SMALL_MIB).starts_with("refused"));
}

#[test]
fn values_of_a_hundred_mebibytes_are_not_read() {
    let fixture = Fixture::copy_metadata("small");
    fixture.sql("INSERT INTO tag VALUES ('bomb', zeroblob(100000000))");
    assert!(opened(&fixture.fl, SMALL_MIB).starts_with("refused: read tag"));
}

/// Data that SQLite computes instead of reading: a billion rows of a view, a generated column, an index on an expression.
#[test]
fn computed_tables_and_columns_are_never_evaluated() {
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000)";
    for sql in [
        format!("ALTER TABLE tag RENAME TO old; CREATE VIEW tag AS {endless} SELECT i AS key, i AS value FROM n"),
        "DROP TABLE tag; CREATE TABLE tag (key, value AS (hex(zeroblob(100000000))))".to_owned(),
        "CREATE TABLE bomb (a, b AS (hex(zeroblob(1000000)))); CREATE INDEX bombs ON bomb (b)".to_owned(),
    ] {
        let fixture = Fixture::copy_metadata("small");
        fixture.sql(&sql);
        opened(&fixture.fl, SMALL_MIB);
    }
}

/// One inode more than the limit: the most memory that reading can take.
#[test]
fn the_largest_flists_stay_below_their_bound() {
    let fixture = Fixture::copy_metadata("small");
    let flood = |inodes: usize, name: &str| {
        format!(
            "DELETE FROM block; DELETE FROM extra; DELETE FROM inode WHERE ino > 1; DROP INDEX IF EXISTS parents;
             DROP INDEX IF EXISTS names;
             WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {inodes})
             INSERT INTO inode SELECT i, 1, {name}, 0, 0, 0, 33188, 0, 0, 0 FROM n"
        )
    };
    fixture.sql(&flood(MAX_INODES + 1, "i"));
    assert!(opened(&fixture.fl, 400).contains("more than 2000000 rows"));
    fixture.sql("DELETE FROM inode WHERE ino = 2000001");
    assert_eq!(opened(&fixture.fl, 700), "tree of 2000000");
    // Long names instead of many.
    fixture.sql(&flood(700_000, "printf('%0255d', i)"));
    assert!(opened(&fixture.fl, 400).contains("bytes of text"));
}
