//! Golden bytes: what is on the wire today must be readable tomorrow. A change here is a new protocol version.
#![expect(clippy::expect_used, reason = "tests end loudly")]

use std::time::Duration;

use contd_protocol::{api, flistfs, shim};
use contd_types::{
    ApiError, ContainerId, ContainerInfo, ContainerName, ContainerRef, ContainerSpec, ContainerStats, CpuUsage,
    Entrypoint, ErrorKind, ExecId, ExecInfo, ExecSpec, Exit, ExitCause, ExitSource, IoUsage, MemoryUsage, NamespaceId,
    NetworkUsage, Pid, PidsUsage, PressureUsage, ProcessInfo, Signal, Timestamp, Usage, WindowSize,
};

#[track_caller]
fn pinned<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T, golden: &str) {
    let bytes = contd_protocol::encode(message).expect("small");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden.replace([' ', '\n'], ""), "{message:?}");
    assert_eq!(&contd_protocol::decode::<T>(&bytes).expect("own bytes"), message);
}

fn target() -> api::Target {
    let namespace = NamespaceId::new("ns").expect("valid");
    api::Target { namespace, container: ContainerRef::new("web").expect("valid") }
}

fn exit() -> Exit {
    Exit { cause: ExitCause::Code(3), at: Timestamp(5), oom_kills: 1, source: ExitSource::Reaped, is_drained: true }
}

#[test]
fn verbs_of_the_api_keep_their_numbers() {
    let call = |request| api::Call { id: 7, request };
    let target_hex = "0200000000000000 6e73 0300000000000000 776562";
    pinned(&call(api::Request::Version), "0700000000000000 00000000");
    pinned(&call(api::Request::Start { target: target() }), &format!("0700000000000000 02000000 {target_hex}"));
    let stop = api::Request::Stop { target: target(), timeout: Some(Duration::from_millis(1500)) };
    pinned(&call(stop), &format!("0700000000000000 03000000 {target_hex} 01 0100000000000000 0065cd1d"));
    let kill = api::Request::Kill { target: target(), signal: Signal::KILL };
    pinned(&call(kill), &format!("0700000000000000 04000000 {target_hex} 09"));
    let delete = api::Request::Delete { target: target(), force: true, timeout: None };
    pinned(&call(delete), &format!("0700000000000000 05000000 {target_hex} 01 00"));
    pinned(&call(api::Request::Inspect { target: target() }), &format!("0700000000000000 06000000 {target_hex}"));
    let list = api::Request::List { namespace: None, after: None, limit: 9 };
    pinned(&call(list), "0700000000000000 07000000 00 00 09000000");
    pinned(&call(api::Request::ListNamespaces), "0700000000000000 08000000");
    pinned(&call(api::Request::Wait { target: target() }), &format!("0700000000000000 09000000 {target_hex}"));
    let logs = api::Request::Logs { target: target(), is_following: true, tail: Some(2) };
    pinned(&call(logs), &format!("0700000000000000 0a000000 {target_hex} 01 01 0200000000000000"));
    let events = api::Request::Events { from: Some(4), namespace: None };
    pinned(&call(events), "0700000000000000 0c000000 01 0400000000000000 00");
    let update = api::Request::Update { target: target(), restart: Some(contd_types::RestartPolicy::Always) };
    pinned(&call(update), &format!("0700000000000000 0e000000 {target_hex} 01 02000000"));
    let upgrade = api::Request::UpgradeShim { target: target() };
    pinned(&call(upgrade), &format!("0700000000000000 0f000000 {target_hex}"));
    let shut_down = api::Request::ShutDown { longest: Duration::from_secs(60) };
    pinned(&call(shut_down), "0700000000000000 10000000 3c00000000000000 00000000");
    pinned(&call(api::Request::FlistServers), "0700000000000000 11000000");
    pinned(&call(api::Request::CacheUsage), "0700000000000000 12000000");
}

/// An id of an executed process, and its bytes.
fn exec() -> (ExecId, String) {
    (ExecId::from_random(0xab), format!("1000000000000000 {} 6162", "30".repeat(14)))
}

