//! What is stored about one container. Not what is published, and not what the shim reports.

use std::path::PathBuf;

use contd_types::{
    Caller, ContainerId, ContainerSpec, Entrypoint, Exit, InForce, NamespaceId, Signal, State, Timestamp, UserSpec,
};
use serde::{Deserialize, Serialize};

/// The version of the record format that this code writes, and the newest that it reads.
pub const RECORD_VERSION: u32 = 1;

/// What the user last asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Desired {
    /// That it runs.
    Run,
    /// That it is stopped; remembered over reboots.
    Stop,
}

/// What a container was made with where its spec leaves the choice to the flist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeWith {
    /// What it runs.
    pub entrypoint: Option<Entrypoint>,
    /// Environment, each `KEY=VALUE`.
    pub env: Vec<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Who it runs as.
    pub user: Option<UserSpec>,
    /// The signal that asks it to end.
    pub stop_signal: Option<Signal>,
}

impl MadeWith {
    /// Notes what `complete` has; `None` if that is what `spec` has.
    pub fn of(complete: &ContainerSpec, spec: &ContainerSpec) -> Option<Self> {
        let of = |spec: &ContainerSpec| Self {
            entrypoint: spec.entrypoint.clone(),
            env: spec.env.clone(),
            working_dir: spec.working_dir.clone(),
            user: spec.user.clone(),
            stop_signal: spec.stop_signal,
        };
        let made_with = of(complete);
        (made_with != of(spec)).then_some(made_with)
    }
}

/// The record of one container. Unknown fields are ignored when read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// The version of this format.
    pub version: u32,
    /// The boot in which it was written last.
    pub boot_id: String,
    /// Counts the writes; of two records the one with the lower number loses. See [`ContainerRecord::bump`].
    pub generation: u64,
    /// Its id.
    pub id: ContainerId,
    /// Its tenant.
    pub namespace: NamespaceId,
    /// What it was asked to be.
    pub spec: ContainerSpec,
    /// Where it is, or where a step that was begun will lead.
    pub state: State,
    /// When `Run` was accepted.
    pub created_at: Timestamp,
    /// When it last began to run.
    pub started_at: Option<Timestamp>,
    /// When it last ended.
    pub finished_at: Option<Timestamp>,
    /// How often the restart policy has started it again.
    pub restart_count: u32,
    /// What the user last asked for.
    pub desired: Desired,
    /// Whether `Run` was answered: from then on it is never rolled back.
    pub is_acknowledged: bool,
    /// Joins a repeated `Run` to the first.
    pub idempotency_key: Option<String>,
    /// How its last run ended, also while it runs again.
    pub exit: Option<Exit>,
    /// The host path of its log.
    pub log_path: PathBuf,
    /// Its prepared root, once there is one.
    pub root: Option<PathBuf>,
    /// Whether it ran when its node was shut down, and was ended for that: the next daemon treats it as after a reboot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub went_down_with_node: bool,
    /// What its flist added to the spec when it was last made; `None` if nothing, or if it was not made yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_with: Option<MadeWith>,
    /// Who asked for it, if that is somebody with limited rights: each start is judged by its rules of the day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
    /// What the node decided when it was last made; `None` if it was not made yet, or by a daemon that did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<InForce>,
}

impl ContainerRecord {
    /// Makes the first record of a container: being created, wanted to run, not acknowledged.
    pub fn new(
        namespace: NamespaceId,
        id: ContainerId,
        spec: ContainerSpec,
        boot_id: impl Into<String>,
        log_path: impl Into<PathBuf>,
        now: Timestamp,
    ) -> Self {
        Self {
            version: RECORD_VERSION,
            boot_id: boot_id.into(),
            generation: 1,
            id,
            namespace,
            spec,
            state: State::Creating,
            created_at: now,
            started_at: None,
            finished_at: None,
            restart_count: 0,
            desired: Desired::Run,
            is_acknowledged: false,
            idempotency_key: None,
            exit: None,
            log_path: log_path.into(),
            root: None,
            went_down_with_node: false,
            made_with: None,
            caller: None,
            in_force: None,
        }
    }

    /// Gives the spec with what the flist added to it, as people are shown it.
    pub fn complete_spec(&self) -> ContainerSpec {
        let mut spec = self.spec.clone();
        if let Some(MadeWith { entrypoint, env, working_dir, user, stop_signal }) = self.made_with.clone() {
            (spec.entrypoint, spec.env, spec.working_dir) = (entrypoint, env, working_dir);
            (spec.user, spec.stop_signal) = (user, stop_signal);
        }
        spec
    }

    /// Counts one write; the only writer calls it once per change, and not again when it repeats a failed write.
    pub fn bump(&mut self) {
        self.generation = self.generation.saturating_add(1);
    }
}
