//! A full disk: no record is written by half, no file is moved in vain, and logging continues once there is space.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use contd_logs::{LogError, LogFiles, LogWriter, Rotation, Stream};
use contd_types::{ErrorKind, Explain, Timestamp};

const NOW: Timestamp = Timestamp(1_764_000_000_000_000_000);

/// Runs `work` in a small file system of its own.
fn on_small(options: &str, work: impl FnOnce(&Path)) {
    let scratch = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(scratch.path()).status();
    assert!(mounted.unwrap().success(), "this test mounts a tmpfs: run it as root");
    let result = catch_unwind(AssertUnwindSafe(|| work(scratch.path())));
    contd_test_harness::mounted::unmount(scratch.path());
    result.unwrap();
}

/// Uses up every free inode.
fn fill(root: &Path) -> Vec<PathBuf> {
    (0..).map(|number| root.join(format!("filler{number}"))).take_while(|path| fs::write(path, "").is_ok()).collect()
}

fn free(fillers: &[PathBuf]) {
    fillers.iter().for_each(|path| fs::remove_file(path).unwrap());
}

fn log(root: &Path) -> LogFiles {
    LogFiles::marked(&root.join("ns/web.log"), "one", root.join("notes"))
}

fn names(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.join("ns")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn without_an_inode_for_the_next_file_rotation_moves_nothing_and_the_log_goes_on_where_it_is() {
    // These take the inodes: the root, the directory, the log, its first rotated file.
    for max_files in [1, 2, 3] {
        on_small("size=1m,nr_inodes=5", |root| {
            log(root).prepare(true, max_files, |_| panic!("nothing to take away")).unwrap();
            let mut writer = LogWriter::open(log(root), Rotation { max_bytes: 400, max_files }).unwrap();
            let mut count = 0;
            let mut say = |writer: &mut LogWriter, lines: u32| {
                for _ in 0..lines {
                    count += 1;
                    writer.write(Stream::Stdout, format!("{count}\n").as_bytes(), NOW).unwrap();
                }
            };
            say(&mut writer, 3);
            let fillers: Vec<_> =
                (0..).map(|n| root.join(format!("filler{n}"))).take_while(|path| fs::write(path, "").is_ok()).collect();
            say(&mut writer, 20);
            let error = writer.take_rotation_error().expect("it was due");
            assert!(matches!(error, LogError::Rotate { .. }) && error.kind() == ErrorKind::OutOfResources, "{error:?}");
            assert_eq!(names(root), ["web.log"]);
            let text = fs::read_to_string(root.join("ns/web.log")).unwrap();
            assert_eq!(text.lines().count(), 23, "all of it is there");
            free(&fillers);
            say(&mut writer, 10);
            assert!(writer.size_bytes() < text.len().try_into().unwrap(), "it was not rotated once there was room");
            assert_eq!(names(root).len(), usize::try_from(max_files.min(2)).unwrap());
        });
    }
}

#[test]
fn a_log_that_cannot_be_made_leaves_nothing() {
    on_small("size=1m,nr_inodes=2", |root| {
        let error = log(root).prepare(true, 3, |_| panic!("nothing to take away")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfResources, "{error:?}");
        log(root).remove().unwrap();
        log(root).clear_up().unwrap();
        assert_eq!(fs::read_dir(root).unwrap().count(), 0);
    });
}

#[test]
fn a_log_that_cannot_be_kept_for_lack_of_room_can_still_be_removed() {
    on_small("size=1m,nr_inodes=4", |root| {
        log(root).prepare(true, 1, |_| panic!("nothing to take away")).unwrap();
        LogWriter::open(log(root), Rotation::never()).unwrap().write(Stream::Stdout, b"text\n", NOW).unwrap();
        let fillers = fill(root);
        assert_eq!(log(root).keep().unwrap_err().kind(), ErrorKind::OutOfResources);
        assert_eq!(names(root), ["web.log"]);
        log(root).remove().unwrap();
        log(root).clear_up().unwrap();
        free(&fillers);
        assert_eq!(fs::read_dir(root).unwrap().count(), 0);
    });
}
