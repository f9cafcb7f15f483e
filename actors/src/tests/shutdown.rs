//! The node goes down: all containers are ended in time, nothing is started, and the next daemon goes on by policy.

use super::*;
use crate::messages::{ShutDownNode, Shutdown, UpdateContainer};
use contd_rootfs::fake::Call;
use contd_shim_client::fake::{Program, Reaction};
use contd_types::{Changes, ErrorKind, Signal, State};

async fn shut_down(node: &Addr<Supervisor>, seconds: u64) -> Result<u32, ApiError> {
    ask_api(node, ShutDownNode { longest: Duration::from_secs(seconds) }, LONG).await
}

fn with_policy(name: &str, restart: RestartPolicy) -> ContainerSpec {
    ContainerSpec { restart, ..spec(name) }
}

/// Starts the next daemon on what the one before has left, in the same boot.
async fn next(world: &World, node: Addr<Supervisor>) -> Addr<Supervisor> {
    end(node).await;
    world.start()
}

#[actix::test]
async fn all_end_side_by_side_and_nobody_is_given_more_than_the_bound() {
    let world = World::new();
    let node = world.start();
    for name in ["one", "two", "three"] {
        let id =
            run(&node, ContainerSpec { shutdown_timeout: Some(Duration::from_secs(300)), ..spec(name) }).await.unwrap();
        if name != "one" {
            world.shims.on_signal(&id, Signal::TERM, Reaction::Ignore);
        }
    }
    let begun = tokio::time::Instant::now();
    assert_eq!(shut_down(&node, 20).await.unwrap(), 3);
    assert!((20..22).contains(&begun.elapsed().as_secs()), "took {:?}", begun.elapsed());
    assert!(world.rootfs.calls().contains(&Call::TakeDown), "the roots stay");
    for name in ["one", "two", "three"] {
        assert_eq!(state(&node, name).await, Some(StateName::Stopped), "{name}");
    }
}

#[actix::test]
async fn nothing_is_started_any_more_by_nobody_and_no_policy() {
    let world = World::new();
    let node = world.start();
    run(&node, restarting("web")).await.unwrap();
    world.shims.set_program(None, Program::Ends { after: Duration::from_millis(1), code: 1 });
    run(&node, restarting("loops")).await.unwrap();
    until_state(&node, "loops", StateName::Backoff).await;
    shut_down(&node, 20).await.unwrap();
    assert_eq!(run(&node, spec("new")).await.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(start_again(&node, "web").await.unwrap_err().kind, ErrorKind::Unavailable);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(state(&node, "web").await, Some(StateName::Stopped));
    assert_eq!(world.shims.live_containers(), []);
    // A container's state is still told, and a container that has ended can be removed.
    delete(&node, "web", false).await.unwrap();
}

#[actix::test]
async fn the_next_daemon_starts_by_policy_what_ran_and_only_that() {
    let world = World::new();
    let node = world.start();
    let policies = [
        ("no", RestartPolicy::No, false),
        ("always", RestartPolicy::Always, true),
        ("unless", RestartPolicy::UnlessStopped, true),
        ("failed", RestartPolicy::OnFailure { max_attempts: None }, true),
    ];
    for (name, policy, _) in policies {
        run(&node, with_policy(name, policy)).await.unwrap();
    }
    run(&node, with_policy("told", RestartPolicy::UnlessStopped)).await.unwrap();
    stop(&node, "told").await.unwrap();
    shut_down(&node, 20).await.unwrap();
    let node = next(&world, node).await;
    for (name, _, runs) in policies {
        let wanted = if runs { StateName::Running } else { StateName::Stopped };
        until_state(&node, name, wanted).await;
    }
    assert_eq!(state(&node, "told").await, Some(StateName::Stopped));
    // Once decided: a daemon that is only restarted decides nothing.
    stop(&node, "always").await.unwrap();
    let node = next(&world, node).await;
    for name in ["always", "no", "told"] {
        until_state(&node, name, StateName::Stopped).await;
    }
    until_state(&node, "unless", StateName::Running).await;
}

#[actix::test]
async fn a_reboot_behind_it_changes_nothing() {
    let mut world = World::new();
    let node = world.start();
    run(&node, with_policy("failed", RestartPolicy::OnFailure { max_attempts: None })).await.unwrap();
    run(&node, with_policy("no", RestartPolicy::No)).await.unwrap();
    shut_down(&node, 20).await.unwrap();
    end(node).await;
    world.shims.reboot();
    world.rootfs.reboot();
    world.boot_id = "boot-2".into();
    let node = world.start();
    until_state(&node, "failed", StateName::Running).await;
    let info = inspect(&node, "no").await.unwrap();
    assert!(
        matches!(&info.state, State::Stopped { exit } if exit.is_success() || exit.cause != contd_types::ExitCause::Unknown("reboot".into())),
        "its true exit is known: {info:?}"
    );
}

#[actix::test]
async fn what_does_not_end_is_named() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("undying")).await.unwrap();
    for signal in [Signal::TERM, Signal::KILL] {
        world.shims.on_signal(&id, signal, Reaction::Ignore);
    }
    run(&node, spec("web")).await.unwrap();
    let error = shut_down(&node, 20).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert!(error.message.contains("1 of 2 containers have not ended: a/undying"), "{error:?}");
    assert_eq!(state(&node, "web").await, Some(StateName::Stopped));
    assert!(!world.rootfs.calls().contains(&Call::TakeDown), "a root was taken down under a container that lives");
}

#[actix::test]
async fn a_node_ends_behind_its_last_write_and_its_actors_write_nothing_more() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    world.store.script([contd_store::Outcome::Hang]);
    let writes = || world.store.calls().len();
    let (before, slow) = (writes(), node.clone());
    let update = UpdateContainer { target: target("web"), changes: Changes::restart(RestartPolicy::Always) };
    let updated = actix_rt::spawn(async move { ask_api(&slow, update, LONG).await });
    while_hanging(async {
        while writes() == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let ending = node.clone();
    let ended = actix_rt::spawn(async move { ask_api(&ending, Shutdown, LONG).await });
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let is_early = ended.is_finished();
    world.store.heal();
    assert!(!is_early, "the next node may begin, and a write of this one is under way");
    ended.await.unwrap().unwrap();
    assert_eq!(world.store.records()[0].spec.restart, RestartPolicy::Always);
    drop(updated);
    // Its actor may be there still, and hears of an end.
    let before = writes();
    assert!(world.shims.exit_code(&id, 7));
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(writes(), before);
    let next = world.start();
    until_state(&next, "web", StateName::Backoff).await;
    assert_eq!(inspect(&next, "web").await.unwrap().last_exit.unwrap().shell_code(), 7);
}
