//! The answers to a program on the mount: every errno of docs/flist-serving.md, the figures, and that metadata never waits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::served::Served;
use contd_flist::BLOCK_SIZE;
use contd_test_harness::mounted::{fixture, manifest};
use nix::errno::Errno;
use nix::unistd::Whence;

#[track_caller]
fn assert_errno<T>(result: io::Result<T>, wanted: Errno) {
    let error = result.err().expect("an error");
    assert_eq!(error.raw_os_error().map(Errno::from_raw), Some(wanted), "{error}");
}

/// Finds a regular file of the fixture with at least so many bytes.
fn large(root: &Path, least: u64) -> (std::path::PathBuf, u64) {
    let entries = manifest("small");
    let entry = entries.iter().find(|entry| entry.kind == "file" && entry.size.is_some_and(|size| size >= least));
    let entry = entry.expect("such a file");
    (root.join(&entry.path[1..]), entry.size.unwrap())
}

#[test]
fn every_documented_errno_is_what_a_program_sees() {
    let scratch = tempfile::tempdir().unwrap();
    let served = Served::passing(scratch.path(), &fixture("small", scratch.path()));
    let (mnt, file) = (&served.mnt, served.mnt.join("etc/hostname"));
    for _kernel_then_remembered in 0..2 {
        assert_errno(fs::metadata(mnt.join("none")), Errno::ENOENT);
        assert_errno(fs::metadata(mnt.join("x".repeat(256))), Errno::ENAMETOOLONG);
        assert_errno(fs::metadata(file.join("below")), Errno::ENOTDIR);
        assert_errno(fs::read_dir(&file), Errno::ENOTDIR);
        assert_errno(fs::read_link(&file), Errno::EINVAL);
        assert_errno(fs::read(mnt.join("etc")), Errno::EISDIR);
        assert_errno(fs::write(&file, b"x"), Errno::EROFS);
        assert_errno(fs::remove_file(&file), Errno::EROFS);
        assert_errno(fs::create_dir(mnt.join("new")), Errno::EROFS);
        let device = manifest("small").into_iter().find(|entry| entry.kind == "char").expect("a device");
        let opened = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(mnt.join(&device.path[1..]));
        assert_errno(opened, Errno::EACCES);
    }
    let listed = Command::new("getfattr").args(["-d", "-m-"]).arg(&file).output();
    if let Ok(output) = listed {
        assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let output = Command::new("stty").arg("-F").arg(&file).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("Inappropriate ioctl"), "{output:?}");
    served.stop();
}

#[test]
fn seeking_locking_and_the_figures_are_those_of_a_full_file_system_without_holes() {
    let scratch = tempfile::tempdir().unwrap();
    let served = Served::passing(scratch.path(), &fixture("small", scratch.path()));
    let (path, size) = large(&served.mnt, BLOCK_SIZE as u64 + 1);
    let file = File::open(&path).unwrap();
    let seek = |offset: u64, whence| nix::unistd::lseek(&file, i64::try_from(offset).unwrap(), whence);
    assert_eq!(seek(0, Whence::SeekData), Ok(0));
    assert_eq!(seek(5, Whence::SeekHole), Ok(i64::try_from(size).unwrap()));
    assert_eq!(seek(size, Whence::SeekData), Err(Errno::ENXIO));
    let mut buffer = [0xa5; 16];
    assert_eq!(file.read_at(&mut buffer, size - 3).unwrap(), 3);
    assert_eq!(file.read_at(&mut buffer, size).unwrap(), 0);
    assert_eq!(file.read_at(&mut buffer, u64::from(u32::MAX)).unwrap(), 0);
    file.try_lock().unwrap();
    assert!(File::open(&path).unwrap().try_lock().is_err(), "locks hold between handles");
    file.unlock().unwrap();
    let figures = nix::sys::statvfs::statvfs(&served.mnt).unwrap();
    let content: u64 =
        manifest("small").iter().filter(|entry| entry.kind == "file").filter_map(|entry| entry.size).sum();
    assert_eq!(figures.blocks(), content.div_ceil(figures.fragment_size()));
    assert_eq!(figures.files(), u64::try_from(manifest("small").len()).unwrap());
    assert_eq!((figures.blocks_free(), figures.files_free(), figures.name_max()), (0, 0, 255));
    drop(file);
    served.stop();
}

#[test]
fn nothing_that_was_answered_once_is_asked_again() {
    let scratch = tempfile::tempdir().unwrap();
    let served = Served::passing(scratch.path(), &fixture("small", scratch.path()));
    let walk = || {
        // Not `find`, which asks for the figures of the file system each time.
        let output = Command::new("ls").args(["-lnR"]).arg(&served.mnt).output().unwrap();
        let missing = (0..100).map(|number| OsString::from(format!("missing-{number}")));
        assert!(missing.into_iter().all(|name| !served.mnt.join(name).exists()));
        output.stdout
    };
    let first = walk();
    let requests = served.ops.requests();
    assert!(requests > 100, "{requests}");
    assert!(walk() == first);
    assert_eq!(served.ops.requests(), requests, "the second walk was answered by the kernel");
    served.stop();
}

#[test]
fn metadata_and_cached_content_do_not_wait_for_a_store_that_is_silent() {
    let scratch = tempfile::tempdir().unwrap();
    let flist = fixture("small", scratch.path());
    // All that is needed later is here before the store falls silent.
    let warm = Served::passing(scratch.path(), &flist);
    let hostname = fs::read(warm.mnt.join("etc/hostname")).unwrap();
    warm.stop();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let database = rusqlite::Connection::open(&flist).unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    database.execute("update route set url = ?1", [url]).unwrap();
    drop(database);
    let served = Served::passing(scratch.path(), &flist);
    let paths: Vec<_> =
        manifest("small").into_iter().filter(|entry| entry.kind == "file").map(|entry| entry.path).collect();
    // Processes, not threads: a thread of this process that waits for this process could not be ended.
    let start = |program: &str, path: &Path| {
        Command::new(program).arg(path).stdout(Stdio::piped()).spawn().expect("start a reader")
    };
    let far = paths.iter().filter(|path| !path.ends_with("/hostname")).take(12);
    let mut readers: Vec<_> = far.map(|path| start("cat", &served.mnt.join(&path[1..]))).collect();
    let asked = [start("find", &served.mnt), start("cat", &served.mnt.join("etc/hostname"))];
    let (done, is_done) = mpsc::channel();
    let askers = asked.map(|asked| {
        let done = done.clone();
        std::thread::spawn(move || done.send(asked.wait_with_output().unwrap().stdout).unwrap())
    });
    let wait = || is_done.recv_timeout(Duration::from_secs(300)).expect("an answer while the store is silent");
    let answers = [wait(), wait()];
    assert!(answers.contains(&hostname) && answers.iter().any(|answer| answer.len() > 100));
    askers.into_iter().for_each(|asker| asker.join().unwrap());
    assert!(readers.iter_mut().any(|reader| reader.try_wait().unwrap().is_none()), "the store was not silent");
    // Their files cannot be had; what they are told is EIO, when the connections end.
    drop(silent);
    readers.iter_mut().for_each(|reader| _ = reader.kill());
    readers.iter_mut().for_each(|reader| _ = reader.wait().unwrap());
    served.stop();
}
