//! The contract of a store, tested on disk and in memory; and a disk that fails at every operation.

use std::path::Path;
use std::sync::Arc;

use contd_durable::{Fault, FaultyFs, RealFs};
use contd_types::{
    ContainerEvent, ContainerId, ContainerName, ContainerSpec, ErrorKind, EventKind, Explain, NamespaceId, Pid, State,
    Timestamp,
};

use crate::{
    ContainerRecord, DirStore, EventJournal, FakeStore, JournalItem, JournalReader, Outcome, Store, StoreCall,
    StoreError,
};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const FAULTS: [Fault; 3] = [Fault::Before, Fault::Torn, Fault::After];

fn namespace(name: &str) -> NamespaceId {
    NamespaceId::new(name).expect("a name")
}

fn record(ns: &str, number: u8, generation: u64) -> ContainerRecord {
    let name = ContainerName::new(format!("c{number}")).expect("a name");
    let spec = ContainerSpec::new(name, "dir:/x");
    let id = ContainerId::from_random([number; 16]);
    let mut record = ContainerRecord::new(namespace(ns), id, spec, "boot", "/var/log/x.log", Timestamp(1));
    record.generation = generation;
    record.state = State::Running { pid: Pid(i32::try_from(generation).expect("small")) };
    record
}

fn on_disk(root: &Path) -> DirStore {
    DirStore::open(Arc::new(RealFs), root).expect("open")
}

/// Runs on both stores; the scratch directory lives as long as the check runs.
fn on_both(check: impl Fn(&dyn Store)) {
    let dir = tempfile::tempdir().expect("scratch");
    check(&on_disk(&dir.path().join("lib")));
    check(&FakeStore::new());
}

#[test]
fn what_is_put_is_there_and_what_is_removed_is_gone() {
    on_both(|store| {
        let (a, b) = (record("a", 1, 1), record("b", 1, 1));
        assert_eq!(store.get(&a.namespace, &a.id).expect("get"), None, "{store:?}");
        store.put(&b).expect("put");
        store.put(&a).expect("put");
        store.put(&a).expect("a repeated put");
        assert_eq!(store.get(&a.namespace, &a.id).expect("get"), Some(a.clone()));
        assert_eq!(store.load_all().expect("load").records, [a.clone(), b.clone()]);
        store.remove(&a.namespace, &a.id).expect("remove");
        store.remove(&a.namespace, &a.id).expect("a repeated remove");
        assert_eq!(store.get(&a.namespace, &a.id).expect("get"), None);
        assert_eq!(store.load_all().expect("load").records, [b]);
    });
}

#[test]
fn a_write_that_was_overtaken_loses() {
    on_both(|store| {
        let new = record("a", 1, 7);
        store.put(&new).expect("put");
        let error = store.put(&record("a", 1, 6)).expect_err("an older record was taken");
        assert!(matches!(error, StoreError::Stale { given: 6, stored: 7, .. }), "got {error:?}");
        assert_eq!(store.get(&new.namespace, &new.id).expect("get"), Some(new.clone()));
        store.remove(&new.namespace, &new.id).expect("remove");
        let error = store.put(&record("a", 1, 8)).expect_err("a removed record came back");
        assert!(matches!(error, StoreError::Removed { .. }), "got {error:?}");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(store.load_all().expect("load").records, []);
    });
}

#[test]
fn a_new_store_on_the_same_directory_has_every_field() {
    let dir = tempfile::tempdir().expect("scratch");
    let mut full = record("a", 1, 3);
    full.exit = Some(contd_types::Exit::by_reboot(Timestamp(9)));
    full.desired = crate::Desired::Stop;
    full.is_acknowledged = true;
    full.idempotency_key = Some("key".into());
    full.spec.env = vec!["A=ä\u{0}\n\"".into()];
    on_disk(dir.path()).put(&full).expect("put");
    let loaded = on_disk(dir.path()).load_all().expect("load");
    assert_eq!(loaded.records, [full]);
    assert!(loaded.damaged.is_empty(), "{:?}", loaded.damaged);
}

