//! The possible steps of a schedule, and how a schedule is drawn from a seed. A step never depends on how an earlier one
//! went, so a schedule that is cut short is the beginning of the same schedule.

use std::time::Duration;

use contd_shim_client::fake::{Program, Verb};
use contd_types::{RestartPolicy, Signal};

use crate::tests::replay::Dice;

/// One name of one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) namespace: &'static str,
    pub(super) name: &'static str,
}

/// Few, so that calls meet.
pub(super) const PLACES: [Place; 5] = [
    Place { namespace: "a", name: "web" },
    // No name that could be the beginning of an id: that would mean the container with this id.
    Place { namespace: "a", name: "sql" },
    Place { namespace: "b", name: "web" },
    Place { namespace: "b", name: "job" },
    Place { namespace: "c", name: "web" },
];

/// The request of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Run { policy: RestartPolicy, key: Option<u8>, is_auto_removed: bool },
    Create { policy: RestartPolicy },
    Start,
    Stop { timeout: Option<Duration> },
    Kill { signal: Signal },
    Delete { force: bool, timeout: Option<Duration> },
    Wait,
    Update { policy: RestartPolicy },
    Upgrade,
    Inspect,
    List,
    Restart { timeout: Option<Duration> },
    Pause { is_paused: bool },
}

/// How the daemon goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// As by SIGKILL: every task ends where it waits.
    Killed,
    /// Its supervisor panics; the process ends a little later.
    Panicked,
    /// It is told to end.
    Shutdown,
}

/// How a call of a shim goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShimFault {
    Refused,
    Lost,
    DoneButLost,
    Silent,
    Slow(Duration),
}

/// How a call of a provider goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProviderFault {
    PrepareFails,
    PreparePanics,
    ReleaseFails,
    ReleasePanics,
    BundleFails,
}

/// Which actor panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    Container,
    Namespace,
    Flist,
    Bundle,
    Log,
    Event,
}

/// An event that befalls a container without anybody's asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Exits(u8),
    LosesShim,
    VanishesWithShim,
    LosesConnection,
    /// Of these signals it takes notice in its own way from now on.
    IgnoresTerm,
    AnswersTerm(u8),
}

/// One step of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A call begins. It goes on by itself; the caller gives up after its patience.
    Call {
        place: Place,
        ask: Ask,
        by_id: bool,
        patience: Option<Duration>,
    },
    /// So many turns of everybody else.
    Turns(u32),
    /// Time passes.
    Pass(Duration),
    /// Until nothing moves any more; then all is compared.
    Quiet,
    Lose {
        loss: Loss,
        turns: u32,
    },
    /// The node restarts, and the daemon with it.
    Reboot {
        turns: u32,
    },
    Panic {
        victim: Victim,
        place: Place,
    },
    Shim {
        verb: Verb,
        fault: ShimFault,
    },
    Provider(ProviderFault),
    /// The n-th call of the store from now fails, before or after it was carried out.
    Store {
        nth: usize,
        is_done: bool,
    },
    /// The next blocking jobs take so long.
    SlowJobs {
        jobs: u32,
        time: Duration,
    },
    Fate {
        place: Place,
        fate: Fate,
    },
    /// The behaviour of containers from now on.
    Program(Program),
    /// The time of day jumps.
    Clock {
        back: bool,
        by: Duration,
    },
}

/// This bit of a seed adds the requests that came later, so that the seeds of before draw what they drew.
pub(super) const ALL_ASKS: u64 = 1 << 48;

/// How often actors may panic within one daemon's life: what panics more often than the rebuild budget allows is given up.
const MAX_PANICS: u32 = 3;

/// Draws the schedule of a seed.
pub(super) fn draw(seed: u64) -> Vec<Step> {
    let mut dice = Dice::new(seed);
    let length = 6 + dice.below(40);
    // Some schedules are peaceful: there the checks are sharper, since nothing excuses anything.
    let violence = dice.pick(&[0, 10, 25, 40]);
    let mut panics = 0;
    let mut steps = Vec::new();
    for _ in 0..length {
        let step = if dice.percent(violence) { fault(&mut dice) } else { normal(&mut dice, seed & ALL_ASKS != 0) };
        match step {
            Step::Lose { .. } | Step::Reboot { .. } => panics = 0,
            Step::Panic { .. } if panics == MAX_PANICS => continue,
            Step::Panic { .. } => panics += 1,
            _ => {}
        }
        steps.push(step);
    }
    steps
}

fn normal(dice: &mut Dice, has_all_asks: bool) -> Step {
    match dice.below(100) {
        0..70 => {
            let place = place(dice);
            let patience = dice.percent(15).then(|| millis(dice, &[1, 100, 3_000, 30_000]));
            let ask = if has_all_asks && dice.percent(15) { later_ask(dice) } else { ask(dice) };
            Step::Call { place, ask, by_id: dice.percent(40), patience }
        }
        70..82 => Step::Turns(u32::try_from(dice.below(60)).unwrap()),
        82..92 => Step::Pass(millis(dice, &[1, 700, 11_000, 70_000, 700_000])),
        92..96 => Step::Fate { place: dice.pick(&PLACES), fate: Fate::Exits(dice.pick(&[0, 1, 7])) },
        _ => Step::Quiet,
    }
}

