//! A log with arbitrary content, over rotated files and during a rotation.

use contd_logs::{LogItem, LogReader, Tail};

use super::Scratch;

/// Longer than the longest item: a line of garbage and the block that ended it.
const MAX_ITEM_BYTES: usize = 256 * 1024;
/// The most items checked.
const MAX_ITEMS: usize = 1 << 20;

/// The first bytes set: the number of last lines, where the input is cut into files, how much is read at once.
pub fn check(data: &[u8]) {
    let Some(([lines, cut, most], bytes)) = data.split_first_chunk::<3>() else { return };
    let scratch = Scratch::new();
    let (older, newer) = bytes.split_at(bytes.len() * usize::from(*cut) / 256);
    let path = scratch.path().join("x.log");
    scratch.file("x.log.1", older);
    scratch.file("x.log", newer);
    let most = usize::from(*most) * 64 + 1;
    let all = read(&path, Tail::All, most);
    assert_eq!(all, read(&path, Tail::All, 1 << 20), "how much is read at once changes what is read");
    let tail = read(&path, Tail::Lines(u64::from(*lines)), most);
    assert!(all.ends_with(&tail), "the tail is not the end");
    // Followed over a rotation: the old file is read to its end, then the new one.
    let mut follower = LogReader::open(&path, Tail::All).unwrap();
    let mut followed = drain(&mut follower, most);
    std::fs::rename(&path, scratch.path().join("x.log.2")).unwrap();
    std::fs::rename(scratch.path().join("x.log.1"), scratch.path().join("x.log.3")).unwrap();
    std::fs::rename(scratch.path().join("x.log.2"), scratch.path().join("x.log.1")).unwrap();
    std::fs::rename(scratch.path().join("x.log.3"), scratch.path().join("x.log.2")).unwrap();
    scratch.file("x.log", older);
    followed.extend(drain(&mut follower, most));
    assert_eq!(followed, read(&path, Tail::All, most), "following gives another result than reading");
}

fn read(path: &std::path::Path, tail: Tail, most: usize) -> Vec<LogItem> {
    drain(&mut LogReader::open(path, tail).unwrap(), most)
}

fn drain(reader: &mut LogReader, most: usize) -> Vec<LogItem> {
    let mut all = Vec::new();
    loop {
        let items = reader.read_records(most).unwrap();
        if items.is_empty() || all.len() > MAX_ITEMS {
            return all;
        }
        for item in &items {
            let length = match item {
                LogItem::Record(record) => record.content.len(),
                LogItem::Garbage(bytes) => bytes.len(),
                LogItem::Gap => 0,
            };
            assert!(length <= MAX_ITEM_BYTES, "an item of {length} bytes");
        }
        all.extend(items);
    }
}
