//! Limits of this process that matter to a node: open files and the stack, which containers inherit.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};

/// The open files of a full node, as `LimitNOFILE` of contd.service.
const WANTED_OPEN_FILES: u64 = 1024 * 1024;

/// Raises the limit on open files of this process: each running container takes four descriptors of its node. Containers have
/// limits of their own from their bundles.
///
/// The soft limit is raised to the hard one; the hard one as well where it is too low for a full node and this process may
/// (`CAP_SYS_RESOURCE`): not every service manager can be told.
pub fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = WANTED_OPEN_FILES.min(most_open_files());
        let now = if hard < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
            wanted
        } else {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
            hard
        };
        info!(before = soft, now, "limit of open files");
        Ok(())
    });
    if let Err(errno) = raised {
        warn!(error = %errno, "limit of open files not raised");
    }
}

/// Returns the most that the kernel allows for any process; without `/proc` its default.
fn most_open_files() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
    text.trim().parse().unwrap_or(WANTED_OPEN_FILES)
}

/// Returns the limit of our stack, which containers inherit: what they may be executed with depends on it.
pub(crate) fn stack() -> u64 {
    getrlimit(Resource::RLIMIT_STACK).map_or(0, |(soft, _hard)| soft)
}
