//! Pause, unpause and restart.

use contd_shim_client::fake::{Reaction, ShimCall, Verb};
use contd_types::{ErrorKind, ExitCause, Signal};

use super::*;
use crate::messages::{PauseContainer, RestartContainer};

async fn set_paused(node: &Addr<Supervisor>, name: &str, is_paused: bool) -> Result<(), ApiError> {
    ask_api(node, PauseContainer { target: target(name), is_paused }, LONG).await
}

async fn restart(node: &Addr<Supervisor>, name: &str) -> Result<(), ApiError> {
    ask_api(node, RestartContainer { target: target(name), timeout: None }, LONG).await
}

#[actix::test]
async fn a_container_stands_still_and_goes_on_also_under_the_next_daemon() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    for _ in 0..2 {
        set_paused(&node, "web", true).await.unwrap();
        assert_eq!(state(&node, "web").await, Some(StateName::Paused));
    }
    end(node).await;
    let node = world.start();
    until_state(&node, "web", StateName::Paused).await;
    for _ in 0..2 {
        set_paused(&node, "web", false).await.unwrap();
        assert_eq!(state(&node, "web").await, Some(StateName::Running));
    }
    assert_eq!(
        (world.shims.count(Verb::SetPaused), world.shims.starts_of(&id)),
        (4, 1),
        "the shim is asked also about what is so already: an earlier answer may have been lost"
    );
    delete(&node, "web", true).await.unwrap();
    world.assert_empty();
}

#[actix::test]
async fn a_paused_container_is_stopped_as_a_running_one_since_it_goes_on_to_hear_its_signal() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    world.shims.on_signal(&id, Signal::TERM, Reaction::Ignore);
    set_paused(&node, "web", true).await.unwrap();
    let (exit, ()) = futures_util::join!(stop(&node, "web"), async {
        let is_resumed = |call: &ShimCall| matches!(call, ShimCall::SetPaused { is_paused: false, .. });
        until("it goes on", async || world.shims.calls().iter().any(is_resumed)).await;
        assert!(world.shims.exit_code(&id, 7));
    });
    assert_eq!(exit.unwrap().cause, ExitCause::Code(7));
    assert_eq!(set_paused(&node, "web", true).await.unwrap_err().kind, ErrorKind::Conflict);
    delete(&node, "web", false).await.unwrap();
    world.assert_empty();
}

#[actix::test]
async fn a_restart_is_an_end_and_a_start_whatever_the_policy_and_no_restart_of_the_policy() {
    let world = World::new();
    let node = world.start();
    for (name, spec) in [("never", spec("never")), ("always", restarting("always"))] {
        let id = run(&node, spec).await.unwrap();
        let before = world.shims.pid_of(&id);
        restart(&node, name).await.unwrap();
        let info = inspect(&node, name).await.unwrap();
        assert_eq!((info.state.name(), info.restart_count), (StateName::Running, 0), "{name}");
        assert_eq!(info.last_exit.expect("its end").cause, ExitCause::Signal(Signal::TERM));
        assert_ne!(world.shims.pid_of(&id), before);
        assert_eq!((world.shims.starts_of(&id), world.shims.duplicate_spawns()), (2, 0), "{name}");
        // One that does not run is started.
        stop(&node, name).await.unwrap();
        restart(&node, name).await.unwrap();
        assert_eq!(state(&node, name).await, Some(StateName::Running));
        delete(&node, name, true).await.unwrap();
    }
    world.assert_empty();
}

#[actix::test]
async fn a_stop_that_comes_while_a_container_ends_for_a_restart_is_the_last_word() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, restarting("web")).await.unwrap();
    world.shims.on_signal(&id, Signal::TERM, Reaction::Ignore);
    let (restarted, stopped) = futures_util::join!(restart(&node, "web"), async {
        until_state(&node, "web", StateName::Stopping).await;
        stop(&node, "web").await
    });
    assert_eq!(restarted.unwrap_err().kind, ErrorKind::Conflict);
    assert_eq!(stopped.unwrap().cause, ExitCause::Signal(Signal::KILL));
    tokio::time::sleep(LONG).await;
    assert_eq!((state(&node, "web").await, world.shims.starts_of(&id)), (Some(StateName::Stopped), 1));
    delete(&node, "web", false).await.unwrap();
    world.assert_empty();
}
