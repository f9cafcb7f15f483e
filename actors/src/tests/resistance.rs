//! Deletions that something resists: answered in time, the name free, tried again until nothing is left.

use super::*;
use crate::messages::{FollowLog, ListContainers};
use contd_rootfs::fake::Outcome as RootOutcome;
use contd_shim_client::fake::{Outcome, Reaction, Verb};
use contd_store::Outcome as StoreOutcome;
use contd_types::{ErrorKind, ExitCause, Signal, State};

/// The most time that a forced deletion may take when the container is given none: SIGKILL's wait and the removal's.
const FORCED: Duration = Duration::from_secs(25);

async fn delete_now(node: &Addr<Supervisor>, name: &str) -> Result<(), ApiError> {
    let timeout = Some(Duration::ZERO);
    ask_api(node, DeleteContainer { target: target(name), force: true, timeout }, LONG).await
}

/// Runs a container that no signal ends.
async fn run_undying(world: &World, node: &Addr<Supervisor>, name: &str) -> ContainerId {
    let id = run(node, spec(name)).await.unwrap();
    for signal in [Signal::TERM, Signal::KILL] {
        world.shims.on_signal(&id, signal, Reaction::Ignore);
    }
    id
}

/// Waits until nothing of any container is left; back-offs are awaited.
async fn until_empty(world: &World) {
    for _ in 0..2000 {
        if world.store.records().is_empty() && world.rootfs.live().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    world.assert_empty();
}

async fn lingering_reason(node: &Addr<Supervisor>, reference: &str) -> String {
    match inspect(node, reference).await.unwrap().state {
        State::Lingering { reason } => reason,
        other => panic!("it is {other:?}"),
    }
}

#[actix::test]
async fn a_forced_deletion_of_what_does_not_die_is_answered_in_time_and_goes_on() {
    let world = World::new();
    let node = world.start();
    let id = run_undying(&world, &node, "web").await;
    let begun = tokio::time::Instant::now();
    let error = delete_now(&node, "web").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert!(error.to_string().contains("(fake) in D state at fake_wait"), "{error}");
    assert!(begun.elapsed() <= FORCED + Duration::from_millis(1), "took {:?}", begun.elapsed());
    let reason = lingering_reason(&node, id.as_str()).await;
    assert!(reason.starts_with("1 process does not end: "), "{reason}");
    assert!(matches!(world.store.records()[0].state, State::Lingering { .. }), "the record does not say so");
    let page = ask_api(&node, ListContainers { namespace: None, after: None, limit: 0 }, LONG).await.unwrap();
    assert!(matches!(page.containers[0].state, State::Lingering { .. }));
    world.shims.exit_code(&id, 3);
    until_empty(&world).await;
}

#[actix::test]
async fn the_name_of_what_does_not_go_is_free_and_nothing_of_the_next_is_touched() {
    let world = World::new();
    let node = world.start();
    let old = run_undying(&world, &node, "web").await;
    delete_now(&node, "web").await.unwrap_err();
    let new = run(&node, RunContainer { idempotency_key: None, ..run_message(spec("web")) }.spec).await.unwrap();
    assert_ne!(old, new);
    assert_eq!(inspect(&node, "web").await.unwrap().id, new);
    let log = world.dir.path().join("log/a/web.log");
    std::fs::write(&log, "of the new one").unwrap();
    let follow = FollowLog { target: target(old.as_str()), tail: None };
    assert_eq!(ask_api(&node, follow, LONG).await.unwrap_err().kind, ErrorKind::Conflict);
    world.shims.exit_code(&old, 0);
    until("the old one is gone", async || world.store.records().len() == 1).await;
    assert_eq!(inspect(&node, "web").await.unwrap().id, new);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "of the new one");
    delete(&node, "web", true).await.unwrap();
    world.assert_empty();
}

#[actix::test]
async fn a_removal_goes_on_after_a_restart_and_spares_the_next_of_the_name() {
    let world = World::new();
    let node = world.start();
    let old = run_undying(&world, &node, "web").await;
    delete_now(&node, "web").await.unwrap_err();
    let new = run(&node, spec("web")).await.unwrap();
    end(node).await;
    let log = world.dir.path().join("log/a/web.log");
    std::fs::write(&log, "of the new one").unwrap();
    let node = world.start();
    until_state(&node, "web", StateName::Running).await;
    assert_eq!(inspect(&node, "web").await.unwrap().id, new);
    assert_eq!(run(&node, spec("web")).await.unwrap_err().kind, ErrorKind::AlreadyExists);
    assert!(!lingering_reason(&node, old.as_str()).await.is_empty());
    world.shims.exit_code(&old, 0);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(inspect(&node, old.as_str()).await.is_err(), "it is still there");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "of the new one");
    delete(&node, "web", true).await.unwrap();
    world.assert_empty();
}

#[actix::test]
async fn a_late_exit_is_told_to_whoever_waits_for_it() {
    let world = World::new();
    let node = world.start();
    let id = run_undying(&world, &node, "web").await;
    // A real shim tells the end before it answers the deletion.
    world.shims.script(Verb::Shutdown, [Outcome::Delay(Duration::from_millis(1))]);
    let (waited, ()) = futures_util::join!(wait(&node, "web"), async {
        delete_now(&node, "web").await.unwrap_err();
        world.shims.exit_code(&id, 7);
    });
    assert_eq!(waited.unwrap().cause, ExitCause::Code(7));
    until_empty(&world).await;
}

