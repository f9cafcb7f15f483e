//! Legacy flists for tests: the fixture with its store, archives of any content, and values written by hand.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contd_flist::{BlockCache, Content, RoutePolicy, Routes};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use crate::support::{copy_tree, fixtures};

/// The key of the root: BLAKE2b-128 of nothing.
pub const ROOT: &str = "cae66941d9efbd404e4d88758ea67670";

/// The key of another directory.
pub const SUB: &str = "000102030405060708090a0b0c0d0e0f";

/// The key of the one access control item of [`plain`].
pub const ACL: &str = "0123456789abcdef";

/// Returns the path of the unchanged fixture, whose route leads to a server that does not exist.
pub fn original() -> PathBuf {
    fixtures().join("legacy/small.flist")
}

/// Opens a flist of either format with its stores and a cache.
#[track_caller]
pub fn content(flist: &Path, cache_root: &Path) -> Content {
    let flist = Arc::new(contd_flist_legacy::open(flist).unwrap());
    let routes = Routes::connect(flist.routes(), &RoutePolicy::default()).unwrap();
    Content::new(flist, routes, Arc::new(BlockCache::open(cache_root).unwrap()))
}

/// A copy of the legacy fixture, routed to its store by a `router.yaml`.
pub struct Legacy {
    pub scratch: tempfile::TempDir,
    pub flist: PathBuf,
    pub store: PathBuf,
}

impl Legacy {
    #[track_caller]
    pub fn copy() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let (flist, store) = (scratch.path().join("small.flist"), scratch.path().join("store"));
        copy_tree(&fixtures().join("legacy/store"), &store);
        let router = format!("pools:\n  p:\n    00:FF: dir://{}\nlookup:\n  - p\n", store.display());
        let members = [("./flistdb.sqlite3", fixture_database()), ("./router.yaml", router.into_bytes())];
        std::fs::write(&flist, gzip(&tar_of(&members))).unwrap();
        Self { scratch, flist, store }
    }
}

