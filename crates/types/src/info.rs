//! What contd tells about a container. Published, never stored: the record is another type, and so is the shim's report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::ContainerId;
use crate::layer::LayerKind;
use crate::lifecycle::State;
use crate::name::{ContainerName, NamespaceId};
use crate::spec::{ContainerSpec, CpuLimit};
use crate::time::Timestamp;

/// All that is known about one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInfo {
    /// Its id.
    pub id: ContainerId,
    /// Its namespace.
    pub namespace: NamespaceId,
    /// What it was asked to be.
    pub spec: ContainerSpec,
    /// Where it is; carries pid, exit, back-off and the reason of a failure.
    pub state: State,
    /// When `Run` was accepted.
    pub created_at: Timestamp,
    /// When it last began to run.
    pub started_at: Option<Timestamp>,
    /// When it last ended.
    pub finished_at: Option<Timestamp>,
    /// How its last run ended, also while it runs again.
    pub last_exit: Option<crate::exit::Exit>,
    /// How often the restart policy has started it again.
    pub restart_count: u32,
    /// The host path of its log.
    pub log_path: String,
    /// What is in force of what the node decides; `None` until it was made once.
    pub in_force: Option<InForce>,
}

/// What a container was last made with, whoever chose it: itself, or the node's configuration of that time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// The runtime, by its name on the node.
    pub runtime: String,
    /// Memory limit in bytes.
    pub memory_bytes: u64,
    /// CPU limit.
    pub cpu: CpuLimit,
    /// The most processes and threads.
    pub pids_limit: u32,
    /// Size of its writable layer in bytes; `None` where nothing limits it: a directory of the caller's, or a file system
    /// without quotas.
    pub rootfs_size_bytes: Option<u64>,
    /// The most open files of a process, soft limit; `None` is the daemon's own.
    pub open_files: Option<u64>,
    /// Where its writable layer lies; `None` for a directory of the caller's.
    #[serde(default)]
    pub layer: Option<LayerKind>,
}

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSummary {
    /// Its id.
    pub id: ContainerId,
    /// Its namespace.
    pub namespace: NamespaceId,
    /// Its name.
    pub name: ContainerName,
    /// Its root.
    pub flist: String,
    /// Where it is.
    pub state: State,
    /// When `Run` was accepted.
    pub created_at: Timestamp,
    /// When it last began to run.
    pub started_at: Option<Timestamp>,
    /// How often the restart policy has started it again.
    pub restart_count: u32,
    /// Key and value pairs of its caller.
    pub labels: BTreeMap<String, String>,
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
        }
    }
}
