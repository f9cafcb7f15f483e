//! Measures whether a start becomes slower with the number of running containers.

use crate::calls::{SLEEP, request_in};
use crate::setup::Setup;
use crate::stats::{Goal, Samples, ratio};
use crate::variants::{Contender, Variant};

const ROUNDS: usize = 30;
/// The numbers of running containers at which a start is measured.
const LEVELS: [usize; 3] = [0, 100, 400];

/// The result of one level.
struct Level {
    started: Samples,
    removed: Samples,
    floor: Samples,
}

pub(crate) fn measure() {
    let setup = Setup::new("slope");
    let contender = Contender::start(Variant::Slots);
    let mut floor = setup.floor_bundle.server();
    let mut alive = 0;
    let mut levels = Vec::new();
    for count in LEVELS {
        for number in alive..count {
            let name = format!("live{number}");
            contender.caller.run(request_in(&setup.netns.name, &name, contender.flist.arg(), SLEEP));
        }
        alive = count;
        let mut level = Level { started: Samples::default(), removed: Samples::default(), floor: Samples::default() };
        for _ in 0..ROUNDS {
            let took = contender.life(&setup.netns.name);
            level.started.push(took.started);
            level.removed.push(took.removed);
            level.floor.push(floor.cold().removed);
        }
        level.started.line(&format!("{count} live: contd, warm slots, to the start"), "ms");
        level.removed.line(&format!("{count} live: contd, warm slots, to the removal"), "ms");
        level.floor.line(&format!("{count} live: floor, cold, to the removal"), "ms");
        levels.push(level);
    }
    let (first, last) = (&levels[0], &levels[LEVELS.len() - 1]);
    ratio("400 live / none, to the start", last.started.median(), first.started.median(), Goal::AtMost(1.3));
    ratio("400 live / none, to the removal", last.removed.median(), first.removed.median(), Goal::AtMost(1.3));
    ratio("400 live / none, the floor itself", last.floor.median(), first.floor.median(), Goal::None);
    for number in 0..alive {
        contender.caller.delete(&format!("live{number}"));
    }
    drop(floor);
    contender.finish();
    setup.finish();
}
