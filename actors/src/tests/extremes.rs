//! Numbers from callers, as large as they come: no actor dies of them, and everything still works afterwards.

use super::*;
use crate::messages::{EventItem, FollowLog, ListContainers, NodeStatus, ReadLog, SubscribeEvents};
use contd_types::{ErrorKind, MAX_TIMEOUT};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner};

/// Where sums with clocks and other times overflow, and some beside.
fn times() -> impl Strategy<Value = Duration> {
    let signed = u64::try_from(i64::MAX).unwrap();
    let edges = prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::from_nanos(1)),
        Just(Duration::MAX),
        Just(Duration::MAX - Duration::from_nanos(1)),
        Just(Duration::from_millis(u64::MAX)),
        Just(MAX_TIMEOUT),
        Just(MAX_TIMEOUT + Duration::from_nanos(1)),
        (0..100_000u64).prop_map(move |below| Duration::new(signed - below, 999_999_999)),
        (0..100_000u64).prop_map(|below| Duration::from_secs(u64::MAX - below)),
    ];
    prop_oneof![3 => edges, 1 => (any::<u64>(), 0..1_000_000_000u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos))]
}

fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(u64::MAX - 1), Just(1 << 63), any::<u64>()]
}

/// One round of requests with these numbers.
#[derive(Debug, Clone)]
struct Round {
    stop: Duration,
    hurry: Duration,
    delete: Duration,
    spec: Duration,
    tail: u64,
    from: u64,
    limit: u32,
    bytes: u64,
}

fn rounds() -> impl Strategy<Value = Round> {
    let durations = (times(), times(), times(), times());
    (durations, numbers(), numbers(), any::<u32>(), numbers()).prop_map(
        |((stop, hurry, delete, spec), tail, from, limit, bytes)| Round {
            stop,
            hurry,
            delete,
            spec,
            tail,
            from,
            limit,
            bytes,
        },
    )
}

async fn play(world: &World, node: &Addr<Supervisor>, round: &Round) {
    let mut wanted = spec("web");
    (wanted.shutdown_timeout, wanted.rootfs_size_bytes) = (Some(round.spec.min(MAX_TIMEOUT)), Some(round.bytes.max(1)));
    wanted.memory_bytes = Some(round.bytes.max(16 << 20));
    let id = run(node, wanted).await.unwrap();
    for signal in [contd_types::Signal::TERM, contd_types::Signal::KILL] {
        world.shims.on_signal(&id, signal, contd_shim_client::fake::Reaction::Ignore);
    }
    let (first, second) = (Some(round.stop), Some(round.hurry));
    let mut stops: Vec<_> = [first, second, first]
        .into_iter()
        .map(|timeout| Box::pin(ask_api(node, StopContainer { target: target("web"), timeout }, LONG)))
        .collect();
    for stop in &mut stops {
        assert!(futures_util::poll!(stop).is_pending());
    }
    let log = ask_api(node, ReadLog { target: target("web"), tail: Some(round.tail) }, LONG).await.unwrap();
    let follow = ask_api(node, FollowLog { target: target("web"), tail: Some(round.tail) }, LONG).await.unwrap();
    let from = SubscribeEvents { from: Some(round.from), namespace: None };
    let mut events = ask_api(node, from, LONG).await.unwrap();
    let list = ListContainers { namespace: None, after: None, limit: round.limit };
    assert_eq!(ask_api(node, list, LONG).await.unwrap().containers.len(), 1);
    let delete = DeleteContainer { target: target("web"), force: true, timeout: Some(round.delete) };
    let mut delete = Box::pin(ask_api(node, delete, LONG));
    assert!(futures_util::poll!(&mut delete).is_pending());
    // All of them are in the actors' hands before it ends.
    ask_api(node, InspectContainer { target: target("web") }, LONG).await.unwrap();
    world.shims.exit_code(&id, 0);
    for stop in stops {
        drop(stop.await);
    }
    drop(delete.await);
    drop((log, follow));
    if round.from < 2 {
        assert!(matches!(events.recv().await, Some(EventItem::Event { .. } | EventItem::Gap { .. })));
    }
    until("it is gone", async || state(node, "web").await.is_none()).await;
    assert_eq!(ask_api(node, NodeStatus, LONG).await.unwrap().actors_rebuilt, 0, "an actor died of {round:?}");
}

#[actix::test]
async fn no_actor_dies_of_the_largest_numbers_that_can_be_sent() {
    let world = World::new();
    let node = world.start();
    let mut runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(9), ..Config::default() });
    for _ in 0..48 {
        let round = rounds().new_tree(&mut runner).unwrap().current();
        play(&world, &node, &round).await;
    }
    world.assert_empty();
}

#[actix::test]
async fn a_stop_time_out_that_nobody_waits_for_is_refused_by_name_and_an_old_record_with_one_is_kept() {
    let world = World::new();
    let node = world.start();
    let endless = ContainerSpec { shutdown_timeout: Some(MAX_TIMEOUT + Duration::from_secs(1)), ..spec("web") };
    let refused = run(&node, endless).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::InvalidArgument);
    assert!(refused.causes[0].contains("stop timeout"), "{refused:?}");
    let id = run(&node, spec("web")).await.unwrap();
    let mut record = world.store.records().pop().unwrap();
    end(node).await;
    record.spec.shutdown_timeout = Some(Duration::MAX);
    contd_store::Store::put(&*world.store, &record).unwrap();
    let node = world.start();
    for signal in [contd_types::Signal::TERM, contd_types::Signal::KILL] {
        world.shims.on_signal(&id, signal, contd_shim_client::fake::Reaction::Ignore);
    }
    let mut stopping = Box::pin(stop(&node, "web"));
    assert!(futures_util::poll!(&mut stopping).is_pending());
    until_state(&node, "web", StateName::Stopping).await;
    world.shims.exit_code(&id, 0);
    stopping.await.unwrap();
    delete(&node, "web", true).await.unwrap();
}
