//! Sockets, FIFOs and other things in the run directory that belong to nothing.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use contd_types::ContainerId;

use crate::error::{LookError, entries};
use crate::finding::Finding;
use crate::fix::{Fix, is_listening};
use crate::members;
use crate::node::Node;
use crate::temps;
use contd_node::{RUNTIME_STATE_DIR, UNIT_FILE};

/// The entries that the daemon keeps there, and the file of the unit of containers.
const KEPT: [&str; 8] =
    ["contd.lock", "next.lock", "takeover.sock", "s", "f", contd_protocol::holder::DIR, RUNTIME_STATE_DIR, UNIT_FILE];

/// Looks for them.
pub(crate) fn check(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let mut findings = Vec::new();
    let socket = node.config.socket();
    if !socket.starts_with(&node.config.run_dir) {
        findings.extend(stray(&socket));
    }
    for path in entries(&node.run)? {
        let is_kept = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| KEPT.contains(&name));
        if !is_kept {
            findings.extend(stray(&path));
        }
    }
    // The files of a lease directory go with the lease; other entries beside them are not ours.
    for dir in ["s", "f"].map(|name| node.run.join(name)) {
        let beside = entries(&dir)?.into_iter().filter(|path| !path.is_dir());
        findings.extend(beside.filter_map(|path| stray(&path)));
    }
    for path in entries(&node.run.join(RUNTIME_STATE_DIR))? {
        findings.extend(runtime_state(node, &path));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("nothing in the run directory is without an owner"));
    }
    Ok(findings)
}

/// Judges what is at no place of ours. `None` for a socket with a listener, and for what another check tells.
fn stray(path: &Path) -> Option<Finding> {
    // Gone meanwhile: there is nothing to tell.
    let kind = path.symlink_metadata().ok()?.file_type();
    let fix = Fix::RemoveFile { path: path.to_owned() };
    if kind.is_socket() {
        let finding = Finding::warning("a socket at which nobody listens").at(path);
        return (!is_listening(path))
            .then(|| finding.because("its process was killed; callers try in vain").fixed_by(fix));
    }
    if kind.is_fifo() {
        return Some(Finding::warning("a FIFO outside of any lease").at(path).because("nobody reads it").fixed_by(fix));
    }
    if temps::writer(path).is_some() {
        return None;
    }
    let finding = Finding::note("something that contd has not put there").at(path);
    Some(finding.because("the run directory is contd's own").remedy("remove it if nobody needs it"))
}

/// Judges the state that an OCI runtime keeps of a container.
fn runtime_state(node: &Node<'_>, path: &Path) -> Option<Finding> {
    let id = ContainerId::new(path.file_name()?.to_str()?).ok()?;
    if node.known.has(&id) || node.lease_dir(&id).exists() || !node.is_settled(path) {
        return None;
    }
    let finding = Finding::warning("what an OCI runtime knows of a container without a record").at(path).of(&id);
    let finding = finding.because("it is never removed while the node is up");
    if node.cgroups_of(id.as_str()).iter().all(|cgroup| members::of(cgroup).is_empty()) {
        return Some(finding.fixed_by(Fix::RemoveDirectory { path: path.to_owned() }));
    }
    let root = path.parent().unwrap_or(path).display();
    Some(finding.remedy(format!("its processes live: end them by `RUNTIME --root {root} delete --force {id}`")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    #[test]
    fn a_socket_is_stray_only_when_nobody_listens() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        assert_eq!(stray(&path), None);
        drop(listener);
        let finding = stray(&path).expect("found");
        assert_eq!(finding.fix, Some(Fix::RemoveFile { path }));
    }

    #[test]
    fn a_file_of_a_persons_is_told_and_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notes");
        std::fs::write(&path, "mine").expect("written");
        let finding = stray(&path).expect("found");
        assert_eq!((finding.severity, finding.fix), (Severity::Note, None));
        assert_eq!(stray(&dir.path().join("none")), None);
    }
}
