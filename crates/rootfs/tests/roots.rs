//! Roots out of real mounts and real servers. Wants root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Mutex;

use crate::node::{Node, options_of, prepare, release, request};
use contd_rootfs::fake::FakeRootfs;
use contd_rootfs::{
    FetchProgress, MountConfig, MountRootfs, PrepareRootfs, PreparedRootfs, RootfsError, RootfsProvider,
};
use contd_test_harness::mounted::{
    assert_matches_manifest, assert_overlay_matches_manifest, copy_store, fixture, place_fixture, servers,
};
use contd_types::{ContainerId, ErrorKind, Explain, LayerKind};
use nix::errno::Errno;

/// The promises of every provider. `flist` can be prepared, `missing` does not exist.
fn contract(provider: &dyn RootfsProvider, flist: &str, missing: &str, plain: &str) {
    let one = request(flist, 1);
    let seen = Mutex::new(Vec::<FetchProgress>::new());
    let first = provider.prepare(&one, &|step| seen.lock().unwrap().push(step)).unwrap();
    let seen = seen.into_inner().unwrap();
    let last = seen.last().expect("progress is told");
    assert!(last.done_bytes > 0 && last.total_bytes.is_none_or(|total| total == last.done_bytes), "{last:?}");
    assert_eq!(first.flist_hash.as_ref().map(String::len), Some(64));
    assert_eq!(prepare(provider, &one).unwrap(), first, "a second prepare returns what is there");

    let two = request(flist, 2);
    let second = prepare(provider, &two).unwrap();
    assert_eq!(second.flist_hash, first.flist_hash);
    assert_ne!(second.root, first.root);
    let three = request(plain, 3);
    let third = prepare(provider, &three).unwrap();
    assert_eq!(third.flist_hash, None);

    let error = prepare(provider, &request(missing, 4)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.hint().is_some());

    let mut recovered = provider.recover().unwrap();
    recovered.sort_by(|a, b| a.id.cmp(&b.id));
    let roots: Vec<_> = recovered.iter().map(|root| root.rootfs.clone()).collect();
    let known = |root: &PreparedRootfs| PreparedRootfs { layer: None, ..root.clone() };
    assert_eq!(roots, [&first, &second, &third].map(known));

    for gone in [&one, &one, &two, &three, &request(flist, 9)] {
        release(provider, gone).expect("release, also twice and of what never was");
    }
    assert_eq!(provider.recover().unwrap(), []);
    assert_eq!(prepare(provider, &one).unwrap(), first, "the same place again");
    release(provider, &one).unwrap();
}

#[test]
fn the_fake_keeps_the_contract() {
    let fake = FakeRootfs::new();
    fake.declare_missing("/no/such.fl");
    contract(&fake, "/some.fl", "/no/such.fl", "dir:/usr");
    assert!(fake.live().is_empty());
}

#[test]
fn the_real_one_keeps_the_contract_and_leaks_nothing() {
    let node = Node::new();
    let flist = fixture("busybox", node.path());
    fs::create_dir(node.path().join("plain")).unwrap();
    let before = node.census();
    let plain = format!("dir:{}", node.path().join("plain").display());
    contract(&node.provider(), flist.to_str().unwrap(), "/no/such.fl", &plain);
    assert_eq!(node.census(), before, "something leaked");
}

#[test]
fn both_fixtures_read_back_through_overlay_and_read_only_as_their_manifests_say() {
    let node = Node::new();
    let provider = node.provider();
    for (number, name) in [(1, "small"), (3, "busybox")] {
        let flist = fixture(name, node.path());
        let before = node.census();
        let writable = request(flist.to_str().unwrap(), number);
        let root = prepare(&provider, &writable).unwrap().root;
        assert_overlay_matches_manifest(&root, name);
        let read_only = PrepareRootfs { is_read_only: true, ..request(flist.to_str().unwrap(), number + 1) };
        let fixed = prepare(&provider, &read_only).unwrap().root;
        assert_matches_manifest(&fixed, name);
        let error = fs::write(fixed.join("new"), b"x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EROFS as i32));
        for root in [&root, &fixed] {
            let options = options_of(root);
            assert!(options.contains("nosuid,nodev") && !options.contains("shared:"), "{options}");
        }
        release(&provider, &writable).unwrap();
        release(&provider, &read_only).unwrap();
        assert_eq!(node.census(), before, "something leaked");
    }
}

#[test]
fn a_writable_root_takes_changes_up_to_its_size_and_forgets_them() {
    let node = Node::new();
    let provider = node.provider();
    let flist = fixture("busybox", node.path());
    let one = PrepareRootfs { layer: LayerKind::Memory, ..request(flist.to_str().unwrap(), 1) };
    let root = prepare(&provider, &one).unwrap().root;
    assert_eq!(fs::metadata(root.parent().unwrap()).unwrap().permissions().mode() & 0o7777, 0o700);
    fs::write(root.join("etc/new"), b"new").unwrap();
    let hosts = root.join("etc/passwd");
    let old = fs::read(&hosts).unwrap();
    fs::write(&hosts, b"changed").unwrap();
    fs::rename(root.join("etc/new"), root.join("renamed")).unwrap();
    fs::remove_dir_all(root.join("bin")).unwrap();
    assert!(!root.join("bin").exists() && fs::read(root.join("renamed")).unwrap() == b"new");
    let error = fs::write(root.join("big"), vec![1; 5 << 20]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ENOSPC as i32));
    release(&provider, &one).unwrap();
    let root = prepare(&provider, &one).unwrap().root;
    assert_eq!(fs::read(root.join("etc/passwd")).unwrap(), old);
    assert!(root.join("bin").exists() && !root.join("renamed").exists());
    release(&provider, &one).unwrap();
}