#[test]
fn put_leaves_the_old_or_the_new_record_whichever_operation_fails() {
    for (fault, is_first) in FAULTS.into_iter().flat_map(|fault| [(fault, true), (fault, false)]) {
        for at in 1.. {
            let dir = tempfile::tempdir().expect("scratch");
            let (old, new, bystander) = (record("a", 1, 1), record("a", 1, 2), record("a", 2, 1));
            on_disk(dir.path()).put(&bystander).expect("put");
            if !is_first {
                on_disk(dir.path()).put(&old).expect("put");
            }
            let fs = Arc::new(FaultyFs::new());
            let store = DirStore::open(Arc::clone(&fs) as _, dir.path()).expect("open");
            fs.fail_at(at, ENOSPC, fault);
            let result = store.put(&new);
            let was_hit = fs.count() >= at;
            let found = on_disk(dir.path()).load_all().expect("load");
            assert!(found.damaged.is_empty(), "{fault:?} at {at}: {:?}", found.damaged);
            let mine: Vec<_> = found.records.iter().filter(|found| found.id == new.id).collect();
            let is_new = mine == [&new];
            let is_old = if is_first { mine.is_empty() } else { mine == [&old] };
            assert!(is_new || (result.is_err() && is_old), "{fault:?} at {at}: {mine:?}");
            assert!(found.records.contains(&bystander), "{fault:?} at {at}: the bystander is gone");
            fs.heal();
            store.put(&new).expect("the retry");
            assert_eq!(on_disk(dir.path()).get(&new.namespace, &new.id).expect("get"), Some(new));
            if !was_hit {
                assert!(result.is_ok() && at > 4, "only {at} operations were made to fail");
                break;
            }
            if let Err(error) = result {
                assert_eq!(error.kind(), ErrorKind::OutOfResources, "{error:?}");
            }
        }
    }
}

#[test]
fn only_what_somebody_was_told_of_waits_for_the_disk() {
    use contd_durable::Operation;
    let dir = tempfile::tempdir().expect("scratch");
    let fs = Arc::new(FaultyFs::new());
    let store = DirStore::open(Arc::clone(&fs) as Arc<dyn contd_durable::Fs>, dir.path().join("lib")).expect("open");
    let syncs = || {
        let is_sync = |call: &&contd_durable::Call| matches!(call.operation, Operation::SyncFile | Operation::SyncDir);
        fs.calls().iter().filter(is_sync).count()
    };
    let (first, mut last) = (record("a", 1, 1), record("a", 1, 3));
    let before = syncs();
    store.put_intent(&first).expect("intent");
    assert_eq!((syncs(), store.get(&first.namespace, &first.id).expect("get")), (before, Some(first.clone())));
    store.put(&record("a", 1, 2)).expect("put");
    // The file, its directory, and the two above, which the intent has made without a sync.
    assert_eq!(syncs() - before, 4);
    last.state = State::Deleting;
    store.put(&last).expect("put");
    let before = syncs();
    store.remove(&last.namespace, &last.id).expect("remove");
    assert_eq!(syncs(), before, "the record says itself that it is on its way out");
    let unannounced = record("a", 2, 1);
    store.put(&unannounced).expect("put");
    let before = syncs();
    store.remove(&unannounced.namespace, &unannounced.id).expect("remove");
    assert_eq!(syncs() - before, 1);
}

#[test]
fn an_intent_that_a_power_loss_emptied_is_none_and_a_record_that_is_empty_is_set_aside() {
    let dir = tempfile::tempdir().expect("scratch");
    let (asked, told) = (record("a", 1, 1), record("a", 2, 2));
    let store = on_disk(dir.path());
    let path = |record: &ContainerRecord, file: &str| store.container_dir(&record.namespace, &record.id).join(file);
    store.put_intent(&asked).expect("intent");
    let loaded = on_disk(dir.path()).load_all().expect("load");
    assert_eq!(loaded.records, std::slice::from_ref(&asked), "the death of a daemon loses no intent");
    // It counts no more, and a crash between the two steps may leave it.
    store.put(&told).expect("put");
    std::fs::write(path(&told, "intent.json"), serde_json::to_vec(&record("a", 2, 1)).expect("encode")).expect("leave");
    std::fs::write(path(&asked, "intent.json"), "").expect("empty it");
    std::fs::create_dir(path(&asked, "layer")).expect("another crate's");
    let loaded = on_disk(dir.path()).load_all().expect("load");
    assert_eq!((loaded.records.as_slice(), loaded.damaged.len()), (std::slice::from_ref(&told), 0));
    for gone in [&asked, &told] {
        assert!(!path(gone, "intent.json").exists(), "an intent that counts no more is left");
    }
    assert!(path(&asked, "layer").exists());
    std::fs::write(path(&told, "record.json"), "").expect("empty it");
    let loaded = on_disk(dir.path()).load_all().expect("load");
    assert_eq!((loaded.records.len(), loaded.damaged.len()), (0, 1));
}

