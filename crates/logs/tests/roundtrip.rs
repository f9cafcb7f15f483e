//! Round trips through rotation, following and torn writes: the bytes of each stream come back as they went in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

use std::io::Write;
use std::path::{Path, PathBuf};

use contd_logs::{LogItem, LogReader, LogWriter, MAX_CONTENT_BYTES, Rotation, Stream, Tail};
use contd_types::{Explain, Timestamp};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(1_795_515_072_123_456_789);
const BATCH: usize = 64 * 1024;

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("web.log")
    }
}

/// Reads until there is no new output.
fn read_on(reader: &mut LogReader, items: &mut Vec<LogItem>) {
    loop {
        let more = reader.read_records(BATCH).unwrap();
        if more.is_empty() {
            return;
        }
        items.extend(more);
    }
}

fn read_all(path: &Path, tail: Tail) -> Vec<LogItem> {
    let mut items = Vec::new();
    read_on(&mut LogReader::open(path, tail).unwrap(), &mut items);
    items
}

/// Puts the bytes of a stream together again; anything but records is a failure.
#[track_caller]
fn bytes_of(items: &[LogItem], stream: Stream) -> Vec<u8> {
    let mut bytes = Vec::new();
    for item in items {
        let LogItem::Record(record) = item else { panic!("not a record: {item:?}") };
        if record.stream == stream {
            bytes.extend_from_slice(&record.content);
            if !record.is_partial {
                bytes.push(b'\n');
            }
        }
    }
    bytes
}

fn text(items: &[LogItem]) -> String {
    String::from_utf8(bytes_of(items, Stream::Stdout)).unwrap()
}

fn small(max_bytes: u64, max_files: u32) -> Rotation {
    Rotation { max_bytes, max_files }
}

