//! Unpacked trees equal the flist and stay inside their directory; a failure leaves nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use contd_flist::{
    BlockSource, Flist, FlistErrorKind, PackOptions, RoutePolicy, Routes, UnpackError, UnpackOptions, UnpackReport,
    pack, unpack,
};
use contd_test_harness::flist::{Fixture, by_path, chain, files_below, sha256};

/// Unpacks the flist from its own routes.
fn unpack_to(fl: &Path, dir: &Path, options: &UnpackOptions) -> Result<UnpackReport, UnpackError> {
    let flist = Flist::open(fl).unwrap();
    let routes = Routes::connect(flist.routes(), &RoutePolicy::default()).unwrap();
    unpack(&flist, BlockSource::Stores(&routes), dir, options, &|_| {})
}

fn force() -> UnpackOptions {
    UnpackOptions { force: true, ..UnpackOptions::default() }
}

fn type_name(metadata: &std::fs::Metadata) -> &'static str {
    let kind = metadata.file_type();
    match () {
        () if kind.is_file() => "file",
        () if kind.is_dir() => "dir",
        () if kind.is_symlink() => "symlink",
        () if kind.is_char_device() => "char",
        () if kind.is_block_device() => "block",
        () if kind.is_fifo() => "fifo",
        () => "socket",
    }
}

#[track_caller]
fn is_as_its_manifest_says(manifest: &[serde_json::Value], dir: &Path) {
    assert_eq!(manifest.len(), all_below(dir).len());
    for line in manifest {
        let path = line["path"].as_str().unwrap();
        let real = dir.join(path.trim_start_matches('/'));
        let metadata = real.symlink_metadata().unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(type_name(&metadata), line["type"], "{path}");
        // Symbolic links have no mode on Linux.
        if !metadata.is_symlink() {
            assert_eq!(format!("{:04o}", metadata.mode() & 0o7777), line["mode"], "{path}");
        }
        assert_eq!((u64::from(metadata.uid()), u64::from(metadata.gid())), (number(line, "uid"), number(line, "gid")));
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (line["mtime"].as_i64().unwrap(), 0), "{path}");
        if let Some(size) = line["size"].as_u64() {
            assert_eq!(metadata.len(), size, "{path}");
        }
        if let Some(expected) = line["sha256"].as_str() {
            assert_eq!(sha256(&std::fs::read(&real).unwrap()), expected, "{path}");
        }
        if let Some(target) = line["target"].as_str() {
            assert_eq!(std::fs::read_link(&real).unwrap(), Path::new(target), "{path}");
        }
        if let Some(rdev) = line["rdev"].as_array() {
            let found = [nix::sys::stat::major(metadata.rdev()), nix::sys::stat::minor(metadata.rdev())];
            assert_eq!(found.map(serde_json::Value::from).as_slice(), rdev.as_slice(), "{path}");
        }
    }
}

fn number(line: &serde_json::Value, field: &str) -> u64 {
    line[field].as_u64().unwrap()
}

/// Returns every entry at and below a directory by its relative path, with its `lstat`.
fn all_below(dir: &Path) -> BTreeMap<PathBuf, (std::fs::Metadata, PathBuf)> {
    let mut all = BTreeMap::from([(PathBuf::from("/"), (dir.symlink_metadata().unwrap(), dir.to_owned()))]);
    let mut waiting = vec![dir.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                waiting.push(path.clone());
            }
            all.insert(Path::new("/").join(path.strip_prefix(dir).unwrap()), (metadata, path));
        }
    }
    all
}

#[track_caller]
fn are_the_same(one: &Path, two: &Path) -> usize {
    let (one, two) = (all_below(one), all_below(two));
    assert_eq!(one.keys().collect::<Vec<_>>(), two.keys().collect::<Vec<_>>());
    for (path, (a, real_a)) in &one {
        let (b, real_b) = &two[path];
        let of = |metadata: &std::fs::Metadata| {
            (metadata.mode(), metadata.uid(), metadata.gid(), metadata.rdev(), metadata.mtime())
        };
        assert_eq!(of(a), of(b), "{}", path.display());
        if a.is_file() {
            assert_eq!(a.len(), b.len(), "{}", path.display());
            assert!(std::fs::read(real_a).unwrap() == std::fs::read(real_b).unwrap(), "{}", path.display());
        } else if a.is_symlink() {
            assert_eq!(std::fs::read_link(real_a).unwrap(), std::fs::read_link(real_b).unwrap(), "{}", path.display());
        }
    }
    one.len()
}

