//! Outputs of packing and unpacking: existing files are kept, output is complete or absent, and routes are as asked for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use contd_flist::route::{self, RouteError};
use contd_flist::{
    BlockSource, Flist, PackError, PackOptions, RoutePolicy, Routes, UnpackError, UnpackOptions, pack, unpack,
};
use contd_test_harness::flist::chain;
use tempfile::TempDir;

struct Scratch {
    folder: TempDir,
    tree: PathBuf,
    fl: PathBuf,
}

fn scratch() -> Scratch {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("file"), "content").unwrap();
    Scratch { fl: folder.path().join("out.fl"), tree, folder }
}

impl Scratch {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn pack_to(&self, out: &Path, options: &PackOptions) -> Result<String, PackError> {
        let store = format!("dir://{}", self.at("store").display());
        pack(&self.tree, out, &[store], options, &|_| {}).map(|report| report.hash)
    }

    fn unpack_to(&self, dir: &Path) -> Result<(), UnpackError> {
        let flist = Flist::open(&self.fl).unwrap();
        let routes = Routes::connect(flist.routes(), &RoutePolicy::default()).unwrap();
        let options = UnpackOptions { same_owner: false, ..UnpackOptions::default() };
        unpack(&flist, BlockSource::Stores(&routes), dir, &options, &|_| {}).map(drop)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names.into_iter().map(|name| name.into_string().unwrap()).collect()
    }
}

