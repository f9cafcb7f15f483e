//! The golden flists read back exactly as in their manifests, and the codec agrees with the known answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::collections::BTreeSet;

use contd_flist::block;
use contd_flist::{FileKind, Flist, ROOT_INO};
use contd_test_harness::flist::{Fixture, by_path, fixtures, kind_name, read_all, sha256};
use serde_json::Value;

#[track_caller]
fn reads_back_as_its_manifest_says(name: &str, entries: usize) {
    let fixture = Fixture::copy(name);
    let content = fixture.content();
    let flist = content.flist();
    let inodes = by_path(flist);
    assert_eq!((fixture.manifest.len(), inodes.len(), flist.inode_count()), (entries, entries, entries));
    for line in &fixture.manifest {
        let path = line["path"].as_str().unwrap();
        let inode = flist.inode(inodes[path]).unwrap();
        let number = |field: &str| line[field].as_i64();
        assert_eq!(kind_name(inode.kind()), line["type"], "{path}");
        assert_eq!(format!("{:04o}", inode.mode() & 0o7777), line["mode"], "{path}");
        assert_eq!(Some(i64::from(inode.uid())), number("uid"), "{path}");
        assert_eq!(Some(i64::from(inode.gid())), number("gid"), "{path}");
        assert_eq!(Some(inode.mtime()), number("mtime"), "{path}");
        assert_eq!(Some(inode.ctime()), number("ctime"), "{path}");
        if let Some(size) = line["size"].as_u64() {
            assert_eq!(inode.size(), size, "{path}");
        }
        if let Some(rdev) = line["rdev"].as_array() {
            assert_eq!([inode.rdev_major(), inode.rdev_minor()].map(Value::from).as_slice(), rdev.as_slice(), "{path}");
        }
        let target = flist.symlink_target(inode.ino()).map(|target| String::from_utf8(target.to_vec()).unwrap());
        assert_eq!(target.as_deref(), line["target"].as_str(), "{path}");
        assert_eq!(line["sha256"].is_string(), inode.kind() == FileKind::File, "{path}");
        if let Some(expected) = line["sha256"].as_str() {
            let bytes = read_all(&content, inode.ino()).unwrap();
            assert_eq!((bytes.len() as u64, sha256(&bytes).as_str()), (inode.size(), expected), "{path}");
        }
    }
}

#[test]
fn small_reads_back_as_its_manifest_says() {
    reads_back_as_its_manifest_says("small", 77);
}

#[test]
fn busybox_reads_back_as_its_manifest_says() {
    reads_back_as_its_manifest_says("busybox", 300);
}

#[test]
fn reading_a_flist_changes_nothing_beside_it() {
    let fixture = Fixture::copy("small");
    let before = std::fs::read(&fixture.fl).unwrap();
    let listing = |folder: &std::path::Path| {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect::<BTreeSet<_>>()
    };
    let names = listing(fixture.scratch.path());
    Flist::open(&fixture.fl).unwrap();
    assert_eq!(std::fs::read(&fixture.fl).unwrap(), before);
    assert_eq!(listing(fixture.scratch.path()), names);
}

#[test]
fn tags_and_routes_are_those_of_the_packer() {
    let flist = Flist::open(&fixtures().join("small/small.fl")).unwrap();
    let tags = flist.tags().iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>();
    let expected = [("author", "fixture"), ("custom", "a=b"), ("description", "small tree"), ("version", "1.2.3")];
    assert_eq!(tags, expected);
    assert_eq!(flist.tag("version"), Some("1.2.3"));
    assert_eq!(flist.tag("missing"), None);
    let [route] = flist.routes() else { panic!("one route") };
    assert_eq!((route.start, route.end, route.url.as_str()), (0, 255, "dir:///fl-fixture-store/small"));
}