#[test]
fn verbs_about_executed_processes_keep_their_numbers() {
    let call = |request| api::Call { id: 7, request };
    let target_hex = "0200000000000000 6e73 0300000000000000 776562";
    let (exec, exec_hex) = exec();
    let terminal = Some(WindowSize { rows: 30, columns: 100 });
    let spec = ExecSpec { args: vec!["sh".into()], terminal, ..ExecSpec::default() };
    let spec_hex = "0100000000000000 0200000000000000 7368 0000000000000000 00 00 01 1e00 6400";
    let request = Box::new(api::ExecRequest { target: target(), spec, has_descriptors: false });
    let request_hex = format!("{target_hex} {spec_hex} 00");
    pinned(&call(api::Request::Exec(request.clone())), &format!("0700000000000000 13000000 {request_hex}"));
    let wait = api::Request::WaitExec { target: target(), exec };
    pinned(&call(wait), &format!("0700000000000000 14000000 {target_hex} {exec_hex}"));
    let kill = api::Request::KillExec { target: target(), exec, signal: Signal::KILL };
    pinned(&call(kill), &format!("0700000000000000 15000000 {target_hex} {exec_hex} 09"));
    pinned(&call(api::Request::ListExecs { target: target() }), &format!("0700000000000000 16000000 {target_hex}"));
    pinned(&call(api::Request::ExecStream(request)), &format!("0700000000000000 17000000 {request_hex}"));
    let input = api::Request::ExecInput { target: target(), exec, content: b"x".to_vec(), is_last: true };
    pinned(&call(input), &format!("0700000000000000 18000000 {target_hex} {exec_hex} 0100000000000000 78 01"));
    let size = WindowSize { rows: 50, columns: 132 };
    let resize = api::Request::ResizeExec { target: target(), exec, size };
    pinned(&call(resize), &format!("0700000000000000 19000000 {target_hex} {exec_hex} 3200 8400"));
}

#[test]
fn changes_of_limits_are_a_text() {
    let text = r#"{"restart":"Always","memory_bytes":67108864,"cpu":null,"pids_limit":7,"resources":{"memory_swap":"unlimited","memory_reservation_bytes":null,"cpu_shares":null,"cpu_quota_us":null,"cpu_period_us":null,"cpuset_cpus":"0-1","cpuset_mems":null,"blkio_weight":null,"shm_bytes":null}}"#;
    let mut changes = contd_types::Changes::restart(contd_types::RestartPolicy::Always);
    (changes.memory_bytes, changes.pids_limit) = (Some(64 << 20), Some(7));
    changes.resources.memory_swap = Some(contd_types::MemorySwap::Unlimited);
    changes.resources.cpuset_cpus = Some("0-1".to_owned());
    let changes = api::Text::new(&changes).expect("JSON");
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let length: String = (text.len() as u64).to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let change = api::Call { id: 7, request: api::Request::Change { target: target(), changes } };
    pinned(&change, &format!("0700000000000000 24000000 0200000000000000 6e73 0300000000000000 776562 {length} {hex}"));
}