/// The database in the fixture.
#[track_caller]
pub fn fixture_database() -> Vec<u8> {
    let packed = std::fs::File::open(original()).unwrap();
    let mut archive = tar::Archive::new(GzDecoder::new(packed));
    let mut member = archive
        .entries()
        .unwrap()
        .map(|member| member.unwrap())
        .find(|member| member.path_bytes().ends_with(b"flistdb.sqlite3"))
        .unwrap();
    let mut bytes = Vec::new();
    member.read_to_end(&mut bytes).unwrap();
    bytes
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Builds a tar of regular files; names are written unchanged.
pub fn tar_of<T: AsRef<[u8]>>(members: &[(&str, T)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, content) in members {
        tar.extend(tar_header(name, content.as_ref().len() as u64, tar::EntryType::Regular));
        tar.extend_from_slice(content.as_ref());
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// Builds the header of one member; its length need not be true.
pub fn tar_header(name: &str, len: u64, kind: tar::EntryType) -> [u8; 512] {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(len);
    header.set_mode(0o644);
    header.set_entry_type(kind);
    header.set_cksum();
    *header.as_bytes()
}

/// Builds a database with these entries and this metadata.
#[track_caller]
pub fn database(entries: &[(String, Vec<u8>)], metadata: &[(&str, &str)]) -> Vec<u8> {
    let scratch = tempfile::NamedTempFile::new().unwrap();
    let connection = rusqlite::Connection::open(scratch.path()).unwrap();
    let schema = "CREATE TABLE entries (key VARCHAR(64) PRIMARY KEY, value BLOB);
                  CREATE TABLE metadata (key VARCHAR(64) PRIMARY KEY, value TEXT);";
    connection.execute_batch(schema).unwrap();
    // In one transaction: twenty thousand of them take minutes.
    connection.execute_batch("BEGIN").unwrap();
    for (key, value) in entries {
        connection.execute("INSERT INTO entries VALUES (?1, ?2)", (key, value)).unwrap();
    }
    for row in metadata {
        connection.execute("INSERT INTO metadata VALUES (?1, ?2)", *row).unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
    drop(connection);
    std::fs::read(scratch.path()).unwrap()
}

/// Writes a flist with these entries.
#[track_caller]
pub fn flist(folder: &Path, entries: &[(String, Vec<u8>)]) -> PathBuf {
    let path = folder.join("made.flist");
    std::fs::write(&path, gzip(&tar_of(&[("./flistdb.sqlite3", database(entries, &[]))]))).unwrap();
    path
}

/// Returns an access control item under [`ACL`], and a root with these entries.
pub fn plain(entries: &[Object]) -> Vec<(String, Vec<u8>)> {
    vec![(ACL.to_owned(), acl(0o755, 0, 0).message()), (ROOT.to_owned(), directory(ROOT, entries).message())]
}

/// The target of a pointer of an [`Object`].
#[derive(Debug, Clone)]
pub enum Field {
    Null,
    Text(Vec<u8>),
    Data(Vec<u8>),
    Struct(Object),
    /// Structs of one shape.
    List(Vec<Object>),
}

/// A struct to write: its data words and its pointers.
#[derive(Debug, Clone, Default)]
pub struct Object {
    pub data: Vec<u64>,
    pub pointers: Vec<Field>,
}

impl Object {
    /// Writes it as the root of a framed message of one segment.
    pub fn message(&self) -> Vec<u8> {
        let mut words = vec![0];
        self.put(&mut words, 0);
        frame(&[words])
    }

    /// Appends it and makes the word at `at` a pointer to it.
    fn put(&self, words: &mut Vec<u64>, at: usize) {
        let start = words.len();
        words[at] = pointer(0, start, at) | (self.data.len() as u64) << 32 | (self.pointers.len() as u64) << 48;
        words.extend(&self.data);
        words.resize(words.len() + self.pointers.len(), 0);
        self.put_fields(words, start + self.data.len());
    }

    fn put_fields(&self, words: &mut Vec<u64>, first: usize) {
        for (at, field) in (first..).zip(&self.pointers) {
            match field {
                Field::Null => {}
                Field::Text(text) => put_bytes(words, at, &[text.as_slice(), b"\0"].concat()),
                Field::Data(data) => put_bytes(words, at, data),
                Field::Struct(object) => object.put(words, at),
                Field::List(objects) => put_list(words, at, objects),
            }
        }
    }
}

/// Writes the segment table and the segments.
pub fn frame(segments: &[Vec<u64>]) -> Vec<u8> {
    let mut table = vec![u32::try_from(segments.len() - 1).unwrap()];
    table.extend(segments.iter().map(|segment| u32::try_from(segment.len()).unwrap()));
    table.resize(table.len().next_multiple_of(2), 0);
    let table = table.iter().flat_map(|entry| entry.to_le_bytes());
    table.chain(segments.iter().flatten().flat_map(|word| word.to_le_bytes())).collect()
}

/// Returns the low half of a pointer at `at` to the word at `start`.
pub fn pointer(kind: u64, start: usize, at: usize) -> u64 {
    let offset = i64::try_from(start).unwrap() - i64::try_from(at).unwrap() - 1;
    kind | (u64::from(u32::from_le_bytes(i32::try_from(offset << 2).unwrap().to_le_bytes())))
}

fn put_bytes(words: &mut Vec<u64>, at: usize, bytes: &[u8]) {
    words[at] = pointer(1, words.len(), at) | 2 << 32 | (bytes.len() as u64) << 35;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        words.push(u64::from_le_bytes(word));
    }
}

fn put_list(words: &mut Vec<u64>, at: usize, objects: &[Object]) {
    let (data, pointers) = objects.first().map_or((0, 0), |first| (first.data.len(), first.pointers.len()));
    let (start, step) = (words.len(), data + pointers);
    words[at] = pointer(1, start, at) | 7 << 32 | ((objects.len() * step) as u64) << 35;
    words.push((objects.len() as u64) << 2 | (data as u64) << 32 | (pointers as u64) << 48);
    words.resize(start + 1 + objects.len() * step, 0);
    for (number, object) in objects.iter().enumerate() {
        let first = start + 1 + number * step;
        words[first..first + data].copy_from_slice(&object.data);
        object.put_fields(words, first + data);
    }
}

pub fn text(text: &str) -> Field {
    Field::Text(text.as_bytes().to_vec())
}

/// Builds a directory whose parent has this key.
pub fn directory(parent: &str, entries: &[Object]) -> Object {
    let contents = Field::List(entries.to_vec());
    Object { data: vec![4096, 0], pointers: vec![text("name"), text("where"), contents, text(parent), text(ACL)] }
}

/// Builds an access control item; owners are stored XORed with -1.
pub fn acl(mode: u64, uid: u64, gid: u64) -> Object {
    Object { data: vec![mode, !uid, !gid], pointers: vec![text("root"), text("root"), Field::Null] }
}

/// Builds an entry of a directory.
pub fn entry(name: &str, size: u64, tag: u64, of: Field) -> Object {
    Object { data: vec![size, tag, 0], pointers: vec![text(name), of, text(ACL)] }
}

pub fn subdirectory(name: &str, key: &str) -> Object {
    entry(name, 4096, 0, Field::Struct(Object { data: vec![], pointers: vec![text(key)] }))
}

/// Builds a file with blocks of this id and key.
pub fn file(name: &str, size: u64, block_units: u64, blocks: &[(&[u8], &[u8])]) -> Object {
    let block = |(id, key): &(&[u8], &[u8])| Object {
        data: vec![],
        pointers: vec![Field::Data(id.to_vec()), Field::Data(key.to_vec())],
    };
    let blocks = Field::List(blocks.iter().map(block).collect());
    entry(name, size, 1, Field::Struct(Object { data: vec![block_units], pointers: vec![blocks] }))
}

pub fn link(name: &str, target: &str) -> Object {
    entry(name, 0, 2, Field::Struct(Object { data: vec![], pointers: vec![text(target)] }))
}

pub fn special(name: &str, kind: u64, numbers: &str) -> Object {
    let numbers = Field::Data(numbers.as_bytes().to_vec());
    entry(name, 0, 3, Field::Struct(Object { data: vec![kind], pointers: vec![numbers] }))
}
