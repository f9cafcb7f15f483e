//! Hostile legacy flists: each gives a typed error, in bounded time and memory, and nothing on the disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use crate::made::{
    ACL, Field, Object, ROOT, SUB, acl, database, directory, entry, file, fixture_database, flist, frame, gzip, link,
    plain, pointer, special, subdirectory, tar_header, tar_of,
};
use contd_flist::metadata::Malformed;
use contd_flist::{Flist, FlistErrorKind, MetadataError, ROOT_INO};
use contd_flist_legacy::{CapnpError, LegacyError, Misfit};
use contd_test_harness::flist::chain;

/// Opens bytes as a flist, which must fail and leave nothing behind.
#[track_caller]
fn refused(bytes: &[u8]) -> MetadataError {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("x.flist");
    std::fs::write(&path, bytes).unwrap();
    let error = contd_flist_legacy::open(&path).map(|_| ()).expect_err("it must not open");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1, "something was left behind");
    assert!(!error.hint().is_empty());
    error
}

/// Returns the error specific to the legacy format.
#[track_caller]
fn legacy(error: MetadataError) -> LegacyError {
    match error {
        MetadataError::OtherFormat { source, .. } => *source.downcast().expect("an error of this crate"),
        other => panic!("{}", chain(&other)),
    }
}

/// Returns the error of an archive.
#[track_caller]
fn archive(bytes: &[u8]) -> LegacyError {
    legacy(refused(bytes))
}

#[track_caller]
fn opened(entries: &[(String, Vec<u8>)]) -> Result<Flist, MetadataError> {
    let scratch = tempfile::tempdir().unwrap();
    contd_flist_legacy::open(&flist(scratch.path(), entries))
}

/// Returns the fault in a value.
#[track_caller]
fn misfit(entries: &[(String, Vec<u8>)]) -> Misfit {
    match legacy(opened(entries).map(|_| ()).expect_err("it must not open")) {
        LegacyError::Value { reason, .. } => reason,
        other => panic!("{}", chain(&other)),
    }
}

/// Returns the fault of the tree for rows that decode well.
#[track_caller]
fn malformed(entries: &[Object]) -> Malformed {
    match opened(&plain(entries)).map(|_| ()).expect_err("it must not open") {
        MetadataError::Malformed { reason, .. } => reason,
        other => panic!("{}", chain(&other)),
    }
}

#[test]
fn an_archive_that_is_cut_short_or_altered_anywhere_is_refused() {
    let whole = std::fs::read(crate::made::original()).unwrap();
    for len in (2..whole.len()).step_by(97).chain([whole.len() - 1, whole.len() - 8]) {
        let error = archive(&whole[..len]);
        assert!(matches!(error, LegacyError::Archive { .. }), "{len}: {}", chain(&error));
    }
    for at in (2..whole.len()).step_by(211) {
        // The checksum of gzip does not cover the name and the time in its header.
        if at < 40 {
            continue;
        }
        let mut altered = whole.clone();
        altered[at] ^= 0x20;
        refused(&altered);
    }
}

#[test]
fn an_archive_without_a_database_says_what_it_has() {
    assert!(matches!(archive(&gzip(&tar_of::<&str>(&[]))), LegacyError::NoDatabase));
    let other = tar_of(&[("./etc/flistdb.sqlite3", ""), ("flistdb.sqlite", ""), ("../flistdb.sqlite3", "")]);
    assert!(matches!(archive(&gzip(&other)), LegacyError::NoDatabase));
    let rocks = tar_of(&[("./000012.sst", "x"), ("./CURRENT", "MANIFEST-000004\n"), ("./MANIFEST-000004", "x")]);
    let error = archive(&gzip(&rocks));
    assert!(matches!(error, LegacyError::RocksDb) && error.kind() == FlistErrorKind::Unsupported);
    assert!(matches!(archive(&gzip(b"no tar at all")), LegacyError::Archive { .. } | LegacyError::NoDatabase));
}