#[actix::test]
async fn a_stop_of_what_does_not_die_stays_wanted_and_a_deletion_kills_again() {
    let world = World::new();
    let node = world.start();
    let id = run_undying(&world, &node, "web").await;
    let error = stop(&node, "web").await.unwrap_err();
    assert!(error.kind == ErrorKind::Timeout && error.to_string().contains("in D state"), "{error}");
    assert_eq!(state(&node, "web").await, Some(StateName::Stopping));
    world.shims.on_signal(&id, Signal::KILL, Reaction::Die);
    delete(&node, "web", true).await.unwrap();
    world.assert_empty();
}

/// Exchanges the directory of the logs for what is beside it, at once: a removal that finds none has nothing to do.
fn exchange_logs(world: &World) {
    let [log, away] = ["log", "away"].map(|name| world.dir.path().join(name));
    let (here, flags) = (nix::fcntl::AT_FDCWD, nix::fcntl::RenameFlags::RENAME_EXCHANGE);
    nix::fcntl::renameat2(here, &log, here, &away, flags).unwrap();
}

/// Every obstacle that goes away after some tries.
fn plant(world: &World, number: usize, times: usize) -> Option<&'static str> {
    let hang = || std::iter::repeat_n(Outcome::Hang, times);
    match number {
        0 => world.shims.script(Verb::Delete, hang()),
        1 => world.shims.script(Verb::Shutdown, hang()),
        2 => world.rootfs.script_release(std::iter::repeat_n(RootOutcome::Fail(ErrorKind::Busy), times)),
        3 => world.rootfs.script_release(std::iter::repeat_n(RootOutcome::Panic, times)),
        4 => {
            // A directory that cannot be looked into cannot be emptied.
            std::os::unix::fs::symlink("log", world.dir.path().join("away")).unwrap();
            exchange_logs(world);
        }
        _ => return None,
    }
    Some(["delete", "shut", "root", "root", "log"][number])
}

#[actix::test]
async fn whatever_resists_for_a_while_is_removed_in_the_end() {
    tokio::time::pause();
    for times in [1, 4] {
        for number in 0.. {
            let world = World::another();
            let node = world.start();
            run(&node, spec("web")).await.unwrap();
            run(&node, spec("bystander")).await.unwrap();
            let Some(part) = plant(&world, number, times) else { break };
            let begun = tokio::time::Instant::now();
            let deleted = delete_now(&node, "web").await;
            assert!(begun.elapsed() <= FORCED + Duration::from_millis(1), "{part}: took {:?}", begun.elapsed());
            if let Err(error) = deleted {
                assert!(error.to_string().contains(part), "{part}: {error}");
            }
            run(&node, spec("web")).await.unwrap_or_else(|error| {
                assert_eq!(part, "log", "{part}: the name is not free: {error}");
                ContainerId::from_random([0; 16])
            });
            if part == "log" {
                exchange_logs(&world);
            }
            for _ in 0..200 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            assert_eq!(state(&node, "bystander").await, Some(StateName::Running), "{part}");
            delete(&node, "bystander", true).await.unwrap();
            if state(&node, "web").await.is_some() {
                delete(&node, "web", true).await.unwrap();
            }
            until_empty(&world).await;
        }
    }
}

#[actix::test]
async fn a_record_that_cannot_be_removed_keeps_nothing_but_itself() {
    tokio::time::pause();
    for times in [1, 3, 9] {
        let world = World::another();
        let node = world.start();
        run(&node, spec("web")).await.unwrap();
        stop(&node, "web").await.unwrap();
        until("the shim is let go", async || world.shims.leases().is_empty()).await;
        // A full disk: no intent, no removal, again and again.
        world.store.script(std::iter::repeat_n(StoreOutcome::Fail, times * 3));
        let _in_time_or_not = delete(&node, "web", false).await;
        assert_eq!((world.rootfs.live(), world.shims.leases()), (vec![], vec![]), "{times}");
        until_empty(&world).await;
    }
}

#[actix::test]
async fn a_release_that_hangs_is_not_queued_again_and_again() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    world.rootfs.script_release([RootOutcome::Hang]);
    let error = while_hanging(delete_now(&node, "web")).await.unwrap_err();
    assert!(error.to_string().contains("root"), "{error}");
    assert_eq!(world.rootfs.hanging(), 1);
    while_hanging(tokio::time::sleep(Duration::from_secs(60))).await;
    assert!(lingering_reason(&node, id.as_str()).await.contains("root"));
    assert_eq!(world.rootfs.release_count(), 1, "the calls pile up");
    world.rootfs.let_go();
    until_empty(&world).await;
}

#[actix::test]
async fn a_shim_that_stands_still_does_not_keep_a_deletion() {
    let world = World::new();
    let node = world.start();
    run(&node, spec("web")).await.unwrap();
    stop(&node, "web").await.unwrap();
    start_again(&node, "web").await.unwrap();
    world.shims.script(Verb::Delete, [Outcome::Hang]);
    world.shims.script(Verb::State, [Outcome::Hang]);
    world.shims.always(Verb::Kill, Outcome::Hang);
    let _in_time_or_not = delete_now(&node, "web").await;
    until_empty(&world).await;
    assert!(world.shims.count(Verb::EndSilent) > 0);
}

#[actix::test]
async fn a_deletion_that_is_asked_for_again_is_tried_at_once() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    world.rootfs.script_release(std::iter::repeat_n(RootOutcome::Fail(ErrorKind::Busy), 9));
    assert_eq!(delete_now(&node, "web").await.unwrap_err().kind, ErrorKind::Busy);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let before = world.rootfs.release_count();
    let begun = tokio::time::Instant::now();
    let (_again, ()) = futures_util::join!(delete_now(&node, id.as_str()), async {
        until("it is tried", async || world.rootfs.release_count() > before).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "took {:?}", begun.elapsed());
    });
    until_empty(&world).await;
}
