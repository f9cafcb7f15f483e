//! Tests of the verbs that make one call.

use std::time::Duration;

use contd_protocol::api::{
    CacheInfo, CacheKindInfo, FlistServerInfo, FlistServerState, Item, LogItem, LogStream, NamespaceSummary, Plan,
    Request, Response, VersionInfo,
};
use contd_types::{
    ApiError, ContainerEvent, ErrorKind, EventKind, ExecId, ExecInfo, ExitCause, NamespaceId, Pid, Signal, Timestamp,
};
use serde_json::Value;

use super::samples::{self, exit, id, running, stopped, summaries};
use super::{Buffer, ClosedPipe, Daemon, Output, Shell};

fn log(stream: LogStream, text: &str) -> Item {
    Item::Log(LogItem { at: Timestamp(0), stream, content: text.as_bytes().to_vec() })
}

/// A node with two containers, `web` and `job`.
fn node() -> Daemon {
    Daemon::scripted(async |request, caller| {
        let known = ["web", "job", "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"];
        let is_unknown = |target: &contd_protocol::api::Target| !known.contains(&target.container.as_str());
        let not_found = || {
            let mut error = ApiError::new(ErrorKind::NotFound, "find the container").with_hint("see `contd ps -a`");
            error.causes = vec!["no name or id is like this".into()];
            Err(error)
        };
        match request {
            Request::UpgradeShim { target } if target.container.as_str().starts_with("abab") => Ok(Response::Done),
            Request::Inspect { target } if target.container.as_str() == "job" => {
                Ok(Response::Info(Box::new(stopped())))
            }
            Request::Inspect { target }
            | Request::Wait { target }
            | Request::Stop { target, .. }
            | Request::Kill { target, .. }
            | Request::Start { target }
            | Request::Restart { target, .. }
            | Request::Pause { target }
            | Request::Unpause { target }
            | Request::Update { target, .. }
            | Request::Change { target, .. }
            | Request::UpgradeShim { target }
            | Request::Delete { target, .. }
                if is_unknown(&target) =>
            {
                not_found()
            }
            Request::Inspect { .. } => Ok(Response::Info(Box::new(running()))),
            Request::List { .. } => Ok(Response::Page { containers: summaries(), has_more: false }),
            Request::Wait { .. } | Request::Stop { .. } => {
                Ok(Response::Exited { id: id(1), exit: exit(ExitCause::Signal(Signal::KILL)) })
            }
            // With descriptors, which a script has not: tests/e2e/exec.rs, attach.rs. A make comes in its plain form.
            Request::Attach { .. }
            | Request::CloseInput { .. }
            | Request::Resize { .. }
            | Request::Make(_)
            | Request::Exec(_)
            | Request::ExecStream(_)
            | Request::ExecInput { .. }
            | Request::ResizeExec { .. }
            | Request::WaitExec { .. }
            | Request::KillExec { .. } => not_found(),
            Request::Stats { target } | Request::Processes { target } if is_unknown(&target) => not_found(),
            Request::Stats { .. } => Ok(Response::Stats { stats: vec![samples::stats()], next: None }),
            Request::ListStats { .. } => Ok(Response::Stats { stats: vec![samples::stats()], next: None }),
            Request::Processes { .. } => Ok(Response::Processes(samples::processes())),
            Request::ListExecs { .. } => Ok(Response::Execs(vec![ExecInfo {
                exec: ExecId::from_random(0xab),
                pid: Pid(4800),
                args: vec!["sh".into(), "-c".into(), "date".into()],
                has_terminal: true,
                since: Timestamp(0),
            }])),
            Request::Kill { .. }
            | Request::Start { .. }
            | Request::Restart { .. }
            | Request::Pause { .. }
            | Request::Unpause { .. }
            | Request::Update { .. }
            | Request::Change { .. }
            | Request::UpgradeShim { .. }
            | Request::Delete { .. } => Ok(Response::Done),
            Request::ShutDown { longest } => {
                Ok(Response::ShutDown { ended: u32::try_from(longest.as_secs()).expect("small") })
            }
            Request::Logs { .. } => {
                for item in [log(LogStream::Stdout, "out\n"), log(LogStream::Stderr, "err\n")] {
                    caller.item(item).await.expect("connected");
                }
                Ok(Response::Done)
            }
            Request::ListNamespaces => Ok(Response::Namespaces(vec![NamespaceSummary {
                namespace: NamespaceId::new("blue").expect("valid"),
                containers: 3,
                running: 1,
            }])),
            Request::Version => Ok(Response::Version(VersionInfo {
                version: "9.9".into(),
                protocol: 1,
                pid: 42,
                started_at: Timestamp(0),
                runtime: "runc /usr/bin/runc".into(),
            })),
            Request::FlistServers => Ok(Response::FlistServers(vec![FlistServerInfo {
                server: "0123456789abcdef".into(),
                state: FlistServerState::Serving,
                version: Some("9.9".into()),
                keeper_pid: Some(7),
                is_mounted: true,
                containers: vec![(NamespaceId::new("blue").expect("valid"), id(1))],
            }])),
            Request::CacheUsage => Ok(Response::Cache(Box::new(CacheInfo {
                cache_dir: "/elsewhere".into(),
                max_bytes: 4096,
                min_free_bytes: 1,
                free_bytes: None,
                kinds: [CacheKindInfo { count: 1, bytes: 512, last_used: None, oldest_use: Some(Timestamp(0)) }; 4],
                flists: Vec::new(),
                failure: None,
            }))),
            Request::DryRun(_) => Ok(Response::Plan(Box::new(Plan {
                config_json: "{\"ociVersion\":\"1\"}".into(),
                log_path: "/l".into(),
            }))),
            Request::Run(_) | Request::Create(_) => Ok(Response::Created { id: id(0xab) }),
            Request::Events { .. } => {
                let kind = EventKind::Exited { exit: exit(ExitCause::Code(3)) };
                let info = running();
                let event = ContainerEvent {
                    namespace: info.namespace,
                    id: info.id,
                    name: info.spec.name,
                    at: Timestamp(0),
                    kind,
                };
                caller.item(Item::EventGap { from: 1, to: 5 }).await.expect("connected");
                caller.item(Item::Event { seq: 5, event }).await.expect("connected");
                Ok(Response::Done)
            }
        }
    })
}

