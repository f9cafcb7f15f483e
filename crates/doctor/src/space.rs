//! Free space and inodes where records, logs, blocks and sockets go.

use std::path::Path;

use nix::sys::statvfs::statvfs;

use crate::error::LookError;
use crate::finding::Finding;
use crate::node::Node;

const MIB: u64 = 1024 * 1024;

/// The space that a directory should have left: below the first it is a warning, below the second a problem.
struct Bounds {
    bytes: [u64; 2],
    inodes: [u64; 2],
}

/// A log rotates at some MiB per container, a block is up to one.
const ON_DISK: Bounds = Bounds { bytes: [512 * MIB, 32 * MIB], inodes: [10_000, 500] };
/// A lease directory takes a few pages.
const RUN: Bounds = Bounds { bytes: [16 * MIB, MIB], inodes: [2_000, 100] };

/// Checks them.
pub(crate) fn check(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let mut findings = Vec::new();
    let dirs = [
        (&node.state, &ON_DISK, "records and layers cannot be written: no container starts"),
        (&node.logs, &ON_DISK, "containers wait when their output cannot be written"),
        (&node.cache, &ON_DISK, "flists and blocks cannot be cached, or not fetched at all"),
        (&node.run, &RUN, "no shim can be started"),
    ];
    for (dir, bounds, why) in dirs {
        // A directory that does not exist yet is made on the file system of its parent.
        let Some(there) = dir.ancestors().find(|dir| dir.is_dir()) else { continue };
        let stat = statvfs(there).map_err(|errno| LookError::path("look at the space of", there, errno.into()))?;
        let bytes = stat.blocks_available().saturating_mul(stat.fragment_size());
        // Some file systems have as many inodes as there is space.
        let inodes = (stat.files() > 0).then(|| stat.files_available());
        findings.extend(judge(bytes, inodes, bounds, there, why));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("there is space, and there are inodes"));
    }
    Ok(findings)
}

fn judge(bytes: u64, inodes: Option<u64>, bounds: &Bounds, dir: &Path, why: &str) -> Vec<Finding> {
    let level = |value: u64, [few, hardly]: [u64; 2]| match value {
        value if value < hardly => Some(Finding::problem as fn(String) -> Finding),
        value if value < few => Some(Finding::warning as fn(String) -> Finding),
        _ => None,
    };
    let space = level(bytes, bounds.bytes).map(|finding| finding(format!("only {} MiB are free", bytes / MIB)));
    let files = inodes.and_then(|inodes| {
        level(inodes, bounds.inodes).map(|finding| finding(format!("only {inodes} inodes are free")))
    });
    let finish = |finding: Finding| finding.at(dir).because(why).remedy("remove what is not needed, or enlarge it");
    space.into_iter().chain(files).map(finish).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    #[test]
    fn little_is_a_warning_and_hardly_any_a_problem() {
        let of = |bytes, inodes| {
            let found = judge(bytes, inodes, &ON_DISK, Path::new("/"), "");
            found.iter().map(|finding| finding.severity).collect::<Vec<_>>()
        };
        assert_eq!(of(1024 * MIB, Some(1_000_000)), []);
        assert_eq!(of(100 * MIB, None), [Severity::Warning]);
        assert_eq!(of(MIB, Some(10)), [Severity::Problem, Severity::Problem]);
    }
}
