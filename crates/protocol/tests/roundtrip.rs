//! decode(encode(x)) = x for whatever can be said on any of the three sockets, and no truncation or alteration panics.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "tests end loudly")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use contd_protocol::{api, flistfs, shim};
use contd_types::{
    ApiError, ContainerEvent, ContainerId, ContainerInfo, ContainerName, ContainerRef, ContainerSpec, CpuLimit,
    Entrypoint, ErrorKind, EventKind, Exit, ExitCause, ExitSource, InForce, LayerKind, MountSpec, NamespaceId,
    NetnsName, Network, Pid, Propagation, RestartPolicy, Signal, State, Step, Timestamp, UserSpec,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const NAME: &str = "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}";

fn namespace() -> impl Strategy<Value = NamespaceId> {
    NAME.prop_map(|name| NamespaceId::new(name).expect("the grammar"))
}

fn id() -> impl Strategy<Value = ContainerId> {
    any::<[u8; 16]>().prop_map(ContainerId::from_random)
}

fn target() -> impl Strategy<Value = api::Target> {
    let container = NAME.prop_map(|name| ContainerRef::new(name).expect("the grammar"));
    (namespace(), container).prop_map(|(namespace, container)| api::Target { namespace, container })
}

fn signal() -> impl Strategy<Value = Signal> {
    (1u8..=64).prop_map(|number| Signal::new(number).expect("in range"))
}

fn duration() -> impl Strategy<Value = Duration> {
    (any::<u32>(), 0u32..1_000_000_000).prop_map(|(s, ns)| Duration::new(u64::from(s), ns))
}

fn exit() -> impl Strategy<Value = Exit> {
    let cause = prop_oneof![
        any::<u8>().prop_map(ExitCause::Code),
        signal().prop_map(ExitCause::Signal),
        Just(ExitCause::Reboot),
        ".{0,20}".prop_map(ExitCause::Unknown),
    ];
    let source =
        prop::sample::select(vec![ExitSource::Reaped, ExitSource::Pidfd, ExitSource::BootId, ExitSource::Unknown]);
    (cause, any::<u64>(), any::<u64>(), source, any::<bool>()).prop_map(|(cause, at, oom_kills, source, is_drained)| {
        Exit { cause, at: Timestamp(at), oom_kills, source, is_drained }
    })
}

fn pid() -> impl Strategy<Value = Pid> {
    (1..i32::MAX).prop_map(Pid)
}

fn step() -> impl Strategy<Value = Step> {
    prop::sample::select(vec![
        Step::Admit,
        Step::Record,
        Step::Rootfs,
        Step::Bundle,
        Step::Log,
        Step::Shim,
        Step::Start,
    ])
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![
        Just(State::Creating),
        pid().prop_map(|pid| State::Created { pid }),
        pid().prop_map(|pid| State::Starting { pid }),
        pid().prop_map(|pid| State::Running { pid }),
        pid().prop_map(|pid| State::Paused { pid }),
        option::of(pid()).prop_map(|pid| State::Stopping { pid }),
        exit().prop_map(|exit| State::Stopped { exit }),
        (exit(), any::<u32>(), any::<u64>()).prop_map(|(exit, attempt, until)| State::Backoff {
            exit,
            attempt,
            until: Timestamp(until)
        }),
        (step(), ".{0,20}").prop_map(|(step, reason)| State::Failed { step, reason }),
        Just(State::Recovering),
        Just(State::Deleting),
        Just(State::Prepared),
        ".{0,20}".prop_map(|reason| State::Lingering { reason }),
    ]
}

fn mount() -> impl Strategy<Value = MountSpec> {
    (".{0,20}", ".{0,20}", ".{0,8}", vec(".{0,8}", 0..4)).prop_map(|(source, target, fs_type, options)| MountSpec {
        source,
        target,
        fs_type,
        options,
    })
}

prop_compose! {
    fn identity()(
        name in NAME,
        flist in ".{0,40}",
        tags in vec(".{0,8}", 0..4),
        env in vec(".{0,16}", 0..4),
        labels in prop::collection::btree_map(".{0,6}", ".{0,6}", 0..4),
        network in prop_oneof![
            Just(Network::Private),
            NAME.prop_map(|name| Network::Named(NetnsName::new(name).expect("the grammar"))),
        ],
        mounts in vec(mount(), 0..3),
        entrypoint in option::of(prop_oneof![
            ".{0,20}".prop_map(Entrypoint::Line),
            vec(".{0,8}", 0..4).prop_map(Entrypoint::Args),
            vec(".{0,8}", 0..4).prop_map(Entrypoint::Exact),
        ]),
    ) -> ContainerSpec {
        let mut spec = ContainerSpec::new(ContainerName::new(name).expect("the grammar"), flist);
        (spec.tags, spec.env, spec.network, spec.mounts, spec.entrypoint) = (tags, env, network, mounts, entrypoint);
        spec.labels = BTreeMap::from_iter(labels);
        spec
    }
}

prop_compose! {
    fn spec()(
        spec in identity(),
        working_dir in option::of(".{0,16}"),
        user in option::of("[a-z0-9]{1,8}(:[a-z0-9]{1,8})?"),
        (memory_bytes, rootfs_size_bytes, pids_limit) in any::<(Option<u64>, Option<u64>, Option<u32>)>(),
        cpu in option::of(10u32..),
        (is_read_only, is_elevated, is_auto_removed) in any::<(bool, bool, bool)>(),
        upper_dir in option::of(".{0,16}"),
        restart in prop_oneof![
            Just(RestartPolicy::No),
            any::<Option<u32>>().prop_map(|max_attempts| RestartPolicy::OnFailure { max_attempts }),
            Just(RestartPolicy::Always),
            Just(RestartPolicy::UnlessStopped),
        ],
        stop_signal in option::of(signal()),
        shutdown_timeout in option::of(duration()),
        rootfs_propagation in prop::sample::select(vec![Propagation::Private, Propagation::Slave, Propagation::Shared]),
    ) -> ContainerSpec {
        ContainerSpec {
            working_dir,
            user: user.map(|user| UserSpec::new(user).expect("the grammar")),
            memory_bytes,
            cpu: cpu.map(|millis| CpuLimit::from_millis(millis).expect("large enough")),
            pids_limit,
            is_read_only,
            rootfs_size_bytes,
            upper_dir,
            restart,
            stop_signal,
            shutdown_timeout,
            is_elevated,
            runtime: is_elevated.then(|| "native".to_owned()),
            layer: is_read_only.then_some(if is_elevated { LayerKind::Memory } else { LayerKind::Disk }),
            rootfs_propagation,
            is_auto_removed,
            ..spec
        }
    }
}

fn run() -> impl Strategy<Value = Box<api::RunRequest>> {
    (namespace(), spec(), option::of(".{0,64}"), any::<bool>()).prop_map(
        |(namespace, spec, idempotency_key, is_attached)| {
            Box::new(api::RunRequest { namespace, spec, idempotency_key, is_attached })
        },
    )
}

fn request() -> impl Strategy<Value = api::Request> {
    use api::Request as R;
    prop_oneof![
        Just(R::Version),
        run().prop_map(R::Run),
        target().prop_map(|target| R::Start { target }),
        (target(), option::of(duration())).prop_map(|(target, timeout)| R::Stop { target, timeout }),
        (target(), signal()).prop_map(|(target, signal)| R::Kill { target, signal }),
        (target(), any::<bool>(), option::of(duration())).prop_map(|(target, force, timeout)| R::Delete {
            target,
            force,
            timeout
        }),
        target().prop_map(|target| R::Inspect { target }),
        (option::of(namespace()), option::of(id()), any::<u32>()).prop_map(|(namespace, after, limit)| R::List {
            namespace,
            after,
            limit
        }),
        Just(R::ListNamespaces),
        target().prop_map(|target| R::Wait { target }),
        (target(), any::<bool>(), any::<Option<u64>>()).prop_map(|(target, is_following, tail)| R::Logs {
            target,
            is_following,
            tail
        }),
        run().prop_map(R::DryRun),
        (any::<Option<u64>>(), option::of(namespace())).prop_map(|(from, namespace)| R::Events { from, namespace }),
    ]
}

fn error() -> impl Strategy<Value = ApiError> {
    let kind = prop::sample::select(vec![ErrorKind::InvalidArgument, ErrorKind::Busy, ErrorKind::Internal]);
    (kind, ".{0,20}", vec(".{0,20}", 0..3), option::of(".{0,20}")).prop_map(|(kind, message, causes, hint)| ApiError {
        kind,
        message,
        causes,
        hint,
    })
}

prop_compose! {
    fn in_force()(
        runtime in ".{0,9}", memory_bytes in any::<u64>(), cpu in 10..u32::MAX, pids_limit in any::<u32>(),
        rootfs_size_bytes in any::<Option<u64>>(), open_files in any::<Option<u64>>(),
    ) -> InForce {
        let cpu = CpuLimit::from_millis(cpu).expect("enough");
        let layer = open_files.map(|_| LayerKind::Memory);
        let mut in_force = InForce::new(runtime, memory_bytes, cpu, pids_limit);
        (in_force.rootfs_size_bytes, in_force.open_files, in_force.layer) = (rootfs_size_bytes, open_files, layer);
        in_force
    }
}

prop_compose! {
    fn info()(
        id in id(), namespace in namespace(), spec in spec(), state in state(), created in any::<u64>(),
        started in any::<Option<u64>>(), finished in any::<Option<u64>>(), last_exit in option::of(exit()),
        restart_count in any::<u32>(), log_path in ".{0,20}", in_force in option::of(in_force()),
    ) -> ContainerInfo {
        let mut info = ContainerInfo::new(id, namespace, spec, state, Timestamp(created));
        (info.started_at, info.finished_at) = (started.map(Timestamp), finished.map(Timestamp));
        (info.last_exit, info.restart_count, info.log_path, info.in_force) = (last_exit, restart_count, log_path, in_force);
        info
    }
}

fn response() -> impl Strategy<Value = api::Response> {
    use api::Response as R;
    prop_oneof![
        Just(R::Done),
        id().prop_map(|id| R::Created { id }),
        (id(), exit()).prop_map(|(id, exit)| R::Exited { id, exit }),
        info().prop_map(|info| R::Info(Box::new(info))),
        (vec(info(), 0..3), any::<bool>())
            .prop_map(|(infos, has_more)| { R::Page { containers: infos.iter().map(summary).collect(), has_more } }),
        (namespace(), any::<u32>(), any::<u32>()).prop_map(|(namespace, containers, running)| {
            R::Namespaces(vec![api::NamespaceSummary { namespace, containers, running }])
        }),
        (".{0,40}", ".{0,20}")
            .prop_map(|(config_json, log_path)| R::Plan(Box::new(api::Plan { config_json, log_path }))),
    ]
}

fn item() -> impl Strategy<Value = api::Item> {
    use api::Item as I;
    let stream = prop::sample::select(vec![api::LogStream::Stdout, api::LogStream::Stderr]);
    let event = (namespace(), id(), NAME, any::<u64>(), exit()).prop_map(|(namespace, id, name, at, exit)| {
        let name = ContainerName::new(name).expect("the grammar");
        ContainerEvent { namespace, id, name, at: Timestamp(at), kind: EventKind::Exited { exit } }
    });
    prop_oneof![
        (".{0,20}", any::<u64>(), any::<Option<u64>>()).prop_map(|(what, done_bytes, total_bytes)| I::Progress {
            what,
            done_bytes,
            total_bytes
        }),
        id().prop_map(|id| I::Started { id }),
        (any::<u64>(), stream, vec(any::<u8>(), 0..64)).prop_map(|(at, stream, content)| I::Log(api::LogItem {
            at: Timestamp(at),
            stream,
            content
        })),
        (any::<u64>(), event).prop_map(|(seq, event)| I::Event { seq, event }),
        any::<(u64, u64)>().prop_map(|(from, to)| I::EventGap { from, to }),
    ]
}

fn shim_request() -> impl Strategy<Value = shim::Request> {
    use shim::Request as R;
    prop_oneof![
        prop::sample::select(vec![
            R::Create,
            R::Start,
            R::State,
            R::Wait,
            R::Pause,
            R::Resume,
            R::RotateLog,
            R::Shutdown
        ]),
        (signal(), any::<bool>()).prop_map(|(signal, is_for_all)| R::Kill { signal, is_for_all }),
        any::<bool>().prop_map(|force| R::Delete { force }),
    ]
}

/// Without what came after the frames of version 2, which are whole in `PageText`.
fn summary(info: &contd_types::ContainerInfo) -> contd_types::ContainerSummary {
    let mut summary = contd_types::ContainerSummary::from(info);
    (summary.tags, summary.entrypoint) = (Vec::new(), None);
    summary
}

fn shim_response() -> impl Strategy<Value = shim::Response> {
    use shim::{Response as R, TaskState as T};
    prop_oneof![
        Just(R::Done),
        pid().prop_map(R::Pid),
        exit().prop_map(R::Exited),
        prop_oneof![
            Just(T::Empty),
            Just(T::Creating),
            pid().prop_map(|pid| T::Created { pid }),
            pid().prop_map(|pid| T::Running { pid }),
            pid().prop_map(|pid| T::Paused { pid }),
            exit().prop_map(|exit| T::Exited { exit }),
        ]
        .prop_map(R::State),
    ]
}

fn assert_same<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(
    message: &T,
) -> Result<(), TestCaseError> {
    let bytes = contd_protocol::encode(message).expect("small enough");
    let back: T = contd_protocol::decode(&bytes).expect("own bytes");
    prop_assert_eq!(&back, message);
    // Bytes that are cut off or left over are noticed.
    for cut in [bytes.len() / 2, bytes.len().saturating_sub(1)] {
        if cut < bytes.len() {
            prop_assert!(contd_protocol::decode::<T>(&bytes[..cut]).is_err());
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn api_calls(id: u64, request in request()) {
        assert_same(&api::Call { id, request })?;
    }

    #[test]
    fn api_replies(id: u64, result in prop_oneof![response().prop_map(Ok), error().prop_map(Err)]) {
        assert_same(&api::Reply { id, result })?;
    }

    #[test]
    fn api_items(id: u64, item in item()) {
        assert_same(&api::StreamItem { id, item })?;
    }

    #[test]
    fn shim_calls(id: u64, request in shim_request()) {
        assert_same(&shim::Call { id, request })?;
    }

    #[test]
    fn shim_replies(id: u64, result in prop_oneof![shim_response().prop_map(Ok), error().prop_map(Err)]) {
        assert_same(&shim::Reply { id, result })?;
    }

    #[test]
    fn flistfs_replies(id: u64, pid: i32, hash in ".{0,64}", path in ".{0,20}", inodes: u64, failed_reads: u64) {
        let status = flistfs::Status { pid, hash, mount_point: PathBuf::from(path), inodes, failed_reads };
        assert_same(&flistfs::Reply { id, result: Ok(flistfs::Response::Status(status)) })?;
    }

    #[test]
    fn altered_bytes_never_panic(request in request(), at: prop::sample::Index, to: u8) {
        let mut bytes = contd_protocol::encode(&api::Call { id: 1, request }).expect("small enough");
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _any = contd_protocol::decode::<api::Call>(&bytes);
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..512)) {
        let _any = contd_protocol::decode::<api::Call>(&bytes);
        let _any = contd_protocol::decode::<api::Reply>(&bytes);
        let _any = contd_protocol::decode::<shim::Call>(&bytes);
        let _any = contd_protocol::decode::<shim::Reply>(&bytes);
        let _any = contd_protocol::decode::<flistfs::Call>(&bytes);
    }
}
