use super::*;
use crate::messages::ListContainers;
use contd_shim_client::fake::{Outcome, Verb};
use contd_types::ErrorKind;

fn keyed(name: &str, key: &str) -> RunContainer {
    RunContainer { idempotency_key: Some(key.into()), ..run_message(spec(name)) }
}

#[actix::test]
async fn a_repeated_run_with_the_same_key_joins_the_first() {
    let world = World::new();
    let node = world.start();
    world.shims.script(Verb::Create, [Outcome::Delay(Duration::from_secs(3))]);
    let (one, two) =
        futures_util::join!(ask_api(&node, keyed("web", "k"), LONG), ask_api(&node, keyed("web", "k"), LONG));
    let id = one.unwrap();
    assert_eq!(two.unwrap(), id);
    assert_eq!(ask_api(&node, keyed("web", "k"), LONG).await.unwrap(), id);
    let error = ask_api(&node, keyed("other", "k"), LONG).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    drop(node);
    let node = world.start();
    assert_eq!(ask_api(&node, keyed("web", "k"), LONG).await.unwrap(), id, "a new daemon has forgotten the key");
    assert_eq!(world.shims.starts_of(&id), 1);
}

#[actix::test]
async fn a_failed_run_frees_its_key() {
    let world = World::new();
    let node = world.start();
    world.shims.script(Verb::Create, [Outcome::lost()]);
    ask_api(&node, keyed("web", "k"), LONG).await.unwrap_err();
    ask_api(&node, keyed("web", "k"), LONG).await.unwrap();
}

#[actix::test]
async fn runs_beyond_the_limits_are_answered_busy() {
    tokio::time::pause();
    // Each namespace has some places that the node's limit does not count.
    let own = crate::admission::OWN_PLACES;
    for (in_namespace, in_node, most) in [(1, 10, 1), (10, 1, own + 1)] {
        let world = World::another();
        let mut config = world.config();
        config.settings.limits.runs_in_flight_per_namespace = in_namespace;
        config.settings.limits.runs_in_flight = in_node;
        let node = world.start_with(config);
        world.shims.script(Verb::Create, std::iter::repeat_n(Outcome::Delay(Duration::from_secs(3)), most));
        let first = (0..most).map(|number| run(&node, spec(&format!("one{number}")))).collect::<Vec<_>>();
        let (ones, two) = futures_util::join!(futures_util::future::join_all(first.into_iter()), async {
            world.shims.until_called(Verb::Create, most).await;
            run(&node, spec("two")).await
        });
        assert!(ones.iter().all(Result::is_ok), "{ones:?}");
        let busy = two.unwrap_err();
        assert_eq!(busy.kind, ErrorKind::Busy);
        assert!(busy.hint.is_some());
        run(&node, spec("two")).await.unwrap();
    }
}

#[actix::test]
async fn a_full_namespace_refuses_and_others_do_not() {
    let world = World::new();
    let mut config = world.config();
    config.settings.limits.containers_per_namespace = 1;
    let node = world.start_with(config);
    run(&node, spec("one")).await.unwrap();
    assert_eq!(run(&node, spec("two")).await.unwrap_err().kind, ErrorKind::OutOfResources);
    let elsewhere = RunContainer { namespace: ns("b"), ..run_message(spec("two")) };
    ask_api(&node, elsewhere, LONG).await.unwrap();
}

#[actix::test]
async fn a_bad_spec_is_refused_before_anything_is_done() {
    let world = World::new();
    let node = world.start();
    let bad = ContainerSpec { working_dir: Some("../x".into()), ..spec("web") };
    let error = run(&node, bad).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument);
    assert_eq!(error.causes.len(), 1);
    world.assert_empty();
    let page = ask_api(&node, ListContainers { namespace: None, after: None, limit: 0 }, LONG).await.unwrap();
    assert!(page.containers.is_empty());
}

#[actix::test]
async fn fifty_containers_run_at_once_in_five_namespaces_on_real_arbiters() {
    let world = World::new();
    tokio::time::resume();
    let mut config = world.config();
    config.arbiters = 2;
    let node = world.start_with(config);
    let runs = (0..50).map(|number| {
        let namespace = ns(&format!("ns{}", number % 5));
        ask_api(&node, RunContainer { namespace, ..run_message(spec(&format!("c{}", number / 5))) }, LONG)
    });
    for ran in futures_util::future::join_all(runs).await {
        ran.unwrap();
    }
    assert_eq!(world.shims.live_containers().len(), 50);
}
