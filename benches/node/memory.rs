//! What an idle container costs: PSS of its shim, of the daemon and of the flist server with many of them, beside conmon's
//! figure and containerd's daemon.

use std::fs;

use contd_client::{Client, Deadline};

use crate::harness::Node;
use crate::harness::census::command_lines;
use crate::peers::Containerd;
use crate::run_to_removed::{request, runtime, target};

/// Idle containers, as FACTS has it for shims and for the daemon.
const CONTAINERS: usize = 50;

/// Proportional set size of a process, in KiB (proc_pid_smaps(5)).
fn pss_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("read smaps_rollup");
    let line = text.lines().find(|line| line.starts_with("Pss:")).expect("a Pss line");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

pub(crate) fn measure() {
    let node = Node::start();
    let flist = node.flist();
    let runtime = runtime();
    let long = Deadline::Usual;
    let client = runtime.block_on(Client::connect(&node.socket(), Deadline::Usual)).expect("connect");
    let empty = pss_kib(node.daemon_pid());
    for number in 0..CONTAINERS {
        let run = client.run(request(&format!("c{number}"), flist.arg(), &["/bin/sleep", "1000"]), long, |_| ());
        runtime.block_on(run).expect("run");
    }
    std::thread::sleep(std::time::Duration::from_secs(1));
    let root = node.root.display().to_string();
    let of = |name: &str| -> Vec<u64> {
        let ours = command_lines().into_iter().filter(|(_, command)| command.contains(&root));
        let named =
            ours.filter(|(_, command)| command.split(' ').next().is_some_and(|program| program.ends_with(name)));
        named.map(|(pid, _)| pss_kib(pid.cast_unsigned())).collect()
    };
    let (shims, servers) = (of("contd-shim"), of("contd-flistfs"));
    assert_eq!((shims.len(), servers.len()), (CONTAINERS, 1), "one shim per container, one server per flist");
    let shim = shims.iter().sum::<u64>() as f64 / shims.len() as f64 / 1024.0;
    let daemon = pss_kib(node.daemon_pid()) as f64 / 1024.0;
    println!(
        "shim, mean of {CONTAINERS} idle       {shim:.2} MiB PSS (conmon 0.40 MiB, containerd's shim 2.86 MiB: FACTS)"
    );
    println!("daemon with {CONTAINERS} containers   {daemon:.2} MiB PSS (with none: {:.2})", empty as f64 / 1024.0);
    println!("flist server                 {:.2} MiB PSS", servers[0] as f64 / 1024.0);
    if let Some(containerd) = Containerd::start(&node.root.join("input/containerd")) {
        let theirs = pss_kib(containerd.pid()) as f64 / 1024.0;
        println!(
            "containerd, with none        {theirs:.2} MiB PSS; daemon ratio {:.2}x (goal: at most 0.15x)",
            daemon / theirs
        );
    }
    for number in 0..CONTAINERS {
        let delete = client.delete(target(&format!("c{number}")), true, Some(std::time::Duration::ZERO), long);
        runtime.block_on(delete).expect("delete");
    }
    // Its connection is a descriptor of the daemon.
    drop(client);
    drop(runtime);
    node.finish();
}
