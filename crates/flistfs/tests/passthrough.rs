//! Whole cached files are read by the kernel itself; and where that cannot be, the same bytes come by READ. Wants root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::served::{Served, ops};
use contd_flistfs::mount;
use contd_flistfs::ops::{Answer, Ops};
use contd_flistfs::session::Session;
use contd_flistfs::slots::{self, Slots};
use contd_flistfs::wire::{Request, reply_header};
use contd_test_harness::mounted::{assert_matches_manifest, copy_store, fixture, place_fixture, wait_until};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Lists the files below a directory.
fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let output = Command::new("find").arg(dir).args(["-type", "f", "-print0"]).output().unwrap();
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| PathBuf::from(String::from_utf8_lossy(name).into_owned())).collect()
}

/// Bytes that do not compress to nothing and differ from block to block.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes
}

/// Packs one file of that content; returns the flist.
fn pack_one(scratch: &Path, content: &[u8]) -> PathBuf {
    let tree = scratch.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), content).unwrap();
    let (flist, url) = (scratch.join("one.fl"), format!("dir://{}", scratch.join("store").display()));
    contd_flist::pack(&tree, &flist, &[url], &contd_flist::PackOptions::default(), &|_| {}).unwrap();
    flist
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _best_effort = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn overlay(scratch: &Path, lower: &Path, name: &str) -> Unmount {
    let dirs = ["upper", "work", ""].map(|part| scratch.join(format!("{name}{part}")));
    dirs.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let [upper, work, at] = dirs;
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    nix::mount::mount(Some("o"), &at, Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
    Unmount(at)
}

#[test]
fn small_files_are_read_without_any_request() {
    for name in ["small", "busybox"] {
        let scratch = tempfile::tempdir().unwrap();
        let served = Served::passing(scratch.path(), &fixture(name, scratch.path()));
        for _cold_then_warm in 0..2 {
            assert_matches_manifest(&served.mnt, name);
        }
        assert_eq!((served.ops.reads(), served.ops.failed_reads()), (0, 0));
        let has_content =
            |entry: &&crate::support::Entry| entry.kind == "file" && entry.size.is_some_and(|size| size > 0);
        let count = u64::try_from(crate::support::manifest(name).iter().filter(has_content).count()).unwrap();
        assert!(count > 0 && served.ops.passed_through() >= 2 * count);
        served.stop();
    }
}

#[test]
fn files_below_a_mebibyte_stay_in_the_page_cache_of_the_mount() {
    let scratch = tempfile::tempdir().unwrap();
    let content = crate::served::content(&fixture("small", scratch.path()), &scratch.path().join("cache"));
    let usual = Arc::new(Ops::with_passthrough(content, scratch.path().join("handles")));
    let served = Served::start(scratch.path(), usual);
    let _kept = contd_test_harness::machine::keep_page_cache();
    assert_matches_manifest(&served.mnt, "small");
    assert!(served.ops.reads() > 0);
    // The kernel may drop a page of anybody's at any time, but not in each of many walks.
    let mut walks = 1;
    wait_until("a walk to ask for nothing that was read before", || {
        let reads = served.ops.reads();
        assert_matches_manifest(&served.mnt, "small");
        walks += 1;
        served.ops.reads() == reads
    });
    let is_large =
        |entry: &&crate::support::Entry| entry.kind == "file" && entry.size.is_some_and(|size| size >= 1 << 20);
    let large = crate::support::manifest("small").iter().filter(is_large).count();
    assert_eq!(served.ops.passed_through(), walks * u64::try_from(large).unwrap());
    served.stop();
}

#[test]
fn an_overlay_on_top_reads_maps_and_runs_without_any_request() {
    let scratch = tempfile::tempdir().unwrap();
    let served = Served::passing(scratch.path(), &fixture("busybox", scratch.path()));
    let root = overlay(scratch.path(), &served.mnt, "root");
    let entries = crate::support::manifest("busybox");
    let (paths, sums): (Vec<_>, Vec<_>) =
        entries.iter().filter_map(|entry| Some((root.0.join(&entry.path[1..]), entry.sha256.clone()?))).unzip();
    assert_eq!(crate::support::sha256(&paths), sums);
    let output = Command::new("chroot").arg(&root.0).args(["/bin/busybox", "echo", "ran"]).output().unwrap();
    assert_eq!(output.stdout, b"ran\n", "{}", String::from_utf8_lossy(&output.stderr));
    // Copied up from a file that is passed through.
    fs::File::options().append(true).open(root.0.join("bin/busybox")).unwrap().write_all(b"x").unwrap();
    let lower = fs::read(served.mnt.join("bin/busybox")).unwrap();
    let upper = fs::read(root.0.join("bin/busybox")).unwrap();
    assert!(upper.len() == lower.len() + 1 && upper.starts_with(&lower));
    assert_eq!(served.ops.reads(), 0);
    drop(root);
    served.stop();
}

#[test]
fn a_damaged_file_of_the_cache_is_made_again() {
    let scratch = tempfile::tempdir().unwrap();
    let flist = fixture("small", scratch.path());
    let cache = scratch.path().join("cache");
    let first = Served::passing(scratch.path(), &flist);
    assert_matches_manifest(&first.mnt, "small");
    first.stop();
    let (blocks, whole) = (files(&cache.join("blocks")), files(&cache.join("files")));
    assert!(blocks.len() > 10 && !whole.is_empty(), "{whole:?}");
    let wanted: Vec<Vec<u8>> = blocks.iter().chain(&whole).map(|path| fs::read(path).unwrap()).collect();
    for (number, path) in blocks.iter().chain(&whole).enumerate() {
        let file = File::options().write(true).open(path).unwrap();
        let len = file.metadata().unwrap().len();
        match number % 3 {
            0 => file.set_len(len / 2).unwrap(),
            1 => file.write_all_at(&[0x5a], len - 1).unwrap(),
            _ => file.set_len(len + 1).unwrap(),
        }
    }
    let second = Served::passing(scratch.path(), &flist);
    assert_matches_manifest(&second.mnt, "small");
    assert_eq!((second.ops.reads(), second.ops.failed_reads()), (0, 0));
    second.stop();
    for (path, wanted) in blocks.iter().chain(&whole).zip(&wanted) {
        // A block is fetched again only if a file needs it that is not whole yet.
        assert!(fs::read(path).unwrap() == *wanted || blocks.contains(path), "{} was not repaired", path.display());
    }
}

#[test]
fn a_cache_on_an_overlay_gives_the_same_bytes_by_read() {
    let scratch = tempfile::tempdir().unwrap();
    let lower = scratch.path().join("lower");
    fs::create_dir(&lower).unwrap();
    let stacked = overlay(scratch.path(), &lower, "stacked");
    let ops = ops(scratch.path(), &fixture("small", scratch.path()), &stacked.0.join("cache"));
    let served = Served::start(scratch.path(), ops);
    for _cold_then_warm in 0..2 {
        assert_matches_manifest(&served.mnt, "small");
    }
    assert_eq!((served.ops.passed_through(), served.ops.failed_reads()), (0, 0));
    assert!(served.ops.reads() > 20);
    served.stop();
}

#[test]
fn a_large_file_is_read_by_blocks_first_and_passed_through_once_it_is_put_together() {
    let scratch = tempfile::tempdir().unwrap();
    let content = noise(9 * 1024 * 1024 + 5);
    let flist = pack_one(scratch.path(), &content);
    let served = Served::passing(scratch.path(), &flist);
    let path = served.mnt.join("file");
    assert!(fs::read(&path).unwrap() == content);
    let reads = served.ops.reads();
    assert!(reads >= 9 * 4 && served.ops.passed_through() == 0, "{reads}");
    let whole = scratch.path().join("cache/files");
    wait_until("the file is put together", || whole.exists() && files(&whole).iter().any(|path| !is_temp(path)));
    wait_until("the file is passed through", || {
        File::open(&path).unwrap();
        served.ops.passed_through() > 0
    });
    assert!(fs::read(&path).unwrap() == content);
    served.stop();
    // A new server hashes it before it believes in it, in the background; then it too passes it through.
    let damaged = files(&whole).into_iter().next().unwrap();
    File::options().write(true).open(damaged).unwrap().write_all_at(b"damage", 5_000_000).unwrap();
    let served = Served::passing(scratch.path(), &flist);
    assert!(fs::read(&path).unwrap() == content);
    wait_until("the file is passed through again", || {
        File::open(&path).unwrap();
        served.ops.passed_through() > 0
    });
    assert!(fs::read(&path).unwrap() == content);
    served.stop();
}

fn is_temp(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".tmp-"))
}

