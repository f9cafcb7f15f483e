//! The end of all containers before their node goes down.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use contd_types::{ApiError, ContainerId, ErrorKind};
use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::container::KILLED_TIMEOUT;
use crate::containers::{Containers, Verb};
use crate::messages::RECOVERY_WAIT;
use crate::messages::container::GoDown;
use crate::messages::node::TakeDownRoots;
use crate::services::Services;
use crate::shared::Shared;

/// Some milliseconds for each container; a thousand of them on a slow disk.
const TAKE_DOWN_TIMEOUT: Duration = Duration::from_secs(15);

/// The most containers that an error names.
const MAX_NAMED: usize = 8;

/// Ends every container that lives, side by side, and counts those that have ended. One bound holds for all of it.
///
/// A run that was admitted just before the node began to go down is not shown yet: another look finds it.
pub(super) async fn end_all(
    shared: Arc<Shared>,
    services: Arc<Services>,
    containers: Arc<Containers>,
    longest: Duration,
) -> Result<u32, ApiError> {
    let until = Instant::now().checked_add(longest.saturating_add(KILLED_TIMEOUT).saturating_add(RECOVERY_WAIT));
    let mut asked: HashSet<ContainerId> = HashSet::new();
    let mut left: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let living: Vec<_> = shared.view.living().into_iter().filter(|info| asked.insert(info.id.clone())).collect();
        if living.is_empty() {
            break;
        }
        info!(containers = living.len(), "the node goes down, ending them");
        let ends = living.iter().map(|container| {
            let containers = &containers;
            async move {
                let end = end(containers, &container.id, longest);
                let ended = match until {
                    Some(until) => {
                        timeout_at(until, end).await.unwrap_or_else(|_elapsed| Err("no time is left".to_owned()))
                    }
                    None => end.await,
                };
                (container, ended)
            }
        });
        for (container, ended) in join_all(ends).await {
            if let Err(reason) = ended {
                warn!(container = %container.id, ns = %container.namespace, reason, "not ended before the node goes down");
                left.insert(format!("{}/{}", container.namespace, container.spec.name), reason);
            }
        }
    }
    if left.is_empty() {
        take_down_roots(&services).await;
        return Ok(u32::try_from(asked.len()).unwrap_or(u32::MAX));
    }
    let names: Vec<&str> = left.keys().take(MAX_NAMED).map(String::as_str).collect();
    let more = if left.len() > MAX_NAMED { ", …" } else { "" };
    let message =
        format!("shut down: {} of {} containers have not ended: {}{more}", left.len(), asked.len(), names.join(", "));
    let error =
        ApiError { causes: left.into_values().take(MAX_NAMED).collect(), ..ApiError::new(ErrorKind::Timeout, message) };
    Err(error.with_hint("who powers the node off kills them; see what keeps them: contd inspect, and the daemon's log"))
}

/// Takes down the roots, also those of containers that had ended before: their flist servers serve nobody, and would keep the
/// system from unmounting. A root that stays costs a delay at most.
async fn take_down_roots(services: &Services) {
    match services.flist.ask(TakeDownRoots, TAKE_DOWN_TIMEOUT).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => warn!(error = crate::error::one_line(&failure), "roots not taken down"),
        Err(failure) => warn!(error = crate::error::one_line(&failure), "roots not taken down"),
    }
}

/// Ends one container; the error says why it has not ended.
async fn end(containers: &Containers, id: &ContainerId, longest: Duration) -> Result<(), String> {
    let verb = Verb::new("shut down", containers.stop_deadline(id, Some(longest)));
    containers.ask(id.clone(), verb, GoDown { longest }).await.map_err(|error| crate::error::one_line(&error))
}
