//! Kills the daemon with `kill -9`: measures the time until the API answers, and until every container is re-attached.

use std::time::{Duration, Instant};

use contd_client::{Client, Deadline, ListFilter};
use contd_types::StateName;

use crate::calls::{namespace, request, runtime, target};
use crate::harness::Node;
use crate::stats::Samples;

/// The number of running containers.
const CONTAINERS: usize = 50;
/// How often the daemon is killed.
const ROUNDS: usize = 15;

pub(crate) fn measure() {
    let mut node = Node::start();
    let flist = node.flist();
    let runtime = runtime();
    let long = Deadline::Usual;
    let (mut empty, mut answers, mut attached) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        empty.push(restart(&mut node, 0).1);
    }
    runtime.block_on(async {
        let client = Client::connect(&node.socket(), Deadline::Usual).await.expect("connect");
        for number in 0..CONTAINERS {
            let run = client.run(request(&format!("c{number}"), flist.arg(), &["/bin/sleep", "1000"]), long, |_| ());
            run.await.expect("run");
        }
    });
    for _ in 0..ROUNDS {
        let (answer, all) = restart(&mut node, CONTAINERS);
        answers.push(answer);
        attached.push(all);
    }
    println!("start with none, until it answers   {empty}");
    println!("start with {CONTAINERS}, until it answers     {answers}");
    println!("start with {CONTAINERS}, all re-attached      {attached}");
    println!("containerd 1.6, all of 50 running: 84 ms on four cores (Linux 6.18); goal 0.1x of it");
    runtime.block_on(async {
        let client = Client::connect(&node.socket(), Deadline::Usual).await.expect("connect");
        for number in 0..CONTAINERS {
            client.delete(target(&format!("c{number}")), true, Some(Duration::ZERO), long).await.expect("delete");
        }
    });
    drop(runtime);
    node.finish();
}

/// Kills the daemon and starts it; returns the time until it answers and until this many containers run again.
fn restart(node: &mut Node, containers: usize) -> (Duration, Duration) {
    node.kill_daemon();
    let begin = Instant::now();
    node.spawn_daemon();
    runtime().block_on(async {
        let client = loop {
            match Client::connect(&node.socket(), Deadline::Usual).await {
                Ok(client) => break client,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "the daemon does not answer");
        };
        client.version(Deadline::Usual).await.expect("version");
        let answer = begin.elapsed();
        loop {
            let all = client.list(ListFilter::Namespace(namespace()), Deadline::Usual).await.expect("list");
            if all.iter().filter(|one| one.state.name() == StateName::Running).count() == containers {
                return (answer, begin.elapsed());
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "not all containers are back");
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    })
}
