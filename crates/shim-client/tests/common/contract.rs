//! The promises of every [`ShimClient`], the fake one and the real one: each function is one promise.

use std::sync::Arc;
use std::time::Duration;

use contd_protocol::shim::{TaskSpec, TaskState};
use contd_shim_client::{Attached, Shim, ShimClient, ShimError};
use contd_types::{ContainerId, ErrorKind, ExitCause, ExitSource, Explain, Pid, Signal};

/// The operations of a contract test that the traits lack.
pub(crate) trait Node: Sync {
    fn client(&self) -> &dyn ShimClient;
    /// Makes the task of a container whose entrypoint runs until it is killed.
    fn task(&self, number: u8) -> TaskSpec;
    /// Ends the shim's process as `kill -9` would.
    fn lose_shim(&self, id: &ContainerId);
    fn is_init_alive(&self, id: &ContainerId, pid: Pid) -> bool;
    /// Tells whether anything at all is left: processes, leases, what the runtime keeps.
    fn leftovers(&self) -> Vec<String>;
}

const SOON: Duration = Duration::from_secs(300);

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.unwrap_or_else(|_| panic!("{what} took more than {SOON:?}"))
}

async fn running(node: &dyn Node, number: u8) -> (Arc<dyn Shim>, Pid) {
    let shim = soon("spawn", node.client().spawn(node.task(number))).await.expect("spawn");
    let made = shim.create().await.expect("create");
    let pid = shim.start().await.expect("start");
    assert_eq!(made, pid);
    (shim, pid)
}

async fn end(shim: &dyn Shim) {
    shim.kill(Signal::KILL, true).await.expect("kill");
    soon("the exit", shim.wait()).await.expect("exit");
    shim.delete(false).await.expect("delete");
    shim.shutdown().await.expect("shutdown");
}

