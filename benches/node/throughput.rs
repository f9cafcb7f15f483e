//! Runs short containers from many clients at once, beside as many concurrent floors.

use std::time::Instant;

use crate::calls::{Caller, TRUE, request_in};
use crate::setup::Setup;
use crate::stats::{Goal, Samples, ratio};
use crate::variants::{Contender, Variant};

const CLIENTS: usize = 16;
/// The containers of each client in one round: 112 in all.
const EACH: usize = 7;
const ROUNDS: usize = 30;

pub(crate) fn measure() {
    let setup = Setup::new("throughput");
    let contenders = [Variant::Slots, Variant::NoPool].map(Contender::start);
    let floor_bundles: Vec<_> = (0..CLIENTS).map(|number| setup.another_floor_bundle(number)).collect();
    let mut floors: Vec<_> = floor_bundles.iter().map(crate::floor::FloorBundle::server).collect();
    let connect = |contender: &Contender| -> Vec<Caller> {
        (0..CLIENTS).map(|_| Caller::connect(&contender.node.socket())).collect()
    };
    let callers = [connect(&contenders[0]), connect(&contenders[1])];
    let (mut floor, mut ours) = (Samples::default(), [Samples::default(), Samples::default()]);
    for _ in 0..ROUNDS {
        floor.push_value(per_second(&mut floors, |_, floor| {
            floor.cold();
        }));
        for ((contender, callers), samples) in contenders.iter().zip(callers.iter()).zip(&mut ours) {
            let mut numbered: Vec<_> = callers.iter().enumerate().collect();
            let (netns, flist) = (setup.netns.name.as_str(), contender.flist.arg());
            samples.push_value(per_second(&mut numbered, |round, (number, caller)| {
                caller.whole_life(request_in(netns, &format!("t{number}-{round}"), flist, TRUE));
            }));
        }
    }
    floor.line(&format!("floor, cold, {CLIENTS} processes"), "/s");
    for (contender, samples) in contenders.iter().zip(&ours) {
        samples.line(&format!("{}, {CLIENTS} clients", contender.variant.name()), "/s");
    }
    ratio("warm slots / floor", ours[0].median(), floor.median(), Goal::AtLeast(0.7));
    ratio("pool off / floor", ours[1].median(), floor.median(), Goal::None);
    drop((floors, callers));
    drop(floor_bundles);
    contenders.into_iter().for_each(Contender::finish);
    setup.finish();
}

/// Runs every worker's share on its own thread; returns how many all of them did per second.
fn per_second<W: Send>(workers: &mut [W], work: impl Fn(usize, &mut W) + Sync) -> f64 {
    let begin = Instant::now();
    let total = workers.len() * EACH;
    std::thread::scope(|scope| {
        for worker in workers {
            scope.spawn(|| (0..EACH).for_each(|round| work(round, worker)));
        }
    });
    total as f64 / begin.elapsed().as_secs_f64()
}
