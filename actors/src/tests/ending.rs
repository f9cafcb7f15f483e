use super::*;
use crate::messages::StopContainer;
use contd_shim_client::fake::{Outcome, Program, Reaction, Verb};
use contd_types::{Backoff, ErrorKind, ExitCause, Signal, State};

#[actix::test]
async fn stop_escalates_to_sigkill_after_the_grace_period() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    world.shims.on_signal(&id, Signal::TERM, Reaction::Ignore);
    let begun = tokio::time::Instant::now();
    let timeout = Some(Duration::from_secs(4));
    let (_, exit) = ask_api(&node, StopContainer { target: target("web"), timeout }, LONG).await.unwrap();
    assert_eq!(exit.cause, ExitCause::Signal(Signal::KILL));
    assert!((4..5).contains(&begun.elapsed().as_secs()), "took {:?}", begun.elapsed());
}

#[actix::test]
async fn a_container_that_survives_sigkill_is_reported_and_not_forgotten() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    for signal in [Signal::TERM, Signal::KILL] {
        world.shims.on_signal(&id, signal, Reaction::Ignore);
    }
    assert_eq!(stop(&node, "web").await.unwrap_err().kind, ErrorKind::Timeout);
    assert_eq!(state(&node, "web").await, Some(StateName::Stopping));
    world.shims.exit_code(&id, 0);
    until_state(&node, "web", StateName::Stopped).await;
}

#[actix::test]
async fn a_crash_loop_backs_off_as_documented() {
    let world = World::new();
    let node = world.start();
    world.shims.set_program(None, Program::Ends { after: Duration::from_millis(1), code: 1 });
    run(&node, restarting("web")).await.unwrap();
    for attempt in 1..=5 {
        let mut waited = None;
        until("the back-off begins", async || {
            match inspect(&node, "web").await.unwrap().state {
                State::Backoff { attempt: now, .. } if now == attempt => waited = Some(tokio::time::Instant::now()),
                _ => {}
            }
            waited.is_some()
        })
        .await;
        until("it is started again", async || world.shims.count(Verb::Start) > usize::try_from(attempt).unwrap()).await;
        let (waited, full) = (waited.unwrap().elapsed(), Backoff::RESTART.delay(attempt, 0));
        assert!(waited <= full + Duration::from_millis(20) && waited >= full.mul_f64(0.7), "{attempt}: {waited:?}");
    }
}

#[actix::test]
async fn a_good_run_begins_the_back_off_anew() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, restarting("web")).await.unwrap();
    for _ in 0..3 {
        world.shims.exit_code(&id, 1);
        until_state(&node, "web", StateName::Backoff).await;
        until_state(&node, "web", StateName::Running).await;
    }
    tokio::time::sleep(Duration::from_secs(601)).await;
    world.shims.exit_code(&id, 1);
    until_state(&node, "web", StateName::Backoff).await;
    let info = inspect(&node, "web").await.unwrap();
    assert!(matches!(info.state, State::Backoff { attempt: 1, .. }), "{:?}", info.state);
}

#[actix::test]
async fn on_failure_gives_up_at_its_maximum() {
    let world = World::new();
    let node = world.start();
    world.shims.set_program(None, Program::Ends { after: Duration::from_millis(1), code: 1 });
    let policy = RestartPolicy::OnFailure { max_attempts: Some(2) };
    let id = run(&node, ContainerSpec { restart: policy, ..spec("web") }).await.unwrap();
    until_state(&node, "web", StateName::Stopped).await;
    assert_eq!((world.shims.starts_of(&id), inspect(&node, "web").await.unwrap().restart_count), (3, 2));
}

#[actix::test]
async fn a_stop_and_a_deletion_work_at_once_during_back_off() {
    tokio::time::pause();
    for is_deleted in [false, true] {
        let world = World::another();
        let node = world.start();
        let id = run(&node, restarting("web")).await.unwrap();
        world.shims.exit_code(&id, 9);
        until_state(&node, "web", StateName::Backoff).await;
        if is_deleted {
            delete(&node, "web", false).await.unwrap();
            world.assert_empty();
        } else {
            assert_eq!(stop(&node, "web").await.unwrap().cause, ExitCause::Code(9));
            tokio::time::sleep(Duration::from_secs(1000)).await;
            assert_eq!(state(&node, "web").await, Some(StateName::Stopped));
            assert_eq!(world.shims.starts_of(&id), 1);
        }
    }
}

#[actix::test]
async fn an_exit_is_on_disk_before_its_shim_is_let_go() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    world.store.script([contd_store::Outcome::Fail, contd_store::Outcome::Fail]);
    world.shims.exit_code(&id, 7);
    assert_eq!(wait(&node, "web").await.unwrap().cause, ExitCause::Code(7));
    assert_eq!(world.shims.live_shims(), [id], "the shim went before its exit was stored");
    until("the shim is let go", async || world.shims.live_shims().is_empty()).await;
    let stored = world.store.records()[0].exit.clone().unwrap();
    assert_eq!(stored.cause, ExitCause::Code(7));
}

#[actix::test]
async fn a_lost_connection_is_found_again_and_a_lost_shim_gets_a_successor() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    world.shims.disconnect(&id);
    until("it is attached again", async || world.shims.count(Verb::Wait) == 2).await;
    assert_eq!(state(&node, "web").await, Some(StateName::Running));
    let pid = world.shims.pid_of(&id);
    world.shims.lose_shim(&id, true);
    until("a successor is there", async || world.shims.count(Verb::Wait) == 3).await;
    assert_eq!(inspect(&node, "web").await.unwrap().state.pid(), pid);
    world.shims.exit_code(&id, 5);
    assert_eq!(wait(&node, "web").await.unwrap().cause, ExitCause::Code(5));
}

#[actix::test]
async fn a_shim_that_stands_still_is_replaced_and_the_stop_goes_on() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    world.shims.script(Verb::Kill, [Outcome::Hang]);
    let exit = stop(&node, "web").await.unwrap();
    assert_eq!(exit.cause, ExitCause::Signal(contd_types::Signal::TERM));
    assert_eq!((world.shims.count(Verb::EndSilent), world.shims.starts_of(&id)), (1, 2));
}

#[actix::test]
async fn a_shim_that_stands_still_is_noticed_without_any_call() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    let pid = world.shims.pid_of(&id);
    world.shims.script(Verb::State, [Outcome::Ok, Outcome::Hang]);
    tokio::time::sleep(Duration::from_secs(100)).await;
    until("it is replaced", async || world.shims.starts_of(&id) == 2).await;
    until("the successor is watched", async || world.shims.count(Verb::Wait) == 2).await;
    assert_eq!(inspect(&node, "web").await.unwrap().state.pid(), pid);
}

#[actix::test]
async fn a_stop_during_a_restart_ends_stopped() {
    let world = World::new();
    let node = world.start();
    run(&node, spec("web")).await.unwrap();
    stop(&node, "web").await.unwrap();
    world.shims.script(Verb::Create, [Outcome::Hang]);
    let (started, stopped) = futures_util::join!(start_again(&node, "web"), async {
        world.shims.until_called(Verb::Create, 2).await;
        stop(&node, "web").await
    });
    assert!(started.is_err());
    stopped.unwrap();
    assert_eq!(state(&node, "web").await, Some(StateName::Stopped));
    start_again(&node, "web").await.unwrap();
}