#[test]
fn the_golden_flists_unpack_as_their_manifests_say() {
    for (name, entries) in [("small", 77), ("busybox", 300)] {
        let fixture = Fixture::copy(name);
        let dir = fixture.scratch.path().join("new");
        let report = unpack_to(&fixture.fl, &dir, &UnpackOptions::default()).unwrap();
        assert_eq!(report.entries, entries);
        is_as_its_manifest_says(&fixture.manifest, &dir);
        // Once more, into the existing tree.
        std::fs::write(dir.join("bin-of-others"), b"stays").unwrap();
        unpack_to(&fixture.fl, &dir, &force()).unwrap();
        std::fs::remove_file(dir.join("bin-of-others")).unwrap();
        let root = &fixture.manifest[0];
        let time = nix::sys::time::TimeSpec::new(root["mtime"].as_i64().unwrap(), 0);
        nix::sys::stat::futimens(std::fs::File::open(&dir).unwrap(), &time, &time).unwrap();
        is_as_its_manifest_says(&fixture.manifest, &dir);
    }
}

/// A row of `inode` and its related rows, without numbers and without values that a copy cannot keep.
#[derive(Debug, PartialEq)]
struct Row {
    numbers: [i64; 5],
    size: Option<i64>,
    target: Option<Vec<u8>>,
    blocks: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads the tables with independent SQL, by path.
fn rows(fl: &Path) -> BTreeMap<String, Row> {
    let copy = tempfile::NamedTempFile::new().unwrap();
    std::fs::copy(fl, copy.path()).unwrap();
    let database = rusqlite::Connection::open(copy.path()).unwrap();
    let mut blocks = database.prepare("SELECT id, key FROM block WHERE ino = ?1 ORDER BY rowid").unwrap();
    let mut statement = database
        .prepare(
            "WITH RECURSIVE tree(ino, path) AS (
                SELECT ino, '' FROM inode WHERE parent = 0
                UNION ALL SELECT inode.ino, tree.path || '/' || inode.name FROM inode JOIN tree ON inode.parent = tree.ino)
             SELECT inode.ino, path, mode, uid, gid, rdev, mtime, size, (SELECT data FROM extra WHERE extra.ino = inode.ino)
             FROM tree JOIN inode USING (ino)",
        )
        .unwrap();
    let rows = statement.query_map([], |row| {
        let ino: i64 = row.get(0)?;
        let mut numbers = [row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?];
        let kind = numbers[0] & 0o170_000;
        // Only devices have device numbers, although `stat` returns some for files on some file systems.
        if kind != 0o020_000 && kind != 0o060_000 {
            numbers[3] = 0;
        }
        // The size of a directory depends on its file system.
        let size = (kind != 0o040_000).then(|| row.get(7)).transpose()?;
        let blocks = blocks.query_map([ino], |row| Ok((row.get(0)?, row.get(1)?)))?.map(Result::unwrap).collect();
        Ok((row.get(1)?, Row { numbers, size, target: row.get(8)?, blocks }))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

#[test]
fn packing_what_was_unpacked_gives_the_rows_of_the_reference_packer() {
    for name in ["small", "busybox"] {
        let fixture = Fixture::copy(name);
        let (dir, out) = (fixture.scratch.path().join("new"), fixture.scratch.path().join("ours.fl"));
        unpack_to(&fixture.fl, &dir, &UnpackOptions::default()).unwrap();
        let store = format!("dir://{}", fixture.scratch.path().join("ours").display());
        pack(&dir, &out, &[store], &PackOptions::default(), &|_| {}).unwrap();
        let (ours, theirs) = (rows(&out), rows(&fixture.fl));
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
        for (path, row) in &theirs {
            assert_eq!(&ours[path], row, "{path}");
        }
        let stored = |folder: &Path| {
            let files = files_below(folder);
            files
                .iter()
                .map(|file| (file.strip_prefix(folder).unwrap().to_owned(), std::fs::read(file).unwrap()))
                .collect()
        };
        let (ours, theirs): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (stored(&fixture.scratch.path().join("ours")), stored(&fixture.store));
        assert!(ours == theirs, "{name}: the stores differ");
    }
}

/// Packs and unpacks a real tree: `/usr/sbin`, or what `CONTD_FLIST_TREE` names (several, with colons).
#[test]
fn a_real_tree_comes_back_as_it_was() {
    let trees = std::env::var("CONTD_FLIST_TREE").unwrap_or_else(|_| "/usr/sbin".to_owned());
    for tree in trees.split(':').map(|tree| std::fs::canonicalize(tree).unwrap()) {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let store = format!("dir://{}", at("store").display());
        let options = PackOptions { raw_names: true, ..PackOptions::default() };
        let packed = pack(&tree, &at("x.fl"), &[store], &options, &|_| {}).unwrap();
        let report = unpack_to(&at("x.fl"), &at("new"), &UnpackOptions::default()).unwrap();
        let compared = are_the_same(&tree, &at("new"));
        assert_eq!((report.entries, report.content_bytes), (packed.entries, packed.content_bytes));
        assert_eq!(compared as u64, packed.entries);
        let mib = packed.content_bytes >> 20;
        println!("{}: {compared} entries, {mib} MiB in {} blocks", tree.display(), report.blocks);
    }
}

#[test]
fn zeros_become_holes() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    std::fs::create_dir(at("tree")).unwrap();
    let sparse = std::fs::File::create(at("tree/sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 33 << 20).unwrap();
    let store = format!("dir://{}", at("store").display());
    pack(&at("tree"), &at("x.fl"), &[store], &PackOptions::default(), &|_| {}).unwrap();
    unpack_to(&at("x.fl"), &at("new"), &UnpackOptions::default()).unwrap();
    are_the_same(&at("tree"), &at("new"));
    let disk_bytes = at("new/sparse").metadata().unwrap().blocks() * 512;
    assert!(disk_bytes <= 1 << 20, "{disk_bytes} bytes on disk");
}

#[test]
fn only_an_empty_or_new_directory_is_filled() {
    let fixture = Fixture::copy("busybox");
    let at = |name: &str| fixture.scratch.path().join(name);
    std::fs::create_dir(at("full")).unwrap();
    std::fs::write(at("full/mine"), b"precious").unwrap();
    let refused = |dir: &Path| unpack_to(&fixture.fl, dir, &UnpackOptions::default()).unwrap_err();
    assert!(matches!(refused(&at("full")), UnpackError::NotEmpty { .. }));
    assert!(matches!(refused(&at("full/mine")), UnpackError::NotADirectory { .. } | UnpackError::Prepare { .. }));
    assert_eq!(refused(&at("no/such")).kind(), FlistErrorKind::NotFound);
    assert_eq!(std::fs::read(at("full/mine")).unwrap(), b"precious");
    std::fs::create_dir(at("empty")).unwrap();
    unpack_to(&fixture.fl, &at("empty"), &UnpackOptions::default()).unwrap();
    is_as_its_manifest_says(&fixture.manifest, &at("empty"));
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let fixture = Fixture::copy("small");
    let blocks = fixture.stored_blocks();
    std::fs::write(&blocks[blocks.len() / 2], b"damaged").unwrap();
    let at = |name: &str| fixture.scratch.path().join(name);
    let error = unpack_to(&fixture.fl, &at("new"), &UnpackOptions::default()).unwrap_err();
    assert!(matches!(error, UnpackError::Read { .. }) && error.kind() == FlistErrorKind::Corrupt, "{}", chain(&error));
    assert!(!at("new").exists());
    std::fs::create_dir(at("empty")).unwrap();
    std::fs::set_permissions(at("empty"), PermissionsExt::from_mode(0o751)).unwrap();
    unpack_to(&fixture.fl, &at("empty"), &UnpackOptions::default()).unwrap_err();
    assert_eq!(std::fs::read_dir(at("empty")).unwrap().count(), 0);
    assert_eq!(at("empty").metadata().unwrap().mode() & 0o7777, 0o751);
}

#[test]
fn files_outside_of_the_directory_are_not_touched() {
    let fixture = Fixture::copy("small");
    let at = |name: &str| fixture.scratch.path().join(name);
    std::fs::create_dir_all(at("outside/b")).unwrap();
    std::fs::write(at("outside/hostname"), b"precious").unwrap();
    let before = all_below(&at("outside")).into_iter().map(|(path, (stat, _))| (path, stat.mtime_nsec()));
    let before = before.collect::<Vec<_>>();
    std::fs::create_dir(at("dir")).unwrap();
    std::fs::create_dir(at("dir/etc")).unwrap();
    // A directory, a file and a parent directory are links to the outside; each must be replaced.
    symlink(at("outside"), at("dir/a")).unwrap();
    symlink(at("outside/hostname"), at("dir/etc/hostname")).unwrap();
    symlink("../outside", at("dir/links")).unwrap();
    unpack_to(&fixture.fl, &at("dir"), &force()).unwrap();
    is_as_its_manifest_says(&fixture.manifest, &at("dir"));
    let after = all_below(&at("outside")).into_iter().map(|(path, (stat, _))| (path, stat.mtime_nsec()));
    assert_eq!(after.collect::<Vec<_>>(), before);
    assert_eq!(std::fs::read(at("outside/hostname")).unwrap(), b"precious");

    // Names that lead out of the tree are refused before anything is created.
    fixture.sql("UPDATE inode SET name = '../escaped' WHERE name = 'hostname'");
    Flist::open(&fixture.fl).unwrap_err();
}

#[test]
fn a_directory_of_others_never_gives_way_to_a_file() {
    let fixture = Fixture::copy("busybox");
    let dir = fixture.scratch.path().join("dir");
    std::fs::create_dir_all(dir.join(".startup.toml/full")).unwrap();
    let error = unpack_to(&fixture.fl, &dir, &force()).unwrap_err();
    assert!(matches!(&error, UnpackError::Entry { path, .. } if path.ends_with(".startup.toml")), "{}", chain(&error));
    assert!(dir.join(".startup.toml/full").exists());
}

#[test]
fn without_owners_everything_is_the_callers_and_nothing_is_setuid() {
    let fixture = Fixture::copy("small");
    let dir = fixture.scratch.path().join("new");
    let options = UnpackOptions { same_owner: false, ..UnpackOptions::default() };
    unpack_to(&fixture.fl, &dir, &options).unwrap();
    let uid = nix::unistd::geteuid().as_raw();
    let flist = Flist::open(&fixture.fl).unwrap();
    let mut dropped = 0;
    for (path, ino) in by_path(&flist) {
        let metadata = dir.join(path.trim_start_matches('/')).symlink_metadata().unwrap();
        let inode = flist.inode(ino).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o6000), (uid, 0), "{path}");
        if !metadata.is_symlink() {
            assert_eq!(metadata.mode() & 0o1777, inode.mode() & 0o1777, "{path}");
        }
        dropped += u32::from(inode.mode() & 0o6000 != 0);
    }
    assert!(dropped >= 2, "the fixture has setuid and setgid files");
}

#[test]
fn a_path_longer_than_the_system_takes_is_refused_and_removed_again() {
    let fixture = Fixture::copy_metadata("small");
    fixture.sql(
        "DELETE FROM block; DELETE FROM extra; DELETE FROM inode WHERE ino > 1;
         WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
         INSERT INTO inode SELECT i, i - 1, printf('%0200d', i), 4096, 0, 0, 16877, 0, 0, 0 FROM n",
    );
    let dir = fixture.scratch.path().join("new");
    let error = unpack_to(&fixture.fl, &dir, &UnpackOptions::default()).unwrap_err();
    assert!(matches!(error, UnpackError::PathTooLong { .. }), "{}", chain(&error));
    assert!(chain(&error).len() < 6000 && !dir.exists());
}

#[test]
fn odd_bytes_in_names_and_links_come_back() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let name = std::ffi::OsStr::from_bytes(b"\xff\n\x1b[31m \\ '\"");
    std::fs::create_dir_all(at("tree").join(name)).unwrap();
    std::fs::write(at("tree").join(name).join(name), b"content").unwrap();
    symlink(name, at("tree").join("link")).unwrap();
    let store = format!("dir://{}", at("store").display());
    let options = PackOptions { raw_names: true, ..PackOptions::default() };
    pack(&at("tree"), &at("x.fl"), &[store], &options, &|_| {}).unwrap();
    unpack_to(&at("x.fl"), &at("new"), &UnpackOptions::default()).unwrap();
    assert_eq!(are_the_same(&at("tree"), &at("new")), 4);
}
