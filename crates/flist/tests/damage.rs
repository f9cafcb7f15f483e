//! Damaged blocks, in the store and in the cache; and many readers at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::Duration;

use contd_flist::store::DirStore;
use contd_flist::{
    BlockCache, BlockError, BlockId, BlockStore, Content, Flist, FlistErrorKind, ROOT_INO, ReadError, Routes,
    StoreError,
};
use contd_test_harness::flist::{Fixture, by_path, chain, content, read_all};

fn flip_a_bit(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn cut(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
}

fn lengthen(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes.push(0);
    std::fs::write(path, bytes).unwrap();
}

/// Returns the failure of the stores, below the error that counts the attempts.
#[track_caller]
fn store_failure(error: &ReadError) -> &StoreError {
    let ReadError::Block { source, .. } = error else { panic!("{}", chain(error)) };
    match &**source {
        StoreError::Exhausted { source, .. } => source,
        other => other,
    }
}

#[test]
fn every_kind_of_damage_in_the_store_is_a_typed_error_for_every_file() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("a flipped bit", flip_a_bit),
        ("cut short", cut),
        ("a byte too many", lengthen),
        ("emptied", |path| std::fs::write(path, b"").unwrap()),
        ("a megabyte of zeros", |path| std::fs::write(path, vec![0; 1 << 20]).unwrap()),
    ];
    for (what, damage) in damages {
        let fixture = Fixture::copy("small");
        fixture.stored_blocks().iter().for_each(|path| damage(path));
        let content = fixture.content();
        let mut failed = 0;
        for ino in by_path(content.flist()).into_values() {
            if content.flist().inode(ino).unwrap().size() == 0 || content.flist().blocks(ino).is_empty() {
                continue;
            }
            let error = read_all(&content, ino).expect_err(what);
            assert!(matches!(store_failure(&error), StoreError::Verify { .. } | StoreError::TooLarge { .. }), "{what}");
            assert_eq!(error.kind(), FlistErrorKind::Corrupt, "{what}");
            failed += 1;
        }
        assert!(failed > 30, "{what}: {failed} files");
        assert_eq!(fixture.cached_blocks().len(), 0, "{what}: nothing damaged is cached");
    }
}

#[test]
fn two_blocks_that_changed_places_are_refused() {
    let fixture = Fixture::copy("small");
    let blocks = fixture.stored_blocks();
    let bytes = blocks.iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>();
    for (path, bytes) in blocks.iter().zip(bytes.iter().cycle().skip(1)) {
        std::fs::write(path, bytes).unwrap();
    }
    let content = fixture.content();
    let hostname = content.flist().resolve(b"etc/hostname").unwrap().ino();
    let error = read_all(&content, hostname).unwrap_err();
    let StoreError::Verify { source: BlockError::WrongId { .. }, .. } = store_failure(&error) else {
        panic!("{}", chain(&error))
    };
}

#[test]
fn a_missing_block_and_a_missing_store_are_told_apart_and_create_nothing() {
    let fixture = Fixture::copy("small");
    fixture.stored_blocks().iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let content = fixture.content();
    let hostname = content.flist().resolve(b"etc/hostname").unwrap().ino();
    assert_eq!(read_all(&content, hostname).unwrap_err().kind(), FlistErrorKind::NotFound);
    std::fs::remove_dir_all(&fixture.store).unwrap();
    assert_eq!(read_all(&content, hostname).unwrap_err().kind(), FlistErrorKind::Unreachable);
    assert!(!fixture.store.exists(), "reading created the store");
}

#[test]
fn a_good_copy_on_another_route_saves_the_read() {
    let fixture = Fixture::copy("small");
    let good = fixture.scratch.path().join("good");
    crate::support::copy_tree(&fixture.store, &good);
    fixture.stored_blocks().iter().for_each(|path| flip_a_bit(path));
    let [bad, good] = [&fixture.store, &good].map(|path| format!("dir://{}", path.display()));
    fixture.route(&[
        (0, 255, "zdb://me:secret@10.0.0.1/ns"),
        (0, 255, "dir:///nowhere/at/all"),
        (0, 255, &bad),
        (0, 255, &good),
    ]);
    let content = fixture.content();
    let hostname = content.flist().resolve(b"etc/hostname").unwrap();
    assert_eq!(read_all(&content, hostname.ino()).unwrap().len() as u64, hostname.size());
    assert!(!format!("{content:?}").contains("secret"));
}