#[test]
fn create_update_and_shim_upgrade_ask_for_what_they_say() {
    let node = node();
    assert_eq!(node.contd("create --name web x.fl /bin/true").succeeded(), format!("{}\n", "ab".repeat(16)));
    assert_eq!(node.contd("update --restart always web job").succeeded(), "web\njob\n");
    assert_eq!(node.contd("update -m 64m --memory-swap -1 --pids-limit 7 web").succeeded(), "web\n");
    assert_eq!(node.contd("shim upgrade web").succeeded(), "web\n");
    // Only one of the two runs.
    assert_eq!(node.contd("shim upgrade --all").succeeded(), format!("{}\n", "ab".repeat(16)));
    let asked: Vec<String> = node
        .requests()
        .into_iter()
        .filter_map(|request| match request {
            Request::Create(run) => Some(format!("create {}", run.spec.name)),
            Request::Update { target, restart } => Some(format!("update {} {restart:?}", target.container)),
            Request::Change { target, changes } => {
                let changes = changes.read_all().expect("readable");
                let swap = changes.resources.memory_swap;
                Some(format!(
                    "change {} {:?} {:?} {swap:?}",
                    target.container, changes.memory_bytes, changes.pids_limit
                ))
            }
            Request::UpgradeShim { target } => Some(format!("upgrade {}", target.container)),
            _ => None,
        })
        .collect();
    let whole = format!("upgrade {}", "ab".repeat(16));
    let expected = [
        "create web",
        "update web Some(Always)",
        "update job Some(Always)",
        "change web Some(67108864) Some(7) Some(Unlimited)",
        "upgrade web",
        whole.as_str(),
    ];
    assert_eq!(asked, expected);
    assert_ne!(node.contd("update web").code, 0, "nothing to change");
    assert_ne!(node.contd("shim upgrade").code, 0, "nobody was named");
    assert_ne!(node.contd("shim upgrade nobody").code, 0);
}

#[test]
fn shutdown_gives_a_minute_or_what_it_is_told_and_says_how_many_have_ended() {
    let node = node();
    for (words, ended) in [("shutdown", 60), ("shutdown -t 5", 5)] {
        let output = node.contd(words);
        assert_eq!((output.code, output.out.as_str()), (0, ""));
        assert!(output.err.contains(&format!("{ended} containers have ended")), "{}", output.err);
    }
}

