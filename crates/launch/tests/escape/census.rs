//! The census of one scene on the host: its files outside of the root, mounts, cgroups, processes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A census, by names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Census {
    /// Each file's type, mode, owner and content.
    files: BTreeMap<PathBuf, String>,
    mounts: Vec<String>,
    cgroups: Vec<PathBuf>,
    processes: Vec<String>,
}

impl Census {
    /// Counts the files in `dir` without `except`, the mounts there, and the cgroups named `parent`.
    pub(crate) fn take(dir: &Path, except: &[PathBuf], parent: &str) -> Self {
        let mut files = BTreeMap::new();
        add_files(dir, except, &mut files);
        let cgroups = cgroups(parent);
        let mut processes: Vec<String> = cgroups.iter().flat_map(|cgroup| members(cgroup)).collect();
        processes.extend(command_lines().into_iter().filter(|line| line.contains(&*dir.to_string_lossy())));
        Self { files, mounts: mounts(dir), cgroups, processes }
    }

    /// Tells whether files and mounts are the same, while processes may still run.
    pub(crate) fn has_same_files(&self, other: &Self) -> bool {
        self.files == other.files && self.mounts == other.mounts
    }
}

fn add_files(dir: &Path, except: &[PathBuf], files: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if except.contains(&path) {
            continue;
        }
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let sum = blake2b_simd::blake2b(&content).to_hex();
        let text = format!("{:o} {}:{} {}", metadata.mode(), metadata.uid(), metadata.gid(), &sum[..32]);
        if metadata.is_dir() {
            add_files(&path, except, files);
        }
        files.insert(path, text);
    }
}

fn mounts(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    text.lines().filter(|line| line.contains(&*dir.to_string_lossy())).map(str::to_owned).collect()
}

/// Lists the cgroups below those of this name in each hierarchy.
fn cgroups(parent: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        for entry in fs::read_dir(hierarchy.join(parent)).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

fn hierarchies() -> Vec<PathBuf> {
    let top = PathBuf::from("/sys/fs/cgroup");
    let below = fs::read_dir(&top).unwrap().flatten().map(|entry| entry.path());
    below.filter(|path| path.is_dir()).chain([top.clone()]).collect()
}

/// Removes the directories that the scene's cgroups were made in; one that is not empty is kept.
pub(crate) fn remove_parents(parent: &str) {
    for hierarchy in hierarchies() {
        let _absent_here = fs::remove_dir(hierarchy.join(parent));
    }
}

fn members(cgroup: &Path) -> Vec<String> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    text.lines().map(|pid| format!("{pid} in {}", cgroup.display())).collect()
}

fn command_lines() -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.parse::<u32>().is_ok_and(|pid| pid != std::process::id()) {
            let bytes = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(format!("{name} {}", String::from_utf8_lossy(&bytes).replace('\0', " ")));
        }
    }
    found
}
