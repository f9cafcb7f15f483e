//! Shims and flist servers that live on though their lease is gone: nobody can reach them any more.

use std::collections::BTreeMap;
use std::path::Path;

use contd_lease::ProcessIdentity;

use crate::error::LookError;
use crate::finding::Finding;
use crate::fix::Fix;
use crate::node::Node;
use crate::process::{Helper, helpers};

/// Looks for them.
pub(crate) fn check(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let ours: Vec<Helper> = helpers()?.into_iter().filter(|helper| helper.dir.starts_with(&node.run)).collect();
    let mut lost: BTreeMap<(&str, &Path), Vec<ProcessIdentity>> = BTreeMap::new();
    // One that is just ending has removed its directory: the second look does not find it any more.
    for Helper { identity, program, dir } in ours.iter().filter(|helper| !helper.dir.exists()) {
        lost.entry((program, dir)).or_default().push(*identity);
    }
    if lost.is_empty() {
        return Ok(vec![Finding::ok(format!("{} processes of ours, each with its lease", ours.len()))]);
    }
    Ok(lost.into_iter().map(|((program, dir), identities)| judge(node, program, dir, identities)).collect())
}

fn judge(node: &Node<'_>, program: &str, dir: &Path, identities: Vec<ProcessIdentity>) -> Finding {
    let pids: Vec<i32> = identities.iter().map(|identity| identity.pid).collect();
    let finding = Finding::warning(format!("{program} without its lease directory"))
        .at_text(format!("{}, pids {pids:?}", dir.display()))
        .because("its directory was removed under it: nobody can reach it, and it does not end");
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if program == "contd-shim" && !node.known.has_beginning(name) {
        return finding.fixed_by(Fix::EndProcesses { identities });
    }
    // A container with a record may live under it, and a flist server may have containers above it.
    finding.remedy("stop the containers that need it, then end it by hand")
}
