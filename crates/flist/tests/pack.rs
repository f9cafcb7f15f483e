//! Packed trees of all kinds read back the same by this library.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use contd_flist::pack::{Entry, EntryKind, FileContent, Tree};
use contd_flist::{FileKind, Flist, FlistErrorKind, PackError, PackOptions, pack, pack_tree};
use contd_test_harness::flist::{by_path, chain, content, files_below, read_all};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use proptest::prelude::*;
use tempfile::TempDir;

/// Options that replace an existing output.
fn over() -> PackOptions {
    PackOptions { force: true, ..PackOptions::default() }
}

struct Scratch {
    folder: TempDir,
    tree: PathBuf,
    fl: PathBuf,
    store: String,
}

fn scratch() -> Scratch {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let store = format!("dir://{}", folder.path().join("store").display());
    Scratch { fl: folder.path().join("out.fl"), tree, store, folder }
}

impl Scratch {
    fn pack(&self) -> Result<contd_flist::PackReport, PackError> {
        pack(&self.tree, &self.fl, std::slice::from_ref(&self.store), &over(), &|_| {})
    }

    /// Packs, and compares every inode and byte with the tree on disk.
    #[track_caller]
    fn round_trip(&self) {
        let report = self.pack().unwrap();
        let content = content(&self.fl, &self.folder.path().join("cache"));
        let flist = content.flist();
        let inodes = by_path(flist);
        let mut on_disk = BTreeMap::from([("/".to_owned(), self.tree.clone())]);
        visit(&self.tree, "", &mut on_disk);
        assert_eq!(inodes.keys().collect::<Vec<_>>(), on_disk.keys().collect::<Vec<_>>());
        assert_eq!(report.entries, on_disk.len() as u64);
        for (path, real) in &on_disk {
            let (inode, metadata) = (flist.inode(inodes[path]).unwrap(), real.symlink_metadata().unwrap());
            assert_eq!(
                (inode.mode(), inode.uid(), inode.gid(), inode.rdev(), inode.mtime(), inode.ctime()),
                (metadata.mode(), metadata.uid(), metadata.gid(), metadata.rdev(), metadata.mtime(), metadata.ctime()),
                "{path}"
            );
            match inode.kind() {
                FileKind::File => {
                    assert!(read_all(&content, inode.ino()).unwrap() == std::fs::read(real).unwrap(), "{path}");
                }
                FileKind::Symlink => {
                    let target = std::fs::read_link(real).unwrap();
                    assert_eq!(flist.symlink_target(inode.ino()).unwrap(), target.as_os_str().as_bytes(), "{path}");
                }
                _ => {}
            }
        }
    }
}

fn visit(folder: &Path, path: &str, all: &mut BTreeMap<String, PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{path}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            visit(&entry.path(), &path, all);
        }
        all.insert(path, entry.path());
    }
}

