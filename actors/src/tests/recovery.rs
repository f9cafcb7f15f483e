use super::*;
use contd_rootfs::{PrepareRootfs, RootfsProvider};
use contd_shim_client::ShimClient;
use contd_shim_client::fake::{Outcome, Verb};
use contd_store::{ContainerRecord, Desired, Store};
use contd_types::{ErrorKind, ExitCause, Pid, State, Timestamp};

/// Runs a container, loses the daemon, and gives back what the next one finds.
async fn after_a_run(spec: ContainerSpec) -> (World, ContainerId) {
    tokio::time::pause();
    run_and_lose(spec).await
}

/// The same, where the clock is paused already.
async fn run_and_lose(spec: ContainerSpec) -> (World, ContainerId) {
    let world = World::another();
    let node = world.start();
    let id = run(&node, spec).await.unwrap();
    end(node).await;
    (world, id)
}

/// Writes a record behind the back of every daemon.
fn change(world: &mut World, change: impl FnOnce(&mut ContainerRecord)) {
    let mut record = world.store.records().remove(0);
    change(&mut record);
    world.store = Arc::new(FakeStore::with_records([record]));
}

#[actix::test]
async fn a_running_container_is_attached_and_its_later_exit_is_known() {
    let (world, id) = after_a_run(spec("web")).await;
    let pid = world.shims.pid_of(&id);
    let node = world.start();
    until_state(&node, "web", StateName::Running).await;
    assert_eq!(inspect(&node, "web").await.unwrap().state.pid(), pid);
    world.shims.exit_code(&id, 5);
    assert_eq!(wait(&node, "web").await.unwrap().cause, ExitCause::Code(5));
    delete(&node, "web", false).await.unwrap();
    world.assert_empty();
}

#[actix::test]
async fn an_exit_that_happened_meanwhile_is_known_from_a_living_and_from_a_dead_shim() {
    tokio::time::pause();
    for has_died in [false, true] {
        let (world, id) = run_and_lose(spec("web")).await;
        world.shims.exit_code(&id, 6);
        if has_died {
            world.shims.lose_shim(&id, false);
        }
        let node = world.start();
        assert_eq!(wait(&node, "web").await.unwrap().cause, ExitCause::Code(6), "dead: {has_died}");
        until("the shim is settled", async || world.shims.leases().is_empty()).await;
    }
}

#[actix::test]
async fn a_container_whose_shim_died_with_the_daemon_gets_a_successor() {
    let (world, id) = after_a_run(spec("web")).await;
    let pid = world.shims.pid_of(&id);
    world.shims.lose_shim(&id, true);
    let node = world.start();
    until_state(&node, "web", StateName::Running).await;
    assert_eq!(inspect(&node, "web").await.unwrap().state.pid(), pid);
    assert_eq!(world.shims.starts_of(&id), 2);
    world.shims.exit_code(&id, 5);
    assert_eq!(wait(&node, "web").await.unwrap().cause, ExitCause::Code(5));
}

#[actix::test]
async fn a_container_that_vanished_within_the_boot_has_an_unknown_exit() {
    let (world, _id) = after_a_run(spec("web")).await;
    world.shims.reboot();
    let node = world.start();
    assert!(matches!(wait(&node, "web").await.unwrap().cause, ExitCause::Unknown(_)));
}

#[actix::test]
async fn a_reboot_is_an_exit_and_the_policy_decides() {
    let unless = || ContainerSpec { restart: RestartPolicy::UnlessStopped, ..spec("web") };
    tokio::time::pause();
    for (spec, was_told, runs) in
        [(spec("web"), false, false), (restarting("web"), true, true), (unless(), false, true), (unless(), true, false)]
    {
        let (mut world, id) = run_and_lose(spec).await;
        world.shims.reboot();
        world.rootfs.reboot();
        world.boot_id = "boot-2".into();
        change(&mut world, |record| record.desired = if was_told { Desired::Stop } else { Desired::Run });
        let node = world.start();
        let wanted = if runs { StateName::Running } else { StateName::Stopped };
        until_state(&node, "web", wanted).await;
        let info = inspect(&node, "web").await.unwrap();
        assert_eq!(info.last_exit.unwrap().cause, ExitCause::Reboot);
        assert_eq!(world.shims.starts_of(&id), 1 + usize::from(runs));
        assert_eq!(world.store.records()[0].boot_id, "boot-2");
    }
}

