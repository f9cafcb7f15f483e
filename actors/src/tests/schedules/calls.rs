//! The callers: each asks, waits within the deadline of its verb, and tells the model what it was told.

use std::time::Duration;

use contd_protocol::api::Target;
use contd_types::{
    ApiError, Changes, ContainerId, ContainerInfo, ContainerName, ContainerRef, Entrypoint, RestartPolicy,
};

use super::drive::Stage;
use super::model::{Model, Ticket};
use super::plan::{Ask, Place};
use crate::messages::{
    ContainerPage, CreateContainer, DeleteContainer, InspectContainer, KillContainer, ListContainers, PauseContainer,
    RECOVERY_WAIT, RestartContainer, RunContainer, StartContainer, StopContainer, UpdateContainer, UpgradeShim,
    WaitContainer,
};
use crate::tests::{LONG, ns, replay};
use crate::{CallError, ask};

/// One caller.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) place: Place,
    pub(super) ask: Ask,
    /// Names the container by its id instead of its name.
    pub(super) id: Option<ContainerId>,
    /// Gives up after so long.
    pub(super) patience: Option<Duration>,
}

/// The answer that a caller got.
#[derive(Debug)]
enum Answer {
    Made(ContainerId),
    Done,
    Ended(ContainerId, contd_types::Exit),
    Shown(Box<ContainerInfo>),
    Listed(ContainerPage),
}

/// A caller begins; it goes on by itself.
pub(super) fn begin(stage: &Stage, caller: Caller) {
    let ticket = stage.model.borrow_mut().begin(caller.place, caller.ask, caller.id.clone());
    stage.model.borrow_mut().callers += 1;
    let stage = stage.clone();
    drop(actix_rt::spawn(async move {
        let begun = tokio::time::Instant::now();
        let limit = limit(caller.ask);
        let asked = Box::pin(send(&stage, &caller));
        let waited = tokio::time::timeout(caller.patience.unwrap_or(limit).min(limit), asked).await;
        if replay::is_halted() {
            // The caller has lost the connection.
            return;
        }
        let mut model = stage.model.borrow_mut();
        model.callers -= 1;
        let who = format!("{:?} of {:?}", caller.ask, caller.place);
        match waited {
            Ok(answer) => {
                model.tell(format!("{who} after {:?}: {}", begun.elapsed(), shown(&answer)));
                hear(&mut model, &ticket, answer);
                model.close(&ticket);
            }
            Err(_elapsed) if caller.patience.is_some_and(|patience| patience < limit) => {
                model.tell(format!("{who} gives up"));
            }
            Err(_elapsed) => model.accuse(format!("{who} had no answer within {limit:?}")),
        }
    }));
}

/// The longest that an answer may take, by the deadlines that the code names: everyone may have to wait for the records,
/// the namespace's actor, the container's actor and its recovery, and then for the verb itself.
fn limit(ask: Ask) -> Duration {
    let stop = |timeout: Option<Duration>| timeout.unwrap_or(Duration::from_secs(10)) + Duration::from_secs(100);
    let own = match ask {
        Ask::Run { .. } | Ask::Create { .. } | Ask::Start => Duration::from_secs(60 + 180),
        Ask::Stop { timeout } => stop(timeout),
        Ask::Restart { timeout } => stop(timeout) + Duration::from_secs(60 + 180),
        Ask::Pause { .. } => Duration::from_secs(30),
        Ask::Delete { timeout, .. } => stop(timeout) + Duration::from_secs(90),
        Ask::Kill { .. } | Ask::Upgrade => Duration::from_secs(10),
        Ask::Update { .. } => Duration::from_secs(30),
        Ask::Inspect | Ask::List => Duration::ZERO,
        // As long as the container runs.
        Ask::Wait => LONG * 1000,
    };
    4 * RECOVERY_WAIT + own + Duration::from_millis(100)
}