#[test]
fn every_file_type_owner_mode_and_time_is_kept() {
    let scratch = scratch();
    let at = |name: &str| scratch.tree.join(name);
    std::fs::create_dir_all(at("d/e")).unwrap();
    std::fs::write(at("empty"), b"").unwrap();
    std::fs::write(at("d/suid"), b"#!").unwrap();
    std::os::unix::fs::chown(at("d/suid"), Some(1000), Some(2000)).unwrap();
    std::fs::set_permissions(at("d/suid"), PermissionsExt::from_mode(0o6755)).unwrap();
    std::fs::set_permissions(at("d/e"), PermissionsExt::from_mode(0o1777)).unwrap();
    for (name, len) in [("a", 524_287), ("b", 524_288), ("c", 524_289), ("x", 1_300_000)] {
        let bytes = (0..len).map(|n: u32| n.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect::<Vec<_>>();
        std::fs::write(at(name), bytes).unwrap();
    }
    std::fs::File::create(at("sparse")).unwrap().set_len(3 << 20).unwrap();
    std::fs::hard_link(at("a"), at("d/hard")).unwrap();
    symlink("../nowhere", at("d/link")).unwrap();
    symlink(OsStr::from_bytes(b"\xff\xfe"), at("bytes")).unwrap();
    symlink("/", at("out-of-here")).unwrap();
    mknod(&at("pipe"), SFlag::S_IFIFO, Mode::from_bits_truncate(0o622), 0).unwrap();
    mknod(&at("null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).unwrap();
    mknod(&at("big"), SFlag::S_IFBLK, Mode::from_bits_truncate(0o660), makedev(259, 70_000)).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(at("sock")).unwrap();
    let old = std::time::UNIX_EPOCH - std::time::Duration::from_secs(1_000_000);
    std::fs::File::options().write(true).open(at("empty")).unwrap().set_modified(old).unwrap();
    scratch.round_trip();
    let distinct = files_below(&scratch.folder.path().join("store"));
    assert!(distinct.iter().all(|path| !path.to_str().unwrap().contains(".tmp-")));
    let flist = Flist::open(&scratch.fl).unwrap();
    assert_eq!(flist.resolve(b"big").unwrap().rdev_kernel(), (70_000 & 0xff) | (259 << 8) | ((70_000 & !0xff) << 12));
    let sparse = flist.blocks(flist.resolve(b"sparse").unwrap().ino());
    assert!(sparse.len() == 6 && sparse.iter().all(|block| *block == sparse[0]), "equal blocks have one name");
}

#[test]
fn the_same_tree_packs_to_the_same_bytes_with_any_number_of_threads() {
    let scratch = scratch();
    for n in 0..40 {
        let folder = scratch.tree.join(format!("d{}", n % 7));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("f{n}")), vec![n; 100 + usize::from(n) * 20_000]).unwrap();
        // Equal content under many names, by copy and by hard link: several workers seal the same blocks.
        std::fs::write(folder.join(format!("copy{n}")), vec![7; 600_000]).unwrap();
        std::fs::hard_link(folder.join(format!("f{n}")), scratch.tree.join(format!("hard{n}"))).unwrap();
    }
    let mut outputs = Vec::new();
    for workers in [1, 2, 5] {
        let out = scratch.folder.path().join(format!("{workers}.fl"));
        let options = PackOptions { workers: NonZeroUsize::new(workers), ..PackOptions::default() };
        let report = pack(&scratch.tree, &out, std::slice::from_ref(&scratch.store), &options, &|_| {}).unwrap();
        outputs.push((std::fs::read(out).unwrap(), report));
    }
    assert!(outputs.iter().all(|output| *output == outputs[0]));
    assert_eq!(outputs[0].1.entries, 128);
}

#[test]
fn the_tables_are_those_of_rfs() {
    let scratch = scratch();
    std::fs::write(scratch.tree.join("f"), b"x").unwrap();
    let options = PackOptions { tags: vec![("version".into(), "1".into())], ..PackOptions::default() };
    let stores = [format!("00-7f={}", scratch.store), format!("80-ff={}/high", scratch.store), scratch.store.clone()];
    let progress = std::cell::RefCell::new(Vec::new());
    pack(&scratch.tree, &scratch.fl, &stores, &options, &|step| progress.borrow_mut().push(step)).unwrap();
    let last = *progress.borrow().last().unwrap();
    assert_eq!((last.done_bytes, last.total_bytes), (1, 1));
    let shape = |path: &Path| {
        let database = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut shape = Vec::new();
        for table in ["inode", "extra", "block", "tag", "route", "sqlite_sequence"] {
            let mut columns = database.prepare(&format!("PRAGMA table_info({table})")).unwrap();
            let columns = columns.query_map([], |row| {
                Ok(format!(
                    "{table} {:?} {:?} {:?}",
                    row.get_ref(1)?.as_str()?,
                    row.get_ref(2)?.as_str()?.to_lowercase(),
                    row.get::<_, i64>(5)?
                ))
            });
            shape.extend(columns.unwrap().map(Result::unwrap));
        }
        let mut indexes = database
            .prepare("SELECT name || ' on ' || tbl_name FROM sqlite_schema WHERE type = 'index' ORDER BY name")
            .unwrap();
        shape.extend(indexes.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap));
        let first: i64 = database
            .query_row("SELECT seq = (SELECT max(ino) FROM inode) FROM sqlite_sequence", [], |row| row.get(0))
            .unwrap();
        let types: String = database
            .query_row("SELECT typeof(id) || typeof(key) || length(id) FROM block", [], |row| row.get(0))
            .unwrap_or_default();
        shape.push(format!("{first}"));
        let pragma = |name: &str| {
            database.query_row(&format!("PRAGMA {name}"), [], |row| Ok(format!("{:?}", row.get_ref(0)?))).unwrap()
        };
        shape.extend(["page_size", "encoding", "journal_mode", "user_version", "application_id"].map(pragma));
        (shape, types)
    };
    let ours = shape(&scratch.fl);
    // On a copy, so that SQLite leaves nothing beside the fixture.
    let fixture = crate::support::Fixture::copy("small");
    assert_eq!(ours.0, shape(&fixture.fl).0);
    assert_eq!(ours.1, "blobblob32");
    let flist = Flist::open(&scratch.fl).unwrap();
    assert_eq!(flist.tag("version"), Some("1"));
    assert_eq!(
        flist.routes().iter().map(|route| (route.start, route.end)).collect::<Vec<_>>(),
        [(0, 0x7f), (0x80, 0xff), (0, 0xff)]
    );
}

