//! Executes `/bin/true` in a running container and waits for its exit code: through the API, by the command, and by the OCI runtimes, each in
//! its own container of one bundle.

use std::time::Duration;

use serde_json::json;

use crate::peers::{RuncBundle, is_installed};
use crate::setup::Setup;
use crate::stats::{Goal, Samples, ratio};
use crate::variants::{Contender, Variant};

const ROUNDS: usize = 50;
/// After this long without a write, `cgroup.procs` waits for an RCU grace period (docs/architecture.md, facts).
const IDLE: Duration = Duration::from_millis(200);
const IDLE_ROUNDS: usize = 30;
const ID: &str = "exec-peer";
const TRUE: &str = "/bin/true";

pub(crate) fn measure() {
    let setup = Setup::new("exec");
    let contender = Contender::start(Variant::Slots);
    let mut config = setup.config.clone();
    config["process"]["args"] = json!(["/bin/sleep", "100000"]);
    let peers: Vec<RuncBundle> = ["runc", "crun"]
        .into_iter()
        .filter(|program| is_installed(program))
        .map(|program| {
            let dir = setup.path(&format!("{program}-exec"));
            let bundle = RuncBundle::of(program, &dir, &config, setup.cgroup_parent());
            bundle.runc(&["run", "--detach", "--bundle", dir.to_str().expect("utf-8"), ID]);
            bundle
        })
        .collect();
    // The filter is compiled once for a node, so do it before the measurement.
    contender.caller.exec("keeper", &[TRUE]);
    for (what, rounds, pause) in [("busy", ROUNDS, Duration::ZERO), ("after 200 ms of rest", IDLE_ROUNDS, IDLE)] {
        let (mut api, mut command) = (Samples::default(), Samples::default());
        let mut theirs: Vec<Samples> = peers.iter().map(|_| Samples::default()).collect();
        for _ in 0..rounds {
            std::thread::sleep(pause);
            api.time(|| contender.caller.exec("keeper", &[TRUE]));
            std::thread::sleep(pause);
            command.time(|| contender.node.contd(["-n", "bench", "exec", "keeper", TRUE]).ok().len());
            for (peer, samples) in peers.iter().zip(&mut theirs) {
                std::thread::sleep(pause);
                samples.time(|| peer.runc(&["exec", ID, TRUE]));
            }
        }
        println!("{what}:");
        api.line("contd, through the API", "ms");
        command.line("contd exec", "ms");
        for (peer, samples) in peers.iter().zip(&theirs) {
            let most = if peer.program == "runc" { 0.1 } else { 0.3 };
            samples.line(&format!("{} exec", peer.program), "ms");
            let figure = format!("through the API / {} exec", peer.program);
            ratio(&figure, api.median(), samples.median(), Goal::AtMost(most));
        }
    }
    peers.iter().for_each(|peer| peer.delete(ID));
    contender.finish();
    drop(peers);
    setup.finish();
}