#[test]
fn members_that_lead_elsewhere_are_neither_followed_nor_written() {
    let outside = std::env::temp_dir().join("contd-legacy-escape");
    let mut tar = tar_header("./link", 0, tar::EntryType::Symlink).to_vec();
    tar.extend(tar_of(&[
        ("../../../../../../../tmp/contd-legacy-escape", "x"),
        ("/tmp/contd-legacy-escape", "x"),
        ("./link/contd-legacy-escape", "x"),
    ]));
    assert!(matches!(archive(&gzip(&tar)), LegacyError::NoDatabase));
    assert!(!outside.exists());
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Directory, tar::EntryType::GNUSparse] {
        let mut tar = tar_header("./flistdb.sqlite3", 0, kind).to_vec();
        tar.extend([0; 1024]);
        let error = archive(&gzip(&tar));
        assert!(matches!(error, LegacyError::Member { .. }), "{kind:?}: {}", chain(&error));
    }
    let twice = tar_of(&[("./flistdb.sqlite3", fixture_database()), ("flistdb.sqlite3", fixture_database())]);
    assert!(matches!(archive(&gzip(&twice)), LegacyError::Member { found: "there twice", .. }));
}

#[test]
fn bombs_are_ended_before_they_unfold() {
    let announced = |name: &str, len| [tar_header(name, len, tar::EntryType::Regular).to_vec(), vec![0; 4096]].concat();
    let error = archive(&gzip(&announced("./flistdb.sqlite3", 1 << 33)));
    assert!(matches!(error, LegacyError::MemberTooLarge { len, .. } if len == 1 << 33), "{error:?}");
    // Announced within the limit, but missing: it takes no memory.
    let error = archive(&gzip(&announced("./flistdb.sqlite3", 100 << 20)));
    assert!(matches!(error, LegacyError::Archive { .. }), "{error:?}");
    let error = archive(&gzip(&announced("./router.yaml", 1 << 20)));
    assert!(matches!(error, LegacyError::MemberTooLarge { member: "router.yaml", .. }), "{error:?}");
    // 1 GiB of zeros in 1 MiB, as a member that is not read and as one with a long name.
    for kind in [tar::EntryType::Regular, tar::EntryType::GNULongName, tar::EntryType::XHeader] {
        let header = tar_header("./bomb", 1 << 30, kind);
        let error = archive(&[gzip(&header), zeros(1 << 30)].concat());
        assert!(matches!(error, LegacyError::ArchiveTooLarge { .. }), "{kind:?}: {error:?}");
    }
    // After a good database: the checksum at the end is not reached.
    let good = tar_of(&[("./flistdb.sqlite3", fixture_database())]);
    let error = archive(&[gzip(&good), zeros(1 << 30)].concat());
    assert!(matches!(error, LegacyError::ArchiveTooLarge { .. }), "{error:?}");
}

/// Returns a gzip stream of zeros, made of one repeated piece.
fn zeros(len: usize) -> Vec<u8> {
    const PIECE: usize = 64 << 20;
    gzip(&vec![0; PIECE]).repeat(len / PIECE)
}

#[test]
fn a_database_that_is_none_or_acts_is_refused() {
    let db = |bytes: &[u8]| refused(&gzip(&tar_of(&[("flistdb.sqlite3", bytes)])));
    assert!(matches!(db(b""), MetadataError::Database { .. } | MetadataError::Schema { .. }));
    assert!(matches!(db(&[0x5a; 8192]), MetadataError::Database { .. }));
    let whole = fixture_database();
    let cut = legacy(db(&whole[..whole.len() - 4096]));
    assert!(matches!(cut, LegacyError::CutShort { .. }), "{cut:?}");
    for change in [
        "ALTER TABLE entries ADD COLUMN more TEXT",
        "ALTER TABLE entries RENAME TO others",
        "ALTER TABLE entries RENAME TO others; CREATE VIEW entries AS SELECT key, value FROM others",
        "CREATE TRIGGER t AFTER INSERT ON entries BEGIN SELECT 1; END",
        "ALTER TABLE entries ADD COLUMN more TEXT AS (key) VIRTUAL",
    ] {
        let scratch = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(scratch.path(), &whole).unwrap();
        rusqlite::Connection::open(scratch.path()).unwrap().execute_batch(change).unwrap();
        let error = db(&std::fs::read(scratch.path()).unwrap());
        assert!(matches!(error, MetadataError::Schema { .. }), "{change}: {}", chain(&error));
    }
}

#[test]
fn metadata_is_bounded_and_its_faults_are_not_shown() {
    let with =
        |metadata: &[(&str, &str)]| refused(&gzip(&tar_of(&[("flistdb.sqlite3", database(&plain(&[]), metadata))])));
    let long = "x".repeat(1 << 20);
    assert!(matches!(with(&[("readme", &long)]), MetadataError::Schema { reason: Malformed::TooMuchText { .. }, .. }));
    for backend in [r#"{"host": "secret@x"}"#, "secret", &"[".repeat(100_000)] {
        let error = with(&[("backend", backend)]);
        assert!(!format!("{} {error:?}", chain(&error)).contains("secret"), "{error:?}");
    }
    let router = tar_of(&[("flistdb.sqlite3", database(&plain(&[]), &[])), ("router.yaml", b"\xff\xfe".to_vec())]);
    assert!(matches!(archive(&gzip(&router)), LegacyError::Stores { part: "router.yaml", .. }));
    let router = tar_of(&[("flistdb.sqlite3", database(&plain(&[]), &[])), ("router.yaml", b"pools: secret".to_vec())]);
    let error = archive(&gzip(&router));
    assert!(matches!(error, LegacyError::Stores { .. }) && !chain(&error).contains("secret"));
}

