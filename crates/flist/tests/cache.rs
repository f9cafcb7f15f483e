//! The cache in one process: damage, eviction, objects in use, fetched flists.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::cache_support::{Packed, age, eventually, limit, no_limits, plain, unused_for};
use contd_flist::cache::{Amount, Prune, prune, usage};
use contd_flist::{CacheLimits, CacheOptions, FlistSource, fetch};
use nix::sys::stat::Mode;
use nix::unistd::{Uid, chown, mkfifo, setfsuid};

const LEN: usize = 20_000;
const HOUR: Duration = Duration::from_secs(3600);

fn options(limits: CacheLimits) -> CacheOptions {
    CacheOptions { limits, servers: None }
}

fn in_place_of(path: &Path, put: impl Fn(&Path)) {
    fs::remove_file(path).unwrap();
    put(path);
}

type Damage = fn(&Path);

/// All kinds of damage, except those that root does not notice.
const DAMAGES: [(&str, Damage); 9] = [
    ("cut short", |path| fs::write(path, &fs::read(path).unwrap()[..LEN - 1]).unwrap()),
    ("a flipped bit", |path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[LEN / 2] ^= 0x10;
        fs::write(path, bytes).unwrap();
    }),
    ("a byte more", |path| fs::write(path, [fs::read(path).unwrap(), vec![0]].concat()).unwrap()),
    ("emptied", |path| fs::write(path, "").unwrap()),
    ("a hole, as a lost write leaves it", |path| {
        fs::write(path, "").unwrap();
        fs::File::options().write(true).open(path).unwrap().set_len(LEN as u64).unwrap();
    }),
    ("a directory", |path| in_place_of(path, |path| fs::create_dir(path).unwrap())),
    ("a link that leads to the right content", |path| {
        let elsewhere = path.with_extension("elsewhere");
        fs::rename(path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(elsewhere, path).unwrap();
    }),
    ("a link that leads nowhere", |path| {
        in_place_of(path, |path| std::os::unix::fs::symlink("/nowhere/at/all", path).unwrap());
    }),
    ("a pipe", |path| in_place_of(path, |path| mkfifo(path, Mode::from_bits_truncate(0o600)).unwrap())),
];

#[test]
fn a_damaged_or_foreign_file_in_the_place_of_a_block_is_replaced_and_never_served() {
    let packed = Packed::new(4, LEN);
    for (what, damage) in DAMAGES {
        let root = packed.scratch.path().join(what);
        let first = packed.reader(&root, no_limits());
        (0..4).for_each(|number| first.read(number).unwrap());
        (0..4).for_each(|number| damage(&first.path(number)));
        let second = packed.reader(&root, no_limits());
        for number in 0..4 {
            second.read(number).unwrap_or_else(|error| panic!("{what}: {error}"));
            let metadata = fs::symlink_metadata(second.path(number)).unwrap();
            assert!(metadata.is_file() && metadata.permissions().mode() & 0o222 == 0o200, "{what}");
            assert!(fs::read(second.path(number)).unwrap() == plain(number, LEN), "{what}: not repaired");
        }
        fs::remove_dir_all(packed.store()).unwrap_or_default();
        // Read from the cache alone: so it was the cache that was repaired.
        let third = packed.reader(&root, no_limits());
        let outcome = (0..4).try_for_each(|number| third.read(number));
        restore(&packed);
        outcome.unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

/// Packs the same tree again: the same input gives the same blocks.
fn restore(packed: &Packed) {
    let again = Packed::new(packed.count, packed.len);
    fs::rename(again.store(), packed.store()).unwrap();
}

#[test]
fn a_directory_with_something_in_it_is_moved_aside_and_kept() {
    let packed = Packed::new(1, LEN);
    let reader = packed.reader(&packed.root(), no_limits());
    let path = reader.path(0);
    fs::create_dir_all(path.join("of somebody")).unwrap();
    reader.read(0).unwrap();
    assert!(fs::read(&path).unwrap() == plain(0, LEN));
    assert!(path.with_extension("aside").join("of somebody").is_dir());
    in_place_of(&path, |path| fs::create_dir_all(path.join("of somebody else")).unwrap());
    packed.reader(&packed.root(), no_limits()).read(0).unwrap();
    assert!(path.join("of somebody else").is_dir(), "there is no second place aside: served from memory");
}

/// Runs `work` on a thread without rights to root's files.
fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setfsuid(Uid::from_raw(65_534));
            work()
        });
        thread.join().unwrap()
    })
}

