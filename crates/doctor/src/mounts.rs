//! Mounts below the state and run directories that no container and no flist server owns.
//!
//! Network namespaces would be among them: contd makes none by name, so all that it could leave is a mount of its own
//! directories; those in `netns_dir` are the network daemon's.

use std::collections::BTreeMap;
use std::path::Path;

use contd_rootfs::{Mount, MountTable};
use contd_types::{ContainerId, NamespaceId};

use crate::error::LookError;
use crate::finding::Finding;
use crate::fix::Fix;
use crate::node::Node;

/// The sources that our mounts have in the mount table.
const OUR_SOURCES: [&str; 2] = ["contd", "contd-flistfs"];

/// Looks for them.
pub(crate) fn check(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let mut roots: BTreeMap<ContainerId, (NamespaceId, Vec<&Mount>)> = BTreeMap::new();
    let (mut findings, mut strays) = (Vec::new(), Vec::new());
    let mut count = 0_usize;
    for mount in node.mounts.below(&node.state) {
        count += 1;
        match container_at(&node.state, &mount.point) {
            Some((_, id)) if node.known.has(&id) => {}
            Some((namespace, id)) => roots.entry(id).or_insert_with(|| (namespace, Vec::new())).1.push(mount),
            None => strays.push(mount),
        }
    }
    for (id, (namespace, mounts)) in roots {
        let dir = node.state.join(namespace.as_str()).join(id.as_str());
        // A dry run has a root for a moment.
        if node.is_settled(&dir) {
            let points: Vec<String> = mounts.iter().map(|mount| mount.point.display().to_string()).collect();
            findings.push(
                Finding::warning(format!("the root of a container without a record: {} of {namespace}", id.short()))
                    .at_text(points.join(" "))
                    .of(&id)
                    .because("it holds memory and a flist server, and nobody will unmount it")
                    .fixed_by(Fix::ReleaseRoot { namespace, id }),
            );
        }
    }
    for mount in node.mounts.below(&node.run).filter(|mount| !mount.point.starts_with(&node.state)) {
        count += 1;
        // That of a server's directory is its business, which the check of servers looks after.
        if !is_server(&node.run, &mount.point) {
            strays.push(mount);
        }
    }
    if !strays.is_empty() {
        findings.extend(still_mounted(&strays, &MountTable::read()?).map(stray));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(format!("{count} mounts of ours, each with its owner")));
    }
    Ok(findings)
}

/// Keeps the mounts that are still there. A mount is made after its owner's directory and goes before it, so one that was
/// there before and after its owner was looked for has none. A busy daemon makes and removes servers all the time.
fn still_mounted<'a>(strays: &'a [&'a Mount], now: &'a MountTable) -> impl Iterator<Item = &'a Mount> {
    let is_there = |mount: &&Mount| now.all().any(|other| other.id == mount.id && other.device == mount.device);
    strays.iter().copied().filter(is_there)
}

/// Judges a mount that is at none of the places where contd mounts.
fn stray(mount: &Mount) -> Finding {
    let finding = Finding::warning(format!("a mount of kind {} that nobody owns", mount.fs_type)).at(&mount.point);
    let finding = finding.because("it keeps its directory from being removed, and hides what is below");
    if OUR_SOURCES.contains(&mount.source.as_str()) {
        return finding.fixed_by(Fix::Unmount { point: mount.point.clone() });
    }
    finding.remedy(format!("contd has not mounted it (its source is {}): unmount it if nobody needs it", mount.source))
}

/// Tells whose root, layer or attached source is mounted there, by the path `<state>/<ns>/<id>/{rootfs,layer,binds/<n>}`, or
/// below it.
fn container_at(state: &Path, point: &Path) -> Option<(NamespaceId, ContainerId)> {
    let mut parts = point.strip_prefix(state).ok()?.iter().map(|part| part.to_str());
    let namespace = NamespaceId::new(parts.next()??).ok()?;
    let id = ContainerId::new(parts.next()??).ok()?;
    let is_ours = matches!(parts.next(), Some(Some("rootfs" | "layer" | "binds")));
    is_ours.then_some((namespace, id))
}

fn is_server(run: &Path, point: &Path) -> bool {
    let Some(dir) = point.parent() else { return false };
    dir.parent() == Some(&run.join("f")) && point.ends_with("mnt") && dir.is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_that_has_gone_or_been_replaced_since_is_no_stray() {
        let now = MountTable::read().expect("a mount table");
        let there = now.all().next().expect("a mount").clone();
        let replaced = Mount { id: u64::MAX, ..there.clone() };
        let other_device = Mount { device: "0:99999999".to_owned(), ..there.clone() };
        let before = [&there, &replaced, &other_device];
        let still: Vec<&Mount> = still_mounted(&before, &now).collect();
        assert_eq!(still, [&there]);
    }

    #[test]
    fn a_root_is_known_by_its_place_only() {
        let id = "a".repeat(32);
        let of = |path: &str| container_at(Path::new("/s"), Path::new(path)).map(|(_, id)| id.as_str().to_owned());
        assert_eq!(of(&format!("/s/default/{id}/rootfs")), Some(id.clone()));
        assert_eq!(of(&format!("/s/default/{id}/layer")), Some(id.clone()));
        assert_eq!(of(&format!("/s/default/{id}/binds/0/sub")), Some(id.clone()));
        for other in ["/s/default", "/s/stray", "/s/default/short/rootfs"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(of(&format!("/s/default/{id}/bundle")), None);
    }
}