#[test]
fn the_number_of_files_is_bounded_too() {
    let node = Node::new();
    let provider = node.provider();
    fs::create_dir(node.path().join("plain")).unwrap();
    let plain = format!("dir:{}", node.path().join("plain").display());
    let one = PrepareRootfs { layer: LayerKind::Memory, ..request(&plain, 1) };
    let root = prepare(&provider, &one).unwrap().root;
    let made = (0..10_000).take_while(|number| fs::write(root.join(number.to_string()), b"").is_ok()).count();
    assert!((3_000..5_000).contains(&made), "{made}");
    release(&provider, &request(&plain, 1)).unwrap();
    assert!(crate::support::names(&node.path().join("plain")).is_empty(), "the lower directory was written to");
}

#[test]
fn the_callers_own_directory_keeps_the_changes_and_serves_one_container_at_a_time() {
    let node = Node::new();
    let provider = node.provider();
    let flist = fixture("small", node.path());
    // With every character that means something in an overlay's options.
    let upper = node.path().join("upper").join("a,b:c\\d e");
    fs::create_dir(&upper).unwrap();
    for dir in [upper, node.path().join("upper")] {
        let one = PrepareRootfs { upper_dir: Some(dir.clone()), ..request(flist.to_str().unwrap(), 1) };
        let root = prepare(&provider, &one).unwrap().root;
        assert_overlay_matches_manifest(&root, "small");
        fs::write(root.join("kept"), b"kept").unwrap();
        if !dir.to_str().unwrap().contains(',') {
            let two = PrepareRootfs { id: ContainerId::from_random([2; 16]), ..one.clone() };
            let error = prepare(&provider, &two).unwrap_err();
            assert!(matches!(&error, RootfsError::UpperInUse { id, .. } if *id == one.id), "{error}");
            assert_eq!((error.kind(), error.hint().is_some()), (ErrorKind::Busy, true));
        }
        release(&provider, &one).unwrap();
        assert_eq!(fs::read(dir.join("upper/kept")).unwrap(), b"kept");
        let root = prepare(&provider, &one).unwrap().root;
        assert_eq!(fs::read(root.join("kept")).unwrap(), b"kept");
        release(&provider, &one).unwrap();
    }
    for bad in ["/no/such/dir", "relative", "/dev/null"] {
        let bad = PrepareRootfs { upper_dir: Some(PathBuf::from(bad)), ..request(flist.to_str().unwrap(), 1) };
        let error = prepare(&provider, &bad).unwrap_err();
        assert!(matches!(error, RootfsError::Directory { .. }) && error.hint().is_some(), "{error}");
    }
    assert!(servers(node.path()).is_empty());
}

#[test]
fn only_a_trusted_root_has_setuid_programs_and_devices() {
    let node = Node::new();
    let provider = node.provider();
    let flist = fixture("small", node.path());
    for (number, is_read_only) in [(1, false), (2, true)] {
        let one = PrepareRootfs { is_trusted: true, is_read_only, ..request(flist.to_str().unwrap(), number) };
        let root = prepare(&provider, &one).unwrap().root;
        let options = options_of(&root);
        assert!(!options.contains("nosuid") && !options.contains("nodev"), "{options}");
        let null = root.join("special/null");
        assert!(fs::symlink_metadata(&null).unwrap().file_type().is_char_device());
        assert_eq!(fs::read(&null).unwrap(), b"", "a device that works");
        release(&provider, &one).unwrap();
    }
    let one = request(flist.to_str().unwrap(), 1);
    let root = prepare(&provider, &one).unwrap().root;
    let error = fs::read(root.join("special/null")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EACCES as i32));
    release(&provider, &one).unwrap();
}

#[test]
fn twenty_at_once_share_one_server_and_the_last_one_takes_it_along() {
    let node = Node::new();
    let provider = node.provider();
    let flist = fixture("busybox", node.path());
    let before = node.census();
    std::thread::scope(|scope| {
        for number in 0..20 {
            let (provider, flist) = (&provider, &flist);
            scope.spawn(move || {
                let one = request(flist.to_str().unwrap(), number);
                let root = prepare(provider, &one).unwrap().root;
                assert!(root.join("bin/busybox").is_file());
            });
        }
    });
    // It and its keeper.
    assert_eq!(servers(node.path()).len(), 2);
    assert_eq!(crate::support::names(&node.server_dir().join("users")).len(), 20);
    std::thread::scope(|scope| {
        for number in 0..20 {
            let (provider, flist) = (&provider, &flist);
            scope.spawn(move || {
                let one = request(flist.to_str().unwrap(), number);
                release(provider, &one).unwrap();
                // Comes and goes while the last ones leave: it must never lose its server.
                let root = prepare(provider, &one).unwrap().root;
                assert!(root.join("bin/busybox").is_file());
                release(provider, &one).unwrap();
            });
        }
    });
    assert_eq!(node.census(), before, "something leaked");
}

