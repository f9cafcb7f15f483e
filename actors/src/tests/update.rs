//! Changes of limits: in force at once, kept, and never below what is in use.

use contd_rootfs::fake::Outcome;
use contd_types::{Changes, CpuLimit, ErrorKind, MemorySwap, State};

use super::*;
use crate::messages::{PauseContainer, UpdateContainer};

fn memory(mib: u64) -> Changes {
    Changes { memory_bytes: Some(mib << 20), ..Changes::default() }
}

async fn update(node: &Addr<Supervisor>, changes: Changes) -> Result<(), ApiError> {
    ask_api(node, UpdateContainer { target: target("web"), changes }, LONG).await
}

#[actix::test]
async fn limits_of_a_container_that_runs_are_in_force_at_once_and_kept() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    let mut changes = Changes { cpu: CpuLimit::from_millis(250).ok(), pids_limit: Some(9), ..memory(64) };
    changes.resources.memory_swap = Some(MemorySwap::Unlimited);
    changes.resources.cpuset_cpus = Some("0".to_owned());
    update(&node, changes.clone()).await.unwrap();
    // In the kernel's numbers.
    let [(of, limits)] = world.meters.limited().try_into().unwrap();
    assert_eq!((of, limits.memory_bytes, limits.memory_swap), (id.clone(), 64 << 20, Some(MemorySwap::Unlimited)));
    assert_eq!((limits.cpu_quota_us, limits.cpu_period_us, limits.cpu_shares), (25_000, 100_000, 256));
    assert_eq!((limits.cpuset_cpus.as_deref(), limits.pids_limit), (Some("0"), 9));
    // In the record and for everybody to see.
    let record = &world.store.records()[0];
    assert_eq!(changes.apply(&spec("web")).unwrap().resources, record.spec.resources);
    let info = inspect(&node, "web").await.unwrap();
    let in_force = info.in_force.unwrap();
    assert_eq!((info.spec.memory_bytes, in_force.memory_bytes, in_force.pids_limit), (Some(64 << 20), 64 << 20, 9));
    // A paused one has limits as well; the same again is nothing new.
    ask_api(&node, PauseContainer { target: target("web"), is_paused: true }, LONG).await.unwrap();
    update(&node, memory(64)).await.unwrap();
    assert_eq!(world.meters.limited().len(), 1);
    update(&node, memory(32)).await.unwrap();
    assert_eq!(world.meters.limited().len(), 2);
    delete(&node, "web", true).await.unwrap();
    world.assert_empty();
}

#[actix::test]
async fn a_limit_below_what_is_in_use_changes_nothing() {
    let world = World::new();
    let node = world.start();
    run(&node, spec("web")).await.unwrap();
    let before = world.store.records();
    world.meters.use_memory(100 << 20);
    let refused = update(&node, Changes { pids_limit: Some(5), ..memory(64) }).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert!(refused.chain().contains(&(100u64 << 20).to_string()), "{refused:?}");
    assert_eq!(world.store.records(), before);
    let nonsense = update(&node, memory(1)).await.unwrap_err();
    assert_eq!(nonsense.kind, ErrorKind::InvalidArgument);
    assert_eq!((world.store.records(), world.meters.limited()), (before, vec![]));
    delete(&node, "web", true).await.unwrap();
    world.assert_empty();
}

#[actix::test]
async fn one_that_has_ended_has_them_from_its_next_start_on() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    world.shims.exit_code(&id, 0);
    until_state(&node, "web", StateName::Stopped).await;
    update(&node, memory(64)).await.unwrap();
    assert_eq!((world.meters.limited(), world.store.records()[0].spec.memory_bytes), (vec![], Some(64 << 20)));
    ask_api(&node, StartContainer { target: target("web") }, LONG).await.unwrap();
    assert_eq!(inspect(&node, "web").await.unwrap().in_force.unwrap().memory_bytes, 64 << 20);
    delete(&node, "web", true).await.unwrap();
    world.assert_empty();
}

#[actix::test]
async fn one_that_is_being_made_has_no_limits_to_change_and_a_policy() {
    let world = World::new();
    world.rootfs.script_prepare([Outcome::Hang]);
    let node = world.start();
    let (made, ()) = while_hanging(async {
        futures_util::join!(run(&node, spec("web")), async {
            while world.rootfs.hanging() == 0 {
                tokio::task::yield_now().await;
            }
            assert_eq!(update(&node, memory(64)).await.unwrap_err().kind, ErrorKind::Conflict);
            update(&node, Changes::restart(RestartPolicy::Always)).await.unwrap();
            world.rootfs.let_go();
        })
    })
    .await;
    made.unwrap();
    let info = inspect(&node, "web").await.unwrap();
    assert!(matches!(info.state, State::Running { .. }) && info.spec.restart == RestartPolicy::Always);
    delete(&node, "web", true).await.unwrap();
    world.assert_empty();
}
