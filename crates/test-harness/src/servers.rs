//! The flist servers of a node, as their lease directories tell.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Node;

/// One flist's processes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlistServer {
    /// The lease directory.
    pub dir: PathBuf,
    /// The process that the lease names.
    pub keeper: i32,
    /// The process that serves.
    pub serving: i32,
}

impl FlistServer {
    /// Lists all whose files can be read; one that is just coming or going is left out.
    pub fn all(node: &Node) -> Vec<Self> {
        let Ok(leases) = fs::read_dir(node.root.join("run/f")) else { return Vec::new() };
        let mut all: Vec<Self> = leases.flatten().filter_map(|entry| Self::at(entry.path())).collect();
        all.sort();
        all
    }

    /// Looks again.
    pub fn now(&self) -> Option<Self> {
        Self::at(self.dir.clone())
    }

    fn at(dir: PathBuf) -> Option<Self> {
        let (keeper, serving) = (lease_pid(&dir)?, pid_in(&dir.join("server.json"), "/pid")?);
        Some(Self { dir, keeper, serving })
    }
}

/// Returns the process of a lease directory, alive or not; `None` while none has claimed it.
pub fn lease_pid(dir: &Path) -> Option<i32> {
    pid_in(&dir.join("lease.json"), "/process/pid")
}

/// Reads a pid in a file of JSON.
fn pid_in(path: &Path, pointer: &str) -> Option<i32> {
    let value: serde_json::Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    i32::try_from(value.pointer(pointer)?.as_i64()?).ok()
}