#[test]
fn an_intent_is_gone_with_its_record_whichever_store_removes_it() {
    let dir = tempfile::tempdir().expect("scratch");
    for is_told in [false, true] {
        for is_loaded in [false, true] {
            let asked = record("a", 1 + u8::from(is_told) * 2 + u8::from(is_loaded), 1);
            let first = on_disk(dir.path());
            first.put_intent(&asked).expect("intent");
            if is_told {
                first.put(&asked).expect("put");
            }
            let second = on_disk(dir.path());
            if is_loaded {
                assert_eq!(second.load_all().expect("load").records, std::slice::from_ref(&asked));
            }
            second.remove(&asked.namespace, &asked.id).expect("remove");
            assert_eq!(first.get(&asked.namespace, &asked.id).expect("get"), None, "{is_told} {is_loaded}");
            assert!(!first.container_dir(&asked.namespace, &asked.id).exists(), "its directory is left");
        }
    }
}

#[test]
fn remove_leaves_the_record_or_nothing_whichever_operation_fails() {
    for fault in FAULTS {
        for at in 1.. {
            let dir = tempfile::tempdir().expect("scratch");
            let old = record("a", 1, 1);
            on_disk(dir.path()).put(&old).expect("put");
            let fs = Arc::new(FaultyFs::new());
            let store = DirStore::open(Arc::clone(&fs) as _, dir.path()).expect("open");
            fs.fail_at(at, EIO, fault);
            let result = store.remove(&old.namespace, &old.id);
            let was_hit = fs.count() >= at;
            let found = on_disk(dir.path()).get(&old.namespace, &old.id).expect("get");
            assert!(found.is_none() || (result.is_err() && found.as_ref() == Some(&old)), "{fault:?} at {at}");
            fs.heal();
            store.remove(&old.namespace, &old.id).expect("the retry");
            let again = on_disk(dir.path());
            assert!(again.load_all().expect("load").records.is_empty());
            assert!(!again.container_dir(&old.namespace, &old.id).exists(), "{fault:?} at {at}: a directory is left");
            if !was_hit {
                assert!(result.is_ok() && at > 3, "only {at} operations were made to fail");
                break;
            }
        }
    }
}

#[test]
fn loading_loses_no_record_whichever_operation_fails() {
    for fault in FAULTS {
        for at in 1.. {
            let dir = tempfile::tempdir().expect("scratch");
            let records = [record("a", 1, 1), record("a", 2, 1), record("b", 3, 1)];
            for record in &records {
                on_disk(dir.path()).put(record).expect("put");
            }
            let fs = Arc::new(FaultyFs::new());
            let store = DirStore::open(Arc::clone(&fs) as _, dir.path()).expect("open");
            fs.fail_at(at, EIO, fault);
            let result = store.load_all();
            let was_hit = fs.count() >= at;
            if let Ok(loaded) = &result {
                // A namespace that could not be listed is one report; no report means that all records are there.
                assert!(!loaded.damaged.is_empty() || loaded.records == records, "{fault:?} at {at}: silently lost");
                assert!(loaded.damaged.iter().all(|damaged| damaged.set_aside.is_none()), "the disk was at fault");
            }
            fs.heal();
            assert_eq!(store.load_all().expect("the retry").records, records, "{fault:?} at {at}");
            if !was_hit {
                assert!(at > 6, "only {at} operations were made to fail");
                break;
            }
        }
    }
}

