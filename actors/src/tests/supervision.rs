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
