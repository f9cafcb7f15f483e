//! Removes after a start everything that no record knows, so that no crash leaks anything for ever.
//!
//! Everything of a record that could not be read is spared: its container may run, and a person shall decide.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contd_shim_client::FoundShim;
use contd_store::Damaged;
use contd_types::{ContainerId, ContainerName, ContainerSpec, NamespaceId};
use tracing::{info, warn};

use crate::error::{Leftover, one_line};
use crate::messages::node::{ListBundles, ListRecoveredRoots};
use crate::pool::WhenBlocked;
use crate::services::Services;
use crate::shared::Shared;
use crate::task::remove::end_forgotten_shim;
use crate::task::{Subject, undo};

/// Looking into a few directories.
const LIST_TIMEOUT: Duration = Duration::from_secs(15);
/// The past is known when the provider has looked at every mount; a dead server makes that slow.
const ROOTS_TIMEOUT: Duration = Duration::from_secs(300);

/// The containers that have a record, or may have one.
#[derive(Debug, Default)]
pub(crate) struct Known {
    ids: HashSet<ContainerId>,
}

impl Known {
    /// Adds a container with a record.
    pub(crate) fn add(&mut self, id: ContainerId) {
        self.ids.insert(id);
    }

    /// Spares all that a damaged record could be about: its path names the container.
    pub(crate) fn spare(&mut self, damaged: &Damaged) {
        let parts = damaged.path.iter().filter_map(|part| part.to_str());
        self.ids.extend(parts.filter_map(|part| ContainerId::new(part).ok()));
    }

    fn is_forgotten(&self, shared: &Shared, id: &ContainerId) -> bool {
        // One that was made since is known to the view.
        !self.ids.contains(id) && shared.view.get(id).is_none()
    }
}

/// Removes shims, bundles and roots that no record knows. `shims` were listed before the first run was admitted, and so
/// are the others: an id is never used twice.
pub(crate) async fn sweep(shared: Arc<Shared>, services: Arc<Services>, known: Known, shims: Vec<FoundShim>) {
    for found in shims {
        if known.is_forgotten(&shared, &found.id) {
            let subject = forgotten(&shared, &services, found.namespace, found.id);
            report("shim", &subject.id, end_forgotten_shim(&subject).await);
        }
    }
    match services.bundle.ask(ListBundles, LIST_TIMEOUT).await {
        Ok(Ok(found)) => {
            for key in found.into_iter().filter(|key| known.is_forgotten(&shared, &key.id)) {
                let subject = forgotten(&shared, &services, key.namespace, key.id);
                report("bundle", &subject.id, undo::remove_bundle(&subject, WhenBlocked::Queue).await);
            }
        }
        Ok(Err(failure)) => warn!(error = one_line(&failure), "bundles not swept"),
        Err(failure) => warn!(error = one_line(&failure), "bundles not swept"),
    }
    match services.flist.ask(ListRecoveredRoots, ROOTS_TIMEOUT).await {
        Ok(Ok(found)) => {
            for root in found.into_iter().filter(|root| known.is_forgotten(&shared, &root.id)) {
                let subject = forgotten(&shared, &services, root.namespace, root.id);
                report("root", &subject.id, undo::release_root(&subject, WhenBlocked::Queue).await);
            }
        }
        Ok(Err(failure)) => warn!(error = one_line(&failure), "roots not swept"),
        Err(failure) => warn!(error = one_line(&failure), "roots not swept"),
    }
}

fn report(what: &'static str, id: &ContainerId, result: Result<(), Leftover>) {
    match result {
        Ok(()) => info!(what, container = %id, "removed what no record knows"),
        Err(leftover) => warn!(what, container = %id, error = one_line(&leftover), "what no record knows is left"),
    }
}

/// A container of which only its names are known; enough for every undo but that of its log, whose name is lost.
fn forgotten(shared: &Arc<Shared>, services: &Arc<Services>, namespace: NamespaceId, id: ContainerId) -> Subject {
    #[expect(clippy::expect_used, reason = "32 hexadecimal digits are a valid name: the grammar holds all of them")]
    let name = ContainerName::new(id.as_str()).expect("an id is a name");
    let spec = Arc::new(ContainerSpec::new(name, ""));
    Subject::new(Arc::clone(shared), Arc::clone(services), namespace, id, spec, None)
}

/// Tells whether a lease of this container was found.
pub(crate) fn has_lease(shims: Option<&[FoundShim]>, id: &ContainerId) -> bool {
    // Not known is as good as there: the look at it decides.
    shims.is_none_or(|found| found.iter().any(|shim| shim.id == *id))
}

/// Says where a damaged record is, once.
pub(crate) fn report_damage(damaged: &Damaged) {
    let kept = damaged.set_aside.as_deref().unwrap_or(&damaged.path);
    let kept: &Path = kept;
    tracing::error!(path = %damaged.path.display(), kept = %kept.display(), error = one_line(&damaged.why), "record set aside");
}