#[test]
fn verbs_about_running_containers_keep_their_numbers() {
    let call = |request| api::Call { id: 7, request };
    let target_hex = "0200000000000000 6e73 0300000000000000 776562";
    let restart = api::Request::Restart { target: target(), timeout: Some(Duration::from_secs(3)) };
    pinned(&call(restart), &format!("0700000000000000 1a000000 {target_hex} 01 0300000000000000 00000000"));
    pinned(&call(api::Request::Pause { target: target() }), &format!("0700000000000000 1b000000 {target_hex}"));
    pinned(&call(api::Request::Unpause { target: target() }), &format!("0700000000000000 1c000000 {target_hex}"));
    pinned(&call(api::Request::Stats { target: target() }), &format!("0700000000000000 1d000000 {target_hex}"));
    pinned(&call(api::Request::ListStats { namespace: None, after: None }), "0700000000000000 1e000000 00 00");
    pinned(&call(api::Request::Processes { target: target() }), &format!("0700000000000000 1f000000 {target_hex}"));
    pinned(&call(api::Request::Attach { target: target() }), &format!("0700000000000000 21000000 {target_hex}"));
    pinned(&call(api::Request::CloseInput { target: target() }), &format!("0700000000000000 22000000 {target_hex}"));
    let resize = api::Request::Resize { target: target(), size: WindowSize { rows: 50, columns: 132 } };
    pinned(&call(resize), &format!("0700000000000000 23000000 {target_hex} 3200 8400"));
    let id = ContainerId::from_random([0xab; 16]);
    let id_hex = format!("2000000000000000 {}", "6162".repeat(16));
    let reply = |result| api::Reply { id: 2, result: Ok(result) };
    let usage = Usage {
        cpu: CpuUsage { total_ns: Some(1), user_ns: Some(2), ..CpuUsage::default() },
        memory: MemoryUsage { bytes: Some(3), oom_kills: Some(4), ..MemoryUsage::default() },
        pids: PidsUsage { count: Some(5), limit: None },
        io: IoUsage { writes: Some(6), ..IoUsage::default() },
        pressure: PressureUsage { io_ns: Some(7), ..PressureUsage::default() },
    };
    let network = NetworkUsage { received_bytes: 1, sent_bytes: 2, received_packets: 3, sent_packets: 4 };
    let stats = ContainerStats {
        id: id.clone(),
        name: ContainerName::new("c").expect("valid"),
        namespace: NamespaceId::new("n").expect("valid"),
        pid: Pid(9),
        monotonic_ns: 8,
        usage,
        network: Some(network),
    };
    let number = |number: u8| format!("{number:02x}00000000000000");
    let some = |given: u8| format!("01 {}", number(given));
    let usage_hex = format!(
        "{} {} 00 00 00 00  {} 00 00 00 00 00 00 {}  {} 00  00 00 00 {}  00 00 {}",
        some(1),
        some(2),
        some(3),
        some(4),
        some(5),
        some(6),
        some(7)
    );
    let network_hex = [1, 2, 3, 4].map(number).concat();
    let stats_hex = format!(
        "{id_hex} 0100000000000000 63 0100000000000000 6e 09000000 0800000000000000 {usage_hex} 01 {network_hex}"
    );
    pinned(
        &reply(api::Response::Stats { stats: vec![stats], next: Some(id) }),
        &format!("0200000000000000 00000000 0d000000 0100000000000000 {stats_hex} 01 {id_hex}"),
    );
    let process = ProcessInfo {
        pid: Pid(9),
        container_pid: Pid(1),
        parent: Pid(8),
        uid: 7,
        state: 'S',
        cpu_ns: 6,
        resident_bytes: 5,
        started: Timestamp(4),
        command: vec!["sh".into()],
    };
    pinned(
        &reply(api::Response::Processes(vec![process])),
        "0200000000000000 00000000 0e000000 0100000000000000 09000000 01000000 08000000 07000000 53 0600000000000000
         0500000000000000 0400000000000000 0100000000000000 0200000000000000 7368",
    );
}

#[test]
fn texts_keep_their_places() {
    let spec = ContainerSpec::new(ContainerName::new("c").expect("valid"), "f");
    let namespace = NamespaceId::new("n").expect("valid");
    let hex = |json: String| {
        let bytes: String = json.bytes().map(|byte| format!("{byte:02x}")).collect();
        let length: String =
            u64::try_from(json.len()).expect("small").to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        length + &bytes
    };
    let json = serde_json::to_string(&spec).expect("JSON");
    let make = api::MakeRequest {
        kind: api::MakeKind::DryRun,
        namespace: namespace.clone(),
        spec: api::Text::new(&spec).expect("JSON"),
        idempotency_key: None,
        is_attached: true,
    };
    pinned(
        &api::Call { id: 7, request: api::Request::Make(Box::new(make)) },
        &format!("0700000000000000 20000000 02000000 0100000000000000 6e {} 00 01", hex(json)),
    );
    let info = ContainerInfo::new(
        ContainerId::from_random([0xab; 16]),
        namespace,
        spec,
        contd_types::State::Creating,
        Timestamp(1),
    );
    let json = serde_json::to_string(&info).expect("JSON");
    let reply = |result| api::Reply { id: 2, result: Ok(result) };
    pinned(
        &reply(api::Response::InfoText(api::Text::new(&info).expect("JSON"))),
        &format!("0200000000000000 00000000 0f000000 {}", hex(json)),
    );
    let id = ContainerId::from_random([0xab; 16]);
    let id_hex = format!("2000000000000000 {}", "6162".repeat(16));
    let attached = api::Response::Attached { id, has_terminal: true, has_input: false };
    pinned(&reply(attached), &format!("0200000000000000 00000000 11000000 {id_hex} 01 00"));
    pinned(&api::StreamItem { id: 2, item: api::Item::Follows }, "0200000000000000 06000000");
    let page = api::Response::PageText { containers: api::Text::new(&Vec::new()).expect("JSON"), has_more: true };
    pinned(&reply(page), "0200000000000000 00000000 10000000 0200000000000000 5b5d 01");
}

