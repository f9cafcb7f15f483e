//! Daemons that keep to the protocol.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use contd_protocol::api::{
    CacheInfo, CacheKindInfo, ExecRequest, Item, MAX_CALLS_PER_CONNECTION, MAX_LIST_PAGE, NamespaceSummary, Plan,
    Request, Response, VersionInfo,
};
use contd_types::{
    ApiError, ContainerEvent, ContainerStats, ErrorKind, EventKind, ExecId, ExecSpec, Pid, Signal, Timestamp, Usage,
    WindowSize,
};
use tokio::sync::{Notify, watch};

use super::{exit, id, log, namespace, patiently, place, run_request, summary, target};
use crate::testing::{Caller, FakeDaemon};
use crate::{Client, ClientError, Deadline, EventItem, ExecItem, ListFilter, LogsOptions, Progress, RunItem};

async fn connect(socket: &std::path::Path) -> Client {
    patiently("the hello", Client::connect(socket, Deadline::Usual)).await.expect("connected")
}

fn stats(number: u8) -> ContainerStats {
    ContainerStats {
        id: id(number),
        name: run_request().spec.name,
        namespace: namespace(),
        pid: Pid(7),
        monotonic_ns: 1,
        usage: Usage::default(),
        network: None,
    }
}

/// Answers each kind of request as a daemon would.
async fn answer(request: Request, caller: Caller) -> Result<Response, ApiError> {
    let gone = |error: std::io::Error| ApiError::new(ErrorKind::Internal, error.to_string());
    match request {
        Request::Version => Ok(Response::Version(VersionInfo {
            version: "9.9".into(),
            protocol: 1,
            pid: 7,
            started_at: Timestamp(1),
            runtime: "runc".into(),
        })),
        Request::Run(run) | Request::Create(run) => {
            caller
                .item(Item::Progress { what: "fetch".into(), done_bytes: 1, total_bytes: Some(2) })
                .await
                .map_err(gone)?;
            if !run.is_attached {
                return Ok(Response::Created { id: id(1) });
            }
            caller.item(Item::Started { id: id(1) }).await.map_err(gone)?;
            caller.item(log("hello\n")).await.map_err(gone)?;
            Ok(Response::Exited { id: id(1), exit: exit(3) })
        }
        Request::Start { .. }
        | Request::Kill { .. }
        | Request::Update { .. }
        | Request::Change { .. }
        | Request::UpgradeShim { .. }
        | Request::KillExec { .. }
        | Request::ExecInput { .. }
        | Request::ResizeExec { .. }
        | Request::Restart { .. }
        | Request::Pause { .. }
        | Request::Unpause { .. }
        | Request::CloseInput { .. }
        | Request::Resize { .. }
        | Request::Delete { .. } => Ok(Response::Done),
        // One whose input is not open.
        Request::Attach { .. } => Ok(Response::Attached { id: id(1), has_terminal: true, has_input: false }),
        // It comes in its plain form.
        Request::Make(_) => Err(ApiError::new(ErrorKind::Internal, "make")),
        // With descriptors, which a script has not.
        Request::Exec(_) => Err(ApiError::new(ErrorKind::Unsupported, "execute a process")),
        Request::ExecStream(_) => {
            let exec = ExecId::from_random(9);
            caller.item(Item::Executes { id: id(1), exec, pid: Pid(77) }).await.map_err(gone)?;
            for number in 0..1000 {
                caller.item(log(&format!("{number}\n"))).await.map_err(gone)?;
            }
            Ok(Response::Exited { id: id(1), exit: exit(7) })
        }
        Request::WaitExec { .. } => Ok(Response::Exited { id: id(1), exit: exit(7) }),
        Request::Stats { .. } => Ok(Response::Stats { stats: vec![stats(1)], next: None }),
        Request::ListStats { after: None, .. } => Ok(Response::Stats { stats: vec![stats(1)], next: Some(id(5)) }),
        Request::ListStats { after: Some(_), .. } => Ok(Response::Stats { stats: vec![stats(7)], next: None }),
        Request::Processes { .. } => Ok(Response::Processes(Vec::new())),
        Request::ListExecs { .. } => Ok(Response::Execs(Vec::new())),
        Request::Stop { .. } | Request::Wait { .. } => Ok(Response::Exited { id: id(1), exit: exit(5) }),
        Request::Inspect { .. } => {
            Err(ApiError::new(ErrorKind::NotFound, "find container web").with_hint("see `contd ps -a`"))
        }
        Request::List { after, limit, .. } => {
            let all: Vec<_> = (0..600).map(summary).collect();
            let rest: Vec<_> = all.into_iter().filter(|entry| after.as_ref().is_none_or(|a| entry.id > *a)).collect();
            let limit = usize::try_from(limit.min(MAX_LIST_PAGE)).expect("small");
            let has_more = rest.len() > limit;
            Ok(Response::Page { containers: rest.into_iter().take(limit).collect(), has_more })
        }
        Request::ListNamespaces => {
            Ok(Response::Namespaces(vec![NamespaceSummary { namespace: namespace(), containers: 2, running: 1 }]))
        }
        Request::Logs { .. } => {
            for number in 0..1000 {
                caller.item(log(&format!("{number}\n"))).await.map_err(gone)?;
            }
            Ok(Response::Done)
        }
        Request::ShutDown { .. } => Ok(Response::ShutDown { ended: 2 }),
        Request::FlistServers => Ok(Response::FlistServers(Vec::new())),
        Request::CacheUsage => Ok(Response::Cache(Box::new(CacheInfo {
            cache_dir: "/c".into(),
            max_bytes: 2,
            min_free_bytes: 1,
            free_bytes: None,
            kinds: [CacheKindInfo { count: 1, bytes: 1, last_used: None, oldest_use: None }; 4],
            flists: Vec::new(),
            failure: None,
        }))),
        Request::DryRun(_) => Ok(Response::Plan(Box::new(Plan { config_json: "{}".into(), log_path: "/l".into() }))),
        Request::Events { from, .. } => {
            let first = from.unwrap_or(100);
            caller.item(Item::EventGap { from: first, to: first + 5 }).await.map_err(gone)?;
            let event = ContainerEvent {
                namespace: namespace(),
                id: id(1),
                name: run_request().spec.name,
                at: Timestamp(0),
                kind: EventKind::Accepted,
            };
            caller.item(Item::Event { seq: first + 5, event }).await.map_err(gone)?;
            caller.cancelled().await;
            Ok(Response::Done)
        }
    }
}

