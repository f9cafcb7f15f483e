//! Tools that the tests of flists share: fixtures on a copy, a tree to compare, a small web server.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use contd_flist::{BlockCache, Content, FileKind, Flist, Inode, RoutePolicy, Routes};
use tempfile::TempDir;

/// Returns the directory of the golden flists.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/fl")
}

/// A copy of a fixture, whose blocks and routes may be changed.
pub struct Fixture {
    /// Everything of it lies below.
    pub scratch: TempDir,
    /// The flist.
    pub fl: PathBuf,
    /// Its store.
    pub store: PathBuf,
    /// The expected tree, one object per entry.
    pub manifest: Vec<serde_json::Value>,
}

impl Fixture {
    /// Copies the flist and its store, and routes the flist to the copy.
    #[track_caller]
    pub fn copy(name: &str) -> Self {
        let fixture = Self::copy_metadata(name);
        copy_tree(&fixtures().join(name).join("store"), &fixture.store);
        fixture.route(&[(0, 255, &fixture.store_url())]);
        fixture
    }

    /// Copies the flist only: its content cannot be read.
    #[track_caller]
    pub fn copy_metadata(name: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let from = fixtures().join(name);
        let fl = scratch.path().join(format!("{name}.fl"));
        std::fs::copy(from.join(format!("{name}.fl")), &fl).unwrap();
        let manifest = std::fs::read_to_string(from.join("manifest.jsonl")).unwrap();
        let manifest = manifest.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        Self { store: scratch.path().join("store"), scratch, fl, manifest }
    }

    /// The URL of its store.
    pub fn store_url(&self) -> String {
        format!("dir://{}", self.store.display())
    }

    /// Replaces the routes.
    #[track_caller]
    pub fn route(&self, routes: &[(u8, u8, &str)]) {
        let database = rusqlite::Connection::open(&self.fl).unwrap();
        database.execute("DELETE FROM route", []).unwrap();
        for (start, end, url) in routes {
            database.execute("INSERT INTO route VALUES (?1, ?2, ?3)", rusqlite::params![start, end, url]).unwrap();
        }
    }

    /// Runs SQL on the copy, to damage it.
    #[track_caller]
    pub fn sql(&self, sql: &str) {
        let database = rusqlite::Connection::open(&self.fl).unwrap();
        database.execute_batch("PRAGMA synchronous = OFF").unwrap();
        database.execute_batch(sql).unwrap();
    }

    /// Changes rows of the schema, which SQLite itself never does.
    #[track_caller]
    pub fn edit_schema(&self, edit: &str) {
        let database = rusqlite::Connection::open(&self.fl).unwrap();
        database.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false).unwrap();
        database.execute_batch("PRAGMA writable_schema = ON").unwrap();
        assert_eq!(database.execute(&format!("UPDATE sqlite_schema SET {edit}"), []).unwrap(), 1, "{edit}");
    }

    /// Where its block cache is.
    pub fn cache_root(&self) -> PathBuf {
        self.scratch.path().join("cache")
    }

    /// Opens it with its routes and its cache.
    #[track_caller]
    pub fn content(&self) -> Content {
        content(&self.fl, &self.cache_root())
    }

    /// Returns every block file of the store.
    pub fn stored_blocks(&self) -> Vec<PathBuf> {
        files_below(&self.store)
    }

    /// Returns every block file of the cache.
    pub fn cached_blocks(&self) -> Vec<PathBuf> {
        files_below(&self.cache_root().join("blocks"))
    }
}

/// Opens a flist with its stores and a cache.
#[track_caller]
pub fn content(fl: &Path, cache_root: &Path) -> Content {
    let flist = Arc::new(Flist::open(fl).unwrap());
    let routes = Routes::connect(flist.routes(), &RoutePolicy::default()).unwrap();
    Content::new(flist, routes, Arc::new(BlockCache::open(cache_root).unwrap()))
}

/// Reads a whole file in pieces of an odd size.
pub fn read_all(content: &Content, ino: u64) -> Result<Vec<u8>, contd_flist::ReadError> {
    let (mut all, mut piece) = (Vec::new(), vec![0xee; 100_003]);
    loop {
        match content.read_at(ino, all.len() as u64, &mut piece)? {
            0 => return Ok(all),
            read => all.extend_from_slice(&piece[..read]),
        }
    }
}

