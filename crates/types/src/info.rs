//! What contd tells about a container. Published, never stored: the record is another type, and so is the shim's report.

use serde::{Deserialize, Serialize};

use crate::id::ContainerId;
use crate::lifecycle::State;
use crate::name::{ContainerName, NamespaceId};
use crate::spec::ContainerSpec;
use crate::time::Timestamp;

/// All that is known about one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInfo {
    /// Its id.
    pub id: ContainerId,
    /// Its tenant.
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
}

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSummary {
    /// Its id.
    pub id: ContainerId,
    /// Its tenant.
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
        }
    }
}