#[test]
fn directories_that_are_no_tree_are_refused() {
    let rows = |entries: &[Object], more: &[(&str, Object)]| {
        let more = more.iter().map(|(key, object)| ((*key).to_owned(), object.message()));
        plain(entries).into_iter().chain(more).collect::<Vec<_>>()
    };
    let sub = [subdirectory("sub", SUB)];
    // A good flist first, so that each of the others fails for its own reason.
    let tree = opened(&rows(&sub, &[(SUB, directory(ROOT, &[link("l", "t")]))])).unwrap();
    assert!(tree.resolve(b"sub/l").is_some());
    assert!(opened(&rows(&sub, &[(SUB, directory(SUB, &[]))])).is_ok(), "as zflist leaves it");

    assert!(matches!(misfit(&rows(&sub, &[])), Misfit::NoDirectory { .. }));
    assert!(matches!(misfit(&rows(&[subdirectory("sub", "")], &[])), Misfit::NoDirectory { .. }));
    assert!(matches!(misfit(&rows(&[subdirectory("sub", &"a".repeat(100_000))], &[])), Misfit::NoDirectory { .. }));
    assert!(matches!(misfit(&rows(&[subdirectory("self", ROOT)], &[])), Misfit::DirectoryTwice { .. }));
    let circle = [(SUB, directory(ROOT, &[subdirectory("up", ROOT)]))];
    assert!(matches!(misfit(&rows(&sub, &circle)), Misfit::DirectoryTwice { .. }));
    let twice = [(SUB, directory(ROOT, &[]))];
    assert!(matches!(
        misfit(&rows(&[sub[0].clone(), subdirectory("two", SUB)], &twice)),
        Misfit::DirectoryTwice { .. }
    ));
    let elsewhere = [(SUB, directory("another", &[]))];
    assert!(matches!(misfit(&rows(&sub, &elsewhere)), Misfit::Parent { .. }));
    let rootless = legacy(opened(&[(ACL.to_owned(), acl(0o755, 0, 0).message())]).unwrap_err());
    assert!(matches!(rootless, LegacyError::NoRoot), "{rootless:?}");
}

#[test]
fn a_very_deep_tree_needs_no_stack() {
    let key = |depth: usize| if depth == 0 { ROOT.to_owned() } else { format!("{depth:032x}") };
    let mut rows = vec![(ACL.to_owned(), acl(0o755, 0, 0).message())];
    for depth in 0..20_000 {
        let below = if depth == 19_999 { vec![] } else { vec![subdirectory("d", &key(depth + 1))] };
        rows.push((key(depth), directory(&key(depth.saturating_sub(1)), &below).message()));
    }
    assert_eq!(opened(&rows).unwrap().inode_count(), 20_000);
}

#[test]
fn entries_that_cannot_be_are_refused() {
    let (id, key) = ([1; 16], [2; 16]);
    for name in ["", ".", "..", "a/b", "a\0b", &"n".repeat(256)] {
        assert!(matches!(malformed(&[link(name, "t")]), Malformed::Name { .. }), "{name:?}");
    }
    assert!(matches!(malformed(&[link("a", "t"), link("a", "u")]), Malformed::DuplicateName { .. }));
    for target in ["", "a\0b", &"t".repeat(4096)] {
        assert!(matches!(malformed(&[link("l", target)]), Malformed::Target { .. }), "{target:?}");
    }
    for (size, blocks) in [(0, 1), (1, 0), (524_289, 1), (u64::MAX >> 1, 1)] {
        let blocks = vec![(id.as_slice(), key.as_slice()); blocks];
        assert!(matches!(malformed(&[file("f", size, 128, &blocks)]), Malformed::BlockCount { .. }), "{size}");
    }
    assert!(matches!(malformed(&[special("d", 2, "4096,0")]), Malformed::Device { .. }));
    for entry in [
        special("d", 1, "8"),
        special("d", 1, "8,1,1"),
        special("d", 2, "-1,1"),
        special("d", 2, "4294967296,1"),
        special("d", 5, "1,1"),
        entry("x", 0, 4, Field::Null),
        file("f", 1, 127, &[(&id, &key)]),
        file("f", 1, 128, &[(&id[1..], &key)]),
        file("f", 1, 128, &[(&id, &[2; 32])]),
        file("f", 1, 128, &[(&id, &[])]),
    ] {
        misfit(&plain(&[entry]));
    }
    let mut owners = plain(&[]);
    for (mode, uid) in [(0o10_000, 0), (0o755, 1 << 32), (0o755, u64::MAX - 1)] {
        owners[0].1 = acl(mode, uid, 0).message();
        assert!(matches!(misfit(&owners), Misfit::Mode { .. } | Misfit::Owner { .. }));
    }
}