/// Answers requests until it is told to stop: a server whose death can be placed exactly.
fn serve_by_hand(mut device: &File, ops: &Ops, stop: &AtomicBool) {
    let mut inbox = vec![0; 128 * 1024];
    while !stop.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(20_u8)).unwrap() == 0 {
            continue;
        }
        let len = device.read(&mut inbox).unwrap();
        let request = Request::decode(&inbox[..len]).unwrap();
        let mut content = Vec::new();
        let (errno, body) = match ops.answer(&request, &mut content) {
            Answer::None => continue,
            Answer::Error(errno) => (errno as i32, Vec::new()),
            Answer::Body(body) => (0, body),
            Answer::Content(len) => (0, content[..len].to_vec()),
        };
        let reply = [&reply_header(request.unique, errno, body.len())[..], &body].concat();
        assert_eq!(device.write(&reply).unwrap(), reply.len());
    }
}

#[test]
fn a_successor_opens_again_what_was_open_before_in_the_way_it_was_opened() {
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let (small, large) = (noise(100_000), noise(9 * 1024 * 1024));
    fs::write(tree.join("small"), &small).unwrap();
    fs::write(tree.join("large"), &large).unwrap();
    let (flist, store) = (scratch.path().join("two.fl"), scratch.path().join("store"));
    let urls = [format!("dir://{}", store.display())];
    contd_flist::pack(&tree, &flist, &urls, &contd_flist::PackOptions::default(), &|_| {}).unwrap();
    let (mnt, cache) = (scratch.path().join("mnt"), scratch.path().join("cache"));
    fs::create_dir(&mnt).unwrap();
    let device = mount::attach(&mnt).unwrap();
    let _mounted = Unmount(mnt.clone());
    let kept = device.try_clone().unwrap();
    let (first_ops, stop) = (ops(scratch.path(), &flist, &cache), AtomicBool::new(false));
    let first = Session::begin(device, Arc::clone(&first_ops)).unwrap();
    let negotiated = first.negotiated();
    let held = std::thread::scope(|scope| {
        let server = scope.spawn(|| serve_by_hand(&kept, &first_ops, &stop));
        let held = ["small", "large"].map(|name| File::open(mnt.join(name)).unwrap());
        stop.store(true, Ordering::Relaxed);
        server.join().unwrap();
        held
    });
    assert_eq!(first_ops.passed_through(), 1);
    drop((first, first_ops));
    // No server lives now: files that are passed through can still be read.
    let mut bytes = vec![0; small.len()];
    held[0].read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == small);
    let second_ops = ops(scratch.path(), &flist, &cache);
    let slots = slots::create().and_then(Slots::map).unwrap();
    let mut gone = Session::resume(kept, negotiated, Arc::clone(&second_ops), slots).start().unwrap();
    for _round in 0..2 {
        assert!(fs::read(mnt.join("small")).expect("open what is passed through") == small);
        assert!(fs::read(mnt.join("large")).expect("open what is cached") == large);
    }
    assert!(second_ops.passed_through() >= 2);
    drop(held);
    assert!(fs::read(mnt.join("small")).unwrap() == small);
    // The handles of the dead server are ended: now the large one may be served in the other way.
    wait_until("the large file is passed through", || {
        let before = second_ops.passed_through();
        File::open(mnt.join("large")).unwrap();
        second_ops.passed_through() > before
    });
    assert!(fs::read(mnt.join("large")).unwrap() == large);
    contd_test_harness::mounted::unmount(&mnt);
    gone.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn eight_readers_read_right_while_everything_is_evicted_under_them() {
    let scratch = tempfile::tempdir().unwrap();
    let store = scratch.path().join("store");
    copy_store("small", &store);
    let flist = place_fixture("small", scratch.path(), &store);
    let cache = scratch.path().join("cache");
    for passes in [true, false] {
        let ops = if passes {
            ops(scratch.path(), &flist, &cache)
        } else {
            Arc::new(Ops::new(crate::served::content(&flist, &cache)))
        };
        let served = Served::start(scratch.path(), ops);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for path in files(&cache) {
                        // As an evictor does, but without asking who uses it.
                        let _already_gone = fs::remove_file(path);
                    }
                    std::thread::park_timeout(Duration::from_millis(1));
                }
            });
            let readers = [(); 8].map(|()| scope.spawn(|| assert_matches_manifest(&served.mnt, "small")));
            let outcomes = readers.map(std::thread::ScopedJoinHandle::join);
            done.store(true, Ordering::Relaxed);
            assert!(outcomes.iter().all(Result::is_ok));
        });
        assert_eq!(served.ops.failed_reads(), 0);
        served.stop();
    }
}