async fn send(stage: &Stage, caller: &Caller) -> Result<Answer, ApiError> {
    let (place, addr) = (caller.place, &stage.addr);
    let namespace = ns(place.namespace);
    let container = caller.id.as_ref().map_or(place.name, ContainerId::as_str);
    let target = Target { namespace: namespace.clone(), container: ContainerRef::new(container).unwrap() };
    // A deadline of the actors' own must come first: this one is the caller's limit.
    let long = LONG * 10_000;
    let lost = |error: CallError| ApiError::from(error);
    Ok(match caller.ask {
        Ask::Run { policy, key, is_auto_removed } => {
            let spec = spec(place, policy, is_auto_removed);
            let idempotency_key = key.map(|key| format!("key-{}-{key}", place.name));
            let message = RunContainer { namespace, spec, caller: None, idempotency_key, progress: None, hold: None };
            Answer::Made(ask(addr, message, long).await.map_err(lost)??)
        }
        Ask::Create { policy } => {
            let spec = spec(place, policy, false);
            let message = CreateContainer { namespace, spec, caller: None, idempotency_key: None, progress: None };
            Answer::Made(ask(addr, message, long).await.map_err(lost)??)
        }
        Ask::Start => done(ask(addr, StartContainer { target }, long).await.map_err(lost)??),
        Ask::Stop { timeout } => {
            let (id, exit) = ask(addr, StopContainer { target, timeout }, long).await.map_err(lost)??;
            Answer::Ended(id, exit)
        }
        Ask::Restart { timeout } => done(ask(addr, RestartContainer { target, timeout }, long).await.map_err(lost)??),
        Ask::Pause { is_paused } => done(ask(addr, PauseContainer { target, is_paused }, long).await.map_err(lost)??),
        Ask::Kill { signal } => done(ask(addr, KillContainer { target, signal }, long).await.map_err(lost)??),
        Ask::Delete { force, timeout } => {
            done(ask(addr, DeleteContainer { target, force, timeout }, long).await.map_err(lost)??)
        }
        Ask::Wait => {
            let (id, exit) = ask(addr, WaitContainer { target }, long).await.map_err(lost)??;
            Answer::Ended(id, exit)
        }
        Ask::Update { policy } => {
            let message = UpdateContainer { target, changes: Changes::restart(policy) };
            done(ask(addr, message, long).await.map_err(lost)??)
        }
        Ask::Upgrade => done(ask(addr, UpgradeShim { target }, long).await.map_err(lost)??),
        Ask::Inspect => Answer::Shown(Box::new(ask(addr, InspectContainer { target }, long).await.map_err(lost)??)),
        Ask::List => {
            let message = ListContainers { namespace: None, after: None, limit: 0 };
            Answer::Listed(ask(addr, message, long).await.map_err(lost)??)
        }
    })
}

fn done((): ()) -> Answer {
    Answer::Done
}

fn spec(place: Place, policy: RestartPolicy, is_auto_removed: bool) -> contd_types::ContainerSpec {
    let mut spec = contd_types::ContainerSpec::new(ContainerName::new(place.name).unwrap(), "/x.fl");
    spec.entrypoint = Some(Entrypoint::Args(vec!["/bin/sh".into()]));
    spec.is_auto_removed = is_auto_removed;
    spec.restart = policy;
    spec
}

fn hear(model: &mut Model, ticket: &Ticket, answer: Result<Answer, ApiError>) {
    // Events before the answer are no matter of what it promises.
    model.listen();
    match answer {
        Err(_) => {}
        Ok(Answer::Made(id)) => model.made(ticket, &id),
        Ok(Answer::Done) => match ticket.ask {
            Ask::Delete { .. } => model.deleted(ticket),
            Ask::Start | Ask::Restart { .. } => {
                if let Some(id) = model.node.id_at(ticket.place) {
                    model.see(&id, model.node.shims.pid_of(&id));
                }
            }
            _ => {}
        },
        Ok(Answer::Ended(id, exit)) => {
            if matches!(ticket.ask, Ask::Stop { .. }) {
                model.stopped(ticket, &id);
            }
            model.told_exit(&id, &exit, "a caller");
        }
        Ok(Answer::Shown(info)) => {
            model.see_state(&info.id, &info.state);
            if let Some(exit) = &info.last_exit {
                model.told_exit(&info.id, exit, "a look");
            }
        }
        Ok(Answer::Listed(page)) => {
            for one in page.containers {
                model.see_state(&one.id, &one.state);
            }
        }
    }
    super::check::glance(model);
}

fn shown(answer: &Result<Answer, ApiError>) -> String {
    match answer {
        Ok(Answer::Shown(info)) => format!("{:?}", info.state),
        Ok(Answer::Listed(page)) => format!("{} containers", page.containers.len()),
        Ok(answer) => format!("{answer:?}"),
        Err(error) => format!("{:?}: {error:#}", error.kind),
    }
}
