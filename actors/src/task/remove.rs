//! Removes all of a container but its record, and goes on when one part resists.

use std::sync::Arc;

use actix::Addr;
use contd_shim_client::Shim;

use super::{Subject, undo};
use crate::call::tell;
use crate::container::ContainerActor;
use crate::error::{Leftover, StepError};
use crate::messages::container::{Removed, Settled};

/// Removes a container's parts and tells its actor.
pub(crate) async fn remove(
    subject: Subject,
    shim: Option<Arc<dyn Shim>>,
    generation: u64,
    actor: Addr<ContainerActor>,
) {
    let _alone = Arc::clone(&subject.lane.operation).lock_owned().await;
    let leftovers = remove_parts(&subject, shim).await;
    tell(&actor, Removed { generation, leftovers });
}

/// Removes shim, bundle, log and root, in this order: what uses another part goes first.
pub(crate) async fn remove_parts(subject: &Subject, shim: Option<Arc<dyn Shim>>) -> Vec<Leftover> {
    let mut leftovers = Vec::new();
    let results = [
        undo::end_shim(subject, shim).await,
        undo::remove_bundle(subject).await,
        undo::remove_log(subject).await,
        undo::release_root(subject).await,
    ];
    leftovers.extend(results.into_iter().filter_map(Result::err));
    leftovers
}

/// Ends the shim of a container that has ended and whose exit is on disk, and tells its actor.
pub(crate) async fn settle(
    subject: Subject,
    shim: Option<Arc<dyn Shim>>,
    generation: u64,
    actor: Addr<ContainerActor>,
) {
    let _alone = Arc::clone(&subject.lane.operation).lock_owned().await;
    let result = undo::end_shim(&subject, shim).await.map_err(|leftover: Leftover| -> StepError { leftover.source });
    tell(&actor, Settled { generation, result });
}

/// Ends a shim that no record knows.
pub(crate) async fn end_forgotten_shim(subject: &Subject) -> Result<(), Leftover> {
    let _alone = Arc::clone(&subject.lane.operation).lock_owned().await;
    undo::end_shim(subject, None).await
}