/// Output as containers make it: text, newlines in a row, NUL, bytes that are not UTF-8, lines over one part.
fn chunk() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(b'\n')], 0..200),
        1 => (1_usize..40_000, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
        1 => (MAX_CONTENT_BYTES - 1..MAX_CONTENT_BYTES + 2).prop_map(|length| [vec![b'x'; length], vec![b'\n']].concat()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_in_any_chunks_come_back_while_they_are_written_and_afterwards(
        chunks in prop::collection::vec((any::<bool>(), chunk(), any::<bool>(), any::<bool>()), 0..40),
        max_bytes in prop_oneof![Just(u64::MAX), 1_u64..100_000],
    ) {
        let scratch = Scratch::new();
        let rotation = small(max_bytes, 1000);
        let mut writer = LogWriter::open(scratch.log(), rotation).unwrap();
        let mut follower = LogReader::open(scratch.log(), Tail::All).unwrap();
        let (mut followed, mut written) = (Vec::new(), [Vec::new(), Vec::new()]);
        for (is_stdout, bytes, is_followed, is_restarted) in chunks {
            let stream = if is_stdout { Stream::Stdout } else { Stream::Stderr };
            writer.write(stream, &bytes, NOW).unwrap();
            written[usize::from(is_stdout)].extend_from_slice(&bytes);
            if is_followed {
                read_on(&mut follower, &mut followed);
            }
            if is_restarted {
                writer = LogWriter::open(scratch.log(), rotation).unwrap();
            }
        }
        prop_assert!(writer.take_rotation_error().is_none());
        read_on(&mut follower, &mut followed);
        let afterwards = read_all(&scratch.log(), Tail::All);
        for items in [&followed, &afterwards] {
            prop_assert!(bytes_of(items, Stream::Stdout) == written[1], "stdout differs");
            prop_assert!(bytes_of(items, Stream::Stderr) == written[0], "stderr differs");
        }
    }

    #[test]
    fn a_tail_of_n_is_the_last_n_of_all_lines(
        lines in prop::collection::vec(prop_oneof![9 => 0_usize..300, 1 => 16_000_usize..70_000], 0..60),
        wanted in 0_u64..70,
        max_bytes in prop_oneof![Just(u64::MAX), 200_u64..20_000],
    ) {
        let scratch = Scratch::new();
        let mut writer = LogWriter::open(scratch.log(), small(max_bytes, 1000)).unwrap();
        for (number, length) in lines.iter().enumerate() {
            writer.write(Stream::Stdout, format!("{number}:{}\n", "x".repeat(*length)).as_bytes(), NOW).unwrap();
        }
        let all: Vec<String> = lines.iter().enumerate().map(|(n, length)| format!("{n}:{}\n", "x".repeat(*length))).collect();
        let begin = all.len().saturating_sub(usize::try_from(wanted).unwrap());
        prop_assert_eq!(text(&read_all(&scratch.log(), Tail::Lines(wanted))), all[begin..].concat());
    }
}

#[test]
fn a_part_of_a_line_is_visible_at_once_and_its_end_later() {
    let scratch = Scratch::new();
    let mut writer = LogWriter::open(scratch.log(), Rotation::never()).unwrap();
    let mut reader = LogReader::open(scratch.log(), Tail::Lines(0)).unwrap();
    let mut items = Vec::new();
    writer.write(Stream::Stdout, b"login: ", NOW).unwrap();
    read_on(&mut reader, &mut items);
    assert_eq!(text(&items), "login: ");
    writer.write(Stream::Stdout, b"\n", NOW).unwrap();
    read_on(&mut reader, &mut items);
    assert_eq!(text(&items), "login: \n");
}

#[test]
fn rotation_keeps_as_many_files_as_asked_and_cuts_only_between_lines() {
    let scratch = Scratch::new();
    let mut writer = LogWriter::open(scratch.log(), small(500, 3)).unwrap();
    for number in 0..100 {
        writer.write(Stream::Stdout, format!("first half {number}").as_bytes(), NOW).unwrap();
        writer.write(Stream::Stdout, b" second half\n", NOW).unwrap();
    }
    let mut names: Vec<_> = std::fs::read_dir(scratch.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["web.log", "web.log.1", "web.log.2"]);
    for name in names {
        let content = std::fs::read_to_string(scratch.0.path().join(&name)).unwrap();
        assert!(content.lines().next().unwrap().contains(" P first half"), "{name:?} begins within a line");
        assert!(content.len() <= 600, "{name:?} has {} bytes", content.len());
    }
    assert!(text(&read_all(&scratch.log(), Tail::All)).ends_with("first half 99 second half\n"));
}

#[test]
fn a_line_without_end_is_rotated_all_the_same() {
    let scratch = Scratch::new();
    let mut writer = LogWriter::open(scratch.log(), small(100_000, 4)).unwrap();
    for _ in 0..100 {
        writer.write(Stream::Stdout, &[b'x'; 16 * 1024], NOW).unwrap();
    }
    let total: u64 = std::fs::read_dir(scratch.0.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!(total < 4 * 220_000, "{total} bytes");
}

#[test]
fn a_follower_that_was_overtaken_by_rotation_is_told_of_the_gap() {
    let scratch = Scratch::new();
    let mut writer = LogWriter::open(scratch.log(), small(300, 2)).unwrap();
    writer.write(Stream::Stdout, b"0\n", NOW).unwrap();
    let mut reader = LogReader::open(scratch.log(), Tail::All).unwrap();
    let mut items = Vec::new();
    read_on(&mut reader, &mut items);
    for number in 1..60 {
        writer.write(Stream::Stdout, format!("{number}\n").as_bytes(), NOW).unwrap();
    }
    read_on(&mut reader, &mut items);
    assert_eq!(items.iter().filter(|item| **item == LogItem::Gap).count(), 1);
    items.retain(|item| *item != LogItem::Gap);
    assert!(text(&items).starts_with("0\n") && text(&items).ends_with("58\n59\n"), "{}", text(&items));
}

#[test]
fn a_torn_record_is_waited_for_and_after_a_restart_of_the_writer_stands_alone() {
    let scratch = Scratch::new();
    let whole = b"2026-11-24T10:11:12.123456789Z stdout F whole\n2026-11-24T10:11:12.123456789Z stdout F to";
    std::fs::write(scratch.log(), whole).unwrap();
    let mut reader = LogReader::open(scratch.log(), Tail::All).unwrap();
    let mut items = Vec::new();
    read_on(&mut reader, &mut items);
    assert_eq!(text(&items), "whole\n");
    assert_eq!(text(&read_all(&scratch.log(), Tail::Lines(1))), "whole\n");
    LogWriter::open(scratch.log(), Rotation::never()).unwrap().write(Stream::Stdout, b"next\n", NOW).unwrap();
    read_on(&mut reader, &mut items);
    assert_eq!(text(&items), "whole\nto\nnext\n");
}

#[test]
fn garbage_is_marked_and_what_follows_it_is_read() {
    let scratch = Scratch::new();
    let mut writer = LogWriter::open(scratch.log(), Rotation::never()).unwrap();
    writer.write(Stream::Stdout, b"before\n", NOW).unwrap();
    let mut file = std::fs::File::options().append(true).open(scratch.log()).unwrap();
    file.write_all(b"not a record\n\n").unwrap();
    file.write_all(&[0; 300_000]).unwrap();
    file.write_all(b"\n").unwrap();
    writer.reopen().unwrap();
    writer.write(Stream::Stdout, b"after\n", NOW).unwrap();
    let mut items = read_all(&scratch.log(), Tail::All);
    let is_garbage = |item: &LogItem| matches!(item, LogItem::Garbage(_));
    assert!(items.contains(&LogItem::Garbage(b"not a record".to_vec())));
    let bytes: usize = items.iter().map(|item| if let LogItem::Garbage(bytes) = item { bytes.len() } else { 0 }).sum();
    assert_eq!(bytes, b"not a record".len() + 300_000);
    items.retain(|item| !is_garbage(item));
    assert_eq!(text(&items), "before\nafter\n");
    assert_eq!(text(&read_all(&scratch.log(), Tail::Lines(1))), "after\n");
}

#[test]
fn a_reader_may_come_before_the_writer() {
    let scratch = Scratch::new();
    let mut reader = LogReader::open(scratch.log(), Tail::Lines(10)).unwrap();
    assert!(reader.read_records(BATCH).unwrap().is_empty());
    LogWriter::open(scratch.log(), Rotation::never()).unwrap().write(Stream::Stdout, b"hello\n", NOW).unwrap();
    assert_eq!(text(&reader.read_records(BATCH).unwrap()), "hello\n");
}

#[test]
fn a_rotation_that_fails_stops_no_output_and_is_reported_once() {
    let scratch = Scratch::new();
    // A directory with something in it cannot be replaced by a file, not even by root.
    std::fs::create_dir_all(scratch.0.path().join("web.log.1/x")).unwrap();
    let mut writer = LogWriter::open(scratch.log(), small(200, 2)).unwrap();
    for number in 0..10 {
        writer.write(Stream::Stdout, format!("{number}\n").as_bytes(), NOW).unwrap();
    }
    assert!(matches!(writer.take_rotation_error(), Some(contd_logs::LogError::Foreign { .. })));
    assert_eq!(std::fs::read_to_string(scratch.log()).unwrap().lines().count(), 10);
    std::fs::remove_dir_all(scratch.0.path().join("web.log.1")).unwrap();
    for number in 10..20 {
        writer.write(Stream::Stdout, format!("{number}\n").as_bytes(), NOW).unwrap();
    }
    assert!(scratch.0.path().join("web.log.1").is_file(), "the rotation was not tried again");
}

#[test]
fn a_symlink_in_the_place_of_the_log_is_not_followed() {
    let scratch = Scratch::new();
    let victim = scratch.0.path().join("victim");
    std::fs::write(&victim, b"mine").unwrap();
    std::os::unix::fs::symlink(&victim, scratch.log()).unwrap();
    assert!(LogWriter::open(scratch.log(), Rotation::never()).is_err());
    assert!(LogReader::open(scratch.log(), Tail::All).is_err());
    assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
}

#[test]
fn a_full_disk_is_a_typed_error_that_leaves_no_half_record_and_may_be_repeated() {
    // Limit this mount, not the process: other tests of this program write too.
    let scratch = Scratch::new();
    let dir = scratch.0.path().join("tmpfs");
    std::fs::create_dir(&dir).unwrap();
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&dir).status();
    assert!(mounted.unwrap().success(), "this test mounts a tmpfs: run it as root");
    let log = dir.join("web.log");
    let mut writer = LogWriter::open(&log, Rotation::never()).unwrap();
    writer.write(Stream::Stdout, b"before\n", NOW).unwrap();
    let large = [[b'x'; 99].as_slice(), b"\n"].concat().repeat(1000);
    let error = writer.write(Stream::Stdout, &large, NOW).unwrap_err();
    let (kind, left) = (error.kind(), std::fs::read_to_string(&log).unwrap());
    writer.write(Stream::Stdout, b"after\n", NOW).unwrap();
    let items = read_all(&log, Tail::All);
    drop(writer);
    contd_test_harness::mounted::unmount(&dir);
    assert_eq!(kind, contd_types::ErrorKind::OutOfResources);
    assert_eq!(left.lines().count(), 1, "half-written records were left");
    assert_eq!(text(&items), "before\nafter\n");
}

#[test]
fn a_follower_keeps_up_with_a_writer_that_rotates_all_the_time() {
    const LINES: u32 = 20_000;
    let scratch = Scratch::new();
    let log = scratch.log();
    let expected: String = (0..LINES).map(|number| format!("{number}\n")).collect();
    let mut reader = LogReader::open(&log, Tail::All).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            // Keep so many files that none is removed before it is read: this test is about order and seams only.
            let mut writer = LogWriter::open(&log, small(20_000, 1000)).unwrap();
            for number in 0..LINES {
                writer.write(Stream::Stdout, format!("{number}\n").as_bytes(), NOW).unwrap();
            }
            assert!(writer.take_rotation_error().is_none());
        });
        let mut items = Vec::new();
        while !writer.is_finished() {
            items.extend(reader.read_records(4096).unwrap());
        }
        writer.join().unwrap();
        read_on(&mut reader, &mut items);
        assert!(text(&items) == expected, "lines are lost, doubled or out of order");
    });
}