#[test]
fn blocks_split_over_two_ranges_and_flat_names_are_found() {
    let fixture = Fixture::copy("small");
    let high = fixture.scratch.path().join("high");
    std::fs::create_dir(&high).unwrap();
    for path in fixture.stored_blocks() {
        let name = path.file_name().unwrap().to_str().unwrap();
        if u8::from_str_radix(&name[..2], 16).unwrap() >= 0x80 {
            std::fs::rename(&path, high.join(name)).unwrap();
        }
    }
    fixture.route(&[(0, 0x7f, &fixture.store_url()), (0x80, 0xff, &format!("dir://{}", high.display()))]);
    let content = fixture.content();
    for ino in by_path(content.flist()).into_values() {
        if !content.flist().blocks(ino).is_empty() {
            read_all(&content, ino).unwrap();
        }
    }
    fixture.route(&[(0, 0, &fixture.store_url())]);
    let content = crate::support::content(&fixture.fl, &fixture.scratch.path().join("other-cache"));
    let hostname = content.flist().resolve(b"etc/hostname").unwrap().ino();
    let error = read_all(&content, hostname).unwrap_err();
    assert!(matches!(store_failure(&error), StoreError::NoRoute { .. }), "{}", chain(&error));
}

#[test]
fn a_damaged_cache_is_repaired_from_the_store() {
    for damage in [flip_a_bit, cut, lengthen, |path: &Path| std::fs::write(path, b"").unwrap()] {
        let fixture = Fixture::copy("small");
        let first = fixture.content();
        let files = by_path(first.flist());
        let files = files.into_values().filter(|ino| !first.flist().blocks(*ino).is_empty()).collect::<Vec<_>>();
        let expected = files.iter().map(|ino| read_all(&first, *ino).unwrap()).collect::<Vec<_>>();
        let cached = fixture.cached_blocks();
        let good = cached.iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>();
        assert_eq!(cached.len(), 56, "each distinct block is cached once");
        cached.iter().for_each(|path| damage(path));

        let second = fixture.content();
        for (ino, expected) in files.iter().zip(&expected) {
            assert!(read_all(&second, *ino).unwrap() == *expected, "file {ino}");
        }
        let repaired = cached.iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>();
        assert!(repaired == good, "the cache holds the true blocks again");
        assert_eq!(fixture.cached_blocks(), cached, "no temporary files are left");
    }
}

#[test]
fn damage_after_the_first_check_is_noticed_too() {
    let fixture = Fixture::copy("small");
    let content = fixture.content();
    let file = content.flist().lookup(ROOT_INO, b"exact-512k-plus-1").unwrap().ino();
    let expected = read_all(&content, file).unwrap();
    for path in fixture.cached_blocks() {
        flip_a_bit(&path);
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    // Displace the block from the memory of recent blocks.
    for ino in by_path(content.flist()).into_values() {
        if ino != file && !content.flist().blocks(ino).is_empty() {
            read_all(&content, ino).unwrap();
        }
    }
    assert!(read_all(&content, file).unwrap() == expected);
}

#[test]
fn a_cache_serves_without_any_store() {
    let fixture = Fixture::copy("small");
    let content = fixture.content();
    let hostname = content.flist().resolve(b"etc/hostname").unwrap().ino();
    let expected = read_all(&content, hostname).unwrap();
    std::fs::remove_dir_all(&fixture.store).unwrap();
    assert_eq!(read_all(&fixture.content(), hostname).unwrap(), expected);
    fixture.content().ensure_cached(hostname, 0).unwrap();
    assert!(matches!(fixture.content().ensure_cached(hostname, 1), Err(ReadError::NoBlock { index: 1, .. })));
}

#[test]
fn a_cache_that_cannot_be_written_slows_reading_and_nothing_else() {
    let fixture = Fixture::copy("small");
    let content = fixture.content();
    // Root ignores permissions, so put a file in the place of each block's directory.
    let blocks = fixture.cache_root().join("blocks");
    std::fs::remove_dir(&blocks).unwrap();
    std::fs::write(&blocks, b"in the way").unwrap();
    let file = content.flist().lookup(ROOT_INO, b"exact-512k-plus-1").unwrap().ino();
    assert_eq!(read_all(&content, file).unwrap().len(), 524_289);
    assert!(blocks.is_file());
}

#[test]
fn a_block_of_another_length_than_the_size_says_is_an_error_and_shifts_nothing() {
    let fixture = Fixture::copy("small");
    fixture.sql("UPDATE inode SET size = size + 1 WHERE name = 'hostname'");
    let content = fixture.content();
    let hostname = content.flist().resolve(b"etc/hostname").unwrap();
    let mut one = [0; 1];
    for _ in 0..2 {
        let error = content.read_at(hostname.ino(), hostname.size() - 1, &mut one).unwrap_err();
        assert!(matches!(error, ReadError::BlockLength { .. }), "{}", chain(&error));
        let error = content.read_at(hostname.ino(), 0, &mut one).unwrap_err();
        assert!(matches!(error, ReadError::BlockLength { .. }), "{}", chain(&error));
    }
}

#[test]
fn only_files_can_be_read() {
    let fixture = Fixture::copy("small");
    let content = fixture.content();
    assert!(matches!(content.read_at(ROOT_INO, 0, &mut [0; 8]), Err(ReadError::NotAFile { .. })));
    assert!(matches!(content.read_at(99_999, 0, &mut [0; 8]), Err(ReadError::NoInode { ino: 99_999 })));
}

/// Counts the gets, and delays the first until the other readers wait for it.
#[derive(Debug)]
struct Counting {
    inner: DirStore,
    gets: Arc<AtomicUsize>,
    gate: Arc<(Mutex<bool>, Condvar)>,
    panics: Arc<AtomicUsize>,
}

impl BlockStore for Counting {
    fn get(&self, id: &BlockId) -> Result<Vec<u8>, StoreError> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        let open = self.gate.0.lock().unwrap();
        let (open, timeout) = self.gate.1.wait_timeout_while(open, Duration::from_secs(300), |open| !*open).unwrap();
        drop(open);
        assert!(!timeout.timed_out(), "the gate was never opened");
        let left = self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(left.is_err(), "planted panic");
        self.inner.get(id)
    }

    fn put(&self, id: &BlockId, stored: &[u8]) -> Result<(), StoreError> {
        self.inner.put(id, stored)
    }

    fn name(&self) -> &str {
        "counting"
    }
}