#[test]
fn what_a_node_has_of_flists_is_asked_of_its_daemon() {
    let node = node();
    let servers = node.contd("flist server ls").succeeded();
    assert!(servers.contains("0123456789abcdef") && servers.contains("serving"), "{servers}");
    let seen = json(&node.contd("flist server ls --json").succeeded());
    assert_eq!((&seen["keeper_pid"], &seen["mounted"], &seen["version"]), (&7.into(), &true.into(), &"9.9".into()));
    let seen = json(&node.contd("flist cache ls --json").succeeded());
    assert_eq!((&seen["cache_dir"], &seen["total_bytes"]), (&"/elsewhere".into(), &2048.into()));
    assert!(node.contd("flist cache ls").succeeded().contains("2.00 KiB of 4.00 KiB in /elsewhere"));
    // The named directories are read.
    let dir = tempfile::tempdir().expect("a directory");
    let named = format!("flist cache ls --json --cache-dir {0}/c --run-dir {0}/r", dir.path().display());
    assert_eq!(json(&node.contd(&named).succeeded())["total_bytes"], 0);
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text:?} is no JSON: {error}"))
}

#[test]
fn ps_shows_what_lives_and_with_a_flag_what_has_ended() {
    let node = node();
    assert_eq!(
        node.contd("ps").succeeded(),
        "CONTAINER ID   NAME   STATUS         FLIST         COMMAND               CREATED\n\
         abababababab   web    Up 3 minutes   /srv/web.fl   httpd -c 'a b; c d'   3 minutes ago\n"
    );
    let all = node.contd("list -a").succeeded();
    assert!(all.contains("cdcdcdcdcdcd   job    Exited (7) 2 minutes ago"), "got {all}");
    assert_eq!(node.contd("ps -aq").succeeded(), "abababababab\ncdcdcdcdcdcd\n");
    assert_eq!(node.contd("ls -q --no-trunc").succeeded(), format!("{}\n", "ab".repeat(16)));
    assert!(node.contd("ps -A").succeeded().starts_with("NAMESPACE   CONTAINER ID"));
    let asked: Vec<_> = node
        .requests()
        .into_iter()
        .filter_map(|request| match request {
            Request::List { namespace, .. } => Some(namespace.map(String::from)),
            _ => None,
        })
        .collect();
    assert_eq!(asked.first(), Some(&Some("default".to_owned())));
    assert_eq!(asked.last(), Some(&None));
}

#[test]
fn ps_chooses_by_filters_and_by_age() {
    let node = node();
    for (words, names) in [
        ("ps -q -f status=exited", "cdcdcdcdcdcd\n"),
        ("ps -q -f label=tier=front", "abababababab\n"),
        ("ps -aq -f label=tier=front", "abababababab\ncdcdcdcdcdcd\n"),
        ("ps -q -n 1", "abababababab\n"),
        ("ps -q --last 2", "abababababab\ncdcdcdcdcdcd\n"),
        ("ps -ql", "abababababab\n"),
        ("ps -ql --filter before=web", "cdcdcdcdcdcd\n"),
    ] {
        assert_eq!(node.contd(words).succeeded(), names, "{words}");
    }
    let lost = node.contd("ps --filter since=nobody");
    assert!(lost.code == 1 && lost.err.contains("filter by container nobody"), "{}", lost.err);
}

#[test]
fn prune_removes_what_has_ended_and_asks_before() {
    let node = node();
    assert_eq!(node.contd("prune -f").succeeded(), format!("{}\n", "cd".repeat(16)));
    assert_eq!(node.contd("prune -f --filter exited=0").succeeded(), "");
    let deleted = |node: &Daemon| {
        let requests = node.requests();
        requests.into_iter().filter(|request| matches!(request, Request::Delete { force: false, .. })).count()
    };
    assert_eq!(deleted(&node), 1);
    // A test has no terminal, or its runner's: nobody answers there.
    if !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        let unasked = node.contd("prune");
        assert!(unasked.code == 1 && unasked.err.contains("prune --force"), "{}", unasked.err);
    }
    assert_eq!(deleted(&node), 1);
}