#[test]
fn answers_about_executed_processes_keep_their_numbers() {
    let (exec, exec_hex) = exec();
    let id = ContainerId::from_random([0xab; 16]);
    let id_hex = format!("2000000000000000 {}", "6162".repeat(16));
    let reply = |result| api::Reply { id: 2, result };
    let executes = api::Response::Executes { id: id.clone(), exec, pid: Pid(9), has_terminal: true };
    pinned(&reply(Ok(executes)), &format!("0200000000000000 00000000 0b000000 {id_hex} {exec_hex} 09000000 01"));
    let info = ExecInfo { exec, pid: Pid(9), args: vec!["sh".into()], has_terminal: true, since: Timestamp(6) };
    let info_hex = format!("{exec_hex} 09000000 0100000000000000 0200000000000000 7368 01 0600000000000000");
    let execs = api::Response::Execs(vec![info.clone()]);
    pinned(&reply(Ok(execs)), &format!("0200000000000000 00000000 0c000000 0100000000000000 {info_hex}"));
    let item = api::StreamItem { id: 2, item: api::Item::Executes { id, exec, pid: Pid(9) } };
    pinned(&item, &format!("0200000000000000 05000000 {id_hex} {exec_hex} 09000000"));
    let user = shim::ExecUser { uid: 1, gid: 2, additional_gids: vec![3] };
    let (args, env, cwd) = (vec!["sh".into()], vec!["A=1".into()], Some("/".into()));
    let process = Box::new(shim::ExecProcess { args, env, cwd, user: Some(user), terminal: None });
    let process_hex = "0100000000000000 0200000000000000 7368 0100000000000000 0300000000000000 413d31 \
                       01 0100000000000000 2f 01 01000000 02000000 0100000000000000 03000000 00";
    let call = |request| shim::Call { id: 3, request };
    let request = shim::Request::Exec { exec, process };
    pinned(&call(request), &format!("0300000000000000 0b000000 {exec_hex} {process_hex}"));
    pinned(&call(shim::Request::WaitExec { exec }), &format!("0300000000000000 0c000000 {exec_hex}"));
    let kill = shim::Request::KillExec { exec, signal: Signal::KILL };
    pinned(&call(kill), &format!("0300000000000000 0d000000 {exec_hex} 09"));
    pinned(&call(shim::Request::Execs), "0300000000000000 0e000000");
    pinned(&call(shim::Request::CloseInput), "0300000000000000 0f000000");
    let size = WindowSize { rows: 50, columns: 132 };
    pinned(&call(shim::Request::Resize { size }), "0300000000000000 10000000 3200 8400");
    pinned(&call(shim::Request::Terminal), "0300000000000000 11000000");
    pinned(&call(shim::Request::GiveTerminal), "0300000000000000 12000000");
    let terminal = shim::Response::Terminal { is_there: true };
    pinned(&shim::Reply { id: 3, result: Ok(terminal) }, "0300000000000000 00000000 06000000 01");
    let executes = shim::Response::Executes { pid: Pid(9), has_terminal: false };
    pinned(&shim::Reply { id: 3, result: Ok(executes) }, "0300000000000000 00000000 04000000 09000000 00");
    let execs = shim::Response::Execs(vec![info]);
    pinned(
        &shim::Reply { id: 3, result: Ok(execs) },
        &format!("0300000000000000 00000000 05000000 0100000000000000 {info_hex}"),
    );
}

#[test]
fn a_run_keeps_the_order_of_its_fields() {
    let mut spec = ContainerSpec::new(ContainerName::new("c").expect("valid"), "f");
    spec.entrypoint = Some(Entrypoint::Args(vec!["a".into()]));
    spec.memory_bytes = Some(1);
    let namespace = NamespaceId::new("n").expect("valid");
    let run = api::RunRequest { namespace, spec, idempotency_key: None, is_attached: true };
    let golden = "
        0100000000000000 01000000
        0100000000000000 6e
        0100000000000000 63  0100000000000000 66  0000000000000000  0000000000000000  00000000  0000000000000000
        01 01000000 0100000000000000 0100000000000000 61
        00 00  01 0100000000000000  00 00  00  00 00  00000000  00 00  00  00000000  0000000000000000  00
        00  00  00 01";
    pinned(&api::Call { id: 1, request: api::Request::Run(Box::new(run)) }, golden);
}

