//! The cost of one run and one deletion: every message between actors and every job of a pool is counted.

use std::cell::RefCell;

use super::*;

thread_local! {
    static MESSAGES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static JOBS: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// Counts a message that is sent on this thread.
pub(crate) fn message<M>() {
    let path = std::any::type_name::<M>();
    MESSAGES.with_borrow_mut(|all| all.push(path.rsplit("::").next().unwrap_or(path).to_owned()));
}

/// Counts a job that is begun from this thread.
pub(crate) fn job(what: &'static str) {
    JOBS.with_borrow_mut(|all| all.push(what));
}

/// The messages and jobs since the last call. The journal's writes are left out: nobody waits for them.
fn counted() -> (Vec<String>, Vec<&'static str>) {
    let jobs = JOBS.take().into_iter().filter(|what| *what != "write an event");
    (MESSAGES.take(), jobs.collect())
}

#[actix::test]
async fn a_run_costs_five_messages_and_four_jobs() {
    let world = World::new();
    let node = world.start();
    run(&node, spec("first")).await.unwrap();
    counted();
    run(&node, spec("web")).await.unwrap();
    let (messages, mut jobs) = counted();
    assert_eq!(messages, ["RunContainer", "Run", "OpenLog", "PrepareRoot", "WriteBundle"]);
    jobs.sort_unstable();
    let expected = ["prepare the root", "write a record", "write the bundle", "write the intent and make the log"];
    assert_eq!(jobs, expected);
}

#[actix::test]
async fn a_verb_goes_straight_to_its_container() {
    let world = World::new();
    let node = world.start();
    run(&node, spec("web")).await.unwrap();
    counted();
    stop(&node, "web").await.unwrap();
    assert_eq!(counted().0, ["StopContainer", "Stop"]);
    until_state(&node, "web", StateName::Stopped).await;
    counted();
    delete(&node, "web", false).await.unwrap();
    let expected = ["DeleteContainer", "Delete", "RemoveBundle", "RemoveLog", "ReleaseRoot", "ContainerNews"];
    assert_eq!(counted().0, expected);
}