#[test]
fn a_namespace_stands_before_the_verb_or_has_its_long_name() {
    let node = node();
    let asked = |words: &str| {
        node.contd(words).succeeded();
        match node.requests().pop() {
            Some(Request::List { namespace, .. }) => namespace.map(String::from),
            other => panic!("{words}: {other:?}"),
        }
    };
    for words in ["-n blue ps", "--namespace blue ps", "ps --namespace blue", "-n red ps --namespace=blue"] {
        assert_eq!(asked(words).as_deref(), Some("blue"), "{words}");
    }
    assert_eq!(asked("-n blue ps -n 1").as_deref(), Some("blue"));
    for (words, tip) in [("ps -n blue", "contd -n blue ps"), ("rm -n blue web", "stands before the verb")] {
        let outcome = node.contd(words);
        assert!(outcome.code == 2 && outcome.err.contains(tip), "{words}: {}", outcome.err);
    }
    let run = node.contd("run -n blue x.fl");
    assert!(run.code == 125 && run.err.contains("stands before the verb"), "{}", run.err);
}

#[test]
fn ps_as_json_is_one_object_per_line() {
    let text = node().contd("ps -a --format json").succeeded();
    let lines: Vec<Value> = text.lines().map(json).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[0]["name"], &lines[0]["status"], &lines[0]["pid"]),
        (&"web".into(), &"running".into(), &4711.into())
    );
    assert_eq!((&lines[1]["status"], &lines[1]["exit_code"]), (&"stopped".into(), &7.into()));
    assert_eq!(lines[0]["labels"], serde_json::json!({"tier": "front"}));
    assert_eq!(lines[0]["command"], serde_json::json!(["httpd", "-c", "a b; c d"]));
    assert_eq!(lines[0]["created"], "2026-11-24T10:07:52.000000000Z");
}

#[test]
fn inspect_prints_one_flat_object() {
    let node = node();
    let web = json(&node.contd("inspect web").succeeded());
    assert_eq!(web["id"], "ab".repeat(16));
    assert_eq!((&web["pid"], &web["exit_code"], &web["network"]), (&4711.into(), &Value::Null, &"none".into()));
    assert_eq!(web["log_path"], "/var/log/default/web.log");
    // A limit that the spec leaves open is the node's, and in force.
    assert_eq!(
        (&web["memory_bytes"], &web["cpus"], &web["pids_limit"]),
        (&(1 << 30).into(), &1.0.into(), &1024.into())
    );
    assert_eq!((&web["rootfs_size_bytes"], &web["open_files"]), (&(512 << 20).into(), &1024.into()));
    assert_eq!(web["runtime"], "native");
    let exec = serde_json::json!({
        "id": "00000000000000ab", "pid": 4800, "command": ["sh", "-c", "date"], "tty": true,
        "started": "1970-01-01T00:00:00.000000000Z",
    });
    assert_eq!(web["execs"], serde_json::json!([exec]));
    let job = json(&node.contd("inspect job").succeeded());
    assert_eq!((&job["status"], &job["exit_code"], &job["exit"]["code"]), (&"stopped".into(), &7.into(), &7.into()));
    assert_eq!(job["execs"], serde_json::json!([]));
    // Several are one object behind the other.
    let both = node.contd("inspect web job").succeeded();
    let both: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&both).into_iter().collect();
    assert_eq!(both.expect("JSON"), [web, job]);
}

#[test]
fn inspect_prints_single_fields() {
    let node = node();
    assert_eq!(
        node.contd("inspect -f status,exit.code,labels.tier web job").succeeded(),
        "running\tnull\tfront\nstopped\t7\tfront\n"
    );
    let wrong = node.contd("inspect --format stat web");
    assert!(wrong.code == 1 && wrong.err.contains("\"stat\"") && wrong.err.contains("status"), "{}", wrong.err);
    let template = node.contd("inspect --format {{.State}} web");
    assert!(template.code == 2 && template.err.contains("no templates"), "{}", template.err);
}

#[test]
fn top_shows_both_ids_of_each_process_and_stats_what_is_used() {
    let node = node();
    let top = node.contd("top web").succeeded();
    let row: Vec<&str> = top.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row, ["4711", "1", "4700", "0", "S", "1:01.25", "1.00MiB", "/bin/httpd", "-f"]);
    let one = json(&node.contd("top --format json web").succeeded());
    assert_eq!((&one["container_pid"], &one["cpu_seconds"]), (&1.into(), &61.25.into()));
    let stats = node.contd("stats --no-stream -i 0.1 web").succeeded();
    assert!(stats.contains("64.0MiB / 1.00GiB") && stats.contains("6.25%"), "{}", stats);
    let one = json(&node.contd("stats --no-stream -i 0.1 --format json").succeeded());
    assert_eq!((&one["memory_bytes"], &one["cpu_seconds"]), (&(64 << 20).into(), &1.5.into()));
    assert_eq!(node.contd("top nobody").code, 1);
}