#[test]
fn damaged_newer_and_misfiled_records_are_set_aside_and_reported() {
    let dir = tempfile::tempdir().expect("scratch");
    let good = record("a", 9, 1);
    let store = on_disk(dir.path());
    store.put(&good).expect("put");
    let text = serde_json::to_string(&record("a", 1, 1)).expect("encode");
    let newer = text.replace("\"version\":1", "\"version\":2");
    let bad =
        [(2, "", "Decode"), (3, "{\"version\":1}", "Decode"), (4, newer.as_str(), "Newer"), (5, &text, "Misfiled")];
    for (number, content, _) in bad {
        let path = store.container_dir(&namespace("a"), &ContainerId::from_random([number; 16]));
        std::fs::create_dir(&path).expect("prepare");
        std::fs::write(path.join("record.json"), content).expect("prepare");
        std::fs::write(path.join("record.json.damaged-1"), "an earlier one").expect("prepare");
    }
    let loaded = store.load_all().expect("load");
    assert_eq!(loaded.records, std::slice::from_ref(&good));
    assert_eq!(loaded.damaged.len(), bad.len());
    for (damaged, (_, content, kind)) in loaded.damaged.iter().zip(bad) {
        assert!(format!("{:?}", damaged.why).starts_with(kind), "{damaged:?}");
        assert!(damaged.why.hint().is_some());
        let aside = damaged.set_aside.as_ref().expect("set aside");
        assert!(aside.ends_with("record.json.damaged-2"), "{aside:?}");
        assert_eq!(std::fs::read_to_string(aside).expect("kept"), content);
    }
    let again = store.load_all().expect("load");
    assert_eq!((again.records, again.damaged.len()), (vec![good], 0));
}

#[test]
fn loading_clears_leftovers_and_leaves_alone_what_others_own() {
    let dir = tempfile::tempdir().expect("scratch");
    let store = on_disk(dir.path());
    let (left, used) = (record("gone", 1, 1), record("a", 2, 1));
    for record in [&left, &used] {
        store.put(record).expect("put");
        std::fs::remove_file(store.container_dir(&record.namespace, &record.id).join("record.json")).expect("prepare");
    }
    let left_dir = store.container_dir(&left.namespace, &left.id);
    std::fs::write(left_dir.join(".record.json.tmp-1-2"), "half").expect("prepare");
    let used_dir = store.container_dir(&used.namespace, &used.id);
    std::fs::create_dir(used_dir.join("upper")).expect("prepare");
    std::fs::write(dir.path().join("events"), "a file, not a namespace").expect("prepare");
    std::fs::create_dir(dir.path().join("a/not-an-id")).expect("prepare");
    let loaded = store.load_all().expect("load");
    assert!(loaded.records.is_empty() && loaded.damaged.is_empty(), "{loaded:?}");
    assert!(!dir.path().join("gone").exists(), "leftovers stay");
    assert!(used_dir.join("upper").exists() && dir.path().join("a/not-an-id").exists());
    assert!(dir.path().join("events").exists());
}

#[test]
fn the_fake_fails_as_its_script_says_and_records_every_call() {
    let fake = FakeStore::new();
    fake.script([Outcome::Fail, Outcome::FailAfter]);
    let record = record("a", 1, 1);
    assert!(fake.put(&record).is_err());
    assert!(fake.records().is_empty());
    assert!(fake.put(&record).is_err());
    assert_eq!(fake.records(), std::slice::from_ref(&record));
    fake.put(&record).expect("the script is used up");
    assert_eq!(fake.calls(), vec![StoreCall::Put(Box::new(record)); 3]);
}

fn event(number: u64) -> ContainerEvent {
    let record = record("a", 1, 1);
    ContainerEvent {
        namespace: record.namespace,
        id: record.id,
        name: record.spec.name,
        at: Timestamp(number),
        kind: EventKind::Accepted,
    }
}

/// Shows items as `1 2 gap 3-4 5`, each event by its time, which the tests set to its number.
fn shown(items: &[JournalItem]) -> String {
    let words = items.iter().map(|item| match item {
        JournalItem::Event(entry) => {
            assert_eq!(entry.sequence, entry.event.at.0, "a number does not belong to its event");
            entry.sequence.to_string()
        }
        JournalItem::Gap { first, last } => format!("gap {first}-{last}"),
    });
    words.collect::<Vec<_>>().join(" ")
}

