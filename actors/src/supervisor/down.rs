//! The end of all containers before their node goes down.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use contd_types::{ApiError, ContainerId, ContainerInfo, ErrorKind, NamespaceId};
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::call::ask;
use crate::container::KILLED_TIMEOUT;
use crate::messages::RECOVERY_WAIT;
use crate::messages::namespace::RouteGoDown;
use crate::namespace::NamespaceActor;
use crate::shared::Shared;

/// The most containers that an error names.
const MAX_NAMED: usize = 8;

/// The actors of all namespaces.
pub(super) type Namespaces = HashMap<NamespaceId, watch::Receiver<Option<Addr<NamespaceActor>>>>;

/// Ends every container that lives, side by side, and counts those that have ended. One bound holds for all of it.
///
/// What was admitted just before the node began to go down is not shown yet: it is found by another look.
pub(super) async fn end_all(shared: Arc<Shared>, namespaces: Namespaces, longest: Duration) -> Result<u32, ApiError> {
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
            let namespace = namespaces.get(&container.namespace).cloned();
            async move {
                let end = end(container, namespace, longest);
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

/// Ends one container; the error says why it has not ended.
async fn end(
    container: &ContainerInfo,
    namespace: Option<watch::Receiver<Option<Addr<NamespaceActor>>>>,
    longest: Duration,
) -> Result<(), String> {
    let Some(mut namespace) = namespace else { return Err("its namespace has no actor".to_owned()) };
    let addr = match namespace.wait_for(Option::is_some).await {
        Ok(addr) => addr.clone(),
        Err(_gone) => None,
    };
    let Some(addr) = addr else { return Err("the actor of its namespace is lost".to_owned()) };
    let message = RouteGoDown { id: container.id.clone(), longest };
    match ask(&addr, message, Duration::MAX).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(crate::error::one_line(&error)),
        Err(error) => Err(crate::error::one_line(&error)),
    }
}
