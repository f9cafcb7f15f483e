//! The log directory is shared: files that contd did not make are never opened, written, moved or removed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use contd_logs::{
    LogError, LogFiles, LogItem, LogReader, LogWriter, Part, Rotation, StoredFile, StoredLogs, Stream, Tail,
};
use contd_types::{ErrorKind, Explain, Timestamp};

const NOW: Timestamp = Timestamp(1_764_000_000_000_000_000);
const ONE: &str = "11111111111111111111111111111111";
const TWO: &str = "22222222222222222222222222222222";

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        let scratch = Self(tempfile::tempdir().unwrap());
        fs::create_dir(scratch.root()).unwrap();
        scratch
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("log")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    fn notes(&self) -> PathBuf {
        self.0.path().join("notes")
    }

    fn log(&self, owner: &str) -> LogFiles {
        LogFiles::marked(&self.path("ns/web.log"), owner, self.notes())
    }

    fn stored(&self) -> StoredLogs {
        StoredLogs::new(self.root(), self.notes())
    }
}

/// Prepares a log; fails when a file of another container is at its name.
fn prepare(log: &LogFiles) -> Result<contd_logs::RunStart, LogError> {
    log.prepare(true, 5, |_| panic!("there is nothing to take away"))
}

fn write(log: &LogFiles, text: &str) {
    LogWriter::open(log.clone(), Rotation::never()).unwrap().write(Stream::Stdout, text.as_bytes(), NOW).unwrap();
}

fn read(log: &LogFiles) -> String {
    let mut reader = LogReader::open(log.clone(), Tail::All).unwrap();
    let items = reader.read_records(1 << 20).unwrap();
    let text = |item| match item {
        LogItem::Record(record) if record.is_partial => record.content,
        LogItem::Record(record) => [record.content, b"\n".to_vec()].concat(),
        other => panic!("{other:?}"),
    };
    String::from_utf8(items.into_iter().map(text).collect::<Vec<_>>().concat()).unwrap()
}

#[track_caller]
fn assert_foreign(result: Result<impl std::fmt::Debug, LogError>, path: &Path) {
    match result {
        Err(error @ LogError::Foreign { .. }) => {
            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("another name or namespace")));
        }
        other => panic!("{other:?}"),
    }
}

/// Lists everything below a directory, with the attributes that identify each file.
fn inventory(dir: &Path) -> Vec<(PathBuf, u32, u64, u64, Vec<u8>)> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let there = entry.path().symlink_metadata().unwrap();
            let content = if there.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
            if there.is_dir() {
                dirs.push(entry.path());
            }
            found.push((entry.path(), there.mode(), there.ino(), there.nlink(), content));
        }
    }
    found.sort();
    found
}

#[test]
fn whatever_has_the_name_of_a_log_is_refused_at_once_and_stays_as_it_is() {
    type Plant<'a> = &'a dyn Fn(&Path);
    let plant: [(&str, Plant<'_>); 6] = [
        ("a file", &|path| fs::write(path, "precious").unwrap()),
        ("an empty file", &|path| fs::write(path, "").unwrap()),
        ("a link", &|path| symlink(path.with_file_name("nowhere"), path).unwrap()),
        ("a hard link", &|path| {
            fs::write(path.with_file_name("other"), "precious").unwrap();
            fs::hard_link(path.with_file_name("other"), path).unwrap();
        }),
        ("a FIFO", &|path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success())),
        ("a directory", &|path| fs::create_dir(path).unwrap()),
    ];
    for name in ["web.log", "web.log.1", "web.log.4"] {
        for (what, plant) in plant {
            let scratch = Scratch::new();
            fs::create_dir(scratch.path("ns")).unwrap();
            let path = scratch.path("ns").join(name);
            plant(&path);
            let before = inventory(&scratch.root());
            // Opening the FIFO would wait for its other end forever.
            assert_foreign(prepare(&scratch.log(ONE)), &path);
            if name == "web.log" {
                assert_foreign(LogWriter::open(scratch.log(ONE), Rotation::never()), &path);
                assert_foreign(LogReader::open(scratch.log(ONE), Tail::All), &path);
            }
            scratch.log(ONE).remove().unwrap();
            assert_eq!(scratch.log(ONE).keep().unwrap(), 0);
            scratch.log(ONE).clear_up().unwrap();
            assert_eq!(inventory(&scratch.root()), before, "{what} at {name}");
        }
    }
}