#[test]
fn a_value_that_is_cut_short_anywhere_is_refused() {
    let root = directory(ROOT, &[link("l", "t"), file("f", 1, 128, &[(&[1; 16], &[2; 16])])]).message();
    let with = |value: &[u8]| [plain(&[])[0].clone(), (ROOT.to_owned(), value.to_vec())];
    assert!(opened(&with(&root)).is_ok());
    for len in 0..root.len() {
        assert!(matches!(misfit(&with(&root[..len])), Misfit::Encoding { .. }), "{len}");
    }
    let longer = [root, vec![0; 8]].concat();
    assert_eq!(misfit(&with(&longer)), Misfit::Encoding { source: CapnpError::Framing });
}

/// Returns the fault of a root directory whose words were written by hand.
#[track_caller]
fn encoding(segments: &[Vec<u64>]) -> CapnpError {
    let rows = [plain(&[])[0].clone(), (ROOT.to_owned(), frame(segments))];
    match misfit(&rows) {
        Misfit::Encoding { source } => source,
        other => panic!("{other:?}"),
    }
}

/// Returns a pointer to a root of two data words and five pointers that follows it, and those words.
fn hand_made(contents: u64, more: &[u64]) -> Vec<u64> {
    [&[2 << 32 | 5 << 48, 4096, 0, 0, 0, contents, 0, 0], more].concat()
}

#[test]
fn messages_of_several_segments_are_read() {
    // The root is in segment 1, its list in segment 2 behind a double landing pad in segment 1.
    let entries = [link("a", "t"), link("b", "t")];
    let list = Object { data: vec![], pointers: vec![Field::List(entries.to_vec())] }.message();
    let words = list.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect::<Vec<_>>();
    // Without the table, the root pointer and the pointer of the root, only tag and elements remain.
    let (list_pointer, body) = (words[2], words[3..].to_vec());
    let far = |segment: u64, at: u64, double: u64| 2 | double << 2 | at << 3 | segment << 32;
    let mut one = hand_made(far(1, 8, 1), &[far(2, 0, 0), list_pointer & !0xffff_fffc]);
    one[0] = 2 << 32 | 5 << 48;
    let rows = [plain(&[])[0].clone(), (ROOT.to_owned(), frame(&[vec![far(1, 0, 0)], one, body]))];
    let flist = opened(&rows).unwrap();
    let names = flist.children(ROOT_INO).iter().map(|child| child.name().to_vec()).collect::<Vec<_>>();
    assert_eq!(names, [b"a", b"b"]);
}