#[test]
fn a_tree_of_the_golden_fixture_packs_to_the_golden_blocks() {
    let fixture = crate::support::Fixture::copy("busybox");
    let content = fixture.content();
    let scratch = scratch();
    let mut keys = Vec::new();
    for (path, ino) in by_path(content.flist()) {
        if content.flist().inode(ino).unwrap().kind() == FileKind::File {
            let target = scratch.tree.join(path.trim_start_matches('/'));
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::write(target, read_all(&content, ino).unwrap()).unwrap();
            keys.push((path, content.flist().blocks(ino).to_vec()));
        }
    }
    scratch.round_trip();
    let ours = Flist::open(&scratch.fl).unwrap();
    for (path, blocks) in keys {
        assert_eq!(ours.blocks(ours.resolve(path.as_bytes()).unwrap().ino()), blocks, "{path}");
    }
}

#[test]
fn a_tree_that_cannot_be_packed_is_refused_and_leaves_no_output() {
    let scratch = scratch();
    let leaves_nothing = |error: PackError| {
        let names = std::fs::read_dir(scratch.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(names.filter(|name| name != "tree" && name != "store").count() == 0, "{}", chain(&error));
        error
    };
    let with_stores = |stores: &[&str]| {
        let stores = stores.iter().map(|store| (*store).to_owned()).collect::<Vec<_>>();
        leaves_nothing(pack(&scratch.tree, &scratch.fl, &stores, &PackOptions::default(), &|_| {}).unwrap_err())
    };
    std::fs::write(scratch.tree.join("file"), b"content").unwrap();
    assert!(matches!(with_stores(&[]), PackError::Uncovered { first: 0 }));
    assert!(matches!(with_stores(&[&format!("00-7f={}", scratch.store)]), PackError::Uncovered { first: 0x80 }));
    assert_eq!(with_stores(&["ftp://h/ns"]).kind(), FlistErrorKind::Unsupported);
    assert_eq!(with_stores(&["http://127.0.0.1:1/"]).kind(), FlistErrorKind::Invalid, "http stores are read only");
    let inside = format!("dir://{}/new/store", scratch.tree.display());
    assert!(matches!(with_stores(&[&inside]), PackError::StoreInside { .. }));

    let elsewhere = |dir: &Path| {
        leaves_nothing(
            pack(dir, &scratch.fl, std::slice::from_ref(&scratch.store), &PackOptions::default(), &|_| {}).unwrap_err(),
        )
    };
    assert_eq!(elsewhere(Path::new("/nowhere")).kind(), FlistErrorKind::NotFound);
    assert!(matches!(elsewhere(&scratch.tree.join("file")), PackError::NotADirectory { .. }));
    std::fs::write(scratch.tree.join(OsStr::from_bytes(b"bad\xff")), b"").unwrap();
    assert!(matches!(elsewhere(&scratch.tree), PackError::NameNotUtf8 { .. }));
}

#[test]
fn tags_that_a_reader_would_refuse_are_not_written() {
    let scratch = scratch();
    let with_tags = |tags: Vec<(String, String)>| {
        let options = PackOptions { tags, ..PackOptions::default() };
        pack(&scratch.tree, &scratch.fl, std::slice::from_ref(&scratch.store), &options, &|_| {})
    };
    let tag = |key: &str, len: usize| (key.to_owned(), "v".repeat(len));
    let twice = with_tags(vec![tag("a", 1), tag("b", 1), tag("a", 2)]).unwrap_err();
    assert!(matches!(&twice, PackError::Tag { key, .. } if key == "a"), "{}", chain(&twice));
    assert!(matches!(with_tags(vec![tag("long", 70_000)]), Err(PackError::Tag { .. })));
    let many = |count: usize, len: usize| (0..count).map(|n| tag(&format!("k{n}"), len)).collect::<Vec<_>>();
    assert!(matches!(with_tags(many(1025, 1)), Err(PackError::TooMany { .. })));
    assert!(matches!(with_tags(many(20, 60_000)), Err(PackError::TooMany { .. })));
    assert!(!scratch.fl.exists());
    with_tags(many(1024, 500)).unwrap();
    assert_eq!(Flist::open(&scratch.fl).unwrap().tags().len(), 1024);
}

#[test]
fn the_output_is_left_out_of_the_tree_it_lies_in() {
    let scratch = scratch();
    std::fs::write(scratch.tree.join("file"), b"content").unwrap();
    let out = scratch.tree.join("self.fl");
    for _ in 0..2 {
        pack(&scratch.tree, &out, std::slice::from_ref(&scratch.store), &over(), &|_| {}).unwrap();
        assert_eq!(by_path(&Flist::open(&out).unwrap()).into_keys().collect::<Vec<_>>(), ["/", "/file"]);
    }
}

#[test]
fn a_file_that_changes_while_it_is_packed_is_refused() {
    let scratch = scratch();
    let last = scratch.tree.join("zz");
    for n in 0..400 {
        std::fs::write(scratch.tree.join(format!("a{n}")), format!("content {n}")).unwrap();
    }
    let options = PackOptions { workers: Some(NonZeroUsize::MIN), ..PackOptions::default() };
    for new_len in [200, 50, 100] {
        std::fs::write(&last, vec![3; 100]).unwrap();
        // The first report comes before any result is taken; the worker can be at most 256 results ahead of that.
        let first = std::cell::Cell::new(true);
        let spoil = |_| {
            if first.replace(false) {
                std::fs::write(&last, vec![9; new_len]).unwrap();
            }
        };
        let stores = std::slice::from_ref(&scratch.store);
        let error = pack(&scratch.tree, &scratch.fl, stores, &options, &spoil).unwrap_err();
        assert!(matches!(&error, PackError::Changed { path } if *path == last), "{new_len}: {}", chain(&error));
        assert!(!scratch.fl.exists());
    }
}

#[test]
fn a_damaged_block_in_the_store_is_replaced_by_packing_again() {
    let scratch = scratch();
    std::fs::write(scratch.tree.join("file"), b"content").unwrap();
    scratch.pack().unwrap();
    for path in files_below(&scratch.folder.path().join("store")) {
        std::fs::write(path, b"damaged").unwrap();
    }
    scratch.round_trip();
}

/// An entry of 2001 with uid 1 and gid 2.
fn entry(path: &[u8], kind: EntryKind) -> Entry {
    Entry { path: path.to_vec(), kind, mode: 0o755, uid: 1, gid: 2, mtime: 1_000_000_000, ctime: 1_000_000_001 }
}

fn directory(path: &[u8]) -> Entry {
    entry(path, EntryKind::Directory { size: 4096 })
}

#[test]
fn a_tree_in_memory_is_packed_in_whatever_order_it_is_given() {
    let scratch = scratch();
    let spool = scratch.folder.path().join("spool");
    let bytes = (0..1_500_000).map(|n: u32| n.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect::<Vec<_>>();
    std::fs::write(&spool, &bytes).unwrap();
    let file = std::sync::Arc::new(std::fs::File::open(&spool).unwrap());
    let part = |offset, len| EntryKind::File(FileContent::Part { file: file.clone(), offset, len });
    let entries = vec![
        entry(b"a/b/part", part(11, 1_400_000)),
        entry(b"a/b-2", EntryKind::Symlink { target: b"\xff".to_vec() }),
        entry(b"a/b/small", EntryKind::File(FileContent::Bytes((*b"small").into()))),
        directory(b"a/b"),
        entry(b"null", EntryKind::CharDevice { rdev: makedev(1, 3) }),
        entry(b"pipe", EntryKind::Fifo),
        directory(b"a"),
        entry(b"empty", part(5, 0)),
        directory(b""),
    ];
    let mut outputs = Vec::new();
    for turn in [0, 4, 7] {
        let mut entries = entries.clone();
        entries.rotate_left(turn);
        let tree = Tree::build(entries).unwrap();
        let stores = std::slice::from_ref(&scratch.store);
        let report = pack_tree(&tree, &scratch.fl, stores, &over(), &|_| {}).unwrap();
        assert_eq!((report.entries, report.content_bytes, report.blocks), (9, 1_400_005, 4));
        outputs.push(std::fs::read(&scratch.fl).unwrap());
    }
    assert!(outputs.iter().all(|output| *output == outputs[0]));
    let content = content(&scratch.fl, &scratch.folder.path().join("cache"));
    let flist = content.flist();
    let at = |path: &[u8]| flist.resolve(path).unwrap();
    assert!(read_all(&content, at(b"a/b/part").ino()).unwrap() == bytes[11..1_400_011]);
    assert_eq!(read_all(&content, at(b"a/b/small").ino()).unwrap(), b"small");
    assert_eq!(read_all(&content, at(b"empty").ino()).unwrap(), b"");
    assert_eq!(flist.symlink_target(at(b"a/b-2").ino()), Some(b"\xff".as_slice()));
    assert_eq!((at(b"null").rdev(), at(b"null").mode(), at(b"pipe").mode()), (makedev(1, 3), 0o020_755, 0o010_755));
    assert_eq!(
        (at(b"a").uid(), at(b"a").gid(), at(b"a").mtime(), at(b"a").ctime()),
        (1, 2, 1_000_000_000, 1_000_000_001)
    );
}

#[test]
fn entries_that_are_no_tree_are_refused() {
    let refused = |entries: Vec<Entry>| match Tree::build(entries).unwrap_err() {
        PackError::Entry { path, reason } => (path.to_str().unwrap().chars().take(20).collect::<String>(), reason),
        other => panic!("{other:?}"),
    };
    let below_root = |path: &[u8]| refused(vec![directory(b""), entry(path, EntryKind::Fifo)]).0;
    assert_eq!(refused(vec![]).1, "the root is no directory");
    assert_eq!(refused(vec![entry(b"", EntryKind::Fifo)]).1, "the root is no directory");
    assert_eq!(refused(vec![directory(b""), directory(b"")]).1, "it is there twice");
    assert_eq!(refused(vec![directory(b""), directory(b"a"), directory(b"a")]).0, "/a");
    assert_eq!(below_root(b"no/such"), "/no/such");
    assert_eq!(refused(vec![directory(b""), entry(b"f", EntryKind::Fifo), directory(b"f/x")]).0, "/f/x");
    for path in [b"/a".as_slice(), b"a/", b"a//b", b".", b"..", b"a/..", b"a\0", &[b'n'; 256]] {
        below_root(path);
    }
    let link = |target: &[u8]| vec![directory(b""), entry(b"l", EntryKind::Symlink { target: target.to_vec() })];
    for target in [b"".as_slice(), b"a\0", &[b'n'; 4096]] {
        assert_eq!(refused(link(target)).0, "/l");
    }
    Tree::build(link(&[b'n'; 4095])).unwrap();
    let mut with_type = directory(b"");
    with_type.mode = 0o040_755;
    assert_eq!(refused(vec![with_type]).1, "a mode has the bits 07777");
}

#[test]
fn names_that_are_not_utf8_are_kept_when_asked_for() {
    let scratch = scratch();
    let raw = b"raw\xff\xfe".as_slice();
    std::fs::create_dir(scratch.tree.join(OsStr::from_bytes(raw))).unwrap();
    std::fs::write(scratch.tree.join(OsStr::from_bytes(raw)).join("file"), b"content").unwrap();
    let error = scratch.pack().unwrap_err();
    assert!(matches!(&error, PackError::NameNotUtf8 { .. }) && error.hint().contains("--raw-names"), "{error:?}");
    let options = PackOptions { raw_names: true, ..PackOptions::default() };
    pack(&scratch.tree, &scratch.fl, std::slice::from_ref(&scratch.store), &options, &|_| {}).unwrap();
    let content = content(&scratch.fl, &scratch.folder.path().join("cache"));
    let folder = content.flist().lookup(contd_flist::ROOT_INO, raw).unwrap();
    assert_eq!(folder.name(), raw);
    let file = content.flist().lookup(folder.ino(), b"file").unwrap();
    assert_eq!(read_all(&content, file.ino()).unwrap(), b"content");
}

#[derive(Debug, Clone)]
enum Thing {
    File(Vec<u8>, usize),
    Link(String),
    Folder(BTreeMap<String, Thing>),
}

fn thing() -> impl Strategy<Value = Thing> {
    let file =
        (prop::collection::vec(any::<u8>(), 0..40), 0_usize..30_000).prop_map(|(seed, times)| Thing::File(seed, times));
    let link = "[ -~]{1,40}".prop_map(Thing::Link);
    prop_oneof![4 => file, 1 => link].prop_recursive(4, 24, 6, |inner| {
        prop::collection::btree_map("[^/\0]{1,12}", inner, 0..6).prop_map(Thing::Folder)
    })
}

fn make(path: &Path, thing: &Thing) {
    match thing {
        Thing::File(seed, times) => std::fs::write(path, seed.repeat(*times)).unwrap(),
        Thing::Link(target) => symlink(target, path).unwrap(),
        Thing::Folder(entries) => {
            std::fs::create_dir(path).unwrap();
            for (name, thing) in entries.iter().filter(|(name, _)| *name != "." && *name != "..") {
                make(&path.join(name), thing);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_reads_back_as_it_was(entries in prop::collection::btree_map("[^/\0]{1,20}", thing(), 0..8)) {
        let scratch = scratch();
        for (name, thing) in entries.iter().filter(|(name, _)| *name != "." && *name != "..") {
            make(&scratch.tree.join(name), thing);
        }
        scratch.round_trip();
    }
}