fn journal(path: &Path, max_bytes: u64) -> EventJournal {
    EventJournal::open(Arc::new(RealFs), path, max_bytes).expect("open")
}

/// Returns an event's line in the journal.
fn line_of(sequence: u64) -> Vec<u8> {
    let mut line = serde_json::to_vec(&crate::JournalEntry { sequence, event: event(sequence) }).expect("encode");
    line.push(b'\n');
    line
}

/// Reads with a new reader.
fn read_from(journal: &EventJournal, from: u64, max_events: usize) -> Vec<JournalItem> {
    read_on(&mut journal.files().reader(from), journal, max_events)
}

/// Continues with a reader, for at most this many events.
fn read_on(reader: &mut JournalReader, journal: &EventJournal, max_events: usize) -> Vec<JournalItem> {
    let mut items = Vec::new();
    while items.iter().filter(|item| matches!(item, JournalItem::Event(_))).count() < max_events {
        let Some(item) = reader.next(journal.next_sequence()).expect("read") else { break };
        items.push(item);
    }
    items
}

#[test]
fn the_journal_counts_on_over_restarts() {
    let dir = tempfile::tempdir().expect("scratch");
    let path = dir.path().join("events");
    for number in 1..=5 {
        assert_eq!(journal(&path, 1 << 20).append(&event(number)).expect("append"), number);
    }
    let journal = journal(&path, 1 << 20);
    assert_eq!(shown(&read_from(&journal, 0, 100)), "1 2 3 4 5");
    assert_eq!(shown(&read_from(&journal, 3, 2)), "3 4");
    assert_eq!(shown(&read_from(&journal, 6, 100)), "");
}

#[test]
fn what_was_rotated_away_is_an_explicit_gap() {
    let dir = tempfile::tempdir().expect("scratch");
    let path = dir.path().join("events");
    let mut journal = journal(&path, 1000);
    for number in 1..=50 {
        journal.append(&event(number)).expect("append");
    }
    let all = read_from(&journal, 1, 100);
    let Some(JournalItem::Gap { first: 1, last }) = all.first() else { panic!("no gap: {}", shown(&all)) };
    let rest: Vec<_> = (last + 1..=50).map(|number| number.to_string()).collect();
    assert_eq!(shown(&all[1..]), rest.join(" "));
    assert!(rest.len() >= 5, "hardly anything is kept: {rest:?}");
    assert_eq!(shown(&read_from(&journal, 50, 100)), "50");
    assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 2);
}

#[test]
fn a_torn_line_costs_one_number_and_nothing_else() {
    let dir = tempfile::tempdir().expect("scratch");
    let path = dir.path().join("events");
    journal(&path, 1 << 20).append(&event(1)).expect("append");
    let whole = std::fs::read(&path).expect("read");
    std::fs::write(&path, [whole.as_slice(), b"{\"sequence\":2,\"ev"].concat()).expect("prepare");
    let mut journal = journal(&path, 1 << 20);
    assert_eq!(shown(&read_from(&journal, 1, 100)), "1 gap 2-2");
    assert_eq!(journal.append(&event(3)).expect("append"), 3);
    assert_eq!(shown(&read_from(&journal, 1, 100)), "1 gap 2-2 3");
}

#[test]
fn the_journal_goes_on_whichever_operation_fails() {
    for fault in FAULTS {
        for at in 1..=12 {
            let dir = tempfile::tempdir().expect("scratch");
            let fs = Arc::new(FaultyFs::new());
            let mut journal = EventJournal::open(Arc::clone(&fs) as _, dir.path().join("events"), 700).expect("open");
            fs.fail_at(at, ENOSPC, fault);
            for number in 1..=8 {
                match journal.append(&event(number)) {
                    Ok(given) => assert_eq!(given, number),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::OutOfResources),
                }
            }
            fs.heal();
            journal.append(&event(9)).expect("append");
            let items = read_from(&journal, 1, 100);
            assert!(shown(&items).ends_with(" 9"), "{fault:?} at {at}: {}", shown(&items));
        }
    }
}

