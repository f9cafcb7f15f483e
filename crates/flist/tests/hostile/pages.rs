//! Files that are not a database, or a damaged one.

use contd_flist::{Flist, FlistErrorKind, MetadataError};

use crate::support::{Fixture, chain};

#[test]
fn a_file_that_is_no_database_is_refused() {
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
    let mut random = fastrand::Rng::with_seed(1);
    let mut refused = 0;
    for _ in 0..400 {
        let mut damaged = whole.clone();
        for _ in 0..4 {
            let position = random.usize(..damaged.len());
            damaged[position] ^= 1 << random.u8(..8);
        }
        std::fs::write(&fixture.fl, &damaged).unwrap();
        match Flist::open(&fixture.fl) {
            Ok(flist) => {
                // An accepted flist is a tree: every inode is reached once from the root.
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

/// Every page size of SQLite is accepted, and no other.
#[test]
fn any_page_size_is_read_and_a_wrong_one_refused() {
    for page_size in [512, 1024, 8192, 65_536] {
        let fixture = Fixture::copy_metadata("small");
        fixture.sql(&format!("PRAGMA page_size = {page_size}; VACUUM"));
        assert_eq!(Flist::open(&fixture.fl).unwrap().inode_count(), 77, "{page_size}");
    }
    let fixture = Fixture::copy_metadata("small");
    let whole = std::fs::read(&fixture.fl).unwrap();
    for page_size in [0_u16, 1, 2, 511, 513, 1024, 4095, 0x8000, 0xffff] {
        let mut wrong = whole.clone();
        wrong[16..18].copy_from_slice(&page_size.to_be_bytes());
        std::fs::write(&fixture.fl, &wrong).unwrap();
        assert_eq!(Flist::open(&fixture.fl).unwrap_err().kind(), FlistErrorKind::Corrupt, "{page_size}");
    }
}

/// A small database whose tables have several levels of pages.
fn deep() -> (Fixture, Vec<u8>) {
    let fixture = Fixture::copy_metadata("small");
    fixture.sql(
        "PRAGMA page_size = 512; VACUUM;
         WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 1999)
         INSERT INTO inode SELECT i, 1, 'n' || i, 0, 0, 0, 33188, 0, 0, 0 FROM n",
    );
    let whole = std::fs::read(&fixture.fl).unwrap();
    assert_eq!(Flist::open(&fixture.fl).unwrap().inode_count(), 1077);
    (fixture, whole)
}

/// Returns the positions of page numbers in the interior pages of tables.
fn child_pointers(bytes: &[u8]) -> Vec<Vec<usize>> {
    const PAGE: usize = 512;
    let mut pages = Vec::new();
    for start in (PAGE..bytes.len()).step_by(PAGE).filter(|start| bytes[*start] == 5) {
        let cells = usize::from(u16::from_be_bytes([bytes[start + 3], bytes[start + 4]]));
        let mut pointers = vec![start + 8];
        for cell in 0..cells {
            let at = start + 12 + 2 * cell;
            pointers.push(start + usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]])));
        }
        pages.push(pointers);
    }
    pages
}

#[test]
fn pages_that_contain_themselves_or_one_another_are_refused() {
    let (fixture, whole) = deep();
    let interior = child_pointers(&whole);
    assert!(interior.len() >= 2, "the tables are deep");
    for pointers in &interior {
        let itself = u32::try_from(pointers[0] / 512 + 1).unwrap();
        let first = u32::from_be_bytes(whole[pointers[1]..pointers[1] + 4].try_into().unwrap());
        // All children are the page itself; all are the first child (a small file with endless rows); none exists.
        for child in [itself, first, 1, u32::MAX] {
            let mut damaged = whole.clone();
            for pointer in pointers {
                damaged[*pointer..pointer + 4].copy_from_slice(&child.to_be_bytes());
            }
            std::fs::write(&fixture.fl, &damaged).unwrap();
            let error = Flist::open(&fixture.fl).expect_err("a circle of pages");
            assert_eq!(error.kind(), FlistErrorKind::Corrupt, "{}", chain(&error));
        }
    }
}

