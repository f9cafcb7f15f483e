//! The published information on a container. It is never stored; the record and the shim's report are other types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::ContainerId;
use crate::layer::LayerKind;
use crate::lifecycle::State;
use crate::name::{ContainerName, NamespaceId};
use crate::spec::{ContainerSpec, CpuLimit, Entrypoint};
use crate::time::Timestamp;

/// The full information on one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ContainerInfo {
    /// The container's id.
    pub id: ContainerId,
    /// The container's namespace.
    pub namespace: NamespaceId,
    /// The spec as the user gave it, completed by the flist.
    pub spec: ContainerSpec,
    /// The state, with pid, exit, back-off or the reason of a failure.
    pub state: State,
    /// The time when `Run` was accepted.
    pub created_at: Timestamp,
    /// The time when the container last began to run.
    pub started_at: Option<Timestamp>,
    /// The time when the container last ended.
    pub finished_at: Option<Timestamp>,
    /// How the last run ended; kept while the container runs again.
    pub last_exit: Option<crate::exit::Exit>,
    /// How often the restart policy has started it again.
    pub restart_count: u32,
    /// The host path of the log.
    pub log_path: String,
    /// The values in force for settings that the spec leaves to the node; `None` until the container was made once.
    pub in_force: Option<InForce>,
}

impl ContainerInfo {
    /// Makes the information on a container that has not run yet.
    pub fn new(
        id: ContainerId,
        namespace: NamespaceId,
        spec: ContainerSpec,
        state: State,
        created_at: Timestamp,
    ) -> Self {
        Self {
            id,
            namespace,
            spec,
            state,
            created_at,
            started_at: None,
            finished_at: None,
            last_exit: None,
            restart_count: 0,
            log_path: String::new(),
            in_force: None,
        }
    }
}

/// The values that a container was last made with, from its spec or from the node's configuration of that time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct InForce {
    /// The runtime's name on the node.
    pub runtime: String,
    /// Memory limit in bytes.
    pub memory_bytes: u64,
    /// CPU limit.
    pub cpu: CpuLimit,
    /// The most processes and threads.
    pub pids_limit: u32,
    /// The size limit of the writable layer in bytes; `None` without a limit: for the caller's own directory, or on a
    /// file system without quotas.
    pub rootfs_size_bytes: Option<u64>,
    /// The most open files of a process, soft limit; `None` is the daemon's own.
    pub open_files: Option<u64>,
    /// The place of the writable layer; `None` for the caller's own directory.
    #[serde(default)]
    pub layer: Option<LayerKind>,
}

impl InForce {
    /// Makes values with no limits on files, and no layer.
    pub fn new(runtime: String, memory_bytes: u64, cpu: CpuLimit, pids_limit: u32) -> Self {
        Self { runtime, memory_bytes, cpu, pids_limit, rootfs_size_bytes: None, open_files: None, layer: None }
    }
}

/// One line of a list of containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ContainerSummary {
    /// The container's id.
    pub id: ContainerId,
    /// The container's namespace.
    pub namespace: NamespaceId,
    /// The container's name.
    pub name: ContainerName,
    /// The container's root.
    pub flist: String,
    /// The state.
    pub state: State,
    /// The time when `Run` was accepted.
    pub created_at: Timestamp,
    /// The time when the container last began to run.
    pub started_at: Option<Timestamp>,
    /// How often the restart policy has started it again.
    pub restart_count: u32,
    /// The caller's key and value pairs.
    pub labels: BTreeMap<String, String>,
    /// The caller's tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The command; `None` when neither the caller nor the flist has one.
    #[serde(default)]
    pub entrypoint: Option<Entrypoint>,
}

impl From<&ContainerInfo> for ContainerSummary {
    fn from(info: &ContainerInfo) -> Self {
        Self {
            id: info.id.clone(),
            namespace: info.namespace.clone(),
            name: info.spec.name.clone(),
            flist: info.spec.flist.clone(),
            state: info.state.clone(),
            created_at: info.created_at,
            started_at: info.started_at,
            restart_count: info.restart_count,
            labels: info.spec.labels.clone(),
            tags: info.spec.tags.clone(),
            entrypoint: info.spec.entrypoint.clone(),
        }
    }
}
