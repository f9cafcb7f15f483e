//! Hostile and damaged flists: each is refused with its reason, quickly, and nothing is written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

mod bounds;
mod pages;
mod schema;
mod stores;
mod trees;
mod values;

use contd_flist::metadata::Malformed;
use contd_flist::{Flist, FlistErrorKind, MetadataError};
use contd_test_harness::flist::{Fixture, chain};

/// Damages a copy of `small` by SQL, and returns the error of the reader.
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

/// The number of a file that exists in `small`: `/etc/hostname`.
const FILE: &str = "(SELECT ino FROM inode WHERE name = 'hostname')";
const LINK: &str = "(SELECT ino FROM inode WHERE name = 'dangling')";
