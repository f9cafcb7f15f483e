//! Carries a schedule out: calls as tasks, faults at the boundaries, one actix system per life of the daemon.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use actix::Addr;
use contd_protocol::api::Target;
use contd_rootfs::fake::Outcome as RootfsOutcome;
use contd_shim_client::ShimError;
use contd_shim_client::fake::{Failure, FakeShimClient, Outcome, Reaction, Verb};
use contd_store::Outcome as StoreOutcome;
use contd_types::{ApiError, ContainerRef, ErrorKind, Signal};

use super::calls::{self, Caller};
use super::model::Model;
use super::plan::{Fate, Loss, Place, ProviderFault, ShimFault, Step, Victim};
use super::quiet;
use crate::messages::{PanicIn, PlantPanic, Shutdown};
use crate::tests::{ns, replay};
use crate::{Supervisor, ask_api, tell};

/// The state that all parts of a daemon's life may look at.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    pub(super) model: Rc<RefCell<Model>>,
    pub(super) addr: Addr<Supervisor>,
    shims: FakeShimClient,
}

/// How a daemon's life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It was lost; another follows.
    Lost,
    /// The schedule is over, or a promise is broken.
    Over,
}

/// Carries out a whole schedule; the model then knows what was broken.
pub(super) fn play(steps: &[Step], model: &Rc<RefCell<Model>>) {
    let mut next = 0;
    loop {
        replay::halt(false);
        let system = actix_rt::System::with_tokio_rt(|| {
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
        });
        let (steps, begin, on_stage) = (steps.to_vec(), next, Rc::clone(model));
        let (end, reached, handle) = system.block_on(async move {
            let life = actix_rt::spawn(live(steps, begin, on_stage));
            let (end, reached) = life.await.unwrap();
            (end, reached, tokio::runtime::Handle::current())
        });
        // Tasks that end with the system may want to know what time it is.
        let _context = handle.enter();
        drop(system);
        model.borrow_mut().forget_open();
        model.borrow_mut().callers = 0;
        next = reached;
        if end == End::Over {
            return;
        }
    }
}

/// One life of the daemon, from a step on. Returns how it ended and which step comes next.
async fn live(steps: Vec<Step>, begin: usize, model: Rc<RefCell<Model>>) -> (End, usize) {
    let node = model.borrow().node.clone();
    let shims = node.shims.for_daemon();
    let stage = Stage { addr: node.start(&shims), model, shims };
    stage.model.borrow_mut().tell("a daemon begins");
    for (index, step) in steps.iter().enumerate().skip(begin) {
        stage.model.borrow_mut().tell(format!("{index}: {step:?}"));
        let end = take(&stage, *step).await;
        super::check::glance(&mut stage.model.borrow_mut());
        if !stage.model.borrow().violations.is_empty() {
            stage.die();
            return (End::Over, index + 1);
        }
        if end == Some(End::Lost) {
            return (End::Lost, index + 1);
        }
    }
    if begin <= steps.len() {
        quiet::until_quiet(&stage).await;
        // The last life of the schedule: once more from what is on disk, with boundaries that work.
        node.heal();
        stage.die();
        return (End::Lost, steps.len() + 1);
    }
    quiet::until_quiet(&stage).await;
    quiet::delete_all(&stage).await;
    stage.die();
    (End::Over, steps.len() + 1)
}

impl Stage {
    /// The daemon makes no further call, hears no further answer.
    fn die(&self) {
        self.shims.cut_off();
        replay::halt(true);
        let mut model = self.model.borrow_mut();
        model.lose_memory();
        model.tell("the daemon is gone");
    }
}

async fn turns(count: u32) {
    for _ in 0..count {
        replay::turn().await;
    }
}