#[test]
fn a_name_beyond_those_of_rotation_is_nobodys_business() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("ns")).unwrap();
    fs::write(scratch.path("ns/web.log.5"), "precious").unwrap();
    fs::write(scratch.path("ns/web.log.gz"), "precious").unwrap();
    prepare(&scratch.log(ONE)).unwrap();
    scratch.log(ONE).remove().unwrap();
    scratch.log(ONE).clear_up().unwrap();
    let left: Vec<_> = inventory(&scratch.root()).into_iter().map(|entry| entry.0).collect();
    assert_eq!(left, ["ns", "ns/web.log.5", "ns/web.log.gz"].map(|name| scratch.path(name)));
}

#[test]
fn a_directory_that_was_there_stays_and_one_of_ours_goes_when_it_is_empty() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("ns")).unwrap();
    fs::set_permissions(scratch.path("ns"), fs::Permissions::from_mode(0o2750)).unwrap();
    std::os::unix::fs::chown(scratch.path("ns"), Some(12), Some(34)).unwrap();
    prepare(&scratch.log(ONE)).unwrap();
    scratch.log(ONE).remove().unwrap();
    scratch.log(ONE).clear_up().unwrap();
    let there = fs::metadata(scratch.path("ns")).unwrap();
    assert_eq!((there.mode() & 0o7777, there.uid(), there.gid()), (0o2750, 12, 34));
    fs::remove_dir(scratch.path("ns")).unwrap();
    prepare(&scratch.log(ONE)).unwrap();
    fs::write(scratch.path("ns/other"), "").unwrap();
    scratch.log(ONE).remove().unwrap();
    scratch.log(ONE).clear_up().unwrap();
    assert!(scratch.path("ns/other").exists());
    fs::remove_file(scratch.path("ns/other")).unwrap();
    scratch.log(ONE).clear_up().unwrap();
    assert!(!scratch.path("ns").exists());
}

#[test]
fn a_link_in_the_place_of_the_directory_is_refused() {
    let scratch = Scratch::new();
    let elsewhere = scratch.0.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, scratch.path("ns")).unwrap();
    assert_foreign(prepare(&scratch.log(ONE)), &scratch.path("ns"));
    scratch.log(ONE).remove().unwrap();
    assert_eq!(scratch.log(ONE).keep().unwrap(), 0);
    scratch.log(ONE).clear_up().unwrap();
    fs::remove_file(scratch.path("ns")).unwrap();
    fs::write(scratch.path("ns"), "a file").unwrap();
    assert_foreign(prepare(&scratch.log(ONE)), &scratch.path("ns"));
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn rotation_stops_before_a_file_of_others_that_appeared_meanwhile_and_loses_nothing() {
    let scratch = Scratch::new();
    prepare(&scratch.log(ONE)).unwrap();
    let mut writer = LogWriter::open(scratch.log(ONE), Rotation { max_bytes: 200, max_files: 3 }).unwrap();
    fs::write(scratch.path("ns/web.log.1"), "precious").unwrap();
    for number in 0..20 {
        writer.write(Stream::Stdout, format!("{number}\n").as_bytes(), NOW).unwrap();
    }
    assert!(matches!(writer.take_rotation_error(), Some(LogError::Foreign { .. })));
    assert_eq!(fs::read_to_string(scratch.path("ns/web.log.1")).unwrap(), "precious");
    let all: String = (0..20).map(|number| format!("{number}\n")).collect();
    assert_eq!(read(&scratch.log(ONE)), all, "and a reader does not take it for ours");
    // After the foreign file is removed, rotation works again, and the rotated files are ours.
    fs::remove_file(scratch.path("ns/web.log.1")).unwrap();
    for _ in 0..100 {
        writer.write(Stream::Stdout, b"more\n", NOW).unwrap();
    }
    let names = inventory(&scratch.path("ns")).into_iter().map(|entry| entry.0.file_name().unwrap().to_owned());
    assert_eq!(names.collect::<Vec<_>>(), ["web.log", "web.log.1", "web.log.2"]);
    scratch.log(ONE).remove().unwrap();
    scratch.log(ONE).clear_up().unwrap();
    assert_eq!(inventory(&scratch.root()), []);
}

