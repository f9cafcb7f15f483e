//! The cache on a full disk: a small tmpfs. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::cache_support::{Packed, age, disk_usage, eventually, limit, no_limits, unused_for};
use contd_flist::{CacheLimits, FetchError, FlistSource, fetch};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tracing::field::{Field, Visit};
use tracing::span;

const MIB: u64 = 1 << 20;
const LEN: usize = 128 << 10;

/// A tmpfs, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, options: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        // With noatime, only access times that are set explicitly change: the cache must not need others.
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::MS_NOATIME, Some(options)).unwrap();
        Self(at.to_owned())
    }

    /// Fills the free space, until the file is removed.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("of somebody else");
        let mut file = std::fs::File::create(&path).unwrap();
        while std::io::Write::write_all(&mut file, &[7; 4096]).is_ok() {}
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

/// Collects the warnings of this thread.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

struct Text<'a>(&'a mut String);

impl Visit for Text<'_> {
    fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, "{value:?} ").unwrap();
    }
}

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = String::new();
        event.record(&mut Text(&mut text));
        self.0.lock().unwrap().push(text);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[test]
fn a_full_disk_makes_the_cache_forget_what_is_old_and_nothing_else() {
    let packed = Packed::new(160, LEN);
    let disk = Small::mount(&packed.root(), "size=8m");
    let warnings = Warnings::default();
    tracing::subscriber::with_default(warnings.clone(), || {
        let reader = packed.reader(&packed.root(), no_limits());
        for number in 0..packed.count {
            reader.read(number).unwrap();
        }
        let last = packed.count - 1;
        assert!(reader.path(last).exists(), "the latest block was kept: something older had to go");
        assert!(!reader.path(0).exists());
        assert!(disk_usage(&packed.root()) > 5 * MIB, "no more than was needed");
    });
    assert_eq!(*warnings.0.lock().unwrap(), Vec::<String>::new(), "all is as it should be");
    drop(disk);
}

#[test]
fn a_disk_that_others_have_filled_is_told_once_and_the_cache_recovers_by_itself() {
    for (what, options) in [("bytes", "size=8m"), ("inodes", "size=8m,nr_inodes=40")] {
        let packed = Packed::new(60, LEN);
        let disk = Small::mount(&packed.root(), options);
        let warnings = Warnings::default();
        tracing::subscriber::with_default(warnings.clone(), || {
            let reader = packed.reader(&packed.root(), no_limits());
            let mut in_the_way = vec![];
            if what == "bytes" {
                in_the_way.push(disk.fill());
            } else {
                let names = (0..).map(|number| disk.0.join(format!("of somebody else {number}")));
                in_the_way.extend(names.take_while(|path| std::fs::write(path, "").is_ok()));
            }
            for number in (0..packed.count).chain(0..packed.count) {
                reader.read(number).unwrap();
            }
            assert_eq!(disk_usage(&packed.root().join("blocks")), 0, "{what}");
            in_the_way.iter().for_each(|path| std::fs::remove_file(path).unwrap());
            let mut number = 0;
            eventually("a block to be kept", || {
                number = (number + 1) % packed.count;
                reader.read(number).unwrap();
                reader.path(number).exists()
            });
        });
        let warnings = warnings.0.lock().unwrap();
        assert_eq!(warnings.len(), 1, "{what}: {warnings:?}");
        assert!(warnings[0].contains("served from memory"), "{warnings:?}");
    }
}

#[test]
fn min_free_of_a_disk_is_kept_free() {
    let packed = Packed::new(280, LEN);
    let _disk = Small::mount(&packed.root(), "size=32m");
    // A tenth of the disk counts, however much is asked for.
    let reader = packed.reader(&packed.root(), CacheLimits { min_free_bytes: 1 << 40, ..limit(1 << 40) });
    let free = || {
        let stat = nix::sys::statvfs::statvfs(&packed.root()).unwrap();
        stat.blocks_available() * stat.fragment_size()
    };
    let (mut least, mut most) = (u64::MAX, 0);
    for number in (0..packed.count).chain(0..20) {
        reader.read(number).unwrap();
        least = least.min(free());
        most = most.max(disk_usage(&packed.root()));
    }
    assert!(least >= 32 * MIB / 10 - 2 * MIB, "{least} bytes were free");
    assert!(most > 20 * MIB, "{most} bytes were used at most");
}

#[test]
fn a_flist_finds_room_where_blocks_have_it_all_and_fails_where_others_have() {
    let packed = Packed::new(80, LEN);
    let disk = Small::mount(&packed.root(), "size=8m");
    let reader = packed.reader(&packed.root(), no_limits());
    (0..packed.count).for_each(|number| reader.read(number).unwrap());
    let filler = disk.fill();
    let source = FlistSource::File(packed.fl());
    let fetched = fetch(&source, &packed.root(), &|_| {}).unwrap();
    assert!(fetched.path.exists());
    std::fs::remove_file(&fetched.path).unwrap();
    std::fs::remove_dir_all(packed.root().join("blocks")).unwrap();
    std::fs::remove_file(filler).unwrap();
    let _filler = disk.fill();
    let error = fetch(&source, &packed.root(), &|_| {}).unwrap_err();
    assert!(matches!(error, FetchError::Keep { .. }), "{error}");
}

#[test]
fn the_use_of_blocks_and_flists_is_noted_where_the_kernel_notes_none() {
    const HOUR: Duration = Duration::from_secs(3600);
    let packed = Packed::new(1, LEN);
    let _disk = Small::mount(&packed.root(), "size=8m");
    let reader = packed.reader(&packed.root(), no_limits());
    reader.read(0).unwrap();
    let fetched = fetch(&FlistSource::File(packed.fl()), &packed.root(), &|_| {}).unwrap();
    for path in [reader.path(0), fetched.path.clone()] {
        age(&path, HOUR);
        let _read = std::fs::read(&path).unwrap();
        assert!(unused_for(&path) > HOUR / 2, "this file system notes uses itself");
    }
    packed.reader(&packed.root(), no_limits()).read(0).unwrap();
    assert_eq!(fetch(&FlistSource::File(packed.fl()), &packed.root(), &|_| {}).unwrap(), fetched);
    for path in [reader.path(0), fetched.path] {
        assert!(unused_for(&path) < HOUR / 2, "{}", path.display());
    }
}