struct Counted {
    content: Arc<Content>,
    gets: Arc<AtomicUsize>,
    gate: Arc<(Mutex<bool>, Condvar)>,
    file: u64,
    expected: Vec<u8>,
    _fixture: Fixture,
}

fn counted(panics: usize) -> Counted {
    let fixture = Fixture::copy("small");
    let flist = Arc::new(Flist::open(&fixture.fl).unwrap());
    let file = flist.resolve(b"etc/hostname").unwrap().ino();
    let expected = read_all(&content(&fixture.fl, &fixture.scratch.path().join("other")), file).unwrap();
    let (gets, gate) = (Arc::<AtomicUsize>::default(), Arc::<(Mutex<bool>, Condvar)>::default());
    let store = Counting {
        inner: DirStore::new(fixture.store.clone()),
        gets: Arc::clone(&gets),
        gate: Arc::clone(&gate),
        panics: Arc::new(AtomicUsize::new(panics)),
    };
    let routes = Routes::from_stores(vec![(0, 255, Box::new(store))]);
    let cache = Arc::new(BlockCache::open(&fixture.cache_root()).unwrap());
    Counted { content: Arc::new(Content::new(flist, routes, cache)), gets, gate, file, expected, _fixture: fixture }
}

fn open_gate(gate: &(Mutex<bool>, Condvar)) {
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
}

#[test]
fn readers_of_one_block_fetch_it_once() {
    let counted = counted(0);
    let start = Arc::new(Barrier::new(17));
    let readers = (0..16)
        .map(|_| {
            let (content, file, start) = (Arc::clone(&counted.content), counted.file, Arc::clone(&start));
            std::thread::spawn(move || {
                start.wait();
                read_all(&content, file).unwrap()
            })
        })
        .collect::<Vec<_>>();
    start.wait();
    open_gate(&counted.gate);
    for reader in readers {
        assert_eq!(reader.join().unwrap(), counted.expected);
    }
    assert_eq!(counted.gets.load(Ordering::SeqCst), 1);
}

#[test]
fn a_reader_that_panics_leaves_the_block_to_the_others() {
    let counted = counted(1);
    let start = Arc::new(Barrier::new(5));
    let readers = (0..4)
        .map(|_| {
            let (content, file, start) = (Arc::clone(&counted.content), counted.file, Arc::clone(&start));
            std::thread::spawn(move || {
                start.wait();
                read_all(&content, file).unwrap()
            })
        })
        .collect::<Vec<_>>();
    start.wait();
    open_gate(&counted.gate);
    let outcomes = readers.into_iter().map(std::thread::JoinHandle::join).collect::<Vec<_>>();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 1, "only the planted panic");
    assert!(outcomes.iter().flatten().all(|bytes| *bytes == counted.expected));
}

#[test]
fn parallel_readers_of_everything_get_the_right_bytes() {
    let fixture = Fixture::copy("small");
    let content = fixture.content();
    let alone = crate::support::content(&fixture.fl, &fixture.scratch.path().join("other"));
    let files = by_path(content.flist()).into_values().filter(|ino| !content.flist().blocks(*ino).is_empty());
    let expected = files.map(|ino| (ino, read_all(&alone, ino).unwrap())).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        for offset in 0..8 {
            let (content, expected) = (&content, &expected);
            scope.spawn(move || {
                for (ino, bytes) in expected.iter().cycle().skip(offset * 7).take(expected.len()) {
                    assert!(read_all(content, *ino).unwrap() == *bytes, "file {ino}");
                }
            });
        }
    });
    assert_eq!(fixture.cached_blocks().len(), 56);
}
