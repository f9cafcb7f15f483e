//! Helpers for the tests of the cache: a flist of many one-block files whose content identifies the file.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use contd_flist::{BlockCache, CacheLimits, CacheOptions, Content, Flist, PackOptions, RoutePolicy, Routes, pack};

/// A packed directory with files `0`, `1`, … of one block each.
pub struct Packed {
    pub scratch: tempfile::TempDir,
    pub count: usize,
    pub len: usize,
}

/// Returns the content of one file: unique and incompressible.
pub fn plain(number: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(number as u64).fill(&mut bytes);
    bytes
}

impl Packed {
    #[track_caller]
    pub fn new(count: usize, len: usize) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let tree = scratch.path().join("tree");
        std::fs::create_dir_all(&tree).unwrap();
        for number in 0..count {
            std::fs::write(tree.join(number.to_string()), plain(number, len)).unwrap();
        }
        let store = format!("dir://{}", scratch.path().join("store").display());
        std::fs::create_dir_all(scratch.path().join("store")).unwrap();
        pack(&tree, &scratch.path().join("x.fl"), &[store], &PackOptions::default(), &|_| {}).unwrap();
        std::fs::remove_dir_all(tree).unwrap();
        Self { scratch, count, len }
    }

    pub fn fl(&self) -> PathBuf {
        self.scratch.path().join("x.fl")
    }

    pub fn store(&self) -> PathBuf {
        self.scratch.path().join("store")
    }

    pub fn root(&self) -> PathBuf {
        self.scratch.path().join("cache")
    }

    /// Opens a reader with a separate cache object, as another process has.
    #[track_caller]
    pub fn reader(&self, root: &Path, limits: CacheLimits) -> Reader {
        Reader::open(&self.fl(), root, limits, self.len)
    }
}

/// Reads the files and compares them.
pub struct Reader {
    pub content: Content,
    len: usize,
}

impl Reader {
    #[track_caller]
    pub fn open(fl: &Path, root: &Path, limits: CacheLimits, len: usize) -> Self {
        let flist = Arc::new(Flist::open(fl).unwrap());
        let routes = Routes::connect(flist.routes(), &RoutePolicy::default()).unwrap();
        let options = CacheOptions { limits, servers: None };
        let cache = Arc::new(BlockCache::open_with(root, options).unwrap());
        Self { content: Content::new(flist, routes, cache), len }
    }

    pub fn ino(&self, number: usize) -> u64 {
        self.content.flist().resolve(number.to_string().as_bytes()).unwrap().ino()
    }

    /// Reads a file and returns the difference, if any.
    pub fn read(&self, number: usize) -> Result<(), String> {
        let mut bytes = vec![0xee; self.len + 1];
        let read = self.content.read_at(self.ino(number), 0, &mut bytes).map_err(|error| error.to_string())?;
        bytes.truncate(read);
        if bytes == plain(number, self.len) { Ok(()) } else { Err(format!("file {number} is wrong")) }
    }

    /// Returns the path of a file's block in the cache.
    pub fn path(&self, number: usize) -> PathBuf {
        self.content.cache().path_of(&self.content.flist().blocks(self.ino(number))[0].key)
    }
}

/// Limits that no test reaches, on any file system.
pub fn no_limits() -> CacheLimits {
    CacheLimits { max_bytes: 1 << 50, min_free_bytes: 0 }
}

pub fn limit(max_bytes: u64) -> CacheLimits {
    CacheLimits { max_bytes, min_free_bytes: 0 }
}

/// Returns the disk usage of the files below a directory; files removed meanwhile do not count.
pub fn disk_usage(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_usage(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_gone) => 0,
    };
    entries.flatten().map(of).sum()
}

/// Sets the last use and the modification time of a file to long ago.
#[track_caller]
pub fn age(path: &Path, age: Duration) {
    let then = SystemTime::UNIX_EPOCH + now() - age;
    let times = std::fs::FileTimes::new().set_accessed(then).set_modified(then);
    std::fs::File::open(path).unwrap().set_times(times).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "time stamps of files")]
pub fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

/// Returns the age of a file's last use.
#[track_caller]
pub fn unused_for(path: &Path) -> Duration {
    let used = std::fs::metadata(path).unwrap().accessed().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    now().saturating_sub(used)
}

/// Waits until a condition holds, with a limit.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = now();
    while !is_so() {
        assert!(now() - begin < Duration::from_secs(300), "waited five minutes for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
