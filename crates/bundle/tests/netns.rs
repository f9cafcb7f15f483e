//! Tests which files may be joined as a network namespace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use contd_bundle::netns::{NetnsError, resolve};
use contd_types::{Explain, NetnsName};

/// A directory like `/run/netns`, whose mounts are removed with it.
struct Dir {
    dir: tempfile::TempDir,
    mounted: Vec<PathBuf>,
}

impl Dir {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("tempdir"), mounted: Vec::new() }
    }

    fn file(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, "").expect("file");
        path
    }

    /// Binds a namespace of the host to a file.
    fn bind(&mut self, source: &str, name: &str) {
        let path = self.file(name);
        let bound = Command::new("mount").args(["--bind", source]).arg(&path).status().expect("mount");
        assert!(bound.success());
        self.mounted.push(path);
    }

    /// Makes a new namespace, as `ip netns add` does.
    fn add(&mut self, kind: &str, name: &str) {
        let path = self.file(name);
        let made = Command::new("unshare").arg(format!("--{kind}={}", path.display())).arg("true").status();
        assert!(made.expect("unshare").success());
        self.mounted.push(path);
    }

    #[track_caller]
    fn resolve(&self, name: &str) -> Result<PathBuf, NetnsError> {
        resolve(&NetnsName::new(name).expect("valid"), self.dir.path())
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        for path in &self.mounted {
            contd_test_harness::mounted::unmount(path);
        }
    }
}

#[test]
fn a_network_namespace_is_found() {
    let mut dir = Dir::new();
    dir.add("net", "blue");
    assert_eq!(dir.resolve("blue").expect("found"), dir.dir.path().join("blue"));
}

#[test]
fn a_missing_one_says_how_to_make_it() {
    let dir = Dir::new();
    let missing = dir.resolve("blue").expect_err("missing");
    assert!(matches!(missing, NetnsError::Missing { .. }), "got {missing:?}");
    assert_eq!(missing.hint().as_deref(), Some("ip netns add blue"));
    let name = NetnsName::new("blue").expect("valid");
    assert!(matches!(resolve(&name, Path::new("/no/such/dir")), Err(NetnsError::Missing { .. })));
}

#[test]
fn the_hosts_own_is_refused() {
    let mut dir = Dir::new();
    dir.bind("/proc/self/ns/net", "self");
    assert!(matches!(dir.resolve("self"), Err(NetnsError::IsHost { .. })));
    // Some nodes do not let root look at the first process.
    if fs::metadata("/proc/1/ns/net").is_ok() {
        dir.bind("/proc/1/ns/net", "init");
        assert!(matches!(dir.resolve("init"), Err(NetnsError::IsHost { .. })));
    }
}

#[test]
fn a_namespace_of_another_kind_is_refused() {
    let mut dir = Dir::new();
    dir.add("uts", "names");
    assert!(matches!(dir.resolve("names"), Err(NetnsError::NotANamespace { .. })));
}

#[test]
fn a_file_a_directory_a_fifo_and_a_symlink_are_refused() {
    let mut dir = Dir::new();
    dir.add("net", "blue");
    dir.file("file");
    fs::create_dir(dir.dir.path().join("dir")).expect("dir");
    symlink("blue", dir.dir.path().join("link")).expect("symlink");
    symlink("/proc/self/ns/net", dir.dir.path().join("magic")).expect("symlink");
    assert!(Command::new("mkfifo").arg(dir.dir.path().join("fifo")).status().expect("mkfifo").success());
    for name in ["file", "dir", "link", "magic", "fifo"] {
        let refused = dir.resolve(name);
        assert!(matches!(refused, Err(NetnsError::NotANamespace { .. })), "{name}: {refused:?}");
    }
}
