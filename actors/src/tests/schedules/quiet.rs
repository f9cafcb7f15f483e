//! Quiet points: everything has come to rest, and everything is compared. And the last of them, after which nothing is left.

use std::time::Duration;

use contd_types::{ContainerInfo, ContainerRef};

use super::check;
use super::drive::Stage;
use crate::messages::{DeleteContainer, InspectContainer, ListContainers, NodeStatus, Shutdown};
use crate::tests::LONG;
use crate::{ask_api, tests};

/// Longer than every deadline and back-off: what was begun before has had its effect.
const REST: Duration = Duration::from_secs(700);
/// A crash loop moves even then; so often one looks again.
const LOOKS: u32 = 30;
/// How often a deletion is repeated when every boundary works.
const DELETIONS: u32 = 3;

/// Waits until nothing moves, and compares.
pub(super) async fn until_quiet(stage: &Stage) {
    tokio::time::sleep(REST).await;
    let mut wrong = Vec::new();
    for _ in 0..LOOKS {
        let Some(view) = look(stage).await else { return };
        wrong = check::differences(&stage.model.borrow(), &view);
        if wrong.is_empty() {
            let mut model = stage.model.borrow_mut();
            model.forget_open();
            check::learn(&mut model, &view);
            check::glance(&mut model);
            return;
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    let mut model = stage.model.borrow_mut();
    wrong.into_iter().for_each(|what| model.accuse(format!("at rest: {what}")));
}

/// Returns what is shown, or accuses a node that shows nothing.
async fn look(stage: &Stage) -> Option<Vec<ContainerInfo>> {
    let list = ListContainers { namespace: None, after: None, limit: 0 };
    let page = match ask_api(&stage.addr, list, LONG).await {
        Ok(page) => page,
        Err(error) => {
            stage.model.borrow_mut().accuse(format!("the node does not list: {error:#}"));
            return None;
        }
    };
    let mut view = Vec::new();
    for one in page.containers {
        let container = ContainerRef::new(one.id.as_str()).unwrap();
        let target = contd_protocol::api::Target { namespace: one.namespace, container };
        // One that has gone since is not shown.
        view.extend(ask_api(&stage.addr, InspectContainer { target }, LONG).await.ok());
    }
    Some(view)
}

/// Deletes every container, and finds nothing left: no part of any, no permit, no caller without an answer.
pub(super) async fn delete_all(stage: &Stage) {
    for _ in 0..DELETIONS {
        for info in look(stage).await.unwrap_or_default() {
            let container = ContainerRef::new(info.id.as_str()).unwrap();
            let target = contd_protocol::api::Target { namespace: info.namespace, container };
            let ticket = stage.model.borrow_mut().begin_deletion(&info.id);
            let answer = ask_api(&stage.addr, DeleteContainer { target, force: true, timeout: None }, LONG).await;
            let mut model = stage.model.borrow_mut();
            match (answer, ticket) {
                (Ok(()), Some(ticket)) => model.deleted(&ticket),
                (Ok(()), None) => {}
                (Err(error), _) => model.tell(format!("deletion of {}: {error:#}", info.id)),
            }
        }
    }
    tokio::time::sleep(REST).await;
    check::glance(&mut stage.model.borrow_mut());
    let left = check::leftovers(&stage.model.borrow());
    left.into_iter().for_each(|what| stage.model.borrow_mut().accuse(format!("left at the end: {what}")));
    let status = ask_api(&stage.addr, NodeStatus, tests::LONG).await;
    if !matches!(&status, Ok(status) if status.containers == 0 && status.runs_in_flight == 0) {
        stage.model.borrow_mut().accuse(format!("at the end the node says {status:?}"));
    }
    let waiting = stage.model.borrow().callers;
    if waiting > 0 {
        stage.model.borrow_mut().accuse(format!("{waiting} callers wait for nothing"));
    }
    let begun = tokio::time::Instant::now();
    let answer = ask_api(&stage.addr, Shutdown, LONG).await;
    if answer.is_err() || begun.elapsed() > Duration::from_secs(1) {
        stage.model.borrow_mut().accuse(format!("an idle node takes {:?} to end: {answer:?}", begun.elapsed()));
    }
}
