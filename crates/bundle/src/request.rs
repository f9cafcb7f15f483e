//! What a bundle is made from.

use std::path::{Path, PathBuf};

use contd_types::{ContainerId, ContainerSpec, CpuLimit, NamespaceId};

/// Everything that decides the content of one bundle.
#[derive(Debug, Clone)]
pub struct BundleRequest<'a> {
    /// The namespace.
    pub namespace: &'a NamespaceId,
    /// The container.
    pub id: &'a ContainerId,
    /// What to run; its entrypoint must already be there (the flist's own is filled in by the caller).
    pub spec: &'a ContainerSpec,
    /// The prepared root file system: absolute, a directory, complete before the bundle is made.
    pub root: &'a Path,
    /// The network namespace.
    pub netns: Netns,
    /// The cgroup below which the container's own is made, in every hierarchy: a relative path, for example `contd`.
    pub cgroup_parent: &'a str,
    /// Limits for what the spec leaves out.
    pub defaults: &'a Defaults,
}

/// Where the container's network is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Netns {
    /// A new namespace of its own: loopback only.
    Private,
    /// This file, as [`crate::netns::resolve`] returned it.
    Path(PathBuf),
}

/// The node's limits for containers that name none; every container has all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// CPU time.
    pub cpu: CpuLimit,
    /// Processes and threads.
    pub pids_limit: u32,
    /// How the kernel weighs its processes when memory runs out; `None` is as the daemon's own.
    pub oom_score_adj: Option<i32>,
}
