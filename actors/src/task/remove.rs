//! Removes all of a container but its record, and goes on when one part resists. Each try is a whole one: the actor that is
//! told of something left tries again, until nothing is.

use std::sync::Arc;
use std::time::Duration;

use contd_shim_client::{Holdout, Shim};
use tokio::sync::watch;

use super::{Subject, undo};
use crate::error::{Leftover, StepError};
use crate::pool::WhenBlocked;

/// A look at a few files of `/proc`; a process that hangs there must not keep the removal.
const HOLDOUTS_TIMEOUT: Duration = Duration::from_secs(2);

/// The part of a container that a removal is at, for people.
#[derive(Debug, Clone)]
pub(crate) struct Part(Arc<watch::Sender<&'static str>>);

impl Default for Part {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new("container")))
    }
}

impl Part {
    /// Names it.
    pub(crate) fn get(&self) -> &'static str {
        *self.0.borrow()
    }

    fn set(&self, part: &'static str) {
        self.0.send_replace(part);
    }
}

/// Removes a container's parts; returns what is left, and then the processes that do not end.
pub(crate) async fn remove(subject: Subject, shim: Option<Arc<dyn Shim>>, part: Part) -> (Vec<Leftover>, Vec<Holdout>) {
    let _alone = Arc::clone(&subject.locks.operation).lock_owned().await;
    let leftovers = remove_parts(&subject, shim, &part).await;
    let holdouts = if leftovers.is_empty() { Vec::new() } else { holdouts(&subject).await };
    (leftovers, holdouts)
}

/// Removes shim, bundle, log and root, in this order: what uses another part goes first. Each is tried, but for the
/// bundle of a shim that is left. The root too: to end its flist's server may be what a process waits for.
async fn remove_parts(subject: &Subject, shim: Option<Arc<dyn Shim>>, part: &Part) -> Vec<Leftover> {
    let mut leftovers = Vec::new();
    part.set("shim");
    let ended = undo::end_shim(subject, shim).await;
    let has_shim = ended.is_err();
    leftovers.extend(ended.err());
    if !has_shim {
        part.set("bundle");
        leftovers.extend(undo::remove_bundle(subject, WhenBlocked::Drop).await.err());
    }
    part.set("log");
    leftovers.extend(undo::remove_log(subject, WhenBlocked::Drop).await.err());
    part.set("root");
    leftovers.extend(undo::release_root(subject, WhenBlocked::Drop).await.err());
    part.set("record");
    leftovers
}

/// Lists the processes of a container that do not end.
pub(crate) async fn holdouts(subject: &Subject) -> Vec<Holdout> {
    let found = subject.shared.shims.holdouts(&subject.namespace, &subject.id);
    tokio::time::timeout(HOLDOUTS_TIMEOUT, found).await.unwrap_or_default()
}

/// Ends the shim of a container that has ended and whose exit is on disk, and frees a layer in memory.
pub(crate) async fn settle(subject: Subject, shim: Option<Arc<dyn Shim>>) -> Result<(), StepError> {
    let _alone = Arc::clone(&subject.locks.operation).lock_owned().await;
    let ended = match undo::end_shim(&subject, shim).await {
        // Behind it: until then a process of the container may use it.
        Ok(()) => undo::free_memory(&subject).await,
        Err(leftover) => Err(leftover),
    };
    ended.map_err(|leftover| leftover.source)
}

/// Ends a shim that no record knows.
pub(crate) async fn end_forgotten_shim(subject: &Subject) -> Result<(), Leftover> {
    let _alone = Arc::clone(&subject.locks.operation).lock_owned().await;
    undo::end_shim(subject, None).await
}
