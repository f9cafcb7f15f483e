//! Removes all of a container but its record, and goes on when one part resists.

use std::sync::Arc;

use actix::Addr;
use contd_shim_client::{Attached, Shim};

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
    let shim = match shim {
        Some(shim) => Some(shim),
        None => find_living(subject).await,
    };
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

/// Looks for a shim that nobody is connected to any more, so that it can be ended by its own hand.
async fn find_living(subject: &Subject) -> Option<Arc<dyn Shim>> {
    match subject.shared.shims.attach(&subject.namespace, &subject.id).await {
        Ok(Attached::Alive { shim, .. }) => Some(shim),
        // Dead, absent or silent: the clean-up says what is left.
        Ok(_) | Err(_) => None,
    }
}

/// Ends the shim of a container that has ended and whose exit is on disk, and tells its actor.
pub(crate) async fn settle(
    subject: Subject,
    shim: Option<Arc<dyn Shim>>,
    generation: u64,
    actor: Addr<ContainerActor>,
) {
    let _alone = Arc::clone(&subject.lane.operation).lock_owned().await;
    let shim = match shim {
        Some(shim) => Some(shim),
        None => find_living(&subject).await,
    };
    let result = undo::end_shim(&subject, shim).await.map_err(|leftover: Leftover| -> StepError { leftover.source });
    tell(&actor, Settled { generation, result });
}

/// Ends a shim that no record knows.
pub(crate) async fn end_forgotten_shim(subject: &Subject) -> Result<(), Leftover> {
    let _alone = Arc::clone(&subject.lane.operation).lock_owned().await;
    let shim = find_living(subject).await;
    undo::end_shim(subject, shim).await
}
