//! Runs `/bin/true` through the API, to its start and to its removal, beside the floor, `runc` and containerd: one
//! bundle, one network namespace, every contender once in each round, so that noise affects all of them.

use crate::setup::Setup;
use crate::stats::{Goal, Samples, ratio};
use crate::variants::{Contender, Variant};

const ROUNDS: usize = 30;

/// The samples to the start and to the removal.
#[derive(Default)]
struct Pair {
    started: Samples,
    removed: Samples,
}

impl Pair {
    fn push(&mut self, took: crate::floor::Took) {
        self.started.push(took.started);
        self.removed.push(took.removed);
    }
}

#[derive(Default)]
struct Ctr {
    version: Samples,
    detached: Samples,
    run: Samples,
}

pub(crate) fn measure() {
    let setup = Setup::new("launch");
    let contenders = Variant::ALL.map(Contender::start);
    let containerd = setup.containerd();
    let mut floor = setup.floor_bundle.server();
    let mut ours: [Pair; 3] = Default::default();
    let (mut warm, mut cold) = (Pair::default(), Pair::default());
    let (mut runc, mut ctr) = (Pair::default(), Ctr::default());
    floor.prepare();
    for round in 0..ROUNDS {
        warm.push(floor.warm());
        cold.push(floor.cold());
        floor.prepare();
        for (contender, pair) in contenders.iter().zip(&mut ours) {
            pair.push(contender.life(&setup.netns.name));
        }
        runc.started.push(setup.runc.create_and_start(&format!("s{round}")));
        runc.removed.time(|| setup.runc.run(&format!("r{round}")));
        if let Some(containerd) = &containerd {
            ctr.version.time(|| containerd.version());
            ctr.detached.push(containerd.run_detached(&setup.config, &format!("d{round}")));
            ctr.run.time(|| containerd.run(&setup.config, &format!("r{round}")));
        }
    }
    println!("to the start:");
    warm.started.line("floor, warm slot", "ms");
    cold.started.line("floor, cold", "ms");
    for (contender, pair) in contenders.iter().zip(&ours) {
        pair.started.line(contender.variant.name(), "ms");
    }
    runc.started.line("runc create + start", "ms");
    let (slots, pool_off) = (&ours[0], &ours[1]);
    let started = slots.started.median();
    ratio("warm slots / floor, warm slot", started, warm.started.median(), Goal::AtMost(1.5));
    ratio("warm slots / floor, cold", started, cold.started.median(), Goal::None);
    ratio("pool off / floor, cold", pool_off.started.median(), cold.started.median(), Goal::None);
    ratio("warm slots / runc create + start", started, runc.started.median(), Goal::None);
    if containerd.is_some() {
        ctr.detached.line("ctr run --detach", "ms");
        ctr.version.line("ctr version: ctr's own start and one call", "ms");
        let daemon = ctr.detached.median() - ctr.version.median();
        println!("{:44} {daemon:9.2} ms of medians", "containerd alone: the difference of the two");
        ratio("warm slots / containerd alone", started, daemon, Goal::AtMost(0.06));
    }
    println!("to the removal:");
    warm.removed.line("floor, warm slot", "ms");
    cold.removed.line("floor, cold", "ms");
    for (contender, pair) in contenders.iter().zip(&ours) {
        pair.removed.line(contender.variant.name(), "ms");
    }
    runc.removed.line("runc run", "ms");
    let removed = slots.removed.median();
    ratio("warm slots / floor, warm slot", removed, warm.removed.median(), Goal::AtMost(1.5));
    ratio("warm slots / floor, cold", removed, cold.removed.median(), Goal::None);
    ratio("pool off / floor, cold", pool_off.removed.median(), cold.removed.median(), Goal::None);
    ratio("warm slots / runc run", removed, runc.removed.median(), Goal::AtMost(0.1));
    if containerd.is_some() {
        ctr.run.line("ctr run --rm", "ms");
        ratio("warm slots / ctr run --rm", removed, ctr.run.median(), Goal::None);
    }
    drop((floor, containerd));
    contenders.into_iter().for_each(Contender::finish);
    setup.finish();
}