#[test]
fn a_reader_reads_each_byte_once_wherever_rotations_come() {
    // One generation takes about eight events; the reader takes this many after each append.
    for taken in 1..=3 {
        let dir = tempfile::tempdir().expect("scratch");
        let fs = Arc::new(FaultyFs::new());
        let mut journal = EventJournal::open(Arc::clone(&fs) as _, dir.path().join("events"), 1000).expect("open");
        let mut reader = journal.files().reader(1);
        let mut items = Vec::new();
        for number in 1..=100 {
            journal.append(&event(number)).expect("append");
            items.extend(read_on(&mut reader, &journal, taken));
        }
        let wanted: Vec<_> = (1..=100).map(|number| number.to_string()).collect();
        assert_eq!(shown(&items), wanted.join(" "), "{taken} at a time");
        let line = |sequence| line_of(sequence).len();
        let written = u64::try_from((1..=100).map(line).sum::<usize>()).expect("small");
        assert_eq!(fs.pieces().bytes(), written, "{taken} at a time");
    }
}

#[test]
fn a_reader_that_is_overtaken_by_two_rotations_sees_a_gap_and_goes_on() {
    let dir = tempfile::tempdir().expect("scratch");
    let mut journal = journal(&dir.path().join("events"), 1000);
    journal.append(&event(1)).expect("append");
    let mut reader = journal.files().reader(1);
    assert_eq!(shown(&read_on(&mut reader, &journal, 1)), "1");
    for number in 2..=50 {
        journal.append(&event(number)).expect("append");
    }
    let items = read_on(&mut reader, &journal, 100);
    // The events of its own file are still there, whatever name that file has lost.
    let Some(gap) = items.iter().position(|item| matches!(item, JournalItem::Gap { .. })) else {
        panic!("no gap: {}", shown(&items))
    };
    assert!(gap > 0 && shown(&items).ends_with(" 49 50"), "{}", shown(&items));
}

#[test]
fn a_long_journal_is_read_once_per_reader_and_found_its_way_into_by_halves() {
    const EVENTS: u64 = 100_000;
    let dir = tempfile::tempdir().expect("scratch");
    let path = dir.path().join("events");
    let text = (1..=EVENTS).flat_map(line_of).collect::<Vec<_>>();
    std::fs::write(&path, &text).expect("write");
    let size = u64::try_from(text.len()).expect("small");
    let fs = Arc::new(FaultyFs::new());
    let journal = EventJournal::open(Arc::clone(&fs) as _, &path, size + 1).expect("open");
    for readers in 1..=2 {
        let mut reader = journal.files().reader(1);
        let mut count = 0;
        while let Some(item) = reader.next(journal.next_sequence()).expect("read") {
            count += 1;
            let JournalItem::Event(entry) = item else { panic!("a gap: {item:?}") };
            assert_eq!(entry.sequence, count);
        }
        assert_eq!((count, fs.pieces().bytes()), (EVENTS, size * readers));
    }
    for from in [2, 3, EVENTS / 3, EVENTS - 1, EVENTS] {
        let before = fs.pieces().bytes();
        assert_eq!(shown(&read_from(&journal, from, 1)), from.to_string());
        let read = fs.pieces().bytes() - before;
        assert!(read < size / 10, "{read} of {size} bytes were read to find {from}");
    }
}

#[test]
fn a_reader_in_the_middle_does_not_keep_the_writer() {
    let dir = tempfile::tempdir().expect("scratch");
    let fs = Arc::new(FaultyFs::new());
    let mut journal = EventJournal::open(Arc::clone(&fs) as _, dir.path().join("events"), 1 << 20).expect("open");
    journal.append(&event(1)).expect("append");
    let pieces = fs.pieces();
    pieces.hold();
    let mut reader = journal.files().reader(1);
    let reading = std::thread::spawn(move || reader.next(2).map(|item| (reader, item)));
    while pieces.waiting() == 0 {
        std::thread::yield_now();
    }
    // The append can return while the read still hangs.
    journal.append(&event(2)).expect("append");
    assert_eq!(pieces.waiting(), 1);
    pieces.release();
    let (mut reader, first) = reading.join().expect("not panicked").expect("read");
    assert_eq!(shown(first.as_slice()), "1");
    assert_eq!(shown(&read_on(&mut reader, &journal, 10)), "2");
}
