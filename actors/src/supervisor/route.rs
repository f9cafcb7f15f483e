//! The way of a verb to the actor that answers it.

use std::sync::Arc;
use std::time::Duration;

use actix::{Context, Handler, Message, ResponseFuture};
use contd_protocol::api::Target;
use contd_types::{ApiError, ContainerId, ErrorKind, NamespaceId};

use super::Supervisor;
use super::verbs::Answered;
use crate::call::ask;
use crate::container::ContainerActor;
use crate::containers::{Containers, Verb};
use crate::error::{ContainerError, NamespaceError};
use crate::messages::RECOVERY_WAIT;
use crate::messages::namespace::Run;

/// The namespace's own deadlines are shorter and say more.
const NO_DEADLINE: Duration = Duration::MAX;

impl Supervisor {
    /// Finds the container that is meant and asks its actor.
    pub(super) fn ask_container<M, T>(
        &self,
        target: Target,
        verb: impl FnOnce(&Containers, &ContainerId) -> Verb + 'static,
        message: M,
    ) -> Answered<T>
    where
        ContainerActor: Handler<M>,
        M: Message<Result = Result<T, ContainerError>> + Send + 'static,
        T: Send + 'static,
    {
        let answer = self.ask_container_and_name(target, verb, message);
        Box::pin(actix::fut::ActorFutureExt::map(answer, |answer, _actor, _ctx| answer.map(|(_, answer)| answer)))
    }

    /// [`Self::ask_container`], answered with the id that was meant.
    pub(super) fn ask_container_and_name<M, T>(
        &self,
        target: Target,
        verb: impl FnOnce(&Containers, &ContainerId) -> Verb + 'static,
        message: M,
    ) -> Answered<(ContainerId, T)>
    where
        ContainerActor: Handler<M>,
        M: Message<Result = Result<T, ContainerError>> + Send + 'static,
        T: Send + 'static,
    {
        self.when_ready(move |actor, _ctx| {
            let (found, containers) = (actor.shared.view.resolve(&target), Arc::clone(&actor.containers));
            Box::pin(async move {
                let id = found?;
                let verb = verb(&containers, &id);
                let answer = containers.ask(id.clone(), verb, message).await?;
                Ok((id, answer))
            })
        })
    }

    /// Asks a namespace's actor, and makes it when there is none.
    pub(super) fn ask_namespace(
        &mut self,
        namespace: NamespaceId,
        run: Run,
        ctx: &mut Context<Self>,
    ) -> ResponseFuture<Result<ContainerId, ApiError>> {
        if !self.branches.contains_key(&namespace) {
            self.start_namespace(&namespace, Vec::new(), ctx);
        }
        let namespaces = Arc::clone(&self.namespaces);
        Box::pin(async move {
            let Ok(addr) = namespaces.find(&namespace, RECOVERY_WAIT).await else {
                let lost = format!("reach namespace {namespace}: its actor is being rebuilt");
                return Err(ApiError::new(ErrorKind::Unavailable, lost).with_hint("retry; see the daemon's log"));
            };
            let answer: Result<ContainerId, NamespaceError> = ask(&addr, run, NO_DEADLINE).await?;
            Ok(answer?)
        })
    }
}