#[test]
fn an_error_is_told_with_causes_and_a_hint_and_data_stays_empty() {
    let node = node();
    let outcome = node.contd("inspect nobody");
    assert_eq!((outcome.code, outcome.out.as_str()), (1, ""));
    let command = format!("contd -n default --address {} ps -a", node.socket().display());
    let causes = "contd: error: find the container\n  caused by: no name or id is like this\n";
    assert_eq!(outcome.err, format!("{causes}hint: see `{command}`\n"));
}

#[test]
fn wait_prints_a_code_per_container_and_goes_on_behind_an_error() {
    let outcome = node().contd("wait web nobody job");
    assert_eq!((outcome.code, outcome.out.as_str()), (1, "137\n137\n"));
    assert!(outcome.err.starts_with("contd: error: find the container\n"), "got {}", outcome.err);
}

#[test]
fn wait_for_a_state_looks_until_it_is_there_and_at_one_container_only() {
    let looks = std::sync::atomic::AtomicUsize::new(0);
    let node = Daemon::scripted(move |request, caller| {
        let look = match &request {
            Request::Inspect { .. } => looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            _ => 0,
        };
        async move {
            match request {
                // By name first, then by its id, until it is gone.
                Request::Inspect { target } if look == 0 && target.container.as_str() == "web" => {
                    Ok(Response::Info(Box::new(running())))
                }
                Request::Inspect { target } if look == 1 && target.container.as_str() == "ab".repeat(16) => {
                    Ok(Response::Info(Box::new(running())))
                }
                Request::Events { .. } => {
                    // Something else happens once, then no more.
                    let info = stopped();
                    let event = ContainerEvent {
                        namespace: info.namespace,
                        id: info.id,
                        name: info.spec.name,
                        at: Timestamp(0),
                        kind: EventKind::Paused,
                    };
                    caller.item(Item::Event { seq: 5, event }).await.expect("connected");
                    std::future::pending().await
                }
                _ => Err(ApiError::new(ErrorKind::NotFound, "find the container")),
            }
        }
    });
    assert_eq!(node.contd("wait --condition removed --condition paused web").succeeded(), "removed\n");
    // A container that was never there was not removed.
    assert_eq!(node.contd("wait --condition removed web").code, 1);
}

#[test]
fn stop_kill_start_and_rm_print_what_they_did_and_pass_their_flags_on() {
    let node = node();
    assert_eq!(node.contd("stop -t 2.5 web job").succeeded(), "web\njob\n");
    assert_eq!(node.contd("kill -s USR1 web").succeeded(), "web\n");
    assert_eq!(node.contd("start web").succeeded(), "web\n");
    assert_eq!(node.contd("-n blue rm -f -t 0 web").succeeded(), "web\n");
    let requests = node.requests();
    assert_eq!(requests.len(), 5);
    assert!(
        matches!(requests[0], Request::Stop { timeout: Some(timeout), .. } if timeout == Duration::from_millis(2500))
    );
    assert!(matches!(requests[2], Request::Kill { signal, .. } if signal.number() == 10));
    assert!(matches!(&requests[4], Request::Delete { target, force: true, timeout: Some(Duration::ZERO) }
        if target.namespace.as_str() == "blue"));
}

#[test]
fn logs_keep_the_streams_apart_and_stamp_when_asked() {
    let node = node();
    let outcome = node.contd("logs -f --tail 5 web");
    assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (0, "out\n", "err\n"));
    assert!(matches!(node.requests()[0], Request::Logs { is_following: true, tail: Some(5), .. }));
    let outcome = node.contd("logs -t web");
    assert_eq!(outcome.out, format!("{} out\n", Timestamp(0)));
}

