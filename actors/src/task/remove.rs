//! Removes all of a container but its record, and goes on when one part resists. Each time is a whole one: whoever finds
//! something left tries again, until nothing is.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use contd_shim_client::{Holdout, Shim};

use super::{Subject, undo};
use crate::call::tell;
use crate::container::ContainerActor;
use crate::error::{Leftover, StepError};
use crate::messages::container::{Removed, Removing, Settled};
use crate::pool::WhenBlocked;

/// A look at a few files of `/proc`; a process that hangs there must not keep the removal.
const HOLDOUTS_TIMEOUT: Duration = Duration::from_secs(2);

/// Removes a container's parts and tells its actor.
pub(crate) async fn remove(
    subject: Subject,
    shim: Option<Arc<dyn Shim>>,
    generation: u64,
    actor: Addr<ContainerActor>,
) {
    let _alone = Arc::clone(&subject.locks.operation).lock_owned().await;
    let at = |part| {
        tell(&actor, Removing { generation, part });
    };
    let leftovers = remove_parts(&subject, shim, at).await;
    let holdouts = if leftovers.is_empty() { Vec::new() } else { holdouts(&subject).await };
    tell(&actor, Removed { generation, leftovers, holdouts });
}

/// Removes shim, bundle, log and root, in this order: what uses another part goes first. Each is tried, but for the
/// bundle of a shim that is left. The root too: to end its flist's server may be what a process waits for.
async fn remove_parts(subject: &Subject, shim: Option<Arc<dyn Shim>>, at: impl Fn(&'static str)) -> Vec<Leftover> {
    let mut leftovers = Vec::new();
    at("shim");
    let ended = undo::end_shim(subject, shim).await;
    let has_shim = ended.is_err();
    leftovers.extend(ended.err());
    if !has_shim {
        at("bundle");
        leftovers.extend(undo::remove_bundle(subject, WhenBlocked::Drop).await.err());
    }
    at("log");
    leftovers.extend(undo::remove_log(subject, WhenBlocked::Drop).await.err());
    at("root");
    leftovers.extend(undo::release_root(subject, WhenBlocked::Drop).await.err());
    at("record");
    leftovers
}

/// Lists the processes of a container that do not end.
pub(crate) async fn holdouts(subject: &Subject) -> Vec<Holdout> {
    let found = subject.shared.shims.holdouts(&subject.namespace, &subject.id);
    tokio::time::timeout(HOLDOUTS_TIMEOUT, found).await.unwrap_or_default()
}

/// Ends the shim of a container that has ended and whose exit is on disk, frees a layer in memory, and tells its actor.
pub(crate) async fn settle(
    subject: Subject,
    shim: Option<Arc<dyn Shim>>,
    generation: u64,
    actor: Addr<ContainerActor>,
) {
    let _alone = Arc::clone(&subject.locks.operation).lock_owned().await;
    let ended = match undo::end_shim(&subject, shim).await {
        // Behind it: until then a process of the container may use it.
        Ok(()) => undo::free_memory(&subject).await,
        Err(leftover) => Err(leftover),
    };
    let result = ended.map_err(|leftover: Leftover| -> StepError { leftover.source });
    tell(&actor, Settled { generation, result });
}

/// Ends a shim that no record knows.
pub(crate) async fn end_forgotten_shim(subject: &Subject) -> Result<(), Leftover> {
    let _alone = Arc::clone(&subject.locks.operation).lock_owned().await;
    undo::end_shim(subject, None).await
}
