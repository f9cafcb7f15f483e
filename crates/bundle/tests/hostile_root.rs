//! Hostile roots: none of their files may lead outside the root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use contd_bundle::root_file::{RootFileError, read_in_root};

/// The time limit of a read that must not block.
const PATIENCE: Duration = Duration::from_secs(300);

/// The most bytes that are read.
const CAP: u64 = 1024 * 1024;

const SECRET: &[u8] = b"outside";

/// A directory with `root/etc` and, beside the root, a file that must not be read.
struct Hostile {
    dir: tempfile::TempDir,
}

impl Hostile {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::create_dir_all(dir.path().join("root/etc")).expect("etc");
        fs::write(dir.path().join("secret"), SECRET).expect("secret");
        Self { dir }
    }

    fn passwd(&self) -> std::path::PathBuf {
        self.dir.path().join("root/etc/passwd")
    }

    /// Reads on another thread, so that a read that blocks fails the test instead of hanging it.
    #[track_caller]
    fn read(&self) -> Result<Option<Vec<u8>>, RootFileError> {
        let root = self.dir.path().join("root");
        let (tell, hear) = mpsc::channel();
        std::thread::spawn(move || tell.send(read_in_root(&root, Path::new("/etc/passwd"), CAP)));
        hear.recv_timeout(PATIENCE).expect("reading /etc/passwd of the root blocked")
    }
}

#[test]
fn a_plain_file_is_read_and_an_absent_one_is_none() {
    let hostile = Hostile::new();
    assert_eq!(hostile.read().expect("absent"), None);
    fs::write(hostile.passwd(), "x").expect("write");
    assert_eq!(hostile.read().expect("plain").as_deref(), Some(&b"x"[..]));
}

#[test]
fn a_symlink_to_a_file_of_the_host_finds_nothing() {
    let hostile = Hostile::new();
    let secret = hostile.dir.path().join("secret");
    for target in [secret.as_path(), Path::new("../../secret"), Path::new("../../../../../../../../etc/shadow")] {
        symlink(target, hostile.passwd()).expect("symlink");
        assert_eq!(hostile.read().expect("nothing"), None, "{}", target.display());
        fs::remove_file(hostile.passwd()).expect("remove");
    }
}

#[test]
fn a_symlink_into_the_hosts_proc_finds_nothing() {
    for target in ["/proc/self/environ", "/proc/self/root/etc/passwd", "/proc/self/fd/0"] {
        let hostile = Hostile::new();
        symlink(target, hostile.passwd()).expect("symlink");
        assert_eq!(hostile.read().expect("nothing"), None, "{target}");
    }
}

#[test]
fn an_absolute_symlink_is_followed_inside_the_root() {
    let hostile = Hostile::new();
    fs::create_dir_all(hostile.dir.path().join("root/usr/etc")).expect("dir");
    fs::write(hostile.dir.path().join("root/usr/etc/users"), "inside").expect("write");
    symlink("/usr/etc/users", hostile.passwd()).expect("symlink");
    assert_eq!(hostile.read().expect("inside").as_deref(), Some(&b"inside"[..]));
}

#[test]
fn a_symlinked_directory_cannot_lead_out_either() {
    let hostile = Hostile::new();
    fs::remove_dir(hostile.dir.path().join("root/etc")).expect("rmdir");
    symlink("/etc", hostile.dir.path().join("root/etc")).expect("symlink");
    let refused = hostile.read();
    assert!(matches!(refused, Err(RootFileError::Follow { .. })), "etc -> /etc is a loop inside the root: {refused:?}");
}

#[test]
fn a_fifo_is_refused_without_blocking() {
    let hostile = Hostile::new();
    let made = Command::new("mkfifo").arg(hostile.passwd()).status().expect("mkfifo");
    assert!(made.success());
    assert!(matches!(hostile.read(), Err(RootFileError::NotRegular { .. })));
}

#[test]
fn a_directory_and_a_device_are_refused() {
    let hostile = Hostile::new();
    fs::create_dir(hostile.passwd()).expect("mkdir");
    assert!(matches!(hostile.read(), Err(RootFileError::NotRegular { .. })));
    fs::remove_dir(hostile.passwd()).expect("rmdir");
    let made = Command::new("mknod").arg(hostile.passwd()).args(["c", "1", "5"]).status().expect("mknod");
    assert!(made.success());
    assert!(matches!(hostile.read(), Err(RootFileError::NotRegular { .. })));
}

#[test]
fn more_than_the_cap_is_refused_and_exactly_the_cap_is_read() {
    let hostile = Hostile::new();
    let cap = usize::try_from(CAP).expect("fits");
    fs::write(hostile.passwd(), vec![b'x'; 2 * cap]).expect("write");
    assert!(matches!(hostile.read(), Err(RootFileError::TooLarge { .. })));
    fs::write(hostile.passwd(), vec![b'x'; cap]).expect("write");
    assert_eq!(hostile.read().expect("cap").map(|bytes| bytes.len()), Some(cap));
}

#[test]
fn a_symlink_loop_ends_in_an_error() {
    let hostile = Hostile::new();
    symlink("group", hostile.passwd()).expect("symlink");
    symlink("passwd", hostile.dir.path().join("root/etc/group")).expect("symlink");
    assert!(matches!(hostile.read(), Err(RootFileError::Follow { .. })));
}

#[test]
fn a_procfs_inside_the_root_is_not_entered() {
    let hostile = Hostile::new();
    let proc = hostile.dir.path().join("root/proc");
    fs::create_dir(&proc).expect("mkdir");
    symlink("/proc/self/environ", hostile.passwd()).expect("symlink");
    let mounted = Command::new("mount").args(["-t", "proc", "proc"]).arg(&proc).status().expect("mount");
    assert!(mounted.success());
    // Catch a panic, so that the mount is removed before the failure is reported.
    let refused = std::panic::catch_unwind(|| hostile.read());
    contd_test_harness::mounted::unmount(&proc);
    let refused = refused.expect("read");
    assert!(matches!(refused, Err(RootFileError::Follow { .. })), "got {refused:?}");
}