#[test]
fn logs_of_several_have_names_and_only_what_was_written_then() {
    let node = node();
    let outcome = node.contd("logs web job");
    assert_eq!((outcome.code, outcome.out.as_str()), (0, "web | out\njob | out\n"));
    assert_eq!(outcome.err, "web | err\njob | err\n");
    let outcome = node.contd("logs -f web nobody job");
    assert_eq!(outcome.code, 0, "this daemon knows nobody's log too");
    let followed: std::collections::BTreeSet<&str> = outcome.out.lines().collect();
    assert_eq!(followed, ["job | out", "nobody | out", "web | out"].into());
    // They were written in 1970.
    assert_eq!(node.contd("logs --since 1h web").succeeded(), "");
    assert_eq!(node.contd("logs --until 1970-01-01T00:00:00Z -n 1 web").err, "err\n");
    assert!(matches!(node.requests().last(), Some(Request::Logs { tail: None, is_following: false, .. })));
    assert_eq!(node.contd("logs -n 3 web").out, "out\n");
    assert!(matches!(node.requests().last(), Some(Request::Logs { tail: Some(3), .. })));
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let node = node();
    for words in ["logs web", "ps -a", "inspect web"] {
        let err = Buffer::default();
        let words = format!("--address {} {words}", node.socket().display());
        let code = Shell::new().run(&words, Output::new(ClosedPipe, err.clone()));
        assert_eq!((code, err.text().replace("err\n", "").as_str()), (0, ""), "{words}");
    }
}

#[test]
fn namespaces_version_and_events_have_both_formats() {
    let node = node();
    assert_eq!(node.contd("namespaces").succeeded(), "NAMESPACE   CONTAINERS   RUNNING\nblue        3            1\n");
    let line = json(&node.contd("namespaces --format json").succeeded());
    assert_eq!((&line["namespace"], &line["containers"]), (&"blue".into(), &3.into()));
    assert!(node.contd("version").succeeded().contains("daemon   9.9, protocol 1, pid 42"));
    assert_eq!(json(&node.contd("version --format json").succeeded())["daemon"]["version"], "9.9");
    let events = node.contd("events --from 1 --format json").succeeded();
    let lines: Vec<Value> = events.lines().map(json).collect();
    assert_eq!((&lines[0]["event"], &lines[0]["to"]), (&"gap".into(), &5.into()));
    assert_eq!(
        (&lines[1]["event"], &lines[1]["exit_code"], &lines[1]["seq"]),
        (&"exited".into(), &3.into(), &5.into())
    );
    assert!(node.contd("events").succeeded().contains("web (abababababab) exited code 3"));
    assert_eq!(node.contd("events --since 1h").succeeded(), "");
    assert!(matches!(node.requests().last(), Some(Request::Events { from: Some(1), .. })));
    assert_eq!(node.contd("events --from 1 -f event=started --format json").succeeded().lines().count(), 1, "the gap");
    assert!(node.contd("events --until 1970-01-02T00:00:00Z -f event=exited").succeeded().contains("exited code 3"));
}

#[test]
fn a_run_in_the_background_prints_the_id_and_asks_for_what_the_flags_say() {
    let node = node();
    let file = node.dir.path().join("id");
    let out =
        node.contd(&format!("run -d --cidfile {} -e HOME -e A=1 --name web x.fl sleep 9", file.display())).succeeded();
    assert_eq!(out, format!("{}\n", "ab".repeat(16)));
    assert_eq!(std::fs::read_to_string(&file).expect("written"), "ab".repeat(16));
    let Request::Run(run) = &node.requests()[0] else { panic!("got {:?}", node.requests()) };
    assert!(!run.is_attached);
    assert_eq!((run.spec.flist.as_str(), run.spec.name.as_str()), ("/home/me/x.fl", "web"));
    assert_eq!(run.spec.env, ["HOME=/root", "A=1"]);
}

#[test]
fn a_dry_run_prints_the_configuration() {
    let node = node();
    assert_eq!(json(&node.contd("run --dry-run x.fl true").succeeded())["ociVersion"], "1");
    assert!(matches!(&node.requests()[..], [Request::DryRun(_)]));
}

#[test]
fn an_impossible_container_is_refused_before_the_daemon_is_asked() {
    let node = node();
    let outcome = node.contd("run -d -w relative x.fl");
    assert_eq!(outcome.code, 125);
    assert!(outcome.err.contains("working_dir") && outcome.err.contains("\nhint: "), "got {}", outcome.err);
    assert_eq!(node.requests(), []);
}