fn assert_nothing_left(node: &dyn Node) {
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

pub(crate) async fn a_life_from_spawn_to_shutdown_where_each_step_may_be_repeated(node: &dyn Node) {
    let task = node.task(1);
    let shim = node.client().spawn(task.clone()).await.expect("spawn");
    assert_eq!(shim.state().await.expect("state"), TaskState::Empty);
    let pid = shim.create().await.expect("create");
    assert_eq!(shim.create().await.expect("create again"), pid);
    assert_eq!(shim.state().await.expect("state"), TaskState::Created { pid });
    assert_eq!(shim.start().await.expect("start"), pid);
    assert_eq!(shim.start().await.expect("start again"), pid);
    assert_eq!(shim.state().await.expect("state"), TaskState::Running { pid });
    assert!(node.is_init_alive(&task.id, pid));
    for refused in [shim.shutdown().await, shim.delete(false).await] {
        assert!(matches!(&refused, Err(error) if error.kind() == ErrorKind::Conflict), "{refused:?}");
    }
    let waiting = tokio::spawn({
        let shim = Arc::clone(&shim);
        async move { shim.wait().await }
    });
    shim.kill(Signal::KILL, false).await.expect("kill");
    let exit = soon("the exit", waiting).await.expect("no panic").expect("exit");
    assert_eq!((&exit.cause, exit.source), (&ExitCause::Signal(Signal::KILL), ExitSource::Reaped));
    assert_eq!(shim.wait().await.expect("wait again"), exit);
    shim.kill(Signal::KILL, false).await.expect("a dead one may be killed");
    assert_eq!(shim.state().await.expect("state"), TaskState::Exited { exit });
    shim.delete(false).await.expect("delete");
    shim.delete(false).await.expect("delete again");
    shim.shutdown().await.expect("shutdown");
    shim.shutdown().await.expect("shutdown again");
    assert!(matches!(node.client().attach(&task.namespace, &task.id).await, Ok(Attached::Absent)));
    node.client().clean_up(&task.namespace, &task.id).await.expect("nothing to do");
    assert_eq!(node.client().list().await.expect("list"), []);
    assert_nothing_left(node);
}

pub(crate) async fn a_second_spawn_connects_to_the_living_shim(node: &dyn Node) {
    let (shim, pid) = running(node, 2).await;
    let second = node.client().spawn(node.task(2)).await.expect("spawn");
    assert_eq!(second.state().await.expect("state"), TaskState::Running { pid });
    assert_eq!(node.client().list().await.expect("list").len(), 1);
    end(shim.as_ref()).await;
    assert!(matches!(second.state().await, Err(ShimError::Lost { .. })));
    assert_nothing_left(node);
}

pub(crate) async fn a_living_shim_is_attached_to_before_and_after_the_end(node: &dyn Node) {
    let (shim, pid) = running(node, 3).await;
    let task = node.task(3);
    let found = node.client().attach(&task.namespace, &task.id).await.expect("attach");
    assert!(matches!(&found, Attached::Alive { state: TaskState::Running { pid: p }, .. } if *p == pid), "{found:?}");
    let refused = node.client().clean_up(&task.namespace, &task.id).await;
    assert!(matches!(refused, Err(ShimError::StillAlive { .. })), "{refused:?}");
    shim.kill(Signal::KILL, false).await.expect("kill");
    let exit = soon("the exit", shim.wait()).await.expect("exit");
    let found = node.client().attach(&task.namespace, &task.id).await.expect("attach");
    let Attached::Alive { shim: second, state } = found else { panic!("{found:?}") };
    assert_eq!(state, TaskState::Exited { exit });
    end(second.as_ref()).await;
    assert_nothing_left(node);
}

pub(crate) async fn a_lost_shim_gets_a_successor_and_its_container_does_not_notice(node: &dyn Node) {
    let (shim, pid) = running(node, 4).await;
    let task = node.task(4);
    let (waited, ()) = tokio::join!(soon("the loss", shim.wait()), async { node.lose_shim(&task.id) });
    assert!(matches!(waited, Err(ShimError::Lost { .. })), "{waited:?}");
    assert!(node.is_init_alive(&task.id, pid), "the container went with its shim");
    let refused = shim.create().await;
    assert!(matches!(refused, Err(ShimError::Lost { .. })), "{refused:?}");
    let found = soon("the successor", node.client().attach(&task.namespace, &task.id)).await.expect("attach");
    let Attached::Alive { shim: second, state } = found else { panic!("{found:?}") };
    assert_eq!(state, TaskState::Running { pid });
    second.kill(Signal::KILL, true).await.expect("kill");
    let exit = soon("the exit", second.wait()).await.expect("exit");
    assert_eq!(exit.cause, ExitCause::Signal(Signal::KILL));
    second.delete(false).await.expect("delete");
    second.shutdown().await.expect("shutdown");
    assert_nothing_left(node);
}

pub(crate) async fn a_shim_that_is_replaced_or_ended_for_its_silence_costs_its_container_nothing(node: &dyn Node) {
    let (shim, pid) = running(node, 7).await;
    let task = node.task(7);
    shim.hand_over().await.expect("hand over");
    assert_eq!(shim.state().await.expect("the same connection goes on"), TaskState::Running { pid });
    node.client().end_silent(&task.namespace, &task.id).await.expect("end");
    let found = node.client().attach(&task.namespace, &task.id).await.expect("attach");
    let Attached::Alive { shim: second, state } = found else { panic!("{found:?}") };
    assert_eq!(state, TaskState::Running { pid });
    assert!(node.is_init_alive(&task.id, pid));
    end(second.as_ref()).await;
    assert_nothing_left(node);
}

pub(crate) async fn no_shim_is_started_beside_an_orphan(node: &dyn Node) {
    let (shim, pid) = running(node, 5).await;
    let task = node.task(5);
    node.lose_shim(&task.id);
    assert!(matches!(soon("the loss", shim.wait()).await, Err(ShimError::Lost { .. })));
    let refused = node.client().spawn(task.clone()).await;
    assert!(matches!(refused, Err(ShimError::Orphaned { .. })), "{refused:?}");
    assert!(node.is_init_alive(&task.id, pid), "a refused spawn has changed nothing");
    node.client().clean_up(&task.namespace, &task.id).await.expect("clean up");
    let (second, _pid) = running(node, 5).await;
    end(second.as_ref()).await;
    assert_nothing_left(node);
}

pub(crate) async fn an_exit_is_known_after_the_shim_has_gone_too(node: &dyn Node) {
    let (shim, _pid) = running(node, 6).await;
    let task = node.task(6);
    shim.kill(Signal::KILL, false).await.expect("kill");
    let exit = soon("the exit", shim.wait()).await.expect("exit");
    node.lose_shim(&task.id);
    let found = node.client().attach(&task.namespace, &task.id).await.expect("attach");
    let Attached::Dead { exit: Some(known) } = found else { panic!("{found:?}") };
    assert_eq!(known, exit);
    shim.shutdown().await.expect("it is gone, and so is its container: the rest is removed");
    assert_nothing_left(node);
}