async fn take(stage: &Stage, step: Step) -> Option<End> {
    let node = stage.model.borrow().node.clone();
    match step {
        Step::Call { place, ask, by_id, patience } => {
            let id = node.id_at(place);
            calls::begin(stage, Caller { place, ask, id: id.filter(|_| by_id), patience });
        }
        Step::Turns(count) => turns(count).await,
        Step::Pass(time) => tokio::time::sleep(time).await,
        Step::Quiet => quiet::until_quiet(stage).await,
        Step::Lose { loss, turns: count } => {
            lose(stage, loss, count).await;
            stage.die();
            return Some(End::Lost);
        }
        Step::Reboot { turns: count } => {
            turns(count).await;
            stage.die();
            node.reboot();
            stage.model.borrow_mut().reboot();
            return Some(End::Lost);
        }
        Step::Panic { victim, place } => {
            stage.model.borrow_mut().lose_memory();
            tell(&stage.addr, PlantPanic(place_of(victim, place)));
        }
        Step::Shim { verb, fault } => node.shims.script(verb, [outcome(verb, fault)]),
        Step::Provider(fault) => match fault {
            ProviderFault::PrepareFails => node.rootfs.script_prepare([RootfsOutcome::Fail(ErrorKind::Unavailable)]),
            ProviderFault::PreparePanics => node.rootfs.script_prepare([RootfsOutcome::Panic]),
            ProviderFault::ReleaseFails => node.rootfs.script_release([RootfsOutcome::Fail(ErrorKind::Unavailable)]),
            ProviderFault::ReleasePanics => node.rootfs.script_release([RootfsOutcome::Panic]),
            ProviderFault::BundleFails => node.bundles.push(contd_bundle::Outcome::Fail(std::io::ErrorKind::Other)),
        },
        Step::Store { nth, is_done } => {
            let fault = if is_done { StoreOutcome::FailAfter } else { StoreOutcome::Fail };
            node.disk.store.script(std::iter::repeat_n(StoreOutcome::Succeed, nth).chain([fault]));
        }
        Step::SlowJobs { jobs, time } => replay::slow_down(jobs, time),
        Step::Fate { place, fate } => befall(stage, place, fate),
        Step::Program(program) => node.shims.set_program(None, program),
        Step::Clock { back, by } => node.wall.jump(back, by),
    }
    None
}

async fn lose(stage: &Stage, loss: Loss, count: u32) {
    match loss {
        Loss::Killed => turns(count).await,
        Loss::Panicked => {
            tell(&stage.addr, PlantPanic(PanicIn::Supervisor));
            turns(count).await;
        }
        Loss::Shutdown => {
            let begun = tokio::time::Instant::now();
            let longest = Duration::from_secs(30);
            let answer = ask_api(&stage.addr, Shutdown, longest).await;
            if begun.elapsed() >= longest {
                stage.model.borrow_mut().accuse(format!("a shutdown does not end: {answer:?}"));
            }
            turns(count).await;
        }
    }
}

fn place_of(victim: Victim, place: Place) -> PanicIn {
    let container = ContainerRef::new(place.name).unwrap();
    match victim {
        Victim::Container => PanicIn::Container(Target { namespace: ns(place.namespace), container }),
        Victim::Namespace => PanicIn::Namespace(ns(place.namespace)),
        Victim::Flist => PanicIn::Flist,
        Victim::Bundle => PanicIn::Bundle,
        Victim::Log => PanicIn::Log,
        Victim::Event => PanicIn::Event,
    }
}

fn outcome(verb: Verb, fault: ShimFault) -> Outcome {
    let lost = || Failure::new(|id, verb| ShimError::Lost { id: id.clone(), verb: verb.as_str() });
    match fault {
        ShimFault::Refused => Outcome::fail(ApiError::new(ErrorKind::Internal, "the schedule says so")),
        ShimFault::Lost => Outcome::lost(),
        ShimFault::DoneButLost => Outcome::DoneThenFail(lost()),
        // A wait may take for ever; its silence is that of a container that runs.
        ShimFault::Silent if verb == Verb::Wait => Outcome::lost(),
        ShimFault::Silent => Outcome::Hang,
        ShimFault::Slow(time) => Outcome::Delay(time),
    }
}

fn befall(stage: &Stage, place: Place, fate: Fate) {
    let node = stage.model.borrow().node.clone();
    let Some(id) = node.id_at(place) else { return };
    let shims = &node.shims;
    match fate {
        Fate::Exits(code) => drop(shims.exit_code(&id, code)),
        Fate::LosesShim => drop(shims.lose_shim(&id, true)),
        Fate::VanishesWithShim => drop(shims.lose_shim(&id, false)),
        Fate::LosesConnection => drop(shims.disconnect(&id)),
        Fate::IgnoresTerm => shims.on_signal(&id, Signal::TERM, Reaction::Ignore),
        Fate::AnswersTerm(code) => shims.on_signal(&id, Signal::TERM, Reaction::ExitWith(code)),
    }
}
