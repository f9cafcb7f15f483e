//! The container's standard input, and its terminal. The shim has them; nothing of them is kept here.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use actix::{Handler, ResponseFuture};
use contd_shim_client::{Shim, ShimError};
use contd_types::State;
use futures_util::future::BoxFuture;

use super::ContainerActor;
use crate::error::{ContainerError, StepError};
use crate::messages::container::{CloseInput, OpenInput, Resize};

/// Answered from the shim's memory, or by one local open.
const INPUT_TIMEOUT: Duration = Duration::from_secs(5);

type Answer<T> = Result<T, ContainerError>;

impl ContainerActor {
    /// Has the shim of a container that lives do something quick.
    fn at_shim<T: 'static>(
        &self,
        verb: &'static str,
        call: impl for<'a> FnOnce(&'a dyn Shim) -> BoxFuture<'a, Result<T, ShimError>> + 'static,
    ) -> ResponseFuture<Answer<T>> {
        let (State::Running { .. } | State::Paused { .. }, Some(shim)) = (&self.state, &self.shim) else {
            return Box::pin(std::future::ready(Err(self.not_running(verb))));
        };
        let (id, shim) = (self.subject.id.clone(), Arc::clone(shim));
        Box::pin(async move {
            let source = match tokio::time::timeout(INPUT_TIMEOUT, call(&*shim)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(source)) => StepError::shim(source),
                Err(_elapsed) => StepError::Deadline { what: "ask its shim", waited: INPUT_TIMEOUT },
            };
            Err(ContainerError::Step { id, verb, source: source.into() })
        })
    }
}

impl Handler<OpenInput> for ContainerActor {
    type Result = ResponseFuture<Answer<Option<OwnedFd>>>;

    fn handle(&mut self, _message: OpenInput, _ctx: &mut Self::Context) -> Self::Result {
        self.at_shim("attach to", |shim| shim.open_input())
    }
}

impl Handler<CloseInput> for ContainerActor {
    type Result = ResponseFuture<Answer<()>>;

    fn handle(&mut self, _message: CloseInput, _ctx: &mut Self::Context) -> Self::Result {
        self.at_shim("close the input of", |shim| shim.close_input())
    }
}

impl Handler<Resize> for ContainerActor {
    type Result = ResponseFuture<Answer<()>>;

    fn handle(&mut self, Resize { size }: Resize, _ctx: &mut Self::Context) -> Self::Result {
        self.at_shim("resize the terminal of", move |shim| shim.resize(size))
    }
}