fn ask(dice: &mut Dice) -> Ask {
    match dice.below(100) {
        0..25 => {
            let key = dice.percent(30).then(|| dice.pick(&[1, 2]));
            let is_auto_removed = dice.percent(10);
            let policy = if is_auto_removed { RestartPolicy::No } else { policy(dice) };
            Ask::Run { policy, key, is_auto_removed }
        }
        25..32 => Ask::Create { policy: policy(dice) },
        32..44 => Ask::Start,
        44..58 => Ask::Stop { timeout: timeout(dice) },
        58..63 => Ask::Kill { signal: dice.pick(&[Signal::TERM, Signal::KILL]) },
        63..75 => Ask::Delete { force: dice.percent(60), timeout: timeout(dice) },
        75..83 => Ask::Wait,
        83..89 => Ask::Update { policy: policy(dice) },
        89..93 => Ask::Upgrade,
        93..96 => Ask::Inspect,
        _ => Ask::List,
    }
}

fn later_ask(dice: &mut Dice) -> Ask {
    match dice.below(3) {
        0 => Ask::Restart { timeout: timeout(dice) },
        1 => Ask::Pause { is_paused: true },
        _ => Ask::Pause { is_paused: false },
    }
}

/// Half of the time one of two, so that calls meet.
fn place(dice: &mut Dice) -> Place {
    let count = if dice.percent(50) { 2 } else { PLACES.len() };
    dice.pick(&PLACES[..count])
}

fn fault(dice: &mut Dice) -> Step {
    let place = place(dice);
    match dice.below(100) {
        0..12 => {
            let loss = dice.pick(&[Loss::Killed, Loss::Killed, Loss::Killed, Loss::Panicked, Loss::Shutdown]);
            Step::Lose { loss, turns: u32::try_from(dice.below(80)).unwrap() }
        }
        12..16 => Step::Reboot { turns: u32::try_from(dice.below(80)).unwrap() },
        16..27 => {
            let container = Victim::Container;
            let others = [Victim::Namespace, Victim::Flist, Victim::Bundle, Victim::Log, Victim::Event];
            Step::Panic { victim: if dice.percent(50) { container } else { dice.pick(&others) }, place }
        }
        27..50 => Step::Shim { verb: dice.pick(&SHIM_VERBS), fault: shim_fault(dice) },
        50..58 => Step::Provider(dice.pick(&[
            ProviderFault::PrepareFails,
            ProviderFault::PreparePanics,
            ProviderFault::ReleaseFails,
            ProviderFault::ReleasePanics,
            ProviderFault::BundleFails,
        ])),
        58..70 => Step::Store { nth: usize::try_from(dice.below(6)).unwrap(), is_done: dice.percent(40) },
        70..75 => Step::SlowJobs { jobs: dice.pick(&[1, 2, 5]), time: millis(dice, &[5, 1_000, 4_000, 20_000]) },
        75..91 => Step::Fate { place, fate: fate(dice) },
        91..96 => Step::Program(program(dice)),
        _ => Step::Clock { back: dice.percent(50), by: millis(dice, &[1_000, 3_600_000, 40_000_000_000]) },
    }
}

const SHIM_VERBS: [Verb; 14] = [
    Verb::Spawn,
    Verb::Attach,
    Verb::CleanUp,
    Verb::EndSilent,
    Verb::List,
    Verb::Create,
    Verb::Start,
    Verb::State,
    Verb::Kill,
    Verb::Kill,
    Verb::Wait,
    Verb::Delete,
    Verb::HandOver,
    Verb::Shutdown,
];

fn shim_fault(dice: &mut Dice) -> ShimFault {
    match dice.below(6) {
        0 => ShimFault::Refused,
        1 => ShimFault::Lost,
        2 => ShimFault::DoneButLost,
        3 => ShimFault::Silent,
        _ => ShimFault::Slow(millis(dice, &[1, 300, 3_000, 9_000, 50_000])),
    }
}

fn fate(dice: &mut Dice) -> Fate {
    match dice.below(7) {
        0 | 1 => Fate::LosesShim,
        2 => Fate::VanishesWithShim,
        3 => Fate::LosesConnection,
        4 => Fate::IgnoresTerm,
        5 => Fate::AnswersTerm(dice.pick(&[0, 9])),
        _ => Fate::Exits(dice.pick(&[0, 1, 7])),
    }
}

fn program(dice: &mut Dice) -> Program {
    if dice.percent(40) {
        return Program::RunsOn;
    }
    Program::Ends { after: millis(dice, &[1, 800, 15_000]), code: dice.pick(&[0, 1]) }
}

fn policy(dice: &mut Dice) -> RestartPolicy {
    dice.pick(&[
        RestartPolicy::No,
        RestartPolicy::No,
        RestartPolicy::OnFailure { max_attempts: Some(2) },
        RestartPolicy::OnFailure { max_attempts: None },
        RestartPolicy::Always,
        RestartPolicy::UnlessStopped,
    ])
}

fn timeout(dice: &mut Dice) -> Option<Duration> {
    dice.pick(&[None, Some(Duration::ZERO), Some(Duration::from_millis(500)), Some(Duration::from_secs(30))])
}

fn millis(dice: &mut Dice, choices: &[u64]) -> Duration {
    Duration::from_millis(dice.pick(choices))
}