#[test]
fn lookups_find_what_is_there_and_nothing_else() {
    let flist = Flist::open(&fixtures().join("small/small.fl")).unwrap();
    let etc = flist.lookup(ROOT_INO, b"etc").unwrap();
    let hostname = flist.lookup(etc.ino(), b"hostname").unwrap();
    assert_eq!((hostname.name(), hostname.parent(), hostname.nlink()), (b"hostname".as_slice(), etc.ino(), 1));
    assert_eq!(flist.resolve(b"/etc/hostname").unwrap().ino(), hostname.ino());
    assert_eq!((flist.root().parent(), flist.root().name()), (ROOT_INO, b"".as_slice()));
    for name in [b"".as_slice(), b".", b"..", b"/", b"ETC", b"etc/hostname", b"etc\0"] {
        assert!(flist.lookup(ROOT_INO, name).is_none(), "{name:?}");
    }
    assert!(flist.lookup(hostname.ino(), b"x").is_none() && flist.lookup(0, b"etc").is_none());
    assert!(flist.inode(0).is_none() && flist.inode(u64::MAX).is_none() && flist.inode(78).is_none());
    assert!(flist.blocks(etc.ino()).is_empty() && flist.symlink_target(etc.ino()).is_none());
}

#[test]
fn children_are_sorted_and_directories_count_their_subdirectories() {
    let flist = Flist::open(&fixtures().join("small/small.fl")).unwrap();
    for ino in by_path(&flist).into_values() {
        let inode = flist.inode(ino).unwrap();
        let children = flist.children(ino);
        let names = children.iter().map(contd_flist::Inode::name).collect::<Vec<_>>();
        assert!(names.is_sorted() && names.len() == children.len());
        for (position, child) in children.iter().enumerate() {
            assert_eq!(children.get(position).unwrap().ino(), child.ino());
            assert_eq!(flist.lookup(ino, child.name()).unwrap().ino(), child.ino());
        }
        assert!(children.get(children.len()).is_none());
        let directories = children.iter().filter(|child| child.kind() == FileKind::Directory).count();
        let expected = if inode.kind() == FileKind::Directory { 2 + directories } else { 1 };
        assert_eq!(inode.nlink() as usize, expected);
    }
}

#[test]
fn reads_end_exactly_at_the_end_of_the_file() {
    let fixture = Fixture::copy("small");
    let content = fixture.content();
    let file = content.flist().lookup(ROOT_INO, b"exact-512k-plus-1").unwrap();
    let whole = read_all(&content, file.ino()).unwrap();
    assert_eq!(whole.len(), 524_289);
    for (offset, len, expected) in
        [(0, 0, 0), (524_288, 10, 1), (524_287, 10, 2), (524_289, 10, 0), (u64::MAX, 10, 0), (524_280, 4, 4)]
    {
        let mut buf = vec![0xee; len];
        assert_eq!(content.read_at(file.ino(), offset, &mut buf).unwrap(), expected, "{offset} {len}");
        let start = usize::try_from(offset).unwrap().min(whole.len());
        assert_eq!(buf[..expected], whole[start..start + expected], "{offset} {len}");
        assert!(buf[expected..].iter().all(|byte| *byte == 0xee), "nothing is written past the end");
    }
}

#[test]
fn the_codec_agrees_with_the_known_answers() {
    let vectors = std::fs::read_to_string(fixtures().join("vectors.json")).unwrap();
    let vectors: Vec<Value> = serde_json::from_str(&vectors).unwrap();
    let bytes = |value: &Value| {
        let hex = value.as_str()?;
        Some((0..hex.len() / 2).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap()).collect::<Vec<_>>())
    };
    let mut proven = 0;
    for vector in &vectors {
        let name = vector["name"].as_str().unwrap();
        let len = usize::try_from(vector["plain_len"].as_u64().unwrap()).unwrap();
        let plain = match bytes(&vector["plain_hex"]) {
            Some(plain) => plain,
            None if name.starts_with("zeros") => vec![0; len],
            None => continue,
        };
        assert_eq!(plain.len(), len, "{name}");
        let sealed = block::seal(&plain).unwrap();
        assert_eq!(sealed.names.key.to_hex(), vector["key"], "{name}");
        assert_eq!(sealed.names.id.to_hex(), vector["id"], "{name}");
        assert_eq!(sealed.stored.len() as u64, vector["stored_len"].as_u64().unwrap(), "{name}");
        if let Some(stored) = bytes(&vector["stored_hex"]) {
            assert_eq!(sealed.stored, stored, "{name}");
        }
        assert_eq!(block::open(sealed.stored, &sealed.names).unwrap(), plain, "{name}");
        proven += 1;
    }
    assert!(proven >= 4, "only {proven} of {} vectors could be proven", vectors.len());
}
