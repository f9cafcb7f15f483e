//! The way of a request to the actor of its container: straight there, whoever asks.
//!
//! A request waits for an actor that is made again, and for a container that is being re-attached, each up to
//! [`RECOVERY_WAIT`].

use std::sync::Arc;
use std::time::Duration;

use actix::{Handler, Message};
use contd_types::{ContainerId, MAX_TIMEOUT, State};
use futures_util::future::{BoxFuture, FutureExt as _};

use crate::addresses::{Addresses, NoAddress};
use crate::call::ask;
use crate::container::{ContainerActor, KILLED_TIMEOUT, ROLLBACK_TIMEOUT};
use crate::error::ContainerError;
use crate::log::Writers;
use crate::messages::RECOVERY_WAIT;
use crate::messages::container::RotateLog;
use crate::shared::Shared;

/// A signal and room for its way.
pub(crate) const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// A user to look up on a slow flist, the shim, and room for its way.
pub(crate) const PAUSE_DEADLINE: Duration = Duration::from_secs(30);
/// The shim's own deadline, and its runtime's, are shorter.
pub(crate) const EXEC_DEADLINE: Duration = Duration::from_secs(35);
/// One write of a record, on a disk that may be slow.
pub(crate) const UPDATE_DEADLINE: Duration = Duration::from_secs(30);

impl Writers for Containers {
    fn rotate(self: Arc<Self>, id: ContainerId) -> BoxFuture<'static, Result<(), ContainerError>> {
        let verb = Verb::new("rotate the log of", KILL_DEADLINE);
        async move { self.ask(id, verb, RotateLog).await }.boxed()
    }
}

/// How one verb is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verb {
    /// Its name in an error.
    pub(crate) name: &'static str,
    /// How long its answer may take.
    pub(crate) deadline: Duration,
    /// Whether it goes on when nobody knows yet how the container is.
    pub(crate) is_forced: bool,
}

impl Verb {
    pub(crate) fn new(name: &'static str, deadline: Duration) -> Self {
        Self { name, deadline, is_forced: false }
    }
}

/// The actors of a node's containers. Each namespace writes the addresses of its own.
#[derive(Debug)]
pub(crate) struct Containers {
    shared: Arc<Shared>,
    pub(crate) addresses: Addresses<ContainerId, ContainerActor>,
}

impl Containers {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, addresses: Addresses::default() }
    }

    /// Forgets a container that is gone: it is shown no more, and who waits for its actor hears of it.
    pub(crate) fn forget(&self, id: &ContainerId) {
        self.shared.view.remove(id);
        self.addresses.remove(id);
    }

    /// Asks a container's actor.
    pub(crate) async fn ask<M, T>(&self, id: ContainerId, verb: Verb, message: M) -> Result<T, ContainerError>
    where
        ContainerActor: Handler<M>,
        M: Message<Result = Result<T, ContainerError>> + Send + 'static,
        T: Send + 'static,
    {
        let Verb { name: verb, deadline, is_forced } = verb;
        let recovering = || ContainerError::Recovering { id: id.clone(), verb, waited: RECOVERY_WAIT };
        let addr = match self.addresses.find(&id, RECOVERY_WAIT).await {
            Ok(addr) => addr,
            Err(NoAddress::Unknown) => return Err(ContainerError::Gone { id, verb }),
            Err(NoAddress::Late) => return Err(recovering()),
        };
        if let Some(mut shown) = self.shared.view.watch(&id) {
            let known = shown.wait_for(|info| info.state != State::Recovering);
            // The end of the channel is the container's: its actor says so.
            let is_late = tokio::time::timeout(RECOVERY_WAIT, known).await.is_err();
            if is_late && !is_forced {
                return Err(recovering());
            }
        }
        ask(&addr, message, deadline).await?
    }

    /// Bounds a make: its longest step, and everything else.
    pub(crate) fn make_deadline(&self) -> Duration {
        self.shared.config.rootfs_timeout.saturating_add(2 * ROLLBACK_TIMEOUT)
    }

    /// Bounds a stop: what the container is given to end, and its clean-up.
    pub(crate) fn stop_deadline(&self, id: &ContainerId, timeout: Option<Duration>) -> Duration {
        let own = || self.shared.view.get(id).and_then(|info| info.spec.shutdown_timeout);
        let grace = timeout.or_else(own).unwrap_or(self.shared.settings().defaults.shutdown_timeout);
        grace.min(MAX_TIMEOUT).saturating_add(KILLED_TIMEOUT).saturating_add(ROLLBACK_TIMEOUT)
    }
}