#[test]
fn blocks_with_wrong_permissions_are_replaced_where_that_is_allowed_and_else_left() {
    let packed = Packed::new(2, LEN);
    fs::set_permissions(packed.scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let reader = packed.reader(&packed.root(), no_limits());
    let nobody = Some(Uid::from_raw(65_534));
    for number in 0..2 {
        reader.read(number).unwrap();
        fs::set_permissions(reader.path(number), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let shards = [0, 1].map(|number| reader.path(number).parent().unwrap().to_owned());
    assert_ne!(shards[0], shards[1], "the test wants two folders");
    chown(&shards[0], nobody, None).unwrap();
    let other = packed.reader(&packed.root(), no_limits());
    as_nobody(|| (0..2).try_for_each(|number| other.read(number))).unwrap();
    let mode = |number| fs::metadata(reader.path(number)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(0), mode(1)), (0o644, 0), "the one was replaced, the other could not be");
}

#[test]
fn the_use_of_a_block_is_noted_but_not_at_every_read() {
    let packed = Packed::new(2, LEN);
    packed.reader(&packed.root(), no_limits()).read(0).unwrap();
    let reader = packed.reader(&packed.root(), no_limits());
    age(&reader.path(0), HOUR);
    reader.read(0).unwrap();
    assert!(unused_for(&reader.path(0)) < HOUR / 2, "the first use by a process is noted");
    // Reads the file from the cache: the memory of recent blocks does not have it.
    let again = || reader.content.ensure_cached(reader.ino(0), 0).unwrap();
    age_use(&reader.path(0), HOUR);
    again();
    assert!(unused_for(&reader.path(0)) > HOUR / 2, "the second within a minute is not");
}

/// Changes only the last use, which does not mark the content as changed.
fn age_use(path: &Path, age: Duration) {
    let then = std::time::SystemTime::UNIX_EPOCH + crate::cache_support::now() - age;
    fs::File::open(path).unwrap().set_times(fs::FileTimes::new().set_accessed(then)).unwrap();
}

#[test]
fn a_held_object_survives_every_pruning_and_can_be_pruned_after_its_release() {
    let packed = Packed::new(6, LEN);
    let reader = packed.reader(&packed.root(), no_limits());
    (0..6).for_each(|number| reader.read(number).unwrap());
    let cache = reader.content.cache();
    let file = cache.file_path_of(&"ab".repeat(32));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, plain(99, LEN)).unwrap();
    let held = [cache.hold(&reader.path(0)).unwrap(), cache.hold(&file).unwrap()];
    let again = cache.hold(&file).unwrap();
    for what in [Prune::To(0), Prune::OlderThan(Duration::ZERO), Prune::All] {
        let report = prune(&packed.root(), &options(no_limits()), what, false).unwrap();
        assert_eq!(report.in_use.count, 2, "{what:?}: {report:?}");
        assert!(reader.path(0).exists() && file.exists(), "{what:?}");
    }
    drop(held);
    let before = usage(&packed.root(), &options(no_limits()));
    assert_eq!((before.kinds.blocks.amount.count, before.kinds.files.amount.count), (1, 1));
    let report = prune(&packed.root(), &options(no_limits()), Prune::All, false).unwrap();
    assert_eq!((report.removed.blocks.count, report.in_use.count), (1, 1), "the file was opened twice");
    drop(again);
    let report = prune(&packed.root(), &options(no_limits()), Prune::All, false).unwrap();
    assert_eq!((report.removed.files.count, report.left_bytes), (1, 0));
    assert_eq!(cache.hold(&file).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert_eq!(prune(Path::new("/nowhere"), &options(no_limits()), Prune::All, false).unwrap().left_bytes, 0);
}

#[test]
fn pruning_tells_to_the_byte_what_it_frees_and_a_dry_run_tells_the_same() {
    let packed = Packed::new(20, LEN);
    let reader = packed.reader(&packed.root(), no_limits());
    (0..20).for_each(|number| reader.read(number).unwrap());
    (0..10).for_each(|number| age(&reader.path(number), HOUR));
    let objects = packed.root().join("blocks");
    let before = crate::cache_support::disk_usage(&objects);
    let run = |what, is_dry| prune(&packed.root(), &options(no_limits()), what, is_dry).unwrap();
    let mut freed = 0;
    for what in [Prune::OlderThan(HOUR / 2), Prune::To(before / 4), Prune::All] {
        let dry = run(what, true);
        assert_eq!(crate::cache_support::disk_usage(&objects), before - freed, "{what:?}");
        let wet = run(what, false);
        assert_eq!((dry.removed, dry.left_bytes), (wet.removed, wet.left_bytes), "{what:?}");
        freed += wet.removed.total().bytes;
        assert_eq!(crate::cache_support::disk_usage(&objects), before - freed, "{what:?}");
        assert_eq!(wet.left_bytes, before - freed, "{what:?}");
        if what == Prune::OlderThan(HOUR / 2) {
            assert_eq!(wet.removed.total(), Amount { count: 10, bytes: before / 2 });
        }
    }
    assert_eq!(freed, before);
    (0..20).for_each(|number| reader.read(number).unwrap());
}

/// Eight readers with two caches compare every byte, while eviction runs all the time.
#[test]
fn eviction_under_eight_readers_is_never_seen_by_any() {
    let packed = Packed::new(64, 60_000);
    let readers = [packed.reader(&packed.root(), limit(1 << 20)), packed.reader(&packed.root(), limit(1 << 20))];
    let (ends, reads, evictions) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for seed in 1..=8 {
            let (packed, reader, ends, reads) = (&packed, &readers[seed % 2], &ends, &reads);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed as u64);
                while !ends.load(Ordering::Relaxed) {
                    reader.read(random.usize(..packed.count)).unwrap();
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Stops the threads, also if the test fails.
        let _end = End(&ends);
        eventually("2000 reads and 100 evictions", || {
            for what in [Prune::All, Prune::To(500_000)] {
                let report = prune(&packed.root(), &options(no_limits()), what, false).unwrap();
                assert_eq!(report.failed.count, 0, "{report:?}");
                evictions.fetch_add(usize::from(report.removed.blocks.count > 0), Ordering::Relaxed);
            }
            reads.load(Ordering::Relaxed) > 2000 && evictions.load(Ordering::Relaxed) > 100
        });
    });
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn objects_removed_by_hand_are_noticed_and_writing_continues() {
    let packed = Packed::new(64, 200_000);
    let max = 4 << 20;
    let reader = packed.reader(&packed.root(), limit(max));
    for round in 0..2 {
        for number in 0..64 {
            reader.read(number).unwrap();
        }
        let blocks = packed.root().join("blocks");
        assert!(crate::cache_support::disk_usage(&blocks) <= max + (3 << 20), "round {round}");
        for shard in fs::read_dir(&blocks).unwrap() {
            fs::remove_dir_all(shard.unwrap().path()).unwrap();
        }
        // 12 MiB were written and noted by now, and all of them are gone.
        eventually("a block to be kept again", || {
            reader.read(round).unwrap();
            (0..64).for_each(|number| reader.read(number).unwrap());
            reader.path(round).exists() || crate::cache_support::disk_usage(&blocks) > 1 << 20
        });
    }
}

#[test]
fn a_cache_that_is_larger_than_it_may_be_is_made_smaller_without_any_writing() {
    let packed = Packed::new(40, 100_000);
    packed.reader(&packed.root(), no_limits());
    let writer = packed.reader(&packed.root(), no_limits());
    (0..40).for_each(|number| writer.read(number).unwrap());
    assert!(crate::cache_support::disk_usage(&packed.root()) > 4_000_000);
    let _unknown = fs::remove_file(packed.root().join("usage"));
    let reader = packed.reader(&packed.root(), limit(2_000_000));
    reader.content.cache().enforce_limits();
    eventually("the cache to be small", || {
        crate::cache_support::disk_usage(&packed.root().join("blocks")) <= 2_000_000
    });
    (0..40).for_each(|number| reader.read(number).unwrap());
}

#[test]
fn a_fetched_flist_is_listed_with_its_name_evicted_when_unused_and_fetched_anew() {
    let packed = Packed::new(1, LEN);
    let (root, servers) = (packed.root(), packed.scratch.path().join("f"));
    let options = CacheOptions { limits: no_limits(), servers: Some(servers.clone()) };
    let source = FlistSource::File(packed.fl());
    let bring = || fetch(&source, &root, &|_| {}).unwrap();
    let fetched = bring();
    let listed = usage(&root, &options).flists;
    let [flist] = listed.as_slice() else { panic!("got {listed:?}") };
    assert_eq!((&flist.hash, &flist.name), (&fetched.hash, &Some(packed.fl().display().to_string())));
    assert_eq!(flist.is_in_use, Some(false));

    let all = || prune(&root, &options, Prune::All, false).unwrap();
    assert_eq!(all().in_use.count, 1, "it was just fetched");
    fs::create_dir_all(servers.join("key")).unwrap();
    fs::write(servers.join("key/serve.json"), format!("{{\"hash\":\"{}\"}}", fetched.hash)).unwrap();
    age(&fetched.path, HOUR);
    assert_eq!((all().in_use.count, usage(&root, &options).flists[0].is_in_use), (1, Some(true)));
    fs::remove_dir_all(&servers).unwrap();
    // Fetching it again updates its last use, even if nothing is copied.
    age(&packed.fl(), HOUR);
    bring();
    age(&fetched.path, HOUR);
    bring();
    assert_eq!(all().in_use.count, 1);
    age(&fetched.path, HOUR);
    let report = all();
    assert_eq!((report.removed.flists.count, report.left_bytes), (1, 0), "{report:?}");
    assert_eq!(fs::read_dir(root.join("fl")).unwrap().count(), 0, "its note, too");
    assert_eq!(bring(), fetched);
    assert!(fetched.path.exists());
}
