//! The parts that grow, in the layouts of version 2. They are frozen: their bytes have neither names nor room for more.
//!
//! Each module is for `#[serde(with = "...")]`.

use std::collections::BTreeMap;
use std::time::Duration;

use contd_types::{
    ContainerId, ContainerInfo, ContainerName, ContainerSpec, ContainerSummary, CpuLimit, Entrypoint, Exit, InForce,
    LayerKind, MountSpec, NamespaceId, Network, Propagation, RestartPolicy, Signal, State, Timestamp, UserSpec,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
struct Spec {
    name: ContainerName,
    flist: String,
    tags: Vec<String>,
    env: Vec<String>,
    network: Network,
    mounts: Vec<MountSpec>,
    entrypoint: Option<Entrypoint>,
    working_dir: Option<String>,
    user: Option<UserSpec>,
    memory_bytes: Option<u64>,
    cpu: Option<CpuLimit>,
    pids_limit: Option<u32>,
    is_read_only: bool,
    rootfs_size_bytes: Option<u64>,
    upper_dir: Option<String>,
    restart: RestartPolicy,
    stop_signal: Option<Signal>,
    shutdown_timeout: Option<Duration>,
    is_elevated: bool,
    rootfs_propagation: Propagation,
    labels: BTreeMap<String, String>,
    is_auto_removed: bool,
    runtime: Option<String>,
    layer: Option<LayerKind>,
}

impl From<ContainerSpec> for Spec {
    fn from(spec: ContainerSpec) -> Self {
        let ContainerSpec {
            name,
            flist,
            tags,
            env,
            network,
            mounts,
            entrypoint,
            working_dir,
            user,
            memory_bytes,
            cpu,
            pids_limit,
            is_read_only,
            rootfs_size_bytes,
            upper_dir,
            restart,
            stop_signal,
            shutdown_timeout,
            is_elevated,
            rootfs_propagation,
            labels,
            is_auto_removed,
            runtime,
            layer,
            ..
        } = spec;
        Self {
            name,
            flist,
            tags,
            env,
            network,
            mounts,
            entrypoint,
            working_dir,
            user,
            memory_bytes,
            cpu,
            pids_limit,
            is_read_only,
            rootfs_size_bytes,
            upper_dir,
            restart,
            stop_signal,
            shutdown_timeout,
            is_elevated,
            rootfs_propagation,
            labels,
            is_auto_removed,
            runtime,
            layer,
        }
    }
}

impl From<Spec> for ContainerSpec {
    fn from(spec: Spec) -> Self {
        let mut full = Self::new(spec.name, spec.flist);
        full.tags = spec.tags;
        full.env = spec.env;
        full.network = spec.network;
        full.mounts = spec.mounts;
        full.entrypoint = spec.entrypoint;
        full.working_dir = spec.working_dir;
        full.user = spec.user;
        full.memory_bytes = spec.memory_bytes;
        full.cpu = spec.cpu;
        full.pids_limit = spec.pids_limit;
        full.is_read_only = spec.is_read_only;
        full.rootfs_size_bytes = spec.rootfs_size_bytes;
        full.upper_dir = spec.upper_dir;
        full.restart = spec.restart;
        full.stop_signal = spec.stop_signal;
        full.shutdown_timeout = spec.shutdown_timeout;
        full.is_elevated = spec.is_elevated;
        full.rootfs_propagation = spec.rootfs_propagation;
        full.labels = spec.labels;
        full.is_auto_removed = spec.is_auto_removed;
        full.runtime = spec.runtime;
        full.layer = spec.layer;
        full
    }
}

#[derive(Serialize, Deserialize)]
struct Values {
    runtime: String,
    memory_bytes: u64,
    cpu: CpuLimit,
    pids_limit: u32,
    rootfs_size_bytes: Option<u64>,
    open_files: Option<u64>,
    layer: Option<LayerKind>,
}

impl From<InForce> for Values {
    fn from(values: InForce) -> Self {
        let InForce { runtime, memory_bytes, cpu, pids_limit, rootfs_size_bytes, open_files, layer, .. } = values;
        Self { runtime, memory_bytes, cpu, pids_limit, rootfs_size_bytes, open_files, layer }
    }
}

impl From<Values> for InForce {
    fn from(values: Values) -> Self {
        let mut full = Self::new(values.runtime, values.memory_bytes, values.cpu, values.pids_limit);
        full.rootfs_size_bytes = values.rootfs_size_bytes;
        full.open_files = values.open_files;
        full.layer = values.layer;
        full
    }
}

#[derive(Serialize, Deserialize)]
struct Info {
    id: ContainerId,
    namespace: NamespaceId,
    spec: Spec,
    state: State,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    last_exit: Option<Exit>,
    restart_count: u32,
    log_path: String,
    in_force: Option<Values>,
}

impl From<ContainerInfo> for Info {
    fn from(info: ContainerInfo) -> Self {
        Self {
            id: info.id,
            namespace: info.namespace,
            spec: info.spec.into(),
            state: info.state,
            created_at: info.created_at,
            started_at: info.started_at,
            finished_at: info.finished_at,
            last_exit: info.last_exit,
            restart_count: info.restart_count,
            log_path: info.log_path,
            in_force: info.in_force.map(Values::from),
        }
    }
}

impl From<Info> for ContainerInfo {
    fn from(info: Info) -> Self {
        let mut full = Self::new(info.id, info.namespace, info.spec.into(), info.state, info.created_at);
        full.started_at = info.started_at;
        full.finished_at = info.finished_at;
        full.last_exit = info.last_exit;
        full.restart_count = info.restart_count;
        full.log_path = info.log_path;
        full.in_force = info.in_force.map(InForce::from);
        full
    }
}

#[derive(Serialize, Deserialize)]
struct Summary {
    id: ContainerId,
    namespace: NamespaceId,
    name: ContainerName,
    flist: String,
    state: State,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    restart_count: u32,
    labels: BTreeMap<String, String>,
}

impl From<ContainerSummary> for Summary {
    fn from(summary: ContainerSummary) -> Self {
        Self {
            id: summary.id,
            namespace: summary.namespace,
            name: summary.name,
            flist: summary.flist,
            state: summary.state,
            created_at: summary.created_at,
            started_at: summary.started_at,
            restart_count: summary.restart_count,
            labels: summary.labels,
        }
    }
}

impl From<Summary> for ContainerSummary {
    fn from(summary: Summary) -> Self {
        let mut spec = ContainerSpec::new(summary.name, summary.flist);
        spec.labels = summary.labels;
        let info = ContainerInfo::new(summary.id, summary.namespace, spec, summary.state, summary.created_at);
        let mut full = Self::from(&info);
        full.started_at = summary.started_at;
        full.restart_count = summary.restart_count;
        full
    }
}

/// Tells whether version 2 can say all of a spec.
pub(super) fn can_say(spec: &ContainerSpec) -> bool {
    ContainerSpec::from(Spec::from(spec.clone())) == *spec
}

pub(super) mod spec {
    use super::{ContainerSpec, Deserialize, Deserializer, Serialize, Serializer, Spec};

    pub(in super::super) fn serialize<S: Serializer>(spec: &ContainerSpec, to: S) -> Result<S::Ok, S::Error> {
        Spec::from(spec.clone()).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ContainerSpec, D::Error> {
        Spec::deserialize(from).map(Into::into)
    }
}

pub(super) mod info {
    use super::{ContainerInfo, Deserialize, Deserializer, Info, Serialize, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(info: &ContainerInfo, to: S) -> Result<S::Ok, S::Error> {
        Info::from(info.clone()).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Box<ContainerInfo>, D::Error> {
        Info::deserialize(from).map(|info| Box::new(info.into()))
    }
}

pub(super) mod summaries {
    use super::{ContainerSummary, Deserialize, Deserializer, Serializer, Summary};

    pub(in super::super) fn serialize<S: Serializer>(all: &[ContainerSummary], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(all.iter().cloned().map(Summary::from))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ContainerSummary>, D::Error> {
        Ok(Vec::<Summary>::deserialize(from)?.into_iter().map(Into::into).collect())
    }
}
