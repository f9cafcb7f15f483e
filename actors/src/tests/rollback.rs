use super::*;
use contd_bundle::Outcome as BundleOutcome;
use contd_rootfs::fake::Outcome as RootOutcome;
use contd_shim_client::ShimError;
use contd_shim_client::fake::{Failure, Outcome, Verb};
use contd_store::Outcome as StoreOutcome;
use contd_types::{ErrorKind, ExitCause, Step};

fn lost() -> Failure {
    Failure::new(|id, verb| ShimError::Lost { id: id.clone(), verb: verb.as_str() })
}

/// Every way in which a step can fail, with the step that the error must name.
fn plant(world: &World, number: usize) -> Option<Step> {
    match number {
        0 => world.store.script([StoreOutcome::Succeed, StoreOutcome::Fail]),
        1 => world.store.script([StoreOutcome::Succeed, StoreOutcome::FailAfter]),
        2 => world.rootfs.script_prepare([RootOutcome::Fail(ErrorKind::Unavailable)]),
        3 => world.rootfs.script_prepare([RootOutcome::Panic]),
        4 => world.bundles.push(BundleOutcome::Work),
        5 => world.shims.script(Verb::Spawn, [Outcome::lost()]),
        6 => world.shims.script(Verb::Spawn, [Outcome::DoneThenFail(lost())]),
        7 => world.shims.script(Verb::Create, [Outcome::lost()]),
        8 => world.shims.script(Verb::Create, [Outcome::DoneThenFail(lost())]),
        9 => world.shims.script(Verb::Start, [Outcome::lost()]),
        10 => world.shims.script(Verb::Start, [Outcome::DoneThenFail(lost())]),
        11 => world.store.script([StoreOutcome::Succeed, StoreOutcome::Succeed, StoreOutcome::Fail]),
        12 => world.store.script([StoreOutcome::Succeed, StoreOutcome::Succeed, StoreOutcome::FailAfter]),
        13 => std::fs::write(world.dir.path().join("log"), "no directory").unwrap(),
        _ => return None,
    }
    Some(match number {
        0 | 1 | 11 | 12 => Step::Record,
        2 | 3 => Step::Rootfs,
        4 => Step::Bundle,
        5 | 6 => Step::Shim,
        7 | 8 => Step::Create,
        13 => Step::Log,
        _ => Step::Start,
    })
}

#[actix::test]
async fn a_run_that_fails_at_any_step_leaves_nothing_and_names_the_step() {
    tokio::time::pause();
    for number in 0.. {
        let world = World::another();
        let Some(step) = plant(&world, number) else {
            assert_eq!(number, 14);
            return;
        };
        let node = world.start();
        if number == 4 {
            // The list at the start takes the first outcome.
            until("the start has swept", async || world.bundles.calls().len() == 1).await;
            world.bundles.push(BundleOutcome::Fail(std::io::ErrorKind::StorageFull));
        }
        let error = run(&node, spec("web")).await.unwrap_err();
        assert!(error.message.contains(&format!("step {step}")), "fault {number}: {error}");
        if number == 13 {
            std::fs::remove_file(world.dir.path().join("log")).unwrap();
        }
        world.assert_empty();
        run(&node, spec("web")).await.unwrap_or_else(|error| panic!("fault {number}: the name is not free: {error}"));
        delete(&node, "web", true).await.unwrap();
        world.assert_empty();
    }
}

#[actix::test]
async fn a_stop_succeeds_while_a_shim_call_hangs_and_leaves_nothing() {
    tokio::time::pause();
    for verb in [Verb::Spawn, Verb::Create, Verb::Start] {
        let world = World::another();
        let node = world.start();
        world.shims.script(verb, [Outcome::Hang]);
        let begun = tokio::time::Instant::now();
        let (ran, stopped) = futures_util::join!(run(&node, spec("web")), async {
            world.shims.until_called(verb, 1).await;
            stop(&node, "web").await
        });
        assert_eq!(ran.unwrap_err().kind, ErrorKind::Conflict, "{verb:?}");
        let exit = stopped.unwrap_or_else(|error| panic!("{verb:?}: {error}"));
        assert!(matches!(exit.cause, ExitCause::Unknown(_)), "{verb:?}: {exit:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{verb:?}: the stop took {:?}", begun.elapsed());
        until("the late result is undone", async || world.shims.leases().is_empty()).await;
        world.assert_empty();
    }
}

#[actix::test]
async fn a_forced_deletion_succeeds_while_a_root_is_being_prepared_and_its_late_result_is_undone() {
    let world = World::new();
    let node = world.start();
    world.rootfs.script_prepare([RootOutcome::Hang]);
    let (ran, deleted) = while_hanging(async {
        futures_util::join!(run(&node, spec("web")), async {
            until_hanging(&world).await;
            delete(&node, "web", true).await
        })
    })
    .await;
    assert_eq!(ran.unwrap_err().kind, ErrorKind::Conflict);
    deleted.unwrap();
    assert!(inspect(&node, "web").await.is_err(), "the name is not free");
    assert_eq!(world.rootfs.hanging(), 1, "the test does not test what it says");
    world.rootfs.let_go();
    until_late_roots_are_gone(&world).await;
    world.assert_empty();
}

async fn until_hanging(world: &World) {
    while world.rootfs.hanging() == 0 {
        tokio::task::yield_now().await;
    }
}

#[actix::test]
async fn a_clean_up_that_fails_keeps_both_errors_and_goes_on_by_itself() {
    let world = World::new();
    let node = world.start();
    world.shims.script(Verb::Create, [Outcome::lost()]);
    world.rootfs.script_release([RootOutcome::Fail(ErrorKind::Busy), RootOutcome::Fail(ErrorKind::Busy)]);
    let error = run(&node, spec("web")).await.unwrap_err();
    assert!(error.message.contains("step create") && error.message.contains("root"), "{error}");
    assert_eq!(state(&node, "web").await, Some(StateName::Deleting));
    run(&node, spec("web")).await.unwrap_or_else(|error| panic!("the name is not free: {error}"));
    delete(&node, "web", true).await.unwrap();
    until("the first one is gone", async || state(&node, "web").await.is_none()).await;
    world.assert_empty();
}

#[actix::test]
async fn a_restart_that_fails_keeps_the_root_and_is_tried_again_by_the_policy() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, restarting("web")).await.unwrap();
    world.shims.script(Verb::Create, [Outcome::lost()]);
    world.shims.exit_code(&id, 1);
    until_state(&node, "web", StateName::Failed).await;
    assert_eq!(world.rootfs.live().len(), 1);
    until_state(&node, "web", StateName::Running).await;
    assert_eq!(inspect(&node, "web").await.unwrap().restart_count, 2);
}

#[actix::test]
async fn a_preparation_that_was_given_up_before_its_turn_never_happens() {
    let world = World::new();
    world.rootfs.script_recover([RootOutcome::Hang]);
    world.shims.script(Verb::Spawn, [Outcome::lost()]);
    let node = world.start();
    // The root waits for the look at the past; the shim fails meanwhile, and the release comes first.
    let error = while_hanging(run(&node, spec("web"))).await.unwrap_err();
    assert!(error.message.contains("step shim"), "{error}");
    world.rootfs.let_go();
    run(&node, spec("next")).await.unwrap();
    assert_eq!(world.rootfs.prepare_count(), 1, "the root that nobody wants was prepared");
    delete(&node, "next", true).await.unwrap();
    world.assert_empty();
}
