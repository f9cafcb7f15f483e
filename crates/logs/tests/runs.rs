//! Several runs in one log: no line is shared by two.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::PathBuf;

use contd_logs::{LogFiles, LogItem, LogReader, LogWriter, Rotation, RunStart, Stream, Tail};
use contd_types::Timestamp;

const NOW: Timestamp = Timestamp(1_764_000_000_000_000_000);

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn log(&self) -> LogFiles {
        LogFiles::marked(&self.0.path().join("ns/web.log"), "one", self.0.path().join("notes"))
    }

    /// Begins a run.
    fn begin(&self) -> RunStart {
        self.log().prepare(false, 3, |_| panic!("nothing to take away")).unwrap()
    }

    fn writer(&self, start: RunStart) -> LogWriter {
        LogWriter::open(self.log(), Rotation::never()).unwrap().with_start(start)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("ns/web.log")
    }

    /// Returns stream, kind and content of each record.
    fn records(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path()).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }
}

#[test]
fn a_line_without_an_end_is_ended_before_the_first_line_of_the_next_run() {
    let scratch = Scratch::new();
    let mut first = scratch.writer(scratch.begin());
    first.write(Stream::Stdout, b"half", NOW).unwrap();
    first.write(Stream::Stderr, b"whole\nother half", NOW).unwrap();
    assert_eq!(scratch.records().len(), 3, "nothing is added to what a run has said: its bytes are its own");
    let mut second = scratch.writer(scratch.begin());
    assert_eq!(scratch.records().len(), 3);
    second.write(Stream::Stdout, b"next", NOW).unwrap();
    second.write(Stream::Stdout, b" and on\n", NOW).unwrap();
    let all = ["stdout P half", "stderr F whole", "stderr P other half"];
    let ends = ["stdout F ", "stderr F ", "stdout P next", "stdout F  and on"];
    assert_eq!(scratch.records(), [all.as_slice(), ends.as_slice()].concat());
}

#[test]
fn a_successor_ends_the_lines_of_the_run_before_only_if_nobody_has() {
    let scratch = Scratch::new();
    scratch.writer(scratch.begin()).write(Stream::Stdout, b"half", NOW).unwrap();
    let start = scratch.begin();
    // The first run was killed before it wrote, the second in the middle of a line.
    drop(scratch.writer(start));
    scratch.writer(start).write(Stream::Stdout, b"one ", NOW).unwrap();
    scratch.writer(start).write(Stream::Stdout, b"line\n", NOW).unwrap();
    assert_eq!(scratch.records(), ["stdout P half", "stdout F ", "stdout P one ", "stdout F line"]);
}

#[test]
fn a_first_write_that_was_cut_off_anywhere_is_repeated_with_the_ends_of_the_lines_before_it() {
    let make = |scratch: &Scratch| {
        scratch.writer(scratch.begin()).write(Stream::Stdout, b"half", NOW).unwrap();
        let start = scratch.begin();
        let mut writer = scratch.writer(start);
        let position = writer.stage(Stream::Stdout, b"next\n", NOW).unwrap();
        (writer, RunStart { is_after_loss: true, ..start }, position)
    };
    let (scratch, begin) = (Scratch::new(), std::fs::metadata);
    let (_, start, position) = make(&scratch);
    let before = begin(scratch.path()).unwrap().len();
    scratch.writer(start).write(Stream::Stdout, b"next\n", NOW).unwrap();
    let whole = std::fs::read(scratch.path()).unwrap();
    assert_eq!(position.offset, before);
    for cut in usize::try_from(before).unwrap()..=whole.len() {
        let scratch = Scratch::new();
        let (writer, start, position) = make(&scratch);
        drop(writer);
        use std::io::Write;
        let file = std::fs::File::options().append(true).open(scratch.path());
        file.unwrap().write_all(&whole[usize::try_from(before).unwrap()..cut]).unwrap();
        let mut successor = scratch.writer(start);
        for _ in 0..2 {
            successor.redo(Stream::Stdout, b"next\n", NOW, position).unwrap();
            assert_eq!(std::fs::read(scratch.path()).unwrap(), whole, "cut at {cut}");
        }
    }
}