#[tokio::test]
async fn every_request_gets_its_answer() {
    let place = place();
    let daemon = FakeDaemon::listen(&place.socket, answer).expect("listens");
    let client = connect(&place.socket).await;
    let usual = Deadline::Usual;
    assert_eq!(client.agent(), "fake/1");
    assert_eq!(client.version(usual).await.expect("version").version, "9.9");
    let mut seen = Vec::new();
    let got = client.run(run_request(), usual, |progress| seen.push(progress)).await.expect("run");
    assert_eq!(got, id(1));
    assert_eq!(seen, [Progress { what: "fetch".into(), done_bytes: 1, total_bytes: Some(2) }]);
    assert_eq!(client.create(run_request(), usual, |_progress| {}).await.expect("create"), id(1));
    let exec = ExecRequest { target: target(), spec: ExecSpec::default(), has_descriptors: false };
    let mut process = client.exec_stream(exec, usual).await.expect("exec");
    let first = process.next().await.expect("an item").expect("runs");
    let ExecItem::Executes { exec, .. } = first else { panic!("{first:?}") };
    client.write_exec(target(), exec, b"word".to_vec(), true, usual).await.expect("write");
    client.resize_exec(target(), exec, WindowSize::default(), usual).await.expect("resize");
    for number in 0..1000 {
        let Some(Ok(ExecItem::Output(said))) = process.next().await else { panic!("no output {number}") };
        assert_eq!(Item::Log(said), log(&format!("{number}\n")));
    }
    assert_eq!(process.next().await.expect("an item").expect("its end"), ExecItem::Exited(exit(7)));
    assert!(process.next().await.is_none());
    client.start(target(), usual).await.expect("start");
    let changes = contd_types::Changes::restart(contd_types::RestartPolicy::Always);
    client.update(target(), changes.clone(), usual).await.expect("update");
    client.update(target(), contd_types::Changes { pids_limit: Some(7), ..changes }, usual).await.expect("limits");
    client.upgrade_shim(target(), usual).await.expect("upgrade");
    client.kill(target(), Signal::TERM, usual).await.expect("kill");
    assert_eq!(client.stats(target(), usual).await.expect("stats"), stats(1));
    assert_eq!(client.all_stats(ListFilter::All, usual).await.expect("stats"), [stats(1), stats(7)]);
    assert_eq!(client.processes(target(), usual).await.expect("processes"), []);
    client.pause(target(), usual).await.expect("pause");
    client.unpause(target(), usual).await.expect("unpause");
    client.restart(target(), None, usual).await.expect("restart");
    let attached = client.attach(target(), usual).await.expect("attach");
    assert_eq!((attached.container, attached.has_terminal, attached.input.is_none()), (id(1), true, true));
    client.close_input(target(), usual).await.expect("close");
    client.resize(target(), WindowSize { rows: 1, columns: 2 }, usual).await.expect("resize");
    client.delete(target(), true, None, usual).await.expect("delete");
    assert_eq!(client.stop(target(), None, usual).await.expect("stop"), exit(5));
    assert_eq!(client.wait(target(), usual).await.expect("wait"), exit(5));
    assert_eq!(client.list_namespaces(usual).await.expect("namespaces").len(), 1);
    assert_eq!(client.dry_run(run_request(), usual).await.expect("plan").config_json, "{}");
    assert_eq!(client.shut_down(std::time::Duration::from_secs(1), usual).await.expect("shut down"), 2);
    assert_eq!(daemon.requests().len(), 27);
}

