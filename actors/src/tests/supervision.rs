use super::*;
use crate::messages::{NodeStatus, PanicIn, PlantPanic};
use crate::{ask, tell};
use contd_shim_client::fake::{Outcome, Verb};
use contd_types::ErrorKind;

async fn rebuilt(node: &Addr<Supervisor>) -> u32 {
    ask_api(node, NodeStatus, LONG).await.unwrap().actors_rebuilt
}

#[actix::test]
async fn every_actor_is_rebuilt_after_a_panic_and_a_bystander_does_not_notice() {
    tokio::time::pause();
    for place in [
        PanicIn::Flist,
        PanicIn::Bundle,
        PanicIn::Log,
        PanicIn::Event,
        PanicIn::Namespace(ns("a")),
        PanicIn::Container(target("victim")),
    ] {
        let world = World::another();
        let node = world.start();
        let bystander = run(&node, spec("bystander")).await.unwrap();
        let pid = world.shims.pid_of(&bystander);
        run(&node, spec("victim")).await.unwrap();
        tell(&node, PlantPanic(place.clone()));
        until(&format!("{place:?} is rebuilt"), async || rebuilt(&node).await == 1).await;
        until_state(&node, "bystander", StateName::Running).await;
        until_state(&node, "victim", StateName::Running).await;
        assert_eq!((world.shims.pid_of(&bystander), world.shims.starts_of(&bystander)), (pid, 1), "{place:?}");
        run(&node, spec("next")).await.unwrap_or_else(|error| panic!("{place:?}: {error}"));
        for name in ["bystander", "victim", "next"] {
            delete(&node, name, true).await.unwrap_or_else(|error| panic!("{place:?}: {name}: {error}"));
        }
        world.assert_empty();
    }
}

#[actix::test]
async fn a_run_whose_actor_is_lost_is_answered_and_leaves_nothing() {
    tokio::time::pause();
    for place in [PanicIn::Container(target("web")), PanicIn::Namespace(ns("a"))] {
        let world = World::another();
        let node = world.start();
        world.shims.script(Verb::Create, [Outcome::Hang]);
        let (ran, _told) = futures_util::join!(run(&node, spec("web")), async {
            world.shims.until_called(Verb::Create, 1).await;
            tell(&node, PlantPanic(place.clone()))
        });
        assert_eq!(ran.unwrap_err().kind, ErrorKind::Unavailable, "{place:?}");
        until("it is rolled back", async || state(&node, "web").await.is_none()).await;
        world.assert_empty();
        run(&node, spec("web")).await.unwrap();
    }
}

#[actix::test]
async fn a_record_that_cannot_be_read_at_a_rebuild_is_read_again() {
    let world = World::new();
    let node = world.start();
    let keyed = |key: &str| RunContainer { idempotency_key: Some(key.into()), ..run_message(spec("web")) };
    let id = ask_api(&node, keyed("key"), LONG).await.unwrap();
    world.store.script([contd_store::Outcome::Fail, contd_store::Outcome::Fail]);
    tell(&node, PlantPanic(PanicIn::Namespace(ns("a"))));
    until("both are rebuilt", async || rebuilt(&node).await == 2).await;
    assert_eq!(ask_api(&node, keyed("key"), LONG).await.unwrap(), id, "the key is forgotten");
    assert_eq!(run(&node, spec("web")).await.unwrap_err().kind, ErrorKind::AlreadyExists);
    delete(&node, "web", true).await.unwrap();
    world.assert_empty();
}

#[actix::test]
async fn an_actor_that_panics_without_end_is_given_up_and_its_container_left_alone() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    for round in 1..=5 {
        tell(&node, PlantPanic(PanicIn::Container(target("web"))));
        until("it is rebuilt", async || rebuilt(&node).await == round).await;
        until_state(&node, "web", StateName::Running).await;
    }
    tell(&node, PlantPanic(PanicIn::Container(target("web"))));
    until_state(&node, "web", StateName::Failed).await;
    assert_eq!(stop(&node, "web").await.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(world.shims.live_containers(), [id]);
}

#[actix::test]
async fn a_panic_of_the_supervisor_ends_the_node_and_the_next_one_takes_over() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    tell(&node, PlantPanic(PanicIn::Supervisor));
    crate::until_ended(&node).await;
    assert!(ask(&node, NodeStatus, LONG).await.is_err());
    let node = world.start();
    until_state(&node, "web", StateName::Running).await;
    assert_eq!(world.shims.starts_of(&id), 1);
}

/// A call that is under way when an actor is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Busy {
    Idle,
    Preparing,
    Running,
    Starting,
    Stopping,
    Deleting,
    Waiting,
    Following,
    Subscribed,
}

const ALL_BUSY: [Busy; 9] = [
    Busy::Idle,
    Busy::Preparing,
    Busy::Running,
    Busy::Starting,
    Busy::Stopping,
    Busy::Deleting,
    Busy::Waiting,
    Busy::Following,
    Busy::Subscribed,
];

fn all_places() -> [PanicIn; 7] {
    [
        PanicIn::Flist,
        PanicIn::Bundle,
        PanicIn::Log,
        PanicIn::Event,
        PanicIn::Namespace(ns("a")),
        PanicIn::Container(target("victim")),
        PanicIn::Supervisor,
    ]
}

