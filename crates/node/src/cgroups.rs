//! The parent of all containers' cgroups: removed when the daemon ends and no container is left below it.
//!
//! The runtime makes it with the first container and never removes it. `rmdir` refuses while anything is inside, so this
//! is safe at any moment: under running containers nothing happens.

use std::fs;
use std::path::{Path, PathBuf};

use tracing::debug;

/// Where every hierarchy of cgroup v1, hybrid and v2 is mounted by convention.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Removes `parent` at the top of each hierarchy where it is empty.
pub fn remove_if_empty(parent: &str) {
    for dir in hierarchies() {
        let path = dir.join(parent);
        match fs::remove_dir(&path) {
            Ok(()) => debug!(path = %path.display(), "removed the empty parent cgroup"),
            // Absent here, or in use: both are as they should be.
            Err(error) => debug!(path = %path.display(), %error, "left the parent cgroup"),
        }
    }
}

/// Lists the hierarchies: the root itself (v2), and each directory below it that is a mount of its own (v1, hybrid).
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(CGROUP_ROOT);
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let subs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
    std::iter::once(root.to_path_buf()).chain(subs.filter(|dir| dir.join("cgroup.procs").exists())).collect()
}
