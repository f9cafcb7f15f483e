//! `/bin/true` from a flist, through the API: to its start, and to its removal.

use contd_client::{Client, Deadline};
use contd_protocol::api::{RunRequest, Target};
use contd_types::{ContainerName, ContainerRef, ContainerSpec, Entrypoint, NamespaceId};

use crate::harness::Node;
use crate::peers::{Containerd, RuncBundle};
use crate::stats::Samples;

/// Rounds; every contender once in each, so that a noisy moment hits all.
const ROUNDS: usize = 30;

pub(crate) fn request(name: &str, flist: &str, program: &[&str]) -> RunRequest {
    let mut spec = ContainerSpec::new(ContainerName::new(name).expect("valid"), flist);
    spec.entrypoint = Some(Entrypoint::Args(program.iter().map(|&part| part.to_owned()).collect()));
    RunRequest { namespace: namespace(), spec, idempotency_key: None, is_attached: false }
}

pub(crate) fn namespace() -> NamespaceId {
    NamespaceId::new("bench").expect("valid")
}

pub(crate) fn target(name: &str) -> Target {
    Target { namespace: namespace(), container: ContainerRef::new(name).expect("valid") }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

pub(crate) fn measure() {
    let node = Node::start();
    let flist = node.flist();
    let bundle = RuncBundle::new(&node, flist.arg());
    let containerd = Containerd::start(&node.root.join("input/containerd"));
    let runtime = runtime();
    let client = runtime.block_on(Client::connect(&node.socket(), Deadline::Usual)).expect("connect");
    // One container keeps the flist mounted, as on a node that runs things; the first mount is measured apart.
    let (mut first, mut started, mut removed) = (Samples::default(), Samples::default(), Samples::default());
    let (mut runc, mut runc_start, mut ctr) = (Samples::default(), Samples::default(), Samples::default());
    let long = Deadline::Usual;
    first.time(|| {
        runtime
            .block_on(client.run(request("keeper", flist.arg(), &["/bin/sleep", "1000"]), long, |_| ()))
            .expect("run")
    });
    for round in 0..ROUNDS {
        runc.time(|| bundle.run(&format!("peer{round}")));
        runc_start.push(bundle.create_and_start(&format!("peer{round}")));
        if let Some(containerd) = &containerd {
            ctr.time(|| containerd.run(&format!("c{round}")));
        }
        let begin = std::time::Instant::now();
        runtime.block_on(client.run(request("one", flist.arg(), &["/bin/true"]), long, |_| ())).expect("run");
        started.push(begin.elapsed());
        runtime.block_on(client.wait(target("one"), long)).expect("wait");
        runtime.block_on(client.delete(target("one"), false, None, long)).expect("delete");
        removed.push(begin.elapsed());
    }
    runtime.block_on(client.delete(target("keeper"), true, Some(std::time::Duration::ZERO), long)).expect("delete");
    println!("first run of a flist (fetch, server, mount)   {first}");
    println!("runc create + start                           {runc_start}");
    println!("contd run, until the reply                    {started}");
    println!(
        "  above runc create + start                   {:+.2} ms (goal: at most +5)",
        started.median() - runc_start.median()
    );
    println!("runc run, to removed                          {runc}");
    println!("contd run + wait + delete, to removed         {removed}");
    println!("  ratio to runc run                           {:.2}x", removed.median() / runc.median());
    if containerd.is_some() {
        println!("ctr run --rm, to removed                      {ctr}");
        println!("  ratio to ctr run                            {:.2}x", removed.median() / ctr.median());
    }
    drop(containerd);
    // Its connection is a descriptor of the daemon.
    drop(client);
    drop(runtime);
    node.finish();
}
