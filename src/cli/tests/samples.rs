//! Sample containers for the tests.

use contd_types::{
    ContainerId, ContainerInfo, ContainerName, ContainerSpec, ContainerSummary, CpuLimit, Exit, ExitCause, ExitSource,
    InForce, NamespaceId, Pid, State, Timestamp,
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
    ContainerInfo {
        id: id(0xab),
        namespace: NamespaceId::new("default").expect("valid"),
        spec,
        state: State::Running { pid: Pid(4711) },
        created_at: before(200),
        started_at: Some(before(185)),
        finished_at: None,
        last_exit: None,
        restart_count: 0,
        log_path: "/var/log/default/web.log".into(),
        in_force: Some(InForce {
            runtime: "native".into(),
            memory_bytes: 1 << 30,
            cpu: CpuLimit::from_millis(1000).expect("valid"),
            pids_limit: 1024,
            rootfs_size_bytes: Some(512 << 20),
            open_files: Some(1024),
            layer: Some(contd_types::LayerKind::Disk),
        }),
    }
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
