//! Sample containers for the tests.

use contd_types::{
    ContainerId, ContainerInfo, ContainerName, ContainerSpec, ContainerStats, ContainerSummary, CpuLimit, Entrypoint,
    Exit, ExitCause, ExitSource, InForce, NamespaceId, NetworkUsage, Pid, ProcessInfo, State, Timestamp, Usage,
};

/// The time in all tests: 2026-11-24T10:11:12Z.
pub(crate) const NOW: Timestamp = Timestamp(1_795_515_072_000_000_000);

pub(crate) fn before(seconds: u64) -> Timestamp {
    Timestamp(NOW.0 - seconds * 1_000_000_000)
}

pub(crate) fn id(byte: u8) -> ContainerId {
    ContainerId::from_random([byte; 16])
}

pub(crate) fn exit(cause: ExitCause) -> Exit {
    Exit { cause, at: before(120), oom_kills: 0, source: ExitSource::Reaped, is_drained: true }
}

pub(crate) fn running() -> ContainerInfo {
    let mut spec = ContainerSpec::new(ContainerName::new("web").expect("valid"), "/srv/web.fl");
    spec.labels.insert("tier".into(), "front".into());
    spec.entrypoint = Some(Entrypoint::Args(["httpd", "-c", "a b; c d"].map(str::to_owned).to_vec()));
    let namespace = NamespaceId::new("default").expect("valid");
    let mut info = ContainerInfo::new(id(0xab), namespace, spec, State::Running { pid: Pid(4711) }, before(200));
    info.started_at = Some(before(185));
    info.log_path = "/var/log/default/web.log".into();
    let mut in_force = InForce::new("native".into(), 1 << 30, CpuLimit::from_millis(1000).expect("valid"), 1024);
    in_force.rootfs_size_bytes = Some(512 << 20);
    in_force.open_files = Some(1024);
    in_force.layer = Some(contd_types::LayerKind::Disk);
    info.in_force = Some(in_force);
    info
}

pub(crate) fn stopped() -> ContainerInfo {
    let mut info = running();
    let exit = exit(ExitCause::Code(7));
    info.id = id(0xcd);
    info.spec.name = ContainerName::new("job").expect("valid");
    info.state = State::Stopped { exit: exit.clone() };
    info.created_at = before(4000);
    info.finished_at = Some(exit.at);
    info.last_exit = Some(exit);
    info
}

pub(crate) fn summaries() -> Vec<ContainerSummary> {
    vec![(&running()).into(), (&stopped()).into()]
}

pub(crate) fn stats() -> ContainerStats {
    let ContainerInfo { id, namespace, spec, .. } = running();
    let mut usage = Usage::default();
    usage.cpu.total_ns = Some(1_500_000_000);
    (usage.memory.bytes, usage.memory.limit_bytes) = (Some(64 << 20), Some(1 << 30));
    (usage.io.read_bytes, usage.io.written_bytes) = (Some(4096), Some(0));
    usage.pids.count = Some(2);
    let network = Some(NetworkUsage { received_bytes: 2048, ..NetworkUsage::default() });
    ContainerStats { id, name: spec.name, namespace, pid: Pid(4711), monotonic_ns: 1, usage, network }
}

pub(crate) fn processes() -> Vec<ProcessInfo> {
    vec![ProcessInfo {
        pid: Pid(4711),
        container_pid: Pid(1),
        parent: Pid(4700),
        uid: 0,
        state: 'S',
        cpu_ns: 61_250_000_000,
        resident_bytes: 1 << 20,
        started: before(185),
        command: vec!["/bin/httpd".into(), "-f".into()],
    }]
}
