//! The legacy fixture reads back as in its manifest, and the blocks sealed by the real packer open.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::collections::BTreeMap;

use crate::made::{Legacy, Object, content, database, flist, gzip, original, plain, tar_of};
use contd_flist::{
    BlockError, BlockId, BlockKey, BlockRef, FileKind, Flist, FlistErrorKind, FlistSource, Inode, ROOT_INO, block,
    fetch,
};
use contd_test_harness::flist::{chain, files_below, fixtures, kind_name, read_all, sha256};
use serde_json::Value;

/// Returns all inodes by path, in the notation of the manifest.
fn by_path(flist: &Flist) -> BTreeMap<String, u64> {
    fn visit(flist: &Flist, inode: Inode<'_>, path: &[u8], all: &mut BTreeMap<String, u64>) {
        let shown = if path.is_empty() { "/".into() } else { String::from_utf8_lossy(path) };
        all.insert(shown.into_owned(), inode.ino());
        for child in flist.children(inode.ino()).iter() {
            visit(flist, child, &[path, b"/", child.name()].concat(), all);
        }
    }
    let mut all = BTreeMap::new();
    visit(flist, flist.root(), b"", &mut all);
    all
}

/// Returns the output of an independent reader (`manifest.py` beside the flist), with the hashes of the original tree.
fn manifest() -> Vec<Value> {
    let manifest = std::fs::read_to_string(fixtures().join("legacy/manifest.jsonl")).unwrap();
    manifest.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_fixture_reads_back_as_its_manifest_says() {
    let legacy = Legacy::copy();
    let content = content(&legacy.flist, &legacy.scratch.path().join("cache"));
    let (flist, inodes, manifest) = (content.flist(), by_path(content.flist()), manifest());
    assert_eq!((manifest.len(), inodes.len(), flist.inode_count()), (77, 77, 77));
    for line in manifest {
        let path = line["path"].as_str().unwrap();
        let inode = flist.inode(inodes[path]).unwrap();
        let number = |field: &str| line[field].as_i64();
        assert_eq!(kind_name(inode.kind()), line["type"], "{path}");
        assert_eq!(format!("{:04o}", inode.mode() & 0o7777), line["mode"], "{path}");
        assert_eq!(Some(i64::from(inode.uid())), number("uid"), "{path}");
        assert_eq!(Some(i64::from(inode.gid())), number("gid"), "{path}");
        assert_eq!((Some(inode.mtime()), Some(inode.ctime())), (number("mtime"), number("ctime")), "{path}");
        if let Some(size) = line["size"].as_u64() {
            assert_eq!(inode.size(), size, "{path}");
        }
        let target = flist.symlink_target(inode.ino()).map(|target| String::from_utf8_lossy(target).into_owned());
        assert_eq!(target.as_deref(), line["target"].as_str(), "{path}");
        assert_eq!(line["sha256"].is_string(), inode.kind() == FileKind::File, "{path}");
        if let Some(expected) = line["sha256"].as_str() {
            let bytes = read_all(&content, inode.ino()).unwrap();
            assert_eq!((bytes.len() as u64, sha256(&bytes).as_str()), (inode.size(), expected), "{path}");
        }
    }
}

#[test]
fn numbers_have_no_gaps_and_are_the_same_each_time() {
    let (one, two) =
        (contd_flist_legacy::open(&original()).unwrap(), contd_flist_legacy::open(&Legacy::copy().flist).unwrap());
    assert_eq!(by_path(&one), by_path(&two));
    let mut numbers = by_path(&one).into_values().collect::<Vec<_>>();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=77));
}

#[test]
fn a_legacy_flist_is_told_by_its_content_and_fetched_like_any_other() {
    let legacy = Legacy::copy();
    let (named_wrongly, cache) = (legacy.scratch.path().join("x.fl"), legacy.scratch.path().join("cache"));
    std::fs::copy(&legacy.flist, &named_wrongly).unwrap();
    let fetched = fetch(&FlistSource::File(named_wrongly), &cache, &|_| {}).unwrap();
    let content = content(&fetched.path, &cache);
    let hostname = content.flist().resolve(b"etc/hostname").unwrap();
    assert_eq!(read_all(&content, hostname.ino()).unwrap().len() as u64, hostname.size());
}