#[test]
fn the_beginning_of_a_run_is_not_rotated_away_from_the_line_that_it_ends() {
    let scratch = Scratch::new();
    scratch.writer(scratch.begin()).write(Stream::Stdout, &[b'x'; 300], NOW).unwrap();
    let start = scratch.begin();
    let rotation = Rotation { max_bytes: 200, max_files: 3 };
    let mut writer = LogWriter::open(scratch.log(), rotation).unwrap().with_start(start);
    writer.write(Stream::Stdout, b"next\n", NOW).unwrap();
    writer.write(Stream::Stdout, b"rotated\n", NOW).unwrap();
    assert_eq!(scratch.records(), ["stdout F rotated"]);
    let old = std::fs::read_to_string(scratch.0.path().join("ns/web.log.1")).unwrap();
    assert!(old.contains(" stdout F \n") && old.ends_with(" stdout F next\n"), "{old}");
}

#[test]
fn a_rotation_on_demand_goes_on_in_the_next_file_and_leaves_the_beginning_of_a_run_where_it_is() {
    let scratch = Scratch::new();
    let aged = |age: u32| scratch.path().with_extension(format!("log.{age}"));
    scratch.begin();
    let mut first = LogWriter::open(scratch.log(), Rotation { max_bytes: u64::MAX, max_files: 3 }).unwrap();
    first.rotate_now().unwrap();
    assert!(!aged(1).exists(), "an empty file is not rotated");
    first.write(Stream::Stdout, b"one\nhalf", NOW).unwrap();
    first.rotate_now().unwrap();
    first.write(Stream::Stdout, b" and half\n", NOW).unwrap();
    assert_eq!(scratch.records(), ["stdout F  and half"]);
    // The next run has said nothing yet, and a reader was told that it begins in this file.
    let mut second = scratch.writer(scratch.begin());
    second.rotate_now().unwrap();
    assert!(!aged(2).exists());
    second.write(Stream::Stdout, b"two\n", NOW).unwrap();
    let mut reader = LogReader::open(scratch.log(), Tail::All).unwrap();
    let items = reader.read_records(1 << 20).unwrap();
    let text = |item: LogItem| match item {
        LogItem::Record(record) => String::from_utf8(record.content).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(items.into_iter().map(text).collect::<Vec<_>>(), ["one", "half", " and half", "two"]);
}

#[test]
fn a_loss_before_a_run_is_told_once_and_only_when_the_run_says_something() {
    let scratch = Scratch::new();
    scratch.writer(scratch.begin()).write(Stream::Stdout, b"half", NOW).unwrap();
    let start = RunStart { is_after_loss: true, ..scratch.begin() };
    let mut writer = scratch.writer(start);
    assert_eq!(scratch.records().len(), 1);
    writer.write(Stream::Stdout, b"a\n", NOW).unwrap();
    writer.write(Stream::Stdout, b"b\n", NOW).unwrap();
    let records = scratch.records();
    assert_eq!(records[1], "stdout F ");
    assert!(records[2].starts_with("stderr F [contd: output before this line was lost"), "{records:?}");
    assert_eq!(records[3..], ["stdout F a", "stdout F b"]);
}

#[test]
fn a_writer_whose_log_cannot_be_opened_waits_for_it() {
    let scratch = Scratch::new();
    let start = scratch.begin();
    std::fs::rename(scratch.path(), scratch.path().with_extension("away")).unwrap();
    std::fs::write(scratch.path(), "precious").unwrap();
    let mut writer = LogWriter::closed(scratch.log(), Rotation::never()).with_start(start);
    assert!(writer.write(Stream::Stdout, b"text\n", NOW).is_err());
    assert_eq!(std::fs::read_to_string(scratch.path()).unwrap(), "precious");
    std::fs::rename(scratch.path().with_extension("away"), scratch.path()).unwrap();
    writer.write(Stream::Stdout, b"text\n", NOW).unwrap();
    assert_eq!(scratch.records(), ["stdout F text"]);
}
