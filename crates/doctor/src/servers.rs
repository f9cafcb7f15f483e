//! Flist servers that nobody uses, and users that are no containers any more.

use contd_lease::{Lease, LeaseState};
use contd_rootfs::survey::{FoundServer, servers};
use contd_types::{ContainerId, NamespaceId, one_line};

use crate::error::LookError;
use crate::finding::Finding;
use crate::fix::Fix;
use crate::node::Node;

/// Looks for them.
pub(crate) fn check(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    if !node.run.is_dir() {
        return Ok(Vec::new());
    }
    let found = servers(&node.run)?;
    let findings: Vec<Finding> = found.iter().flat_map(|server| judge(node, server)).collect();
    if findings.is_empty() {
        return Ok(vec![Finding::ok(format!("{} flist servers, each with containers", found.len()))]);
    }
    Ok(findings)
}

fn judge(node: &Node<'_>, server: &FoundServer) -> Vec<Finding> {
    let place = match &server.state {
        Ok(LeaseState::Held(Lease { process: Some(process), .. })) => {
            format!("{}, pid {}", server.dir.display(), process.pid)
        }
        _ => server.dir.display().to_string(),
    };
    let mut findings: Vec<Finding> = strangers(node, server)
        .map(|(namespace, id)| {
            Finding::warning(format!("a user of a flist server without a record: {} of {namespace}", id.short()))
                .at_text(&place)
                .of(id)
                .because("the server lives on for nobody")
                .fixed_by(Fix::ReleaseRoot { namespace: namespace.clone(), id: id.clone() })
        })
        .collect();
    let has_users = !server.users.is_empty();
    match &server.state {
        Err(error) => findings.push(
            Finding::problem(format!(
                "a flist server's lease that cannot be understood: {}",
                one_line(error)
            ))
            .at(&server.dir)
            .because("whether the server lives cannot be known")
            .remedy("run the version of contd that wrote it, or stop its containers and remove the directory"),
        ),
        Ok(_) if server.is_ending => findings.push(
            Finding::note("what is left of a flist server that has ended")
                .at_text(place)
                .because("a copy of its mount, made by a recursive bind, covers the mount point; or a process of it is stuck in the kernel")
                .remedy("nothing: the daemon removes it as soon as that is possible, and no container waits for it"),
        ),
        // It is just being started.
        Ok(LeaseState::Reserved) if !node.is_settled(&server.dir.join("lease.json")) => {}
        Ok(_) if !has_users && node.is_settled(&server.dir) => findings.push(
            Finding::warning("a flist server without users")
                .at_text(place)
                .because("it holds memory and a mount for nobody")
                .fixed_by(Fix::EndServer { key: server.key.clone() }),
        ),
        Ok(LeaseState::Dead(_)) if findings.len() < server.users.len() => findings.push(
            Finding::problem("a flist server that died under its containers")
                .at_text(place)
                .because("they get errors from whatever is not in the page cache")
                .remedy("stop and start the containers of this flist"),
        ),
        Ok(LeaseState::Held(_)) if has_users && !server.is_mounted && node.is_settled(&server.dir) => findings.push(
            Finding::problem("a flist server lives, and its flist is not mounted")
                .at_text(place)
                .because("no container can be started from this flist")
                .remedy("see who uses the former mount: grep fuse.contd /proc/*/mountinfo; then stop its containers"),
        ),
        Ok(_) => {}
    }
    findings
}

fn strangers<'a>(node: &'a Node<'_>, server: &'a FoundServer) -> impl Iterator<Item = &'a (NamespaceId, ContainerId)> {
    let file =
        |(namespace, id): &(NamespaceId, ContainerId)| server.dir.join("users").join(format!("{namespace}@{id}"));
    server.users.iter().filter(move |user| !node.known.has(&user.1) && node.is_settled(&file(user)))
}
