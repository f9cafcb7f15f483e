//! The facilities of the machine at hand: a test asks, and says what it expects then.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Where cgroups are.
const TOP: &str = "/sys/fs/cgroup";

/// Tells whether one hierarchy (cgroup v2) has all controllers; otherwise each of v1 has its own.
pub fn has_unified_cgroups() -> bool {
    Path::new(TOP).join("cgroup.controllers").exists()
}

/// Makes a cgroup at the top of the hierarchy that limits the number of processes, and returns its directory; `pids.max` and
/// `cgroup.procs` are in it, whichever version that is.
#[track_caller]
pub fn make_pids_cgroup(name: &str) -> PathBuf {
    let parent = if has_unified_cgroups() {
        fs::write(Path::new(TOP).join("cgroup.subtree_control"), "+pids").expect("the pids controller");
        PathBuf::from(TOP)
    } else {
        Path::new(TOP).join("pids")
    };
    let dir = parent.join(name);
    fs::create_dir(&dir).unwrap_or_else(|error| panic!("make {}: {error}", dir.display()));
    dir
}

/// Tells whether a FUSE server can have the kernel read whole files without it (Linux 6.9).
pub fn has_fuse_passthrough() -> bool {
    is_kernel_at_least(6, 9)
}

fn is_kernel_at_least(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut next = || numbers.next().and_then(Result::ok).expect("a number in the kernel's release");
    (next(), next()) >= (major, minor)
}

/// Tests that drop the page cache of the machine, and tests that rely on it, agree by a lock on this file.
const PAGE_CACHE: &str = "/tmp/contd-test-page-cache.lock";

fn page_cache() -> File {
    File::options().create(true).append(true).open(PAGE_CACHE).expect("open the lock of the page cache")
}

/// Keeps other tests from dropping the page cache as long as the result lives.
#[track_caller]
pub fn keep_page_cache() -> File {
    let lock = page_cache();
    lock.lock_shared().expect("lock the page cache");
    lock
}

/// Drops the page cache of the whole machine, once no test relies on it.
#[track_caller]
pub fn drop_page_cache() {
    let lock = page_cache();
    lock.lock().expect("lock the page cache");
    fs::write("/proc/sys/vm/drop_caches", "3").expect("drop caches");
}
