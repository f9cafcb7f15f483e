//! Limits of this process that matter to a node: open files and the stack, which containers inherit.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};

/// Raises the soft limit on open files of this process to the hard one: each running container takes four descriptors of its
/// node. Containers have limits of their own from their bundles.
pub fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
            info!(before = soft, now = hard, "limit of open files raised");
        } else {
            info!(limit = hard, "limit of open files");
        }
        Ok(())
    });
    if let Err(errno) = raised {
        warn!(error = %errno, "limit of open files not raised");
    }
}

/// Returns the limit of our stack, which containers inherit: what they may be executed with depends on it.
pub(crate) fn stack() -> u64 {
    getrlimit(Resource::RLIMIT_STACK).map_or(0, |(soft, _hard)| soft)
}
