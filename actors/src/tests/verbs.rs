use super::*;
use crate::messages::{AwaitRemoval, CreateContainer, UpdateContainer, UpgradeShim};
use crate::messages::{DryRunContainer, KillContainer, ListContainers, ListNamespaces, NodeStatus, Shutdown};
use contd_types::{Changes, ErrorKind, ExitCause, Signal};

#[actix::test]
async fn a_container_runs_is_inspected_stopped_and_deleted_and_leaves_nothing() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    let info = inspect(&node, "web").await.unwrap();
    assert_eq!((info.id, info.state.pid()), (id.clone(), world.shims.pid_of(&id)));
    assert!(world.store.records()[0].is_acknowledged);
    let exit = stop(&node, "web").await.unwrap();
    assert_eq!(exit.cause, ExitCause::Signal(Signal::TERM));
    assert_eq!(stop(&node, "web").await.unwrap(), exit, "a second stop says the same");
    until("its shim is gone", async || world.shims.leases().is_empty()).await;
    assert_eq!(world.rootfs.live().len(), 1, "the root is kept for a restart");
    delete(&node, "web", false).await.unwrap();
    world.assert_empty();
    assert_eq!(inspect(&node, "web").await.unwrap_err().kind, ErrorKind::NotFound);
}

#[actix::test]
async fn a_stopped_container_starts_again_on_its_old_root() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    stop(&node, "web").await.unwrap();
    start_again(&node, "web").await.unwrap();
    start_again(&node, "web").await.unwrap();
    assert_eq!(state(&node, "web").await, Some(StateName::Running));
    assert_eq!((world.shims.starts_of(&id), world.shims.duplicate_spawns()), (2, 0));
    assert_eq!(world.rootfs.release_count(), 0);
    delete(&node, "web", true).await.unwrap();
    world.assert_empty();
}

#[actix::test]
async fn a_running_container_is_not_deleted_without_force() {
    let world = World::new();
    let node = world.start();
    run(&node, spec("web")).await.unwrap();
    let refused = delete(&node, "web", false).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert!(refused.hint.unwrap().contains("--force"));
    delete(&node, "web", true).await.unwrap();
    world.assert_empty();
}

#[actix::test]
async fn wait_answers_before_and_after_the_exit() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    let (early, ()) = futures_util::join!(wait(&node, "web"), async {
        until("it runs", async || world.shims.exit_code(&id, 42)).await;
    });
    assert_eq!(early.unwrap().cause, ExitCause::Code(42));
    assert_eq!(wait(&node, "web").await.unwrap().cause, ExitCause::Code(42));
}

#[actix::test]
async fn a_signal_reaches_the_container_and_a_stopped_one_refuses_it() {
    let world = World::new();
    let node = world.start();
    run(&node, spec("web")).await.unwrap();
    let kill = KillContainer { target: target("web"), signal: Signal::KILL };
    ask_api(&node, kill.clone(), LONG).await.unwrap();
    assert_eq!(wait(&node, "web").await.unwrap().cause, ExitCause::Signal(Signal::KILL));
    assert_eq!(ask_api(&node, kill, LONG).await.unwrap_err().kind, ErrorKind::Conflict);
}

#[actix::test]
async fn a_name_may_be_used_in_two_namespaces_and_once_in_each() {
    let world = World::new();
    let node = world.start();
    let one = run(&node, spec("web")).await.unwrap();
    let elsewhere = RunContainer { namespace: ns("b"), ..run_message(spec("web")) };
    let other = ask_api(&node, elsewhere, LONG).await.unwrap();
    assert_ne!(one, other);
    assert_eq!(run(&node, spec("web")).await.unwrap_err().kind, ErrorKind::AlreadyExists);
    let namespaces = ask_api(&node, ListNamespaces, LONG).await.unwrap();
    let shown: Vec<_> = namespaces.iter().map(|one| (one.namespace.as_str(), one.containers, one.running)).collect();
    assert_eq!(shown, [("a", 1, 1), ("b", 1, 1)]);
    delete(&node, "web", true).await.unwrap();
    assert_eq!(world.shims.live_containers(), [other]);
}

#[actix::test]
async fn lists_come_in_pages_and_the_status_counts() {
    let world = World::new();
    let node = world.start();
    for name in ["one", "two", "three"] {
        run(&node, spec(name)).await.unwrap();
    }
    let first = ask_api(&node, ListContainers { namespace: None, after: None, limit: 2 }, LONG).await.unwrap();
    assert!(first.has_more);
    let after = first.containers.last().map(|one| one.id.clone());
    let rest = ask_api(&node, ListContainers { namespace: Some(ns("a")), after, limit: 2 }, LONG).await.unwrap();
    assert_eq!((first.containers.len(), rest.containers.len(), rest.has_more), (2, 1, false));
    let status = ask_api(&node, NodeStatus, LONG).await.unwrap();
    assert_eq!((status.containers, status.running, status.runs_in_flight), (3, 3, 0));
}