#[tokio::test]
async fn an_error_of_the_daemon_arrives_whole() {
    let place = place();
    let _daemon = FakeDaemon::listen(&place.socket, answer).expect("listens");
    let error = connect(&place.socket).await.inspect(target(), Deadline::Usual).await.expect_err("not found");
    let ClientError::Api(error) = error else { panic!("got {error:?}") };
    assert_eq!((error.kind, error.hint.as_deref()), (ErrorKind::NotFound, Some("see `contd ps -a`")));
}

#[tokio::test]
async fn a_list_is_read_to_its_last_page() {
    let place = place();
    let daemon = FakeDaemon::listen(&place.socket, answer).expect("listens");
    let client = connect(&place.socket).await;
    let list = client.list(ListFilter::Namespace(namespace()), Deadline::Usual).await.expect("list");
    assert_eq!(list.len(), 600);
    assert_eq!(daemon.requests().len(), 3, "600 entries are three pages of 256");
}

#[tokio::test]
async fn an_attached_run_gives_progress_start_output_and_exit_in_order() {
    let place = place();
    let _daemon = FakeDaemon::listen(&place.socket, answer).expect("listens");
    let mut run = connect(&place.socket).await.run_attached(run_request(), Deadline::Usual).await.expect("sent");
    let mut items = Vec::new();
    while let Some(item) = patiently("the next piece", run.next()).await {
        items.push(item.expect("no error"));
    }
    assert!(
        matches!(&items[..], [RunItem::Progress(_), RunItem::Started { .. }, RunItem::Log(log), RunItem::Exited { exit: got, .. }]
            if log.content == b"hello\n" && *got == exit(3)),
        "got {items:?}"
    );
    assert!(run.next().await.is_none(), "the end stays the end");
}

#[tokio::test]
async fn a_long_log_arrives_whole_by_credit() {
    let place = place();
    let _daemon = FakeDaemon::listen(&place.socket, answer).expect("listens");
    let mut logs =
        connect(&place.socket).await.logs(target(), LogsOptions::default(), Deadline::Usual).await.expect("sent");
    let mut text = String::new();
    while let Some(item) = patiently("the next line", logs.next()).await {
        text.push_str(std::str::from_utf8(&item.expect("no error").content).expect("text"));
    }
    assert_eq!(text, (0..1000).map(|number| format!("{number}\n")).collect::<String>());
}

