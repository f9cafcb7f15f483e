//! A tree packed into a store, and read back through the routes that the flist has at that time.
#![allow(unreachable_pub, dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::path::PathBuf;

use contd_flist::{BlockCache, Content, Flist, PackError, PackOptions, PackReport, RoutePolicy, Routes, pack};
use tempfile::TempDir;

use contd_test_harness::flist::read_all;

/// Files whose blocks are of every kind: empty, short, full, several, equal ones.
pub struct Tree {
    scratch: TempDir,
    root: PathBuf,
    pub fl: PathBuf,
    files: Vec<(String, Vec<u8>)>,
}

/// Returns bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

impl Tree {
    pub fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("tree");
        std::fs::create_dir(&root).unwrap();
        let mut files = vec![
            ("empty".to_owned(), Vec::new()),
            ("short".to_owned(), b"hello".to_vec()),
            ("zeros".to_owned(), vec![0; 1_500_000]),
            ("large".to_owned(), noise(1, 2_500_000)),
            ("again".to_owned(), noise(1, 1_048_576)),
        ];
        files.extend((0..40).map(|n| (format!("file-{n}"), noise(100 + n, 5000))));
        for (name, bytes) in &files {
            std::fs::write(root.join(name), bytes).unwrap();
        }
        Self { fl: scratch.path().join("out.fl"), scratch, root, files }
    }

    pub fn pack(&self, stores: &[&str]) -> Result<PackReport, PackError> {
        self.pack_with(stores, &PackOptions::default())
    }

    pub fn pack_with(&self, stores: &[&str], options: &PackOptions) -> Result<PackReport, PackError> {
        let stores = stores.iter().map(|&store| store.to_owned()).collect::<Vec<_>>();
        let options = PackOptions { force: true, ..options.clone() };
        pack(&self.root, &self.fl, &stores, &options, &|_| {})
    }

    /// Returns the routes of the flist.
    #[track_caller]
    pub fn routes(&self) -> Vec<String> {
        Flist::open(&self.fl).unwrap().routes().iter().map(|route| route.url.clone()).collect()
    }

    /// Replaces the routes.
    #[track_caller]
    pub fn route(&self, routes: &[&str]) {
        let database = rusqlite::Connection::open(&self.fl).unwrap();
        database.execute("DELETE FROM route", []).unwrap();
        for url in routes {
            database.execute("INSERT INTO route VALUES (0, 255, ?1)", [url]).unwrap();
        }
    }

    /// Opens the flist with an empty cache.
    #[track_caller]
    pub fn content(&self) -> Content {
        let flist = std::sync::Arc::new(Flist::open(&self.fl).unwrap());
        let routes = Routes::connect(flist.routes(), &RoutePolicy::default()).unwrap();
        let cache = tempfile::tempdir_in(self.scratch.path()).unwrap().keep();
        Content::new(flist, routes, std::sync::Arc::new(BlockCache::open(&cache).unwrap()))
    }

    /// Reads every file, and compares every byte.
    #[track_caller]
    pub fn assert_reads_back(&self) {
        let content = self.content();
        for (name, bytes) in &self.files {
            let inode = content.flist().resolve(name.as_bytes()).unwrap();
            assert!(read_all(&content, inode.ino()).unwrap() == *bytes, "{name} differs");
        }
    }

    /// Reads the small file with this number.
    pub fn read_small(&self, content: &Content, number: usize) -> Result<Vec<u8>, contd_flist::ReadError> {
        let inode = content.flist().resolve(format!("file-{number}").as_bytes()).unwrap();
        let bytes = read_all(content, inode.ino())?;
        assert!(bytes == noise(100 + number as u64, 5000), "file-{number} differs");
        Ok(bytes)
    }

    /// Returns the number of distinct blocks of the tree.
    pub fn distinct_blocks(&self) -> usize {
        // short, zeros (2: full and the rest), large (5), again (none of its own), 40 small ones.
        1 + 2 + 5 + 40
    }
}