#[actix::test]
async fn an_auto_removed_container_stays_until_its_attached_caller_lets_go() {
    let world = World::new();
    let node = world.start();
    let (held, hold) = tokio::sync::oneshot::channel();
    let auto = ContainerSpec { is_auto_removed: true, ..spec("job") };
    let id = ask_api(&node, RunContainer { hold: Some(hold), ..run_message(auto) }, LONG).await.unwrap();
    world.shims.exit_code(&id, 3);
    assert_eq!(wait(&node, "job").await.unwrap().cause, ExitCause::Code(3));
    until("its shim is gone", async || world.shims.leases().is_empty()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(state(&node, "job").await, Some(StateName::Stopped));
    drop(held);
    until("it is removed", async || state(&node, "job").await.is_none()).await;
    world.assert_empty();
}

#[actix::test]
async fn an_awaited_auto_removal_leaves_the_name_free_and_nothing_else_is_awaited() {
    let world = World::new();
    let node = world.start();
    let await_removal = || AwaitRemoval { target: target("job") };
    let auto = || ContainerSpec { is_auto_removed: true, ..spec("job") };
    for _ in 0..3 {
        // The name is free each time, at once.
        let id = ask_api(&node, run_message(auto()), LONG).await.unwrap();
        ask_api(&node, await_removal(), LONG).await.expect("one that runs is not awaited");
        assert_eq!(state(&node, "job").await, Some(StateName::Running));
        world.shims.exit_code(&id, 3);
        wait(&node, "job").await.ok();
        ask_api(&node, await_removal(), LONG).await.unwrap();
        assert_eq!(state(&node, "job").await, None);
    }
    ask_api(&node, await_removal(), LONG).await.expect("what is not there is not awaited");
    // An attached client that does not read keeps nobody waiting for ever.
    let (held, hold) = tokio::sync::oneshot::channel();
    let id = ask_api(&node, RunContainer { hold: Some(hold), ..run_message(auto()) }, LONG).await.unwrap();
    world.shims.exit_code(&id, 3);
    wait(&node, "job").await.unwrap();
    ask_api(&node, await_removal(), LONG).await.unwrap();
    assert_eq!(state(&node, "job").await, Some(StateName::Stopped));
    drop(held);
    ask_api(&node, await_removal(), LONG).await.unwrap();
    assert_eq!(state(&node, "job").await, None);
    // One that stays is not awaited.
    let id = ask_api(&node, run_message(spec("job")), LONG).await.unwrap();
    world.shims.exit_code(&id, 0);
    wait(&node, "job").await.unwrap();
    ask_api(&node, await_removal(), LONG).await.unwrap();
    assert_eq!(state(&node, "job").await, Some(StateName::Stopped));
}

#[actix::test]
async fn what_is_in_force_is_shown_and_outlives_the_configuration_that_chose_it() {
    let world = World::new();
    let node = world.start();
    let own = ContainerSpec { memory_bytes: Some(64 << 20), pids_limit: Some(7), ..spec("own") };
    let upper = ContainerSpec { upper_dir: Some("/u".into()), ..spec("upper") };
    for spec in [own, upper, spec("plain")] {
        ask_api(&node, run_message(spec), LONG).await.unwrap();
    }
    let defaults = world.config().settings.defaults;
    let shown = async |name: &str| inspect(&node, name).await.unwrap().in_force.expect("it was made");
    let (own, upper, plain) = (shown("own").await, shown("upper").await, shown("plain").await);
    assert_eq!((own.memory_bytes, own.pids_limit, own.cpu), (64 << 20, 7, defaults.limits.cpu));
    assert_eq!((plain.memory_bytes, plain.pids_limit), (defaults.limits.memory_bytes, defaults.limits.pids_limit));
    assert_eq!((plain.rootfs_size_bytes, upper.rootfs_size_bytes), (Some(defaults.rootfs_size_bytes), None));
    assert_eq!(plain.runtime, "runc");
    let mut later = world.config();
    later.settings.defaults.limits.memory_bytes *= 2;
    end(node).await;
    let node = world.start_with(later);
    until("it is recovered", async || state(&node, "plain").await == Some(StateName::Running)).await;
    assert_eq!(inspect(&node, "plain").await.unwrap().in_force, Some(plain));
}

#[actix::test]
async fn a_dry_run_leaves_nothing() {
    let world = World::new();
    let world = World { rootfs: FakeRootfs::in_dir(world.dir.path().join("roots")), ..world };
    let node = world.start();
    let dry = DryRunContainer { namespace: ns("a"), spec: spec("web"), caller: None };
    let plan = ask_api(&node, dry, LONG).await.unwrap();
    assert!(plan.config_json.contains("/bin/sh"), "{}", plan.config_json);
    assert!(plan.log_path.ends_with("a/web.log"));
    world.assert_empty();
    assert!(inspect(&node, "web").await.is_err());
}

#[actix::test]
async fn a_shutdown_leaves_containers_running_and_answers_no_more() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    ask_api(&node, Shutdown, LONG).await.unwrap();
    crate::until_ended(&node).await;
    assert_eq!(world.shims.live_containers(), [id]);
    assert_eq!(inspect(&node, "web").await.unwrap_err().kind, ErrorKind::Unavailable);
}