#[test]
fn a_new_daemon_finds_what_is_mounted_and_removes_what_is_not() {
    let node = Node::new();
    let flist = fixture("small", node.path());
    let before = node.census();
    let live = request(flist.to_str().unwrap(), 1);
    let dead = PrepareRootfs { layer: LayerKind::Memory, ..request(flist.to_str().unwrap(), 2) };
    let old = node.provider();
    let kept = prepare(&old, &live).unwrap();
    let lost = prepare(&old, &dead).unwrap();
    // As if the old daemon had died in the middle of a release.
    contd_test_harness::mounted::unmount(&lost.root);
    let half_made = node.path().join("state/ns").join("ab".repeat(16));
    fs::create_dir_all(half_made.join("rootfs")).unwrap();
    fs::create_dir_all(half_made.join("layer")).unwrap();
    drop(old);
    let new = node.provider();
    let found = new.recover().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].id, &found[0].rootfs.root), (&live.id, &kept.root));
    assert!(!half_made.exists() && !lost.root.exists());
    assert_overlay_matches_manifest(&kept.root, "small");
    assert_eq!(prepare(&new, &live).unwrap(), kept);
    release(&new, &live).unwrap();
    assert_eq!(node.census(), before, "something leaked");
}

#[test]
fn bad_sources_are_typed_errors_with_a_hint_and_leave_nothing() {
    let node = Node::new();
    let provider = node.provider();
    let bad = node.path().join("bad.fl");
    fs::write(&bad, b"this is no database").unwrap();
    let before = node.census();
    for (flist, kind) in [
        ("/no/such.fl", ErrorKind::NotFound),
        (bad.to_str().unwrap(), ErrorKind::Corrupt),
        ("relative.fl", ErrorKind::InvalidArgument),
        ("", ErrorKind::InvalidArgument),
        ("dir:relative", ErrorKind::InvalidArgument),
        ("dir:/no/such/dir", ErrorKind::NotFound),
        ("dir:/dev/null", ErrorKind::InvalidArgument),
        ("ftp://me:secret@host/x.fl", ErrorKind::Unsupported),
        ("http://me:secret@127.0.0.1:1/x.fl", ErrorKind::Unavailable),
    ] {
        let error = prepare(&provider, &request(flist, 1)).unwrap_err();
        assert_eq!(error.kind(), kind, "{flist}: {error}");
        assert!(error.hint().is_some(), "{flist}: {error}");
        let text = contd_types::ApiError::from_error(&error).to_string();
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(node.census(), before, "{flist} left something");
    }
}

#[test]
fn without_its_program_a_server_does_not_start_and_nothing_is_left() {
    let node = Node::new();
    let flist = fixture("small", node.path());
    let before = node.census();
    for program in ["/no/such/program", "/bin/false", "/bin/true"] {
        let provider = MountRootfs::new(MountConfig {
            flistfs_binary: PathBuf::from(program),
            run_dir: node.path().join("run"),
            state_dir: node.path().join("state"),
            cache_dir: node.path().join("cache"),
        });
        let error = prepare(&provider, &request(flist.to_str().unwrap(), 1)).unwrap_err();
        assert!(matches!(error, RootfsError::Server { .. } | RootfsError::ServerSilent { .. }), "{error:?}");
        assert!(error.hint().is_some());
        assert_eq!(node.census(), before, "{program} left something");
    }
}

#[test]
fn a_damaged_block_is_eio_through_the_overlay_and_the_rest_reads_on() {
    let node = Node::new();
    let provider = node.provider();
    let store = node.path().join("store");
    copy_store("small", &store);
    let flist = place_fixture("small", node.path(), &store);
    let database = rusqlite::Connection::open(&flist).unwrap();
    let id: String = database
        .query_row(
            "select lower(hex(b.id)) from block b join inode i on i.ino = b.ino where i.name = 'hostname' limit 1",
            [],
            |row| row.get(0),
        )
        .unwrap();
    drop(database);
    let block = store.join(&id[..2]).join(&id);
    let mut bytes = fs::read(&block).unwrap();
    bytes[0] ^= 1;
    fs::write(&block, bytes).unwrap();
    let one = request(flist.to_str().unwrap(), 1);
    let root = prepare(&provider, &one).unwrap().root;
    let error = fs::read(root.join("etc/hostname")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EIO as i32));
    assert_eq!(fs::read(root.join(".hidden")).unwrap().len(), 9);
    release(&provider, &one).unwrap();
}