/// More than any call of [`Busy`] takes, and less than the deadline of whoever asks: a call that is left hanging is seen.
const ANSWERED: Duration = Duration::from_secs(400);

/// Makes a call that takes a while; `Ok` or not, it must be answered.
async fn call(world: &World, node: &Addr<Supervisor>, busy: Busy) -> bool {
    let slow = || world.shims.script(Verb::Create, [Outcome::Delay(Duration::from_secs(3))]);
    match busy {
        Busy::Idle => true,
        Busy::Preparing => {
            let outcome = contd_rootfs::fake::Outcome::Delay(Duration::from_millis(30));
            world.rootfs.script_prepare([outcome]);
            run(node, spec("busy")).await.is_ok()
        }
        Busy::Running => {
            slow();
            run(node, spec("busy")).await.is_ok()
        }
        Busy::Starting => {
            slow();
            start_again(node, "victim").await.is_ok()
        }
        Busy::Stopping => stop(node, "victim").await.is_ok(),
        Busy::Deleting => delete(node, "victim", true).await.is_ok(),
        Busy::Waiting => wait(node, "victim").await.is_ok(),
        Busy::Following => {
            let follow = crate::messages::FollowLog { target: target("victim"), tail: None };
            let Ok(mut stream) = ask_api(node, follow, LONG).await else { return false };
            while stream.recv().await.is_some() {}
            true
        }
        Busy::Subscribed => {
            let subscribe = crate::messages::SubscribeEvents { from: Some(1), namespace: None };
            let Ok(mut events) = ask_api(node, subscribe, LONG).await else { return false };
            // Ends with the node, or with the deletion of the victim.
            while let Some(item) = events.recv().await {
                if matches!(item, crate::messages::EventItem::Event { event, .. } if event.kind == contd_types::EventKind::Deleted)
                {
                    break;
                }
            }
            true
        }
    }
}

#[actix::test]
async fn whichever_actor_is_lost_whatever_is_under_way_every_caller_is_answered_and_nothing_is_left() {
    tokio::time::pause();
    for place in all_places() {
        for busy in ALL_BUSY {
            lose(&place, busy).await;
        }
    }
}

async fn lose(place: &PanicIn, busy: Busy) {
    let what = format!("{place:?} while {busy:?}");
    let world = World::another();
    let node = world.start();
    let bystander = ask_api(&node, RunContainer { namespace: ns("b"), ..run_message(spec("bystander")) }, LONG).await;
    let bystander = bystander.unwrap();
    let pid = world.shims.pid_of(&bystander);
    let victim = run(&node, spec("victim")).await.unwrap();
    if busy == Busy::Starting {
        stop(&node, "victim").await.unwrap();
    }
    world.shims.on_signal(&victim, contd_types::Signal::TERM, contd_shim_client::fake::Reaction::Ignore);
    let under_way = tokio::time::timeout(ANSWERED, call(&world, &node, busy));
    let (answered, node) = futures_util::join!(under_way, async {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        tell(&node, PlantPanic(place.clone()));
        let node = if *place == PanicIn::Supervisor {
            crate::until_ended(&node).await;
            world.start()
        } else {
            until(&format!("{what}: it is rebuilt"), async || rebuilt(&node).await == 1).await;
            node.clone()
        };
        // A caller may wait for the victim without end, so it is deleted after a minute.
        tokio::time::sleep(Duration::from_secs(60)).await;
        if state(&node, "victim").await.is_some() {
            delete(&node, "victim", true).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        node
    });
    assert!(answered.is_ok(), "{what}: the caller is left hanging");
    assert_eq!((world.shims.pid_of(&bystander), world.shims.starts_of(&bystander)), (pid, 1), "{what}");
    run(&node, spec("next")).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    for name in ["busy", "next"] {
        if state(&node, name).await.is_some() {
            delete(&node, name, true).await.unwrap_or_else(|error| panic!("{what}: {name}: {error}"));
        }
    }
    let other = Target { namespace: ns("b"), container: ContainerRef::from(&bystander) };
    ask_api(&node, DeleteContainer { target: other, force: true, timeout: None }, LONG).await.unwrap();
    until(&format!("{what}: nothing is left"), async || world.store.records().is_empty()).await;
    world.assert_empty();
}

#[actix::test]
async fn a_namespace_is_rebuilt_whole_when_its_records_cannot_be_read_at_first() {
    let world = World::new();
    let node = world.start();
    for name in ["one", "two", "three"] {
        run(&node, spec(name)).await.unwrap();
    }
    world.store.script([contd_store::Outcome::Succeed, contd_store::Outcome::Fail]);
    tell(&node, PlantPanic(PanicIn::Namespace(ns("a"))));
    until("it is rebuilt", async || rebuilt(&node).await == 1).await;
    for name in ["one", "two", "three"] {
        until_state(&node, name, StateName::Running).await;
        delete(&node, name, true).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    world.assert_empty();
}

#[actix::test]
async fn a_service_that_panics_without_end_is_given_up_and_its_callers_are_told() {
    let world = World::new();
    let node = world.start();
    run(&node, spec("web")).await.unwrap();
    for round in 1..=5 {
        tell(&node, PlantPanic(PanicIn::Bundle));
        until("it is rebuilt", async || rebuilt(&node).await == round).await;
    }
    tell(&node, PlantPanic(PanicIn::Bundle));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(run(&node, spec("next")).await.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(state(&node, "web").await, Some(StateName::Running));
}
