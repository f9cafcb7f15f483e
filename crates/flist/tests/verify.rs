//! Verification finds every bad block with its files, and asks for every block once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use contd_flist::{
    BadBlock, BlockError, BlockSource, Flist, Inode, ReadError, RoutePolicy, Routes, StoreError, VerifyReport, verify,
};
use contd_test_harness::flist::{Fixture, Server};

fn verified(fixture: &Fixture, jobs: usize) -> (VerifyReport, BTreeMap<String, BadBlock>, Flist) {
    let flist = Flist::open(&fixture.fl).unwrap();
    let routes = Routes::connect(flist.routes(), &RoutePolicy::default()).unwrap();
    let mut bad = BTreeMap::new();
    let last = std::cell::Cell::new(None);
    let report = verify(
        &flist,
        BlockSource::Stores(&routes),
        NonZeroUsize::new(jobs),
        &mut |block| {
            bad.insert(block.id.to_hex(), block);
        },
        &|step| last.set(Some(step)),
    );
    let last = last.get().unwrap();
    assert_eq!(last.done_bytes, last.total_bytes, "all is looked at, whatever it is");
    (report, bad, flist)
}

#[test]
fn a_whole_flist_has_no_bad_block_and_each_is_fetched_once() {
    let fixture = Fixture::copy("small");
    let (report, bad, _) = verified(&fixture, 3);
    assert!(bad.is_empty(), "{bad:?}");
    assert_eq!((report.blocks, report.bad_blocks), (56, 0));

    let server = Server::folder(fixture.store.clone());
    fixture.route(&[(0, 255, &server.url)]);
    let (again, _, _) = verified(&fixture, 3);
    assert_eq!(again, report);
    assert_eq!(server.requests(), 56);
}

/// Every kind of damage to a stored block, each on another block.
#[test]
fn every_bad_block_is_told_with_its_reason_and_files() {
    let fixture = Fixture::copy("small");
    let blocks = fixture.stored_blocks();
    let name = |position: usize| blocks[position].file_name().unwrap().to_str().unwrap().to_owned();
    std::fs::remove_file(&blocks[0]).unwrap();
    std::fs::write(&blocks[1], b"").unwrap();
    let mut altered = std::fs::read(&blocks[2]).unwrap();
    *altered.last_mut().unwrap() ^= 1;
    std::fs::write(&blocks[2], altered).unwrap();
    let (three, four) = (std::fs::read(&blocks[3]).unwrap(), std::fs::read(&blocks[4]).unwrap());
    std::fs::write(&blocks[3], four).unwrap();
    std::fs::write(&blocks[4], three).unwrap();
    std::fs::write(&blocks[5], vec![0; 2 << 20]).unwrap();
    let (report, bad, flist) = verified(&fixture, 2);
    assert_eq!((report.blocks, report.bad_blocks), (56, 6));
    assert_eq!(bad.keys().cloned().collect::<BTreeSet<_>>(), (0..6).map(name).collect());
    let reason = |position: usize| match &bad[&name(position)].reason {
        ReadError::Block { source, .. } => match &**source {
            StoreError::Exhausted { source, .. } => source,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    assert!(matches!(**reason(0), StoreError::NotFound { .. }));
    let verify_error = |position: usize| match &**reason(position) {
        StoreError::Verify { source, .. } => source,
        other => panic!("{other:?}"),
    };
    assert!(matches!(verify_error(1), BlockError::StoredLength { len: 0, .. }));
    for position in 2..5 {
        assert!(matches!(verify_error(position), BlockError::WrongId { .. }), "{position}");
    }
    assert!(matches!(**reason(5), StoreError::TooLarge { .. }));
    for block in bad.values() {
        let of = |ino: u64| flist.blocks(ino).iter().any(|named| named.id == block.id);
        let expected = flist.inodes().map(Inode::ino).filter(|ino| of(*ino)).collect::<Vec<_>>();
        assert_eq!((block.files.clone(), block.file_count), (expected.clone(), expected.len()));
        assert!(!expected.is_empty());
    }
}

#[test]
fn a_true_block_of_another_length_than_the_size_says_is_bad() {
    let fixture = Fixture::copy("small");
    fixture.sql("UPDATE inode SET size = size + 1 WHERE name = 'hostname'");
    let (report, bad, flist) = verified(&fixture, 1);
    assert_eq!(report.bad_blocks, 1);
    let bad = bad.into_values().next().unwrap();
    assert!(matches!(bad.reason, ReadError::BlockLength { .. }));
    assert_eq!(flist.inode(bad.files[0]).unwrap().path(), b"etc/hostname");
}

#[test]
fn a_key_that_is_not_the_blocks_is_bad() {
    let fixture = Fixture::copy("small");
    fixture.sql("UPDATE block SET key = zeroblob(32) WHERE ino = (SELECT ino FROM inode WHERE name = 'hostname')");
    let (report, bad, _) = verified(&fixture, 1);
    assert_eq!((report.bad_blocks, bad.len()), (1, 1));
}

#[test]
fn many_files_of_one_bad_block_are_counted_and_some_are_named() {
    let fixture = Fixture::copy("small");
    fixture.sql(
        "WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 2999)
         INSERT INTO inode SELECT i, 1, 'copy' || i, size, 0, 0, 33188, 0, 0, 0 FROM n, inode WHERE name = 'hostname';
         WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 2999)
         INSERT INTO block SELECT i, id, key FROM n, block WHERE ino = (SELECT ino FROM inode WHERE name = 'hostname')",
    );
    let flist = Flist::open(&fixture.fl).unwrap();
    let hostname = flist.blocks(flist.resolve(b"etc/hostname").unwrap().ino())[0].id.to_hex();
    std::fs::remove_file(fixture.store.join(&hostname[..2]).join(&hostname)).unwrap();
    let (report, bad, _) = verified(&fixture, 2);
    assert_eq!((report.blocks, report.bad_blocks), (56, 1));
    let bad = &bad[&hostname];
    assert!(bad.file_count > 2000 && bad.files.len() == contd_flist::verify::MAX_FILES_NAMED, "{}", bad.file_count);
}

#[test]
fn with_a_cache_what_the_node_has_needs_no_store() {
    let fixture = Fixture::copy("small");
    let all = || {
        let content = fixture.content();
        verify(content.flist(), BlockSource::Cached(&content), None, &mut |_| {}, &|_| {})
    };
    assert_eq!(all().bad_blocks, 0);
    std::fs::remove_dir_all(&fixture.store).unwrap();
    assert_eq!(all().bad_blocks, 0);
    for cached in fixture.cached_blocks() {
        std::fs::write(cached, b"damaged").unwrap();
    }
    assert_eq!((all().bad_blocks, all().good_bytes), (56, 0));
}
