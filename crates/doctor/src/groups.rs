//! Cgroups below the parents of all containers that belong to no record and no lease.

use std::collections::BTreeSet;
use std::path::PathBuf;

use contd_types::ContainerId;

use crate::error::LookError;
use crate::finding::Finding;
use crate::fix::Fix;
use crate::members;
use crate::node::{Node, lease_name};
use crate::process::helpers;

/// Looks for them.
pub(crate) fn check(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let Some(hierarchies) = &node.cgroups else { return Ok(Vec::new()) };
    let mut cgroups = Vec::new();
    for parent in &node.parents {
        let names = hierarchies.names_below(parent)?;
        cgroups.extend(names.into_iter().map(|name| (parent.join(&name), name)));
    }
    let count = cgroups.len();
    // Another contd may have the same parent: what its shims are in is theirs.
    let elsewhere: BTreeSet<String> = helpers()?
        .into_iter()
        .filter(|helper| !helper.dir.starts_with(&node.run))
        .filter_map(|helper| Some(helper.dir.file_name()?.to_str()?.to_owned()))
        .collect();
    let findings: Vec<Finding> =
        cgroups.into_iter().filter_map(|(path, name)| judge(node, path, &name, &elsewhere)).collect();
    if findings.is_empty() {
        return Ok(vec![Finding::ok(format!("{count} cgroups, each of a container or a warm slot"))]);
    }
    Ok(findings)
}

fn judge(node: &Node<'_>, path: PathBuf, name: &str, elsewhere: &BTreeSet<String>) -> Option<Finding> {
    let id = ContainerId::new(name).ok();
    if let Some(id) = &id {
        // A lease without a record is told by the check of shims, whose remedy takes the cgroup along.
        if node.known.has(id) || node.lease_dir(id).exists() || elsewhere.contains(lease_name(id)) {
            return None;
        }
    }
    let pids = members::of(&path);
    let place = match pids.as_slice() {
        [] => path.display().to_string(),
        pids => format!("{}, pids {pids:?}", path.display()),
    };
    let finding = Finding::warning("a cgroup without a record").at_text(place);
    let finding = finding.because("what runs in it is ended by nobody, and an empty one takes memory of the kernel");
    if pids.iter().all(|pid| id.is_some() && members::is_of(*pid, node)) {
        let finding = id.iter().fold(finding, Finding::of);
        return Some(finding.fixed_by(Fix::RemoveCgroup { path }));
    }
    Some(finding.remedy("its processes are not certainly of this node: end them by hand, then look again"))
}
