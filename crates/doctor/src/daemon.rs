//! The daemon: whether it answers, and of which version it, its shims and its flist servers are.

use contd_lease::{LeaseDir, LeaseState};

use crate::error::{LookError, entries};
use crate::finding::Finding;
use crate::node::{Daemon, Node};

const OUR_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Checks the daemon itself.
pub(crate) fn check(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let socket = node.config.socket();
    Ok(vec![match &node.daemon {
        Daemon::Answers { version, pid, .. } if version == OUR_VERSION => {
            Finding::ok(format!("contd {version} answers, pid {pid}")).at(&socket)
        }
        Daemon::Answers { version, .. } => {
            Finding::warning(format!("the daemon is contd {version}, this command {OUR_VERSION}"))
                .at(&socket)
                .because("what one of them knows may be news to the other")
                .remedy("restart the daemon: its containers keep running")
        }
        Daemon::Silent { why, hint } => Finding::problem(format!("the daemon does not answer: {why}"))
            .at(&socket)
            .because("nothing can be started or stopped, and what is left behind cannot be told from what is needed")
            .remedy(hint.clone()),
        Daemon::Absent => Finding::note("no daemon runs")
            .at(&socket)
            .because("containers run on, but none is started, stopped or restarted")
            .remedy("start contd daemon, unless it is stopped on purpose"),
    }])
}

/// Checks shims and flist servers: they outlive the upgrade of the daemon.
pub(crate) fn check_versions(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let mut findings = Vec::new();
    for (sub, what) in [("s", "shim"), ("f", "flist server")] {
        for dir in entries(&node.run.join(sub))? {
            // A lease that cannot be read is reported by the checks of leases.
            let Ok(LeaseState::Held(lease)) = LeaseDir::new(&dir).probe() else { continue };
            if !is_ours(&lease.binary_version) {
                findings.push(
                    Finding::note(format!("a {what} is of another version: {}", lease.binary_version))
                        .at(&dir)
                        .because("it works on as it did; what was mended since is not in it")
                        .remedy("stop and start its containers when it suits them"),
                );
            }
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(format!("all shims and flist servers are of version {OUR_VERSION}")));
    }
    Ok(findings)
}

/// A program writes its bare version, or its name before it.
fn is_ours(version: &str) -> bool {
    version.rsplit('/').next() == Some(OUR_VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_ours_with_and_without_a_name() {
        assert!(is_ours(OUR_VERSION) && is_ours(&format!("contd-shim/{OUR_VERSION}")));
        assert!(!is_ours("contd-shim/0.0.1") && !is_ours(""));
    }
}