#[actix::test]
async fn what_a_policy_starts_at_boot_is_no_longer_stopped_by_whoever_stopped_it_before() {
    let (mut world, id) = after_a_run(restarting("web")).await;
    world.shims.reboot();
    world.rootfs.reboot();
    world.boot_id = "boot-2".into();
    change(&mut world, |record| record.desired = Desired::Stop);
    let node = world.start();
    until_state(&node, "web", StateName::Running).await;
    end(node).await;
    // The next daemon lets it run, and its policy counts when it ends by itself.
    let node = world.start();
    until_state(&node, "web", StateName::Running).await;
    world.shims.exit_code(&id, 1);
    until("it is started again", async || world.shims.starts_of(&id) == 3).await;
    until_state(&node, "web", StateName::Running).await;
}

#[actix::test]
async fn a_half_made_container_is_rolled_back_and_one_that_runs_is_kept() {
    tokio::time::pause();
    for (reached, is_kept) in [(0, false), (1, false), (2, false), (3, true)] {
        let (mut world, id) = run_and_lose(spec("web")).await;
        let task = world.shims.task_of(&id).unwrap();
        world.shims.reboot();
        if reached > 0 {
            let shim = world.shims.spawn(task).await.unwrap();
            if reached > 1 {
                shim.create().await.unwrap();
            }
            if reached > 2 {
                shim.start().await.unwrap();
            }
        }
        change(&mut world, |record| (record.is_acknowledged, record.state) = (false, State::Creating));
        let node = world.start();
        if is_kept {
            until_state(&node, "web", StateName::Running).await;
            until("it is acknowledged", async || world.store.records()[0].is_acknowledged).await;
        } else {
            until("it is rolled back", async || state(&node, "web").await.is_none()).await;
            world.assert_empty();
        }
    }
}

#[actix::test]
async fn a_roll_back_that_is_refused_once_is_tried_again() {
    let (mut world, id) = after_a_run(spec("web")).await;
    let task = world.shims.task_of(&id).unwrap();
    world.shims.reboot();
    world.shims.spawn(task).await.unwrap().create().await.unwrap();
    change(&mut world, |record| (record.is_acknowledged, record.state) = (false, State::Creating));
    world.shims.script(Verb::Delete, [Outcome::Hang]);
    let node = world.start();
    until("it is rolled back", async || state(&node, "web").await.is_none()).await;
    world.assert_empty();
}

#[actix::test]
async fn a_half_done_deletion_is_finished() {
    let (mut world, id) = after_a_run(spec("web")).await;
    world.shims.exit_code(&id, 0);
    change(&mut world, |record| record.state = State::Deleting);
    let node = world.start();
    until("it is gone", async || state(&node, "web").await.is_none()).await;
    world.assert_empty();
}

#[actix::test]
async fn an_interrupted_restart_is_made_again() {
    let (mut world, id) = after_a_run(spec("web")).await;
    world.shims.reboot();
    change(&mut world, |record| record.state = State::Creating);
    let node = world.start();
    until_state(&node, "web", StateName::Running).await;
    assert_eq!(world.shims.starts_of(&id), 2);
}

#[actix::test]
async fn a_stop_that_was_begun_is_finished_by_the_next_daemon() {
    let (mut world, id) = after_a_run(restarting("web")).await;
    change(&mut world, |record| record.desired = Desired::Stop);
    let node = world.start();
    until_state(&node, "web", StateName::Stopped).await;
    assert_eq!(world.shims.starts_of(&id), 1);
}