#[test]
fn packing_never_replaces_what_is_there_unless_told_to() {
    let scratch = scratch();
    let force = PackOptions { force: true, ..PackOptions::default() };
    std::fs::write(&scratch.fl, "precious").unwrap();
    let error = scratch.pack_to(&scratch.fl, &PackOptions::default()).unwrap_err();
    assert!(matches!(error, PackError::Exists { .. }) && error.hint().contains("--force"), "{error}");
    assert_eq!(std::fs::read(&scratch.fl).unwrap(), b"precious");
    // Refused before anything is stored.
    assert_eq!(scratch.names(), ["out.fl", "tree"]);
    scratch.pack_to(&scratch.fl, &force).unwrap();
    Flist::open(&scratch.fl).unwrap();
    // A link is replaced, not its target; a directory or device is never replaced.
    std::os::unix::fs::symlink("tree/file", scratch.at("link.fl")).unwrap();
    assert!(matches!(scratch.pack_to(&scratch.at("link.fl"), &PackOptions::default()), Err(PackError::Exists { .. })));
    std::fs::create_dir(scratch.at("dir.fl")).unwrap();
    nix::unistd::mkfifo(&scratch.at("fifo.fl"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for taken in [scratch.at("dir.fl"), scratch.at("fifo.fl"), PathBuf::from("/dev/null")] {
        assert!(matches!(scratch.pack_to(&taken, &force), Err(PackError::NotAFile { .. })), "{}", taken.display());
    }
    assert_eq!(std::fs::read(scratch.tree.join("file")).unwrap(), b"content");
}

#[test]
fn a_directory_is_unpacked_whole_or_as_it_was() {
    let scratch = scratch();
    std::fs::set_permissions(&scratch.tree, std::fs::Permissions::from_mode(0o555)).unwrap();
    scratch.pack_to(&scratch.fl, &PackOptions::default()).unwrap();
    // A new directory and an existing one become the same.
    std::fs::create_dir(scratch.at("there")).unwrap();
    for dir in [scratch.at("new"), scratch.at("there")] {
        scratch.unpack_to(&dir).map_err(|error| chain(&error)).unwrap();
        assert_eq!(std::fs::read(dir.join("file")).unwrap(), b"content");
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o7777, 0o555);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    }
    assert_eq!(scratch.names(), ["new", "out.fl", "store", "there", "tree"]);
    assert!(matches!(scratch.unpack_to(&scratch.at("there")), Err(UnpackError::NotEmpty { .. })));
    // The leftover of a killed process does not matter; a directory in use by a living one does.
    let left = scratch.at("again/.contd-unpack-1-0");
    std::fs::create_dir_all(left.join("half")).unwrap();
    let living = std::fs::File::open(&left).unwrap();
    living.lock_shared().unwrap();
    assert!(matches!(scratch.unpack_to(&scratch.at("again")), Err(UnpackError::NotEmpty { .. })));
    drop(living);
    scratch.unpack_to(&scratch.at("again")).map_err(|error| chain(&error)).unwrap();
    assert_eq!(std::fs::read_dir(scratch.at("again")).unwrap().count(), 1);
    std::fs::remove_dir_all(scratch.at("again")).unwrap();
    std::os::unix::fs::symlink("nowhere", scratch.at("link")).unwrap();
    assert!(matches!(scratch.unpack_to(&scratch.at("link")), Err(UnpackError::NotADirectory { .. })));
    // With a missing block, nothing is left, and an existing directory is unchanged.
    std::fs::remove_dir_all(scratch.at("store")).unwrap();
    std::fs::create_dir(scratch.at("empty")).unwrap();
    std::fs::set_permissions(scratch.at("empty"), std::fs::Permissions::from_mode(0o751)).unwrap();
    for dir in [scratch.at("gone"), scratch.at("empty")] {
        assert!(matches!(scratch.unpack_to(&dir), Err(UnpackError::Read { .. })));
    }
    assert!(!scratch.at("gone").exists());
    assert_eq!(std::fs::read_dir(scratch.at("empty")).unwrap().count(), 0);
    assert_eq!(std::fs::metadata(scratch.at("empty")).unwrap().permissions().mode() & 0o7777, 0o751);
    assert_eq!(scratch.names(), ["empty", "link", "new", "out.fl", "there", "tree"]);
}

#[test]
fn a_flist_says_that_its_blocks_are_where_the_packer_was_told() {
    let scratch = scratch();
    let with = |routes: &[&str], strip_password| PackOptions {
        routes: routes.iter().map(|&route| route.to_owned()).collect(),
        strip_password,
        force: true,
        ..PackOptions::default()
    };
    let urls = || Flist::open(&scratch.fl).unwrap().routes().iter().map(|route| route.url.clone()).collect::<Vec<_>>();
    scratch.pack_to(&scratch.fl, &with(&["https://me:pw@host/store"], true)).unwrap();
    assert_eq!(urls(), ["https://me@host/store"]);
    assert_eq!(crate::support::files_below(&scratch.at("store")).len(), 1);
    scratch.pack_to(&scratch.fl, &with(&["00-7f=https://me:pw@a/s", "80-ff=http://b/s"], false)).unwrap();
    assert_eq!(urls(), ["https://me:pw@a/s", "http://b/s"]);
    let before = std::fs::read(&scratch.fl).unwrap();
    for bad in [&["https://"][..], &["host/store"], &["00-7f=http://a/s"], &["1-2=http://a/s"], &["docker://x"]] {
        let error = scratch.pack_to(&scratch.fl, &with(bad, true)).unwrap_err();
        assert!(matches!(error, PackError::Route { .. }), "{bad:?}: {error}");
    }
    assert_eq!(std::fs::read(&scratch.fl).unwrap(), before);
}

#[test]
fn routes_are_rewritten_as_a_whole_and_leave_no_password_behind() {
    let scratch = scratch();
    let secret = PackOptions {
        routes: vec!["https://me:hunter2@host/store".to_owned()],
        strip_password: false,
        ..PackOptions::default()
    };
    scratch.pack_to(&scratch.fl, &secret).unwrap();
    std::fs::set_permissions(&scratch.fl, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("out.fl", scratch.at("link.fl")).unwrap();
    let old = std::fs::read(&scratch.fl).unwrap();
    assert!(old.windows(7).any(|part| part == b"hunter2"));
    let blocks = |flist: &Flist| flist.blocks(flist.resolve(b"file").unwrap().ino()).to_vec();
    let before = blocks(&Flist::open(&scratch.fl).unwrap());
    let new = route::parse("http://127.0.0.1:8080/store", false).unwrap();
    let hash =
        route::rewrite(&scratch.at("link.fl"), |_old| Ok(vec![new.clone()])).map_err(|error| chain(&error)).unwrap();
    let flist = Flist::open(&scratch.fl).unwrap();
    assert_eq!((flist.routes(), blocks(&flist)), (&[new][..], before));
    assert_eq!(hash, contd_flist::hash_file(&scratch.fl).unwrap());
    assert!(
        !std::fs::read(&scratch.fl).unwrap().windows(7).any(|part| part == b"hunter2"),
        "the password is still in the file"
    );
    assert_eq!(std::fs::metadata(&scratch.fl).unwrap().permissions().mode() & 0o7777, 0o640);
    assert!(std::fs::symlink_metadata(scratch.at("link.fl")).unwrap().is_symlink());
    // A refused change leaves the file as it is.
    let before = std::fs::read(&scratch.fl).unwrap();
    let refused = route::rewrite(&scratch.fl, |old| route::without(old, "http://127.0.0.1:8080/store"));
    assert!(matches!(refused, Err(RouteError::Uncovered { first: 0 })), "{refused:?}");
    assert!(matches!(route::rewrite(&scratch.tree.join("file"), Ok), Err(RouteError::OtherFormat { .. })));
    assert!(matches!(route::rewrite(&scratch.at("none"), Ok), Err(RouteError::Flist(_))));
    assert_eq!(std::fs::read(&scratch.fl).unwrap(), before);
    assert_eq!(scratch.names(), ["link.fl", "out.fl", "store", "tree"]);
}
