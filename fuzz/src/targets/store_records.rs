//! A state directory with arbitrary content, and the journal of events.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contd_durable::RealFs;
use contd_store::{DirStore, EventJournal, JournalItem, Store, StoreError};

use super::Scratch;

/// Separates the files of an input.
pub const SEPARATOR: &[u8] = b"\n--\n";

const ID: &str = "0123456789abcdef0123456789abcdef";

/// The paths of the files of an input, in turn.
const NAMES: [&str; 7] = [
    "a/0123456789abcdef0123456789abcdef/record.json",
    "a/fedcba9876543210fedcba9876543210/record.json",
    "a/0123456789abcdef0123456789abcdef/.record.json.tmp-1-2",
    "b/0123456789abcdef0123456789abcdef/record.json",
    "a/0123456789abcdef0123456789abcdef/record.json.damaged-1",
    "a/not-an-id/record.json",
    "b/0123456789abcdef0123456789abcdef/intent.json",
];

/// If the first byte is odd, the input is a journal; otherwise its next bits put a directory or link in a record's place.
pub fn check(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    if kind % 2 == 1 { journal(bytes) } else { records(bytes, kind / 2 % 4) }
}

fn records(bytes: &[u8], trap: u8) {
    let scratch = Scratch::new();
    let files = split(bytes);
    for (name, content) in NAMES.iter().zip(&files) {
        scratch.file(name, content);
    }
    let trapped = scratch.path().join("c").join(ID);
    std::fs::create_dir_all(&trapped).unwrap();
    match trap {
        0 => std::fs::create_dir(trapped.join("record.json")).unwrap(),
        1 => std::os::unix::fs::symlink("/etc/passwd", trapped.join("record.json")).unwrap(),
        2 => std::os::unix::fs::symlink("record.json", trapped.join("record.json")).unwrap(),
        _ => {}
    }
    let before = contents(scratch.path());
    let store = DirStore::open(Arc::new(RealFs), scratch.path()).unwrap();
    let loaded = store.load_all().unwrap();
    let after = contents(scratch.path());
    for content in before.iter().filter(|(path, _)| path.ends_with("record.json")).map(|(_, content)| content) {
        assert!(after.values().any(|kept| kept == content), "what a record held is lost");
    }
    for damaged in &loaded.damaged {
        assert!(!damaged.why.to_string().is_empty());
        let is_content = matches!(
            damaged.why,
            StoreError::Decode { .. } | StoreError::NewerVersion { .. } | StoreError::Misfiled { .. }
        );
        assert!(!is_content || damaged.set_aside.is_some(), "not set aside: {damaged:?}");
    }
    let again = store.load_all().unwrap();
    assert_eq!(again.records, loaded.records, "a second look finds other records");
    assert!(again.damaged.iter().all(|damaged| damaged.set_aside.is_none()), "set aside twice: {again:?}");
    for record in loaded.records {
        store.put(&record).unwrap();
        assert_eq!(store.get(&record.namespace, &record.id).unwrap().as_ref(), Some(&record), "writing changes it");
        store.remove(&record.namespace, &record.id).unwrap();
        assert_eq!(store.get(&record.namespace, &record.id).unwrap(), None);
    }
}

/// Checks up to two files: the journal, and the one before it.
fn journal(bytes: &[u8]) {
    let scratch = Scratch::new();
    let files = split(bytes);
    let path = scratch.file("events", files.first().copied().unwrap_or_default());
    if let Some(older) = files.get(1) {
        scratch.file("events.1", older);
    }
    // Bytes that are no journal are an error or skipped, and never become events.
    let Ok(journal) = EventJournal::open(Arc::new(RealFs), &path, 1 << 20) else { return };
    let next = journal.next_sequence();
    let mut reader = journal.files().reader(0);
    let mut last = None;
    while let Ok(Some(item)) = reader.next(next) {
        let (first, to) = match item {
            JournalItem::Event(entry) => (entry.sequence, entry.sequence),
            JournalItem::Gap { first, last } => (first, last),
        };
        assert!(first <= to && last.is_none_or(|last| last < first), "{first} to {to} after {last:?}");
        assert!(to < next, "{to} is not before the next, {next}");
        last = Some(to);
    }
}

fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let mut files = Vec::new();
    let mut rest = bytes;
    while let Some(end) = rest.windows(SEPARATOR.len()).position(|window| window == SEPARATOR) {
        files.push(&rest[..end]);
        rest = &rest[end + SEPARATOR.len()..];
    }
    files.push(rest);
    files
}

/// Returns every regular file below a directory.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(contents(&entry.path()));
        } else if kind.is_file() {
            found.insert(entry.path(), std::fs::read(entry.path()).unwrap());
        }
    }
    found
}
