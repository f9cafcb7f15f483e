//! Tools that the tests of the flist server and of the roots share: fixtures on scratch ground, and what they must look like.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The fixtures of the repository.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/fl").canonicalize().expect("fixtures")
}

/// Copies a fixture's flist to scratch ground with its route to `store`; returns where.
pub fn place_fixture(name: &str, scratch: &Path, store: &Path) -> PathBuf {
    let to = scratch.join(format!("{name}.fl"));
    std::fs::copy(fixtures().join(name).join(format!("{name}.fl")), &to).expect("copy");
    std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).expect("mode");
    let database = rusqlite::Connection::open(&to).expect("open");
    let url = format!("dir://{}", store.display());
    let changed = database
        .execute("update route set url = ?1 where url like 'dir:///fl-fixture-store/%'", [url])
        .expect("rewrite the route");
    assert_eq!(changed, 1);
    to
}

/// Copies a fixture's flist so that it reads from the fixture's own store.
pub fn fixture(name: &str, scratch: &Path) -> PathBuf {
    place_fixture(name, scratch, &fixtures().join(name).join("store"))
}

/// Packs the legacy fixture again, with a `router.yaml` to its own store.
pub fn legacy_fixture(scratch: &Path) -> PathBuf {
    let (parts, to) = (scratch.join("legacy-parts"), scratch.join("small.flist"));
    std::fs::create_dir(&parts).expect("mkdir");
    let store = fixtures().join("legacy/store");
    let router = format!("pools:\n  p:\n    00:FF: dir://{}\nlookup:\n  - p\n", store.display());
    std::fs::write(parts.join("router.yaml"), router).expect("write");
    for (flags, archive) in [("-xzf", fixtures().join("legacy/small.flist")), ("-czf", to.clone())] {
        let done = Command::new("tar").arg("-C").arg(&parts).arg(flags).arg(archive).arg(".").status().expect("tar");
        assert!(done.success());
    }
    to
}

/// Copies a directory of a store, so that a test may damage it.
pub fn copy_store(name: &str, to: &Path) {
    let done = Command::new("cp").arg("-r").arg(fixtures().join(name).join("store")).arg(to).status().expect("cp");
    assert!(done.success());
}

/// One line of a manifest.
#[derive(Debug, serde::Deserialize)]
pub struct Entry {
    /// Its path, from the root of the tree.
    pub path: String,
    /// `dir`, `file`, `symlink` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// Permissions, octal.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Seconds since 1970.
    pub ctime: i64,
    /// Bytes of a file.
    pub size: Option<u64>,
    /// Sum of a file.
    pub sha256: Option<String>,
    /// Of a link.
    pub target: Option<String>,
    /// Major and minor number of a device.
    pub rdev: Option<[u64; 2]>,
}

/// Reads the manifest of a fixture.
pub fn manifest(name: &str) -> Vec<Entry> {
    let text = std::fs::read_to_string(fixtures().join(name).join("manifest.jsonl")).expect("manifest");
    text.lines().map(|line| serde_json::from_str(line).expect("manifest line")).collect()
}

/// Compares a mounted tree with its manifest, both ways.
#[track_caller]
pub fn assert_matches_manifest(root: &Path, name: &str) {
    assert_matches(root, name, true);
}

/// The same for an overlay, whose root is the upper directory and has a change time of its own.
#[track_caller]
pub fn assert_overlay_matches_manifest(root: &Path, name: &str) {
    assert_matches(root, name, false);
}