#[test]
fn overflow_pages_that_follow_one_another_in_a_circle_are_refused() {
    let fixture = Fixture::copy_metadata("small");
    // 255 bytes do not fit beside the rest of a row in a page of 512, so the name continues in an overflow page.
    fixture.sql(
        "PRAGMA page_size = 512; UPDATE extra SET data = cast(printf('%04000d', 1) as blob) WHERE ino =
        (SELECT max(ino) FROM extra); VACUUM",
    );
    let whole = std::fs::read(&fixture.fl).unwrap();
    assert_eq!(Flist::open(&fixture.fl).unwrap().inode_count(), 77);
    let zeros = [b'0'; 508];
    let overflow = (512..whole.len()).step_by(512).filter(|start| whole[start + 4..start + 512] == zeros);
    let overflow = overflow.collect::<Vec<_>>();
    assert!(overflow.len() >= 6, "{overflow:?}");
    for next in [1, u32::try_from(overflow[0] / 512 + 1).unwrap(), u32::MAX, 0] {
        let mut damaged = whole.clone();
        damaged[overflow[0]..overflow[0] + 4].copy_from_slice(&next.to_be_bytes());
        std::fs::write(&fixture.fl, &damaged).unwrap();
        // A cycle of zeros reads like the original zeros: still a target of 4000 bytes, never more.
        match Flist::open(&fixture.fl) {
            Ok(flist) => {
                let links = flist.inodes().filter_map(|inode| flist.symlink_target(inode.ino()));
                assert!(links.map(<[u8]>::len).max().unwrap() <= 4095);
            }
            Err(error) => assert_eq!(error.kind(), FlistErrorKind::Corrupt, "{}", chain(&error)),
        }
    }
}

#[test]
fn values_longer_than_any_honest_one_are_refused() {
    for sql in [
        "UPDATE tag SET value = printf('%0100000d', 1) WHERE key = 'author'",
        "UPDATE route SET url = printf('%01000000d', 1)",
        "UPDATE extra SET data = zeroblob(10000000) WHERE ino = (SELECT max(ino) FROM extra)",
    ] {
        let error = super::refused(sql);
        assert!(matches!(error, MetadataError::Database { .. }), "{sql}: {}", chain(&error));
    }
    // Each is short enough, but there are many of them.
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)
        INSERT INTO tag SELECT 'k' || i, printf('%060000d', 1) FROM n";
    assert!(matches!(super::malformed(many), contd_flist::metadata::Malformed::TooMuchText { table: "tag", .. }));
}

#[test]
fn a_flist_is_never_changed_and_no_file_is_left_beside_it() {
    let fixture = Fixture::copy_metadata("small");
    let listing = || {
        let names = std::fs::read_dir(fixture.scratch.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let whole = std::fs::read(&fixture.fl).unwrap();
    let mut seed = 0x1234_5678_9abc_def1_u64;
    for damage in 0..60 {
        let mut damaged = whole.clone();
        for _ in 0..damage {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let position = usize::try_from(seed >> 33).unwrap() % damaged.len();
            damaged[position] = seed.to_le_bytes()[0];
        }
        // The header announces a journal to roll back and a WAL to read.
        if damage % 3 == 0 {
            damaged[18..20].copy_from_slice(&[2, 2]);
        }
        std::fs::write(&fixture.fl, &damaged).unwrap();
        let before = (listing(), std::fs::metadata(&fixture.fl).unwrap().modified().unwrap());
        let _either = Flist::open(&fixture.fl);
        assert_eq!((listing(), std::fs::metadata(&fixture.fl).unwrap().modified().unwrap()), before);
        assert!(std::fs::read(&fixture.fl).unwrap() == damaged);
    }
}

#[test]
fn journals_of_others_beside_a_flist_are_not_used() {
    let fixture = Fixture::copy_metadata("small");
    let beside = |suffix: &str| std::path::PathBuf::from(format!("{}{suffix}", fixture.fl.display()));
    for suffix in ["-journal", "-wal", "-shm"] {
        std::fs::write(beside(suffix), [0xd9; 4096]).unwrap();
    }
    assert_eq!(Flist::open(&fixture.fl).unwrap().inode_count(), 77);
    for suffix in ["-journal", "-wal", "-shm"] {
        assert_eq!(std::fs::read(beside(suffix)).unwrap(), [0xd9; 4096], "{suffix}");
    }
}