#[test]
fn a_file_of_others_in_the_place_of_a_log_that_was_renamed_is_not_written() {
    let scratch = Scratch::new();
    prepare(&scratch.log(ONE)).unwrap();
    let mut writer = LogWriter::open(scratch.log(ONE), Rotation { max_bytes: 100, max_files: 3 }).unwrap();
    writer.write(Stream::Stdout, b"before\n", NOW).unwrap();
    fs::rename(scratch.path("ns/web.log"), scratch.path("ns/moved")).unwrap();
    fs::write(scratch.path("ns/web.log"), "precious").unwrap();
    assert_foreign(writer.reopen(), &scratch.path("ns/web.log"));
    for _ in 0..10 {
        writer.write(Stream::Stdout, b"after\n", NOW).unwrap();
    }
    assert_eq!(fs::read_to_string(scratch.path("ns/web.log")).unwrap(), "precious");
    assert_eq!(fs::read_to_string(scratch.path("ns/moved")).unwrap().lines().count(), 11);
}

#[test]
fn the_log_of_one_container_is_not_that_of_the_next() {
    let scratch = Scratch::new();
    prepare(&scratch.log(ONE)).unwrap();
    write(&scratch.log(ONE), "one\n");
    // It bears another owner's mark, so it is refused even when unmarked files are accepted.
    assert!(scratch.log(TWO).with_unmarked().prepare(false, 5, |_| Ok(())).is_err());
    scratch.log(TWO).remove().unwrap();
    scratch.log(TWO).with_unmarked().remove().unwrap();
    assert_eq!(read(&scratch.log(ONE)), "one\n");
    scratch.log(TWO).prepare(true, 5, |left| left.keep().map(drop)).unwrap();
    write(&scratch.log(TWO), "two\n");
    scratch.log(ONE).remove().unwrap();
    assert_eq!(read(&scratch.log(TWO)), "two\n");
    assert_eq!(read(&scratch.stored().find("ns", ONE).unwrap().unwrap()), "one\n");
}

#[test]
fn a_log_from_before_there_were_marks_is_ours_when_the_record_says_so() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("ns")).unwrap();
    let old = LogFiles::by_name(&scratch.path("ns/web.log"));
    let mut writer = LogWriter::open(old, Rotation { max_bytes: 100, max_files: 3 }).unwrap();
    (0..5).for_each(|n| writer.write(Stream::Stdout, format!("{n}\n").as_bytes(), NOW).unwrap());
    assert!(scratch.log(ONE).prepare(false, 5, |_| Ok(())).is_err(), "without its record it is anybody's");
    assert_eq!(read(&scratch.log(ONE).with_unmarked()), "0\n1\n2\n3\n4\n");
    scratch.log(ONE).with_unmarked().prepare(false, 5, |_| Ok(())).unwrap();
    assert_eq!(read(&scratch.log(ONE)), "0\n1\n2\n3\n4\n", "it is marked now");
    scratch.log(ONE).remove().unwrap();
    assert_eq!(fs::read_dir(scratch.path("ns")).unwrap().count(), 0);
}

#[test]
fn a_file_system_without_attributes_has_notes_instead() {
    let scratch = Scratch::new();
    let mounted = Command::new("mount").args(["-t", "ramfs", "ramfs"]).arg(scratch.root()).status();
    assert!(mounted.unwrap().success(), "this test mounts a ramfs: run it as root");
    let result = std::panic::catch_unwind(|| {
        prepare(&scratch.log(ONE)).unwrap();
        let mut writer = LogWriter::open(scratch.log(ONE), Rotation { max_bytes: 200, max_files: 3 }).unwrap();
        (0..100).for_each(|n| writer.write(Stream::Stdout, format!("{n}\n").as_bytes(), NOW).unwrap());
        assert!(writer.take_rotation_error().is_none());
        assert_eq!(fs::read_dir(scratch.path("ns")).unwrap().count(), 3);
        assert!(read(&scratch.log(ONE)).ends_with("98\n99\n"));
        // Three files and a directory: the notes on files that rotation removed are gone.
        assert_eq!(fs::read_dir(scratch.notes()).unwrap().count(), 4);
        fs::write(scratch.path("ns/api.log"), "precious").unwrap();
        let api = LogFiles::marked(&scratch.path("ns/api.log"), TWO, scratch.notes());
        assert_foreign(prepare(&api), &scratch.path("ns/api.log"));
        assert!(scratch.log(ONE).keep().unwrap() > 0);
        let removed = scratch.stored();
        let kept = removed.list("ns").unwrap();
        assert_eq!(kept.len(), 3);
        fs::remove_file(scratch.path("ns/api.log")).unwrap();
        kept.iter().for_each(|file| removed.remove(file).unwrap());
        assert_eq!(inventory(&scratch.root()), []);
        assert_eq!(fs::read_dir(scratch.notes()).unwrap().count(), 0);
    });
    contd_test_harness::mounted::unmount(&scratch.root());
    result.unwrap();
}