#[tokio::test]
async fn a_slow_reader_holds_the_daemon_back_and_not_other_calls() {
    let place = place();
    let sent = watch::Sender::new(0usize);
    let mut watching = sent.subscribe();
    let daemon = FakeDaemon::listen(&place.socket, move |request, caller| {
        let sent = sent.clone();
        async move {
            if !matches!(request, Request::Logs { .. }) {
                return answer(request, caller).await;
            }
            loop {
                tokio::select! {
                    biased;
                    result = caller.item(log("x")) => result.expect("connected"),
                    () = caller.cancelled() => return Ok(Response::Done),
                }
                sent.send_modify(|count| *count += 1);
            }
        }
    })
    .expect("listens");
    let client = connect(&place.socket).await;
    let mut logs = client.logs(target(), LogsOptions::default(), Deadline::Usual).await.expect("sent");
    patiently("the first window", watching.wait_for(|sent| *sent == 64)).await.expect("alive");
    for _ in 0..3 {
        client.version(Deadline::Usual).await.expect("another call goes on");
    }
    assert_eq!(*watching.borrow(), 64, "without credit nothing more is sent");
    for _ in 0..33 {
        patiently("an item", logs.next()).await.expect("not over").expect("no error");
    }
    patiently("the next window", watching.wait_for(|sent| *sent == 96)).await.expect("alive");
    client.version(Deadline::Usual).await.expect("another call goes on");
    assert_eq!(*watching.borrow(), 96, "credit is for what was taken, and no more");
    drop(daemon);
}

#[tokio::test]
async fn events_and_gaps_arrive_and_a_dropped_stream_is_cancelled() {
    let place = place();
    let cancelled = Arc::new(Notify::new());
    let told = Arc::clone(&cancelled);
    let _daemon = FakeDaemon::listen(&place.socket, move |request, caller| {
        let told = Arc::clone(&told);
        async move {
            let result = answer(request, caller).await;
            told.notify_one();
            result
        }
    })
    .expect("listens");
    let client = connect(&place.socket).await;
    let mut events = client.events(Some(3), None, Deadline::Usual).await.expect("sent");
    let gap = patiently("the gap", events.next()).await.expect("not over").expect("no error");
    assert_eq!(gap, EventItem::Gap { from: 3, to: 8 });
    let event = patiently("the event", events.next()).await.expect("not over").expect("no error");
    assert!(matches!(event, EventItem::Event { seq: 8, .. }), "got {event:?}");
    drop(events);
    patiently("the cancel", cancelled.notified()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_at_once_all_end_and_no_more_than_the_limit_overlap() {
    let place = place();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (counting, peak, waiting) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&gate));
    let _daemon = FakeDaemon::listen(&place.socket, move |request, caller| {
        let (now, most, gate) = (Arc::clone(&counting), Arc::clone(&peak), Arc::clone(&waiting));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let _pass = gate.acquire().await;
            now.fetch_sub(1, Ordering::SeqCst);
            answer(request, caller).await
        }
    })
    .expect("listens");
    let client = connect(&place.socket).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let client = client.clone();
        calls.spawn(async move { client.version(Deadline::Never).await });
    }
    patiently("a full window of calls", async {
        while now.load(Ordering::SeqCst) < MAX_CALLS_PER_CONNECTION {
            tokio::task::yield_now().await;
        }
    })
    .await;
    gate.add_permits(1000);
    let results = patiently("the end of all calls", calls.join_all()).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1000);
    assert_eq!(most.load(Ordering::SeqCst), MAX_CALLS_PER_CONNECTION);
}

#[tokio::test]
async fn a_client_whose_idle_connection_was_closed_connects_again_by_itself() {
    let (dir, version) = (tempfile::tempdir().expect("scratch"), || async { Ok(Response::Done) });
    let socket = dir.path().join("sock");
    let daemon = FakeDaemon::listen(&socket, move |_request, _caller| version()).expect("listen");
    let client = connect(&socket).await;
    let clone = client.clone();
    patiently("a call", client.kill(target(), Signal::TERM, Deadline::Usual)).await.expect("done");
    // It closes what is idle; another one listens at once.
    drop(daemon);
    std::fs::remove_file(&socket).expect("remove the socket");
    let again = FakeDaemon::listen(&socket, move |_request, _caller| version()).expect("listen");
    patiently("the end to be seen", async {
        while !client.is_closed_idle().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for caller in [&client, &clone] {
        patiently("a call", caller.kill(target(), Signal::TERM, Deadline::Usual)).await.expect("done");
    }
    assert_eq!(again.requests().len(), 2);
}