/// Returns all inodes of a flist by path.
pub fn by_path(flist: &Flist) -> BTreeMap<String, u64> {
    fn visit(flist: &Flist, inode: Inode<'_>, path: &str, all: &mut BTreeMap<String, u64>) {
        all.insert(if path.is_empty() { "/".to_owned() } else { path.to_owned() }, inode.ino());
        for child in flist.children(inode.ino()).iter() {
            let name = String::from_utf8(child.name().to_vec()).unwrap();
            visit(flist, child, &format!("{path}/{name}"), all);
        }
    }
    let mut all = BTreeMap::new();
    visit(flist, flist.root(), "", &mut all);
    all
}

/// The word of a manifest for a kind of file.
pub fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "dir",
        FileKind::Symlink => "symlink",
        FileKind::CharDevice => "char",
        FileKind::BlockDevice => "block",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
    }
}

/// Computes a SHA-256 with coreutils, independent of the code under test.
#[track_caller]
pub fn sha256(bytes: &[u8]) -> String {
    let mut child =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sha256sum is installed");
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

/// Lists the files below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    files
}

/// Copies a tree.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Formats an error and its sources, as a log does.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// The answer of the server to a request.
pub enum Answer {
    /// Status and body, with its true length.
    Full(u16, Vec<u8>),
    /// A body with another announced length, then the end of the connection.
    Lying {
        /// Its `Content-Length`.
        announced: usize,
        /// The bytes that are sent.
        body: Vec<u8>,
    },
    /// Any bytes at all, then the end of the connection.
    Raw(Vec<u8>),
    /// No answer: the connection stays open until the client closes it.
    Silence,
    /// Ends the connection at once.
    HangUp,
}

/// A web server for one test. It ends with the process; its threads only wait on sockets.
pub struct Server {
    /// Where it listens: `http://127.0.0.1:PORT`.
    pub url: String,
    /// The paths that were asked for, in order.
    pub paths: Arc<Mutex<Vec<String>>>,
    /// How many connections were made.
    pub connections: Arc<AtomicUsize>,
}

impl Server {
    /// Answers the n-th request (from 0) for a path with `answer`.
    pub fn start(answer: impl Fn(usize, &str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (paths, connections) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicUsize>::default());
        let (answer, seen, count) = (Arc::new(answer), Arc::clone(&paths), Arc::clone(&connections));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), answer, seen) = (stream, Arc::clone(&answer), Arc::clone(&seen)) else { return };
                count.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || serve(stream, &seen, &*answer));
            }
        });
        Self { url, paths, connections }
    }

    /// Serves the files of a directory, 404 for other paths.
    pub fn folder(root: PathBuf) -> Self {
        Self::start(move |_, path| match std::fs::read(root.join(path.trim_start_matches('/'))) {
            Ok(body) => Answer::Full(200, body),
            Err(_) => Answer::Full(404, Vec::new()),
        })
    }

    /// How many requests there were.
    pub fn requests(&self) -> usize {
        self.paths.lock().unwrap().len()
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<String>>, answer: &(dyn Fn(usize, &str) -> Answer + Send + Sync)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut header = String::new();
        while reader.read_line(&mut header).unwrap_or(0) > 2 {
            header.clear();
        }
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(path.clone());
            seen.iter().filter(|other| **other == path).count() - 1
        };
        let (bytes, keep) = match answer(number, &path) {
            Answer::Full(status, body) => {
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
                ([head.into_bytes(), body].concat(), true)
            }
            Answer::Lying { announced, body } => {
                let head = format!("HTTP/1.1 200 X\r\nContent-Length: {announced}\r\n\r\n");
                ([head.into_bytes(), body].concat(), false)
            }
            Answer::Raw(bytes) => (bytes, false),
            Answer::Silence => {
                let _gone = reader.read_line(&mut String::new());
                return;
            }
            Answer::HangUp => return,
        };
        if stream.write_all(&bytes).is_err() || !keep {
            return;
        }
    }
}
