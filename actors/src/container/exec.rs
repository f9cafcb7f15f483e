//! Processes that are executed in the container beside its own. The shim knows them; nothing of them is kept here.

use std::path::PathBuf;
use std::time::Duration;

use actix::{Handler, ResponseFuture};
use contd_bundle::Identity;
use contd_failpoint::Failpoint;
use contd_protocol::shim::{ExecProcess, ExecUser};
use contd_shim_client::Executed;
use contd_types::{ExecInfo, ExecSpec, Exit, State};
use tracing::Instrument as _;

use super::ContainerActor;
use super::requests::KILL_TIMEOUT;
use crate::error::{ContainerError, StepError};
use crate::messages::container::{Exec, KillExec, ListExecs, WaitExec};
use crate::messages::node::LookUpUser;
use crate::task::Subject;
use crate::task::operation::Kind;

/// Two files in the container's root, which may lie on a slow flist.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(10);

const VERB: &str = "execute a process in";

type Answer<T> = Result<T, ContainerError>;

fn ready<T: 'static>(answer: Answer<T>) -> ResponseFuture<Answer<T>> {
    Box::pin(std::future::ready(answer))
}

impl Handler<Exec> for ContainerActor {
    type Result = ResponseFuture<Answer<Executed>>;

    fn handle(&mut self, Exec { exec, spec, stdio }: Exec, _ctx: &mut Self::Context) -> Self::Result {
        let (State::Running { pid }, Some(shim)) = (&self.state, &self.shim) else {
            return ready(Err(self.not_running(VERB)));
        };
        let mut subject = self.subject.clone();
        subject.begin(Kind::Exec);
        let (id, shim) = (subject.id.clone(), subject.shim_for(shim));
        // The root as its processes see it, for as long as init lives: another process of this pid has another root, whose users
        // give no right here.
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        let span = subject.span().clone();
        let work = async move {
            let process = resolve(&subject, spec, root).await?;
            let executed = shim.exec(exec, process, stdio).await.map_err(StepError::shim)?;
            contd_failpoint::hit(Failpoint::ExecDone);
            Ok(executed)
        };
        let wrap = move |source: StepError| ContainerError::Step { id, verb: VERB, source: source.into() };
        Box::pin(async move { work.instrument(span).await.map_err(wrap) })
    }
}

impl Handler<WaitExec> for ContainerActor {
    type Result = ResponseFuture<Answer<Exit>>;

    fn handle(&mut self, WaitExec { exec }: WaitExec, _ctx: &mut Self::Context) -> Self::Result {
        const VERB: &str = "wait for a process in";
        let Some(shim) = self.shim.clone().or_else(|| self.old_shim.clone()) else {
            return ready(Err(self.not_running(VERB)));
        };
        let id = self.subject.id.clone();
        let wrap = move |source| ContainerError::Step { id, verb: VERB, source: StepError::shim(source).into() };
        Box::pin(async move { shim.wait_exec(exec).await.map_err(wrap) })
    }
}

impl Handler<KillExec> for ContainerActor {
    type Result = ResponseFuture<Answer<()>>;

    fn handle(&mut self, KillExec { exec, signal }: KillExec, _ctx: &mut Self::Context) -> Self::Result {
        const VERB: &str = "signal a process in";
        let Some(shim) = self.shim.clone() else { return ready(Err(self.not_running(VERB))) };
        let id = self.subject.id.clone();
        Box::pin(async move {
            let source = match tokio::time::timeout(KILL_TIMEOUT, shim.kill_exec(exec, signal)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(source)) => StepError::shim(source),
                Err(_elapsed) => StepError::Deadline { what: "send the signal", waited: KILL_TIMEOUT },
            };
            Err(ContainerError::Step { id, verb: VERB, source: source.into() })
        })
    }
}

impl Handler<ListExecs> for ContainerActor {
    type Result = ResponseFuture<Answer<Vec<ExecInfo>>>;

    fn handle(&mut self, _message: ListExecs, _ctx: &mut Self::Context) -> Self::Result {
        let Some(shim) = self.shim.clone() else { return ready(Ok(Vec::new())) };
        let id = self.subject.id.clone();
        let wrap =
            |source| ContainerError::Step { id, verb: "list the processes in", source: StepError::shim(source).into() };
        Box::pin(async move { shim.execs().await.map_err(wrap) })
    }
}

impl ContainerActor {
    pub(super) fn not_running(&self, verb: &'static str) -> ContainerError {
        if self.is_gone {
            return self.gone(verb);
        }
        ContainerError::Forbidden { id: self.subject.id.clone(), verb, state: self.state.name() }
    }
}

/// Puts numbers in the place of names; who is another user has its own home.
async fn resolve(subject: &Subject, spec: ExecSpec, root: PathBuf) -> Result<ExecProcess, StepError> {
    let ExecSpec { args, mut env, cwd, user, terminal } = spec;
    let user = match user {
        None => None,
        Some(user) => {
            let message = LookUpUser { namespace: subject.namespace.clone(), root, user };
            let found = subject.services.bundle.ask(message, LOOK_UP_TIMEOUT).await;
            let Identity { uid, gid, groups, home } = found.map_err(StepError::Call)??;
            if !env.iter().any(|entry| entry.starts_with("HOME=")) {
                env.push(format!("HOME={home}"));
            }
            Some(ExecUser { uid, gid, additional_gids: groups })
        }
    };
    Ok(ExecProcess { args, env, cwd, user, terminal })
}