#[test]
fn pointers_that_lead_nowhere_or_in_circles_are_refused() {
    let far = |segment: u64, at: u64, double: u64| 2 | double << 2 | at << 3 | segment << 32;
    let composite = |words: u64| 7 << 32 | words << 35;
    for (segments, expected) in [
        (vec![vec![]], CapnpError::OutOfBounds),
        (vec![vec![0]], CapnpError::WrongKind { expected: "struct" }),
        (vec![vec![3]], CapnpError::WrongKind { expected: "struct or list" }),
        (vec![vec![pointer(1, 1, 0)]], CapnpError::WrongKind { expected: "struct" }),
        (vec![vec![pointer(0, 9, 0) | 1 << 32]], CapnpError::OutOfBounds),
        (vec![vec![0xffff_fff0 | 1 << 32]], CapnpError::OutOfBounds),
        (vec![vec![1 << 32 | 0xffff << 48]], CapnpError::Amplified),
        // Far pointers: to themselves, to a missing segment, out of a segment, to an invalid landing pad.
        (vec![vec![far(0, 0, 0)]], CapnpError::WrongKind { expected: "struct or list" }),
        (vec![vec![far(0, 0, 1), 0, 0]], CapnpError::WrongKind { expected: "landing pad" }),
        (vec![vec![far(0, 1, 1), far(0, 0, 1), far(0, 0, 0)]], CapnpError::WrongKind { expected: "landing pad" }),
        (vec![vec![far(9, 0, 0)]], CapnpError::OutOfBounds),
        (vec![vec![far(0, 9, 0)]], CapnpError::OutOfBounds),
        (vec![vec![far(0, 1, 1), far(0, 7, 0), 1 << 32]], CapnpError::OutOfBounds),
        (vec![vec![far(0, 0x1fff_ffff, 1)]], CapnpError::OutOfBounds),
        // Lists: not of structs, with an invalid tag, longer than their words or than the message.
        (vec![hand_made(1 | 2 << 2 | 2 << 32 | 1 << 35, &[0])], CapnpError::WrongKind { expected: "list of structs" }),
        (vec![hand_made(1 | 2 << 2 | composite(0), &[1])], CapnpError::ListLength),
        (vec![hand_made(1 | 2 << 2 | composite(1), &[2 << 2 | 1 << 32, 0])], CapnpError::ListLength),
        (vec![hand_made(1 | 2 << 2 | composite(0x1fff_ffff), &[1 << 2, 0])], CapnpError::Amplified),
        (vec![hand_made(1 | 2 << 2 | composite(9), &[1 << 2, 0, 0, 0])], CapnpError::OutOfBounds),
        (vec![hand_made(1 | 2 << 2 | composite(0), &[])], CapnpError::OutOfBounds),
    ] {
        assert_eq!(encoding(&segments), expected, "{segments:x?}");
    }
    let mut unending = plain(&[]);
    let mut root = directory(ROOT, &[]);
    root.pointers[3] = Field::Data(b"no end".to_vec());
    unending[1].1 = root.message();
    assert_eq!(misfit(&unending), Misfit::Encoding { source: CapnpError::Text });
}

#[test]
fn a_small_message_does_not_unfold_to_a_large_one() {
    // 500 million elements without size.
    let nothing = 1 | 2 << 2 | 7 << 32;
    assert_eq!(encoding(&[hand_made(nothing, &[0x1fff_ffff << 2])]), CapnpError::Amplified);
    // A thousand entries that share one name of 4,000 bytes: 52 KB would become 4 MB.
    let (count, step) = (1000, 6);
    let (tag_at, first) = (8, 9);
    let name_at = first + count * step;
    let sizes = |count: usize, data: u64, pointers: u64| (count as u64) << 2 | data << 32 | pointers << 48;
    let list = pointer(1, tag_at, 5) | 7 << 32 | ((count * step) as u64) << 35;
    let mut words = hand_made(list, &[sizes(count, 3, 3)]);
    for entry in 0..count {
        let name = pointer(1, name_at, first + entry * step + 3) | 2 << 32 | 4000 << 35;
        words.extend([0, 2, 0, name, 0, 0]);
    }
    words.resize(words.len() + 500, 0);
    assert_eq!(encoding(&[words]), CapnpError::Amplified);
}

#[test]
fn a_table_of_segments_is_not_believed() {
    let with = |value: Vec<u8>| misfit(&[plain(&[])[0].clone(), (ROOT.to_owned(), value)]);
    let framing = Misfit::Encoding { source: CapnpError::Framing };
    for table in [vec![u32::MAX, 0], vec![512, 0], vec![0, u32::MAX], vec![1, u32::MAX, u32::MAX, 0], vec![0]] {
        let bytes = table.iter().flat_map(|entry: &u32| entry.to_le_bytes()).collect::<Vec<_>>();
        assert_eq!(with(bytes), framing, "{table:?}");
    }
    assert_eq!(with(frame(&vec![vec![]; 513])), framing);
    assert_eq!(with(frame(&vec![vec![]; 512])), Misfit::Encoding { source: CapnpError::OutOfBounds });
}

#[test]
fn a_value_of_another_type_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let db = scratch.path().join("db");
    std::fs::write(&db, database(&plain(&[]), &[])).unwrap();
    let connection = rusqlite::Connection::open(&db).unwrap();
    connection.execute("UPDATE entries SET value = 'text' WHERE key = ?1", [ROOT]).unwrap();
    drop(connection);
    let error = refused(&gzip(&tar_of(&[("flistdb.sqlite3", std::fs::read(&db).unwrap())])));
    assert!(matches!(error, MetadataError::Schema { reason: Malformed::Value { .. }, .. }), "{}", chain(&error));
}
