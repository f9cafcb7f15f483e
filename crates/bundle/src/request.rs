//! The input of a bundle.

use std::path::{Path, PathBuf};

use contd_types::{ContainerId, ContainerSpec, CpuLimit, NamespaceId};

/// All input that decides the content of one bundle.
#[derive(Debug, Clone)]
pub struct BundleRequest<'a> {
    /// The namespace.
    pub namespace: &'a NamespaceId,
    /// The container.
    pub id: &'a ContainerId,
    /// The spec, with its entrypoint: the caller has filled in the flist's own already.
    pub spec: &'a ContainerSpec,
    /// The prepared root file system: absolute, a directory, complete before the bundle is made.
    pub root: &'a Path,
    /// The network namespace.
    pub netns: Netns,
    /// The cgroup below which the container's own is made, in every hierarchy: a relative path, for example `contd`.
    pub cgroup_parent: &'a str,
    /// The limits for containers whose spec gives none.
    pub defaults: &'a Defaults,
}

/// The network of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Netns {
    /// A new network namespace with loopback only.
    Private,
    /// The network namespace behind this file, as [`crate::netns::resolve`] returned it.
    Path(PathBuf),
}

/// The node's limits for containers whose spec gives none; every container has all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// CPU time.
    pub cpu: CpuLimit,
    /// Processes and threads.
    pub pids_limit: u32,
    /// The kernel's OOM score adjustment for the container's processes; `None` leaves the daemon's own.
    pub oom_score_adj: Option<i32>,
}
