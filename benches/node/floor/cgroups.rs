//! The floor's cgroups on a hybrid machine: one directory in each hierarchy that a limit or the kill needs.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::bundle::Bundle;

/// The joined hierarchies: those of the limits, the freezer, and the v2 tree, for `cgroup.kill`.
const JOINED: [&str; 6] = ["pids", "memory", "cpu", "devices", "freezer", "unified"];

/// The directories of one container.
pub(super) struct Cgroups {
    dirs: Vec<PathBuf>,
}

impl Cgroups {
    /// Makes the parents, once.
    pub(super) fn make_parents(bundle: &Bundle) {
        let parent = Path::new(&bundle.cgroup).parent().expect("a parent");
        for hierarchy in JOINED {
            fs::create_dir_all(Path::new("/sys/fs/cgroup").join(hierarchy).join(parent)).expect("make the parent");
        }
    }

    /// Removes the parents, unless another server still needs them.
    pub(super) fn remove_parents(bundle: &Bundle) {
        let parent = Path::new(&bundle.cgroup).parent().expect("a parent");
        for hierarchy in JOINED {
            let _another_needs_it = fs::remove_dir(Path::new("/sys/fs/cgroup").join(hierarchy).join(parent));
        }
    }

    /// Makes the directories.
    pub(super) fn make(bundle: &Bundle) -> Self {
        let dir = |hierarchy: &&str| Path::new("/sys/fs/cgroup").join(hierarchy).join(&bundle.cgroup);
        let dirs: Vec<PathBuf> = JOINED.iter().map(dir).collect();
        for dir in &dirs {
            fs::create_dir(dir).expect("make a cgroup");
        }
        Self { dirs }
    }

    /// Writes the limits of the bundle.
    pub(super) fn limit(&self, bundle: &Bundle) {
        for (hierarchy, file, value) in &bundle.limits {
            let at = JOINED.iter().position(|name| name == hierarchy).expect("a joined hierarchy");
            write(&self.dirs[at].join(file), value);
        }
    }

    /// Moves the calling process into all of them.
    pub(super) fn enter(&self) {
        for dir in &self.dirs {
            write(&dir.join("cgroup.procs"), "0");
        }
    }

    /// Removes the directories; their last process has been reaped.
    pub(super) fn remove(self) {
        for dir in &self.dirs {
            fs::remove_dir(dir).expect("remove a cgroup");
        }
    }
}

fn write(path: &Path, value: &str) {
    let mut file = File::options().write(true).open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.write_all(value.as_bytes()).unwrap_or_else(|error| panic!("write {value:?} to {}: {error}", path.display()));
}