#[test]
fn a_write_that_was_cut_off_anywhere_is_completed_by_the_successor_and_never_doubled() {
    let batch = b"one\ntwo\nand a part";
    let whole = {
        let scratch = Scratch::new();
        let mut writer = LogWriter::open(scratch.log(), Rotation::never()).unwrap();
        writer.write(Stream::Stdout, b"before\n", NOW).unwrap();
        writer.write(Stream::Stderr, batch, NOW).unwrap();
        std::fs::read(scratch.log()).unwrap()
    };
    let begin = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for cut in begin..=whole.len() {
        let scratch = Scratch::new();
        let mut writer = LogWriter::open(scratch.log(), Rotation::never()).unwrap();
        writer.write(Stream::Stdout, b"before\n", NOW).unwrap();
        let position = writer.stage(Stream::Stderr, batch, NOW).unwrap();
        drop(writer);
        std::fs::write(scratch.log(), &whole[..cut]).unwrap();
        let mut successor = LogWriter::open(scratch.log(), Rotation::never()).unwrap();
        for _ in 0..2 {
            successor.redo(Stream::Stderr, batch, NOW, position).unwrap();
            assert_eq!(std::fs::read(scratch.log()).unwrap(), whole, "cut at {cut}");
        }
        successor.write(Stream::Stdout, b"after\n", NOW).unwrap();
        let items = read_all(&scratch.log(), Tail::All);
        assert_eq!(bytes_of(&items, Stream::Stdout), b"before\nafter\n");
    }
}

#[test]
fn a_write_is_not_repeated_into_another_file_and_goes_to_the_end_of_one_that_was_cut() {
    let scratch = Scratch::new();
    let mut writer = LogWriter::open(scratch.log(), Rotation::never()).unwrap();
    writer.write(Stream::Stdout, b"before\n", NOW).unwrap();
    let position = writer.stage(Stream::Stdout, b"batch\n", NOW).unwrap();
    writer.flush().unwrap();
    std::fs::File::options().write(true).open(scratch.log()).unwrap().set_len(0).unwrap();
    let mut successor = LogWriter::open(scratch.log(), Rotation::never()).unwrap();
    successor.redo(Stream::Stdout, b"batch\n", NOW, position).unwrap();
    assert_eq!(text(&read_all(&scratch.log(), Tail::All)), "batch\n");
    std::fs::rename(scratch.log(), scratch.log().with_extension("old")).unwrap();
    let mut successor = LogWriter::open(scratch.log(), Rotation::never()).unwrap();
    successor.redo(Stream::Stdout, b"batch\n", NOW, position).unwrap();
    assert_eq!(std::fs::read(scratch.log()).unwrap(), b"");
}