#[actix::test]
async fn a_back_off_goes_on_where_it_was() {
    let (mut world, id) = after_a_run(restarting("web")).await;
    world.shims.reboot();
    let exit = contd_types::Exit::unknown("test", Timestamp(1));
    change(&mut world, |record| {
        record.state = State::Backoff { exit, attempt: 3, until: Timestamp(u64::MAX) };
    });
    let node = world.start();
    assert_eq!(state(&node, "web").await, Some(StateName::Backoff));
    tokio::time::sleep(Duration::from_secs(299)).await;
    assert_eq!(world.shims.starts_of(&id), 1);
    until_state(&node, "web", StateName::Running).await;
}

#[actix::test]
async fn a_request_for_a_container_that_cannot_be_attached_is_answered_in_time() {
    let (world, id) = after_a_run(spec("web")).await;
    world.shims.always(Verb::Attach, Outcome::lost());
    let node = world.start();
    assert_eq!(state(&node, "web").await, Some(StateName::Recovering), "inspect waits for the shim");
    let begun = tokio::time::Instant::now();
    assert_eq!(stop(&node, "web").await.unwrap_err().kind, ErrorKind::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(25), "took {:?}", begun.elapsed());
    world.shims.always(Verb::Attach, Outcome::Ok);
    until_state(&node, "web", StateName::Running).await;
    assert_eq!(world.shims.live_containers(), [id]);
}

#[actix::test]
async fn what_no_record_knows_is_removed() {
    let (mut world, id) = after_a_run(spec("web")).await;
    world.store = Arc::new(FakeStore::new());
    let request = PrepareRootfs {
        namespace: ns("b"),
        id: ContainerId::from_random([9; 16]),
        flist: "/y.fl".into(),
        is_read_only: false,
        layer: contd_types::LayerKind::Disk,
        is_layer_required: false,
        size_bytes: 1,
        is_size_required: false,
        upper_dir: None,
        is_trusted: false,
        grant: None,
        operation: None,
    };
    world.rootfs.prepare(&request, &|_| {}).unwrap();
    let node = world.start();
    until("all is swept", async || world.rootfs.live().is_empty() && world.shims.leases().is_empty()).await;
    until("bundles are swept", async || world.bundles.list().unwrap().is_empty()).await;
    assert!(world.shims.live_containers().is_empty(), "{id} runs on");
    assert!(inspect(&node, "web").await.is_err());
}

#[actix::test]
async fn fifty_containers_are_attached_at_most_eight_at_a_time() {
    let world = World::new();
    let node = world.start();
    for number in 0..50 {
        run(&node, spec(&format!("c{number}"))).await.unwrap();
    }
    end(node).await;
    world.shims.always(Verb::Attach, Outcome::Delay(Duration::from_secs(1)));
    let begun = tokio::time::Instant::now();
    let node = world.start();
    assert_eq!(state(&node, "c49").await, Some(StateName::Recovering));
    until("all run", async || {
        let status = ask_api(&node, crate::messages::NodeStatus, LONG).await.unwrap();
        status.running == 50 && status.recovering == 0
    })
    .await;
    assert!((7..9).contains(&begun.elapsed().as_secs()), "took {:?}", begun.elapsed());
}

#[actix::test]
async fn a_stopped_container_stays_stopped_over_a_restart_of_the_daemon() {
    let world = World::new();
    let node = world.start();
    run(&node, restarting("web")).await.unwrap();
    stop(&node, "web").await.unwrap();
    end(node).await;
    let node = world.start();
    assert_eq!(state(&node, "web").await, Some(StateName::Stopped));
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(state(&node, "web").await, Some(StateName::Stopped));
    assert_eq!(world.store.get(&ns("a"), &world.store.records()[0].id).unwrap().unwrap().state.pid(), None::<Pid>);
}

#[actix::test]
async fn a_run_is_answered_when_the_connection_is_lost_right_after_its_start() {
    let world = World::new();
    let node = world.start();
    world.shims.script(Verb::Wait, [Outcome::lost()]);
    let begun = tokio::time::Instant::now();
    let id = run(&node, spec("web")).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "took {:?}", begun.elapsed());
    until_state(&node, "web", StateName::Running).await;
    assert_eq!(world.shims.starts_of(&id), 1);
}
