//! Entries of the state directory without a record: directories of containers, and scratch files of a doctor that was killed.

use std::path::{Path, PathBuf};

use contd_lease::ProcessIdentity;
use contd_rootfs::REMOVED_DIR;

use crate::error::{LookError, entries};
use crate::filesystems::TRIAL;
use crate::finding::Finding;
use crate::fix::Fix;
use crate::known::container_dirs;
use crate::node::Node;
use contd_node::EVENTS_DIR;

/// Tells whether only mount points are left in a container's directory.
fn is_covered(dir: &Path) -> bool {
    let left: Vec<_> = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    let is_mount_point = |path: &PathBuf| path.ends_with("rootfs") || path.ends_with("layer");
    let is_empty = |path: &PathBuf| std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    !left.is_empty() && left.iter().all(|path| is_mount_point(path) && is_empty(path))
}

/// Looks for it.
pub(crate) fn check(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let mut findings = Vec::new();
    for (namespace, id, dir) in container_dirs(&node.state)? {
        // A container's directory is made before its record is whole, and a dry run has one for a moment.
        if node.known.has(&id) || !dir.is_dir() || !node.is_settled(&dir) {
            continue;
        }
        if is_covered(&dir) {
            findings.push(
                Finding::note(format!("an empty directory of a removed container: {} of {namespace}", id.short()))
                    .at(&dir)
                    .because("a copy of a mount, made by a recursive bind of a directory above, covers it")
                    .remedy("unmount the copy: the daemon then removes it by itself"),
            );
            continue;
        }
        findings.push(
            Finding::warning(format!("the directory of a container without a record: {} of {namespace}", id.short()))
                .at(&dir)
                .of(&id)
                .because("it is what an interrupted removal leaves, or its record was removed by hand")
                .fixed_by(Fix::RemoveContainer { namespace, id }),
        );
    }
    let removed = node.state.join(REMOVED_DIR);
    let waiting = entries(&removed)?.len();
    if waiting > 0 {
        findings.push(
            Finding::note(format!("{waiting} writable layers of removed containers"))
                .at(&removed)
                .because("the daemon removes them in the background, and goes on with it when it starts")
                .remedy("nothing"),
        );
    }
    for path in entries(&node.state)? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let pid = name.strip_prefix(TRIAL).and_then(|pid| pid.parse::<i32>().ok());
        if let Some(pid) = pid {
            // A doctor that still tries has it; one with the same pid as a dead one is looked at another time.
            if ProcessIdentity::of(pid)?.is_none() {
                findings.push(
                    Finding::warning("scratch of a contd doctor that was killed")
                        .at(&path)
                        .because("nobody else removes it")
                        .fixed_by(Fix::RemoveDirectory { path: path.clone() }),
                );
            }
        } else if name != EVENTS_DIR && !path.is_dir() && super::temps::writer(&path).is_none() {
            findings.push(
                Finding::note("something that contd has not put there")
                    .at(&path)
                    .because("the state directory is contd's own")
                    .remedy("remove it if nobody needs it"),
            );
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("nothing in the state directory is without a record"));
    }
    Ok(findings)
}