#[test]
fn the_backend_is_a_route_and_its_password_is_nowhere_to_be_seen() {
    let flist = contd_flist_legacy::open(&original()).unwrap();
    let [route] = flist.routes() else { panic!("one route") };
    assert_eq!((route.start, route.end, route.url.as_str()), (0, 255, "zdb://127.0.0.1:9911/leg"));
    assert!(flist.tags().is_empty());

    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("x.flist");
    let metadata = [("readme", "\"text\""), ("backend", r#"{"host": "h", "port": 1, "password": "secret"}"#)];
    std::fs::write(&path, gzip(&tar_of(&[("flistdb.sqlite3", database(&plain(&[]), &metadata))]))).unwrap();
    let flist = contd_flist_legacy::open(&path).unwrap();
    assert_eq!(flist.routes()[0].url, "zdb://:secret@h:1");
    assert_eq!(flist.tags(), [("readme".to_owned(), "\"text\"".to_owned())]);
    assert!(!format!("{flist:?}").contains("secret"));
}

#[test]
fn a_flist_without_metadata_has_no_routes_and_reads_fail_with_that() {
    let scratch = tempfile::tempdir().unwrap();
    let bytes = database(&plain(&[crate::made::file("f", 1, 128, &[(&[1; 16], &[2; 16])])]), &[]);
    let path = scratch.path().join("x.flist");
    std::fs::write(scratch.path().join("db"), bytes).unwrap();
    let connection = rusqlite::Connection::open(scratch.path().join("db")).unwrap();
    connection.execute("DROP TABLE metadata", []).unwrap();
    drop(connection);
    let bytes = std::fs::read(scratch.path().join("db")).unwrap();
    std::fs::write(&path, gzip(&tar_of(&[("flistdb.sqlite3", bytes)]))).unwrap();
    let content = content(&path, scratch.path());
    assert!(content.flist().routes().is_empty());
    let refused = read_all(&content, content.flist().resolve(b"f").unwrap().ino()).unwrap_err();
    assert_eq!(refused.kind(), FlistErrorKind::NotFound, "{}", chain(&refused));
}

#[test]
fn every_block_of_the_fixture_opens_with_its_own_names_only() {
    let flist = contd_flist_legacy::open(&original()).unwrap();
    let blocks = by_path(&flist).into_values().flat_map(|ino| flist.blocks(ino).to_vec()).collect::<Vec<_>>();
    assert_eq!(blocks.len(), 58);
    let stored =
        |id: &BlockId| std::fs::read(fixtures().join("legacy/store").join(id.shard()).join(id.to_hex())).unwrap();
    for BlockRef { id, key } in &blocks {
        let bytes = stored(id);
        let plain = block::open(bytes.clone(), &BlockRef { id: *id, key: *key }).unwrap();
        assert!(!plain.is_empty() && plain.len() <= contd_flist::BLOCK_SIZE);
        let with = |id, key| block::open(bytes.clone(), &BlockRef { id, key }).unwrap_err();
        let other = BlockKey::legacy([0x5a; 16]);
        assert!(matches!(with(*id, other), BlockError::Decrypt { .. } | BlockError::Unpack { .. }), "{id}");
        assert!(matches!(with(BlockId::legacy([0x5a; 16]), *key), BlockError::WrongId { .. }), "{id}");
        assert!(matches!(with(*id, BlockKey::new([0x5a; 32])), BlockError::MixedNames { .. }), "{id}");
    }
}

#[test]
fn a_damaged_store_is_noticed_and_a_damaged_cache_repaired() {
    let legacy = Legacy::copy();
    let cache = legacy.scratch.path().join("cache");
    let read = || {
        let content = content(&legacy.flist, &cache);
        let file = content.flist().lookup(ROOT_INO, b"exact-512k-plus-1").unwrap();
        read_all(&content, file.ino())
    };
    let whole = read().unwrap();
    let cached = files_below(&cache.join("blocks"));
    assert!(cached.iter().all(|path| path.file_name().unwrap().len() == 32), "{cached:?}");
    for path in &cached {
        std::fs::write(path, "damaged").unwrap();
    }
    assert_eq!(read().unwrap(), whole);

    for path in files_below(&legacy.store) {
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(read().unwrap(), whole, "it is in the cache");
    std::fs::remove_dir_all(&cache).unwrap();
    let refused = read().unwrap_err();
    assert_eq!(refused.kind(), FlistErrorKind::Corrupt, "{}", chain(&refused));
}

#[test]
fn every_kind_of_entry_and_owner_is_understood() {
    let scratch = tempfile::tempdir().unwrap();
    let old = |mode: u64, user: &str, group: &str| Object {
        data: vec![mode],
        pointers: vec![crate::made::text(user), crate::made::text(group), crate::made::Field::Null],
    };
    let owned = |name: &str, acl: &str| {
        let mut file = crate::made::file(name, 0, 0, &[]);
        file.pointers[2] = crate::made::text(acl);
        file
    };
    let entries = [
        crate::made::special("block", 1, "8,17"),
        crate::made::special("char", 2, "1,1048575"),
        crate::made::special("fifo", 3, "(nothing)"),
        crate::made::special("socket", 0, "5,1"),
        crate::made::special("unknown", 4, ""),
        crate::made::link("link", "../target"),
        owned("by-root", "a"),
        owned("by-number", "b"),
        owned("by-name", "c"),
        owned("by-no-one", "d"),
        owned("by-id", "e"),
    ];
    let mut rows = plain(&entries);
    rows.push(("a".into(), old(0o4755, "root", "root").message()));
    rows.push(("b".into(), old(0o600, "65534", "100").message()));
    rows.push(("c".into(), old(0o600, "www-data", "").message()));
    rows.push(("e".into(), crate::made::acl(0o7777, 0, u64::from(u32::MAX)).message()));
    let flist = contd_flist_legacy::open(&flist(scratch.path(), &rows)).unwrap();
    let get = |name: &str| flist.lookup(ROOT_INO, name.as_bytes()).unwrap();
    for (name, kind, numbers) in [
        ("block", FileKind::BlockDevice, (8, 17)),
        ("char", FileKind::CharDevice, (1, 1_048_575)),
        ("fifo", FileKind::Fifo, (0, 0)),
        ("socket", FileKind::Socket, (0, 0)),
        ("unknown", FileKind::Socket, (0, 0)),
        ("link", FileKind::Symlink, (0, 0)),
        ("by-root", FileKind::File, (0, 0)),
    ] {
        let inode = get(name);
        assert_eq!((inode.kind(), (inode.rdev_major(), inode.rdev_minor())), (kind, numbers), "{name}");
    }
    for (name, expected) in [
        ("by-root", (0o104_755, 0, 0)),
        ("by-number", (0o100_600, 65_534, 100)),
        ("by-name", (0o100_600, 1000, 1000)),
        ("by-no-one", (0o100_400, 1000, 1000)),
        ("by-id", (0o107_777, 0, u32::MAX)),
    ] {
        let inode = get(name);
        assert_eq!((inode.mode(), inode.uid(), inode.gid()), expected, "{name}");
    }
}