async fn create(node: &Addr<Supervisor>, spec: ContainerSpec) -> Result<ContainerId, ApiError> {
    let message = CreateContainer { namespace: ns("a"), spec, caller: None, idempotency_key: None, progress: None };
    ask_api(node, message, LONG).await
}

#[actix::test]
async fn a_created_container_has_all_but_its_processes_and_can_be_started_later() {
    let world = World::new();
    let node = world.start();
    let id = create(&node, spec("web")).await.unwrap();
    let info = inspect(&node, "web").await.unwrap();
    assert_eq!((info.state.name(), info.state.pid()), (StateName::Created, None));
    assert!(world.store.records()[0].is_acknowledged);
    assert_eq!((world.rootfs.live().len(), world.shims.starts_of(&id)), (1, 0));
    assert_eq!(stop(&node, "web").await.unwrap_err().kind, ErrorKind::Conflict);
    let kill = KillContainer { target: target("web"), signal: Signal::KILL };
    assert_eq!(ask_api(&node, kill, LONG).await.unwrap_err().kind, ErrorKind::Conflict);
    start_again(&node, "web").await.unwrap();
    assert_eq!(inspect(&node, "web").await.unwrap().state.pid(), world.shims.pid_of(&id));
    delete(&node, "web", true).await.unwrap();
    world.assert_empty();
}

#[actix::test]
async fn a_created_container_is_there_for_the_next_daemon_and_is_deleted_without_force() {
    let world = World::new();
    let node = world.start();
    create(&node, restarting("web")).await.unwrap();
    crate::tell(&node, crate::messages::PlantPanic(crate::messages::PanicIn::Supervisor));
    crate::until_ended(&node).await;
    let node = world.start();
    until_state(&node, "web", StateName::Created).await;
    assert!(world.shims.leases().is_empty(), "a policy starts nothing that was never started");
    delete(&node, "web", false).await.unwrap();
    world.assert_empty();
}

#[actix::test]
async fn a_creation_that_fails_or_is_stopped_half_way_leaves_nothing() {
    let world = World::new();
    let node = world.start();
    world.rootfs.script_prepare([contd_rootfs::fake::Outcome::Fail(ErrorKind::Internal)]);
    create(&node, spec("web")).await.unwrap_err();
    world.assert_empty();
    world.rootfs.script_prepare([contd_rootfs::fake::Outcome::Hang]);
    let (created, deleted) = while_hanging(async {
        futures_util::join!(create(&node, spec("web")), async {
            while world.rootfs.hanging() == 0 {
                tokio::task::yield_now().await;
            }
            delete(&node, "web", true).await
        })
    })
    .await;
    assert_eq!(created.unwrap_err().kind, ErrorKind::Conflict);
    deleted.unwrap();
    world.rootfs.let_go();
    until_late_roots_are_gone(&world).await;
    world.assert_empty();
}

#[actix::test]
async fn a_policy_that_is_changed_counts_from_the_next_end_on_and_is_on_disk() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    let update = |restart| UpdateContainer { target: target("web"), changes: Changes::restart(restart) };
    ask_api(&node, update(RestartPolicy::Always), LONG).await.unwrap();
    assert_eq!(world.store.records()[0].spec.restart, RestartPolicy::Always);
    assert_eq!(inspect(&node, "web").await.unwrap().spec.restart, RestartPolicy::Always);
    world.shims.exit_code(&id, 1);
    until("it runs again", async || world.shims.starts_of(&id) == 2).await;
    until_state(&node, "web", StateName::Running).await;
    world.shims.exit_code(&id, 1);
    until_state(&node, "web", StateName::Backoff).await;
    // Not wanted any more: what waits for its time does not come.
    ask_api(&node, update(RestartPolicy::No), LONG).await.unwrap();
    assert_eq!(state(&node, "web").await, Some(StateName::Stopped));
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!((world.shims.starts_of(&id), state(&node, "web").await), (2, Some(StateName::Stopped)));
    delete(&node, "web", false).await.unwrap();
    world.assert_empty();
}

#[actix::test]
async fn the_shim_of_a_running_container_can_be_replaced_and_no_other() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    let upgrade = || UpgradeShim { target: target("web") };
    ask_api(&node, upgrade(), LONG).await.unwrap();
    assert_eq!(world.shims.count(contd_shim_client::fake::Verb::HandOver), 1);
    world.shims.exit_code(&id, 4);
    assert_eq!(wait(&node, "web").await.unwrap().cause, ExitCause::Code(4));
    assert_eq!(ask_api(&node, upgrade(), LONG).await.unwrap_err().kind, ErrorKind::Conflict);
}