#[test]
fn logs_of_removed_containers_are_kept_beside_each_other_and_found_by_name_and_id() {
    let scratch = Scratch::new();
    for (owner, text) in [(ONE, "one\n"), (TWO, "two\n")] {
        let log = scratch.log(owner);
        prepare(&log).unwrap();
        write(&log, text);
        assert!(log.keep().unwrap() > 0);
        log.clear_up().unwrap();
    }
    let removed = scratch.stored();
    assert!(scratch.path("ns/.removed/web.111111111111.log").is_file());
    assert_eq!(removed.namespaces().unwrap(), ["ns"]);
    assert_eq!(read(&removed.find("ns", "1111").unwrap().unwrap()), "one\n");
    assert_eq!(read(&removed.find("ns", "web").unwrap().unwrap()), "two\n", "the last of the name");
    assert!(removed.find("ns", "we").unwrap().is_none() && removed.find("other", "web").unwrap().is_none());
    // Files that other programs put there are neither counted nor removed.
    fs::write(scratch.path("ns/.removed/mine.333333333333.log"), "precious").unwrap();
    let kept = removed.list("ns").unwrap();
    assert_eq!(kept.len(), 2);
    kept.iter().for_each(|file| removed.remove(file).unwrap());
    assert!(scratch.path("ns/.removed/mine.333333333333.log").exists());
}

#[test]
fn all_files_of_all_logs_are_listed_and_a_name_that_is_another_files_by_now_is_not_removed() {
    let scratch = Scratch::new();
    prepare(&scratch.log(ONE)).unwrap();
    let mut writer = LogWriter::open(scratch.log(ONE), Rotation { max_bytes: u64::MAX, max_files: 3 }).unwrap();
    for text in ["first\n", "second\n", "third\n"] {
        writer.rotate_now().unwrap();
        writer.write(Stream::Stdout, text.as_bytes(), NOW).unwrap();
    }
    fs::write(scratch.path("ns/other.log.1"), "precious").unwrap();
    fs::write(scratch.path("ns/web.log.old"), "precious").unwrap();
    let stored = scratch.stored();
    let mut all = stored.list("ns").unwrap();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    let seen = |all: &[StoredFile]| -> Vec<_> {
        all.iter()
            .map(|file| (file.name.to_str().unwrap().to_owned(), file.part, file.container() == Some("web")))
            .collect()
    };
    let expected = [("web.log", Part::Written), ("web.log.1", Part::Rotated), ("web.log.2", Part::Rotated)];
    assert_eq!(seen(&all), expected.map(|(name, part)| (name.to_owned(), part, true)));
    assert_eq!(stored.list_removed("ns").unwrap(), []);
    // The oldest name is the next file's after one more rotation.
    writer.rotate_now().unwrap();
    stored.remove(&all[2]).unwrap();
    assert!(scratch.path("ns/web.log.2").exists());
    for file in stored.list("ns").unwrap().iter().filter(|file| file.part == Part::Rotated) {
        stored.remove(file).unwrap();
    }
    writer.write(Stream::Stdout, b"fourth\n", NOW).unwrap();
    assert_eq!(read(&scratch.log(ONE)), "fourth\n");
    assert_eq!(fs::read_to_string(scratch.path("ns/other.log.1")).unwrap(), "precious");
    let disk = stored.disk().unwrap();
    assert!(disk.bytes > 0 && disk.taken_bytes <= disk.bytes);
}

#[test]
fn a_log_without_a_byte_is_not_kept_and_a_directory_of_others_not_used() {
    let scratch = Scratch::new();
    prepare(&scratch.log(ONE)).unwrap();
    assert_eq!(scratch.log(ONE).keep().unwrap(), 0);
    scratch.log(ONE).clear_up().unwrap();
    assert_eq!(inventory(&scratch.root()), []);
    prepare(&scratch.log(ONE)).unwrap();
    write(&scratch.log(ONE), "text\n");
    fs::write(scratch.path("ns/.removed"), "precious").unwrap();
    assert_foreign(scratch.log(ONE).keep(), &scratch.path("ns/.removed"));
    assert_eq!(read(&scratch.log(ONE)), "text\n", "it is still there");
}