#[track_caller]
fn assert_matches(root: &Path, name: &str, has_root_ctime: bool) {
    let entries = manifest(name);
    let wanted: BTreeSet<PathBuf> = entries.iter().map(|entry| PathBuf::from(&entry.path)).collect();
    let mut found = BTreeMap::new();
    walk(root, Path::new("/"), &mut found);
    assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), wanted, "the names differ");
    let mut sums = Vec::new();
    for entry in &entries {
        let path = root.join(entry.path.trim_start_matches('/'));
        let meta = std::fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", entry.path));
        let at = &entry.path;
        let kind = kind_of(meta.file_type());
        assert_eq!(kind, entry.kind, "type of {at}");
        assert_eq!(found[Path::new(at)], entry.kind, "d_type of {at}");
        assert_eq!(format!("{:04o}", meta.mode() & 0o7777), entry.mode, "mode of {at}");
        assert_eq!((meta.uid(), meta.gid()), (entry.uid, entry.gid), "owner of {at}");
        assert_eq!(meta.mtime(), entry.mtime, "mtime of {at}");
        if at != "/" || has_root_ctime {
            assert_eq!(meta.ctime(), entry.ctime, "ctime of {at}");
        }
        if let Some(size) = entry.size {
            assert_eq!(meta.size(), size, "size of {at}");
        }
        if let Some(target) = &entry.target {
            assert_eq!(std::fs::read_link(&path).unwrap(), Path::new(target), "target of {at}");
        }
        if let Some([major, minor]) = entry.rdev {
            let rdev = meta.rdev();
            assert_eq!((nix::sys::stat::major(rdev), nix::sys::stat::minor(rdev)), (major, minor), "rdev of {at}");
        }
        if let Some(sum) = &entry.sha256 {
            sums.push((path.clone(), sum.clone()));
        }
        if entry.kind != "dir" {
            assert_eq!(meta.nlink(), 1, "links of {at}");
        }
    }
    assert!(!sums.is_empty());
    assert_eq!(sha256(sums.iter().map(|(path, _)| path)), sums.iter().map(|(_, sum)| sum.clone()).collect::<Vec<_>>());
}

/// Checks that each directory has two links and one per subdirectory. Overlay says 1 for merged ones.
#[track_caller]
pub fn assert_directory_links(root: &Path, name: &str) {
    for entry in manifest(name).iter().filter(|entry| entry.kind == "dir") {
        let path = root.join(entry.path.trim_start_matches('/'));
        let subdirectories =
            std::fs::read_dir(&path).unwrap().filter(|child| child.as_ref().unwrap().file_type().unwrap().is_dir());
        let wanted = 2 + u64::try_from(subdirectories.count()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().nlink(), wanted, "links of {}", entry.path);
    }
}

fn walk(root: &Path, below: &Path, found: &mut BTreeMap<PathBuf, String>) {
    if below == Path::new("/") {
        found.insert(PathBuf::from("/"), "dir".to_owned());
    }
    let directory = root.join(below.strip_prefix("/").unwrap());
    for entry in std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        assert!(found.insert(path.clone(), kind_of(kind).to_owned()).is_none(), "{} twice", path.display());
        if kind.is_dir() {
            walk(root, &path, found);
        }
    }
}

fn kind_of(kind: std::fs::FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "dir",
        kind if kind.is_file() => "file",
        kind if kind.is_symlink() => "symlink",
        kind if kind.is_char_device() => "char",
        kind if kind.is_block_device() => "block",
        kind if kind.is_fifo() => "fifo",
        _ => "socket",
    }
}

/// Hashes files with the system's tool.
pub fn sha256<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Vec<String> {
    let output = Command::new("sha256sum").arg("-z").arg("--").args(paths).output().expect("sha256sum");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = output.stdout.split(|byte| *byte == 0).filter(|line| !line.is_empty());
    lines.map(|line| String::from_utf8_lossy(&line[..64]).into_owned()).collect()
}

/// A census that must be the same before and after: mounts and files below a directory, and processes that name it.
#[derive(Debug, PartialEq, Eq)]
pub struct Census {
    mounts: Vec<String>,
    processes: Vec<String>,
    paths: BTreeSet<PathBuf>,
}

/// Counts what lies under `scratch`, leaving out the block cache, which is meant to stay.
pub fn census(scratch: &Path) -> Census {
    let text = scratch.to_str().unwrap();
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mountinfo.lines().filter(|line| line.contains(text)).map(str::to_owned).collect();
    Census { mounts, processes: servers(scratch), paths: paths(scratch) }
}

fn paths(dir: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() == "cache" {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            }
            all.insert(entry.path());
        }
    }
    all
}

/// Lists the processes whose command line names the directory.
pub fn servers(scratch: &Path) -> Vec<String> {
    let text = scratch.to_str().unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains("contd-flistfs") && line.contains(text) {
            found.push(format!("{} {line}", entry.file_name().display()));
        }
    }
    found
}

/// Unmounts a file system that nothing uses but, for a moment, a process that another test forks: it has our files open
/// until it executes its program.
#[track_caller]
pub fn unmount(mount_point: &Path) {
    wait_until("nothing of the mount to be open", || match nix::mount::umount(mount_point) {
        Err(nix::errno::Errno::EBUSY) => false,
        unmounted => {
            unmounted.expect("unmount");
            true
        }
    });
}

/// Waits until something is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..15_000 {
        if is_so() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    panic!("not within five minutes: {what}");
}

/// Lists the names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}