#[test]
fn answers_of_the_api_keep_their_numbers() {
    let id = ContainerId::from_random([0xab; 16]);
    let id_hex = format!("2000000000000000 {}", "6162".repeat(16));
    let exit_hex = "00000000 03 0500000000000000 0100000000000000 00000000 01";
    let reply = |result| api::Reply { id: 2, result };
    pinned(&reply(Ok(api::Response::Done)), "0200000000000000 00000000 00000000");
    let created = api::Response::Created { id: id.clone() };
    pinned(&reply(Ok(created)), &format!("0200000000000000 00000000 02000000 {id_hex}"));
    let exited = api::Response::Exited { id, exit: exit() };
    pinned(&reply(Ok(exited)), &format!("0200000000000000 00000000 03000000 {id_hex} {exit_hex}"));
    pinned(&reply(Ok(api::Response::ShutDown { ended: 3 })), "0200000000000000 00000000 08000000 03000000");
    let error = ApiError::new(ErrorKind::Busy, "m").with_hint("h");
    let error_hex = "04000000 0100000000000000 6d 0000000000000000 01 0100000000000000 68";
    pinned(&reply(Err(error)), &format!("0200000000000000 01000000 {error_hex}"));
    let log = api::LogItem { at: Timestamp(6), stream: api::LogStream::Stderr, content: b"x\n".to_vec() };
    let item = api::StreamItem { id: 2, item: api::Item::Log(log) };
    pinned(&item, "0200000000000000 02000000 0600000000000000 01000000 0200000000000000 780a");
}

#[test]
fn states_keep_their_numbers() {
    let id = ContainerId::from_random([0xab; 16]);
    let namespace = NamespaceId::new("n").expect("valid");
    let mut spec = ContainerSpec::new(ContainerName::new("c").expect("valid"), "f");
    spec.labels.insert("k".to_owned(), "v".to_owned());
    let info =
        |state| contd_types::ContainerInfo::new(id.clone(), namespace.clone(), spec.clone(), state, Timestamp(1));
    let summary = |state| contd_types::ContainerSummary::from(&info(state));
    let head =
        format!("2000000000000000 {} 0100000000000000 6e 0100000000000000 63 0100000000000000 66", "6162".repeat(16));
    let tail = "0100000000000000 00 00000000 0100000000000000 0100000000000000 6b 0100000000000000 76";
    use contd_types::State as S;
    for (state, golden) in [
        (S::Creating, "00000000"),
        (S::Created { pid: Pid(9) }, "01000000 09000000"),
        (S::Starting { pid: Pid(9) }, "02000000 09000000"),
        (S::Running { pid: Pid(9) }, "03000000 09000000"),
        (S::Paused { pid: Pid(9) }, "04000000 09000000"),
        (S::Stopping { pid: None }, "05000000 00"),
        (S::Stopped { exit: exit() }, "06000000 00000000 03 0500000000000000 0100000000000000 00000000 01"),
        (S::Recovering, "09000000"),
        (S::Deleting, "0a000000"),
        (S::Prepared, "0b000000"),
        (S::Lingering { reason: "r".into() }, "0c000000 0100000000000000 72"),
    ] {
        let page = api::Response::Page { containers: vec![summary(state)], has_more: false };
        pinned(&page, &format!("05000000 0100000000000000 {head} {golden} {tail} 00"));
    }
}

#[test]
fn verbs_of_the_shim_keep_their_numbers() {
    use shim::Request as R;
    let kill = R::Kill { signal: Signal::TERM, is_for_all: false };
    let verbs = [
        (R::Create, "00000000"),
        (R::Start, "01000000"),
        (R::State, "02000000"),
        (kill, "03000000 0f 00"),
        (R::Wait, "04000000"),
        (R::Pause, "05000000"),
        (R::Resume, "06000000"),
        (R::Delete { force: true }, "07000000 01"),
        (R::RotateLog, "08000000"),
        (R::Shutdown, "09000000"),
        (R::HandOver { binary: "/b".into() }, "0a000000 0200000000000000 2f62"),
    ];
    for (request, golden) in verbs {
        pinned(&shim::Call { id: 3, request }, &format!("0300000000000000 {golden}"));
    }
    let running = shim::Response::State(shim::TaskState::Running { pid: Pid(9) });
    pinned(&shim::Reply { id: 3, result: Ok(running) }, "0300000000000000 00000000 02000000 03000000 09000000");
}

#[test]
fn verbs_of_the_flist_server_keep_their_numbers() {
    pinned(&flistfs::Call { id: 4, request: flistfs::Request::Status }, "0400000000000000 00000000");
    pinned(&flistfs::Call { id: 4, request: flistfs::Request::Shutdown }, "0400000000000000 01000000");
    pinned(&flistfs::Call { id: 4, request: flistfs::Request::HandOver }, "0400000000000000 02000000");
}

#[test]
fn a_truncated_or_lengthened_golden_call_is_refused() {
    let bytes = contd_protocol::encode(&api::Call { id: 7, request: api::Request::Version }).expect("small");
    assert!(contd_protocol::decode::<api::Call>(&bytes[..bytes.len() - 1]).is_err());
    assert!(contd_protocol::decode::<api::Call>(&[&bytes[..], &[0]].concat()).is_err());
}
