//! Many containers at once.

use std::collections::BTreeMap;
use std::thread;

use crate::harness::{Node, eventually};

/// Five namespaces with the same ten names each.
const NAMESPACES: usize = 5;
const PER_NAMESPACE: usize = 10;

#[test]
fn fifty_containers_in_five_namespaces_live_through_the_death_of_the_daemon() {
    let mut node = Node::start();
    let flist = node.flist();
    let script = "trap 'exit $((CODE))' TERM; n=0; while :; do n=$((n+1)); echo $NAME $n; sleep 0.2; done";
    thread::scope(|scope| {
        for index in 0..NAMESPACES {
            let (node, flist) = (&node, &flist);
            scope.spawn(move || {
                for number in 0..PER_NAMESPACE {
                    let (namespace, name) = (format!("namespace{index}"), format!("c{number}"));
                    let env = [format!("NAME={namespace}-{name}"), format!("CODE={}", 10 * index + number)];
                    node.contd([
                        "-n",
                        &namespace,
                        "run",
                        "-d",
                        "--name",
                        &name,
                        "-e",
                        &env[0],
                        "-e",
                        &env[1],
                        flist.arg(),
                        "/bin/sh",
                        "-c",
                        script,
                    ])
                    .ok();
                }
            });
        }
    });
    let pids = |node: &Node| -> BTreeMap<(String, String), i64> {
        let all = (0..NAMESPACES).flat_map(|index| {
            (0..PER_NAMESPACE).map(move |number| (format!("namespace{index}"), format!("c{number}")))
        });
        all.map(|(namespace, name)| {
            let info = node.inspect_in(&namespace, &name);
            assert_eq!(info["status"], "running", "{info}");
            let pid = info["pid"].as_i64().expect("a pid");
            ((namespace, name), pid)
        })
        .collect()
    };
    let before = pids(&node);
    assert_eq!(before.values().collect::<std::collections::BTreeSet<_>>().len(), NAMESPACES * PER_NAMESPACE);

    node.kill_daemon();
    for pid in before.values() {
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} died with the daemon");
    }
    node.start_daemon();
    eventually("all to be re-attached", || {
        let running = node.contd(["ps", "--all-namespaces", "--format", "json"]);
        (running.ok().matches("\"running\"").count() == NAMESPACES * PER_NAMESPACE).then_some(())
    });
    assert_eq!(pids(&node), before);

    // Each log is its own, numbered without a hole, and each exit code is the container's own.
    thread::scope(|scope| {
        for index in 0..NAMESPACES {
            let node = &node;
            scope.spawn(move || {
                for number in 0..PER_NAMESPACE {
                    let (namespace, name) = (format!("namespace{index}"), format!("c{number}"));
                    node.contd(["-n", &namespace, "stop", &name]).ok();
                    let code = node.inspect_in(&namespace, &name)["exit_code"].as_u64();
                    assert_eq!(code, Some((10 * index + number) as u64), "{namespace}/{name}");
                    let log = node.contd(["-n", &namespace, "logs", &name]);
                    for (at, line) in log.ok().lines().enumerate() {
                        assert_eq!(line, format!("{namespace}-{name} {}", at + 1));
                    }
                    node.contd(["-n", &namespace, "rm", &name]).ok();
                }
            });
        }
    });
    node.finish();
}

#[test]
fn parallel_runs_of_one_name_make_one_container() {
    let mut node = Node::start();
    node.announce("run rolled back");
    let flist = node.flist();
    let results: Vec<i32> = thread::scope(|scope| {
        let (node, flist) = (&node, &flist);
        let runs: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(move || node.contd(["run", "-d", "--name", "only", flist.arg(), "/bin/sleep", "1000"]).code)
            })
            .collect();
        runs.into_iter().map(|run| run.join().expect("a run")).collect()
    });
    assert_eq!(results.iter().filter(|code| **code == 0).count(), 1, "{results:?}");
    assert_eq!(node.contd(["ps", "-q"]).ok().lines().count(), 1);
    node.contd(["rm", "-f", "-t", "0", "only"]).ok();
    node.finish();
}
