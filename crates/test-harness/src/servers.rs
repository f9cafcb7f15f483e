//! The flist servers of a node, as their lease directories tell.

use std::fs;
use std::path::PathBuf;

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
        let read = |name: &str| serde_json::from_slice::<serde_json::Value>(&fs::read(dir.join(name)).ok()?).ok();
        let pid = |value: &serde_json::Value| value["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        let (keeper, serving) = (pid(&read("lease.json")?["process"])?, pid(&read("server.json")?)?);
        Some(Self { dir, keeper, serving })
    }
}
