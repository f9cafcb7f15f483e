//! Whether the directories that were named belong to one contd. If not, another's containers would look like leaks.

use std::path::{Path, PathBuf};

use contd_durable::{Fs, RealFs};
use contd_protocol::shim::{TaskSpec, files};

use crate::error::{LookError, entries};
use crate::finding::Finding;
use crate::node::Node;
use crate::process::helpers;

/// More than a task takes.
const MAX_TASK_BYTES: u64 = 64 * 1024;

/// Looks for a shim that has one of our directories and not the other.
pub(crate) fn find(node: &Node<'_>) -> Result<Option<Finding>, LookError> {
    let mut leases = entries(&node.run.join("s"))?;
    leases.extend(helpers()?.into_iter().map(|helper| helper.dir));
    let is_at_odds = |lease: &&PathBuf| {
        task(lease).is_some_and(|task| lease.starts_with(&node.run) != is_below_state(node, &task.bundle))
    };
    Ok(leases.iter().find(is_at_odds).map(|lease| {
        Finding::problem(format!("{} and {} are of different contds", node.state.display(), node.run.display()))
            .at(lease)
            .because("what is needed by the one would be taken for a leak of the other, so leaks were not looked for")
            .remedy("give the same flags and --config as to contd daemon")
    }))
}

fn task(lease: &Path) -> Option<TaskSpec> {
    let bytes = RealFs.read(&lease.join(files::TASK), MAX_TASK_BYTES).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The daemon may have been given a path with symlinks.
fn is_below_state(node: &Node<'_>, bundle: &Path) -> bool {
    let real = std::fs::canonicalize(bundle);
    bundle.starts_with(&node.config.state_dir)
        || bundle.starts_with(&node.state)
        || real.is_ok_and(|real| real.starts_with(&node.state))
}
