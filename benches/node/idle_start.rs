//! Starts a container after an idle time: moving a process into a cgroup then waits for an RCU grace period of the
//! kernel.

use std::time::Duration;

use crate::setup::Setup;
use crate::stats::{Goal, Samples, ratio};
use crate::variants::{Contender, Variant};

const ROUNDS: usize = 30;
/// After this long without a write, `cgroup.procs` waits for an RCU grace period (docs/architecture.md, facts).
const IDLE: Duration = Duration::from_millis(200);

pub(crate) fn measure() {
    let setup = Setup::new("idle");
    let contenders = [Variant::Slots, Variant::NoPool].map(Contender::start);
    let mut floor = setup.floor_bundle.server();
    let mut ours: [Samples; 2] = Default::default();
    let (mut cold, mut warm) = (Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        for (contender, samples) in contenders.iter().zip(&mut ours) {
            std::thread::sleep(IDLE);
            samples.push(contender.life(&setup.netns.name).started);
        }
        std::thread::sleep(IDLE);
        cold.push(floor.cold().started);
        floor.prepare();
        std::thread::sleep(IDLE);
        warm.push(floor.warm().started);
    }
    warm.line("floor, warm slot", "ms");
    cold.line("floor, cold", "ms");
    for (contender, samples) in contenders.iter().zip(&ours) {
        samples.line(contender.variant.name(), "ms");
    }
    let [slots, pool_off] = [ours[0].median(), ours[1].median()];
    ratio("warm slots / floor, warm slot", slots, warm.median(), Goal::AtMost(1.5));
    ratio("warm slots / floor, cold", slots, cold.median(), Goal::None);
    ratio("warm slots / pool off", slots, pool_off, Goal::None);
    drop(floor);
    contenders.into_iter().for_each(Contender::finish);
    setup.finish();
}
