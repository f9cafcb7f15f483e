//! Cgroups: which arrangement there is, and whether each controller that limits need is there and writable.

use contd_cgroup::{Controllers, Hierarchies, Kind};
use nix::unistd::{AccessFlags, access};

use crate::error::{LookError, read};
use crate::finding::Finding;
use crate::node::Node;

/// Checks them.
pub(crate) fn check(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let Some(hierarchies) = &node.cgroups else {
        return Ok(vec![
            Finding::problem("no cgroups are mounted")
                .at_text("/sys/fs/cgroup")
                .because("every container has limits")
                .remedy("mount cgroup v2 (or the v1 controllers) at /sys/fs/cgroup"),
        ]);
    };
    let needs = Controllers::usual();
    let mut findings: Vec<Finding> = hierarchies.lacking(needs)?.into_iter().map(lacking).collect();
    for point in hierarchies.points(needs) {
        if let Err(errno) = access(point, AccessFlags::W_OK) {
            findings.push(
                Finding::problem(format!("the cgroups cannot be written: {errno}"))
                    .at(point)
                    .because("every container has a cgroup of its own in each hierarchy")
                    .remedy("mount them read-write, and run contd as root"),
            );
        }
    }
    findings.extend(swap(hierarchies)?);
    if findings.is_empty() {
        let kind = match hierarchies.kind() {
            Kind::V1 => "v1",
            Kind::Hybrid => "v1 with v2 beside it",
            Kind::V2 => "v2",
        };
        // More than one parent: a unit of the service manager, and the top.
        let below = match node.parents.as_slice() {
            [at_unit, _, ..] => format!(", containers below {}", at_unit.display()),
            _ => String::new(),
        };
        findings.push(Finding::ok(format!("cgroups {kind}, with every controller that limits need{below}")));
    }
    Ok(findings)
}

fn lacking(controller: &str) -> Finding {
    Finding::problem(format!("no {controller} controller"))
        .at_text("/sys/fs/cgroup")
        .because("limits are always set, and this one cannot be")
        .remedy(format!("enable it in the kernel (CONFIG, cgroup_disable=), and mount {controller} or offer it on v2"))
}

/// On v1 a memory limit holds for memory and swap together only where swap is counted; v2 always counts it.
fn swap(hierarchies: &Hierarchies) -> Result<Option<Finding>, LookError> {
    let memory = hierarchies.points(Controllers::MEMORY);
    let v1 = memory.into_iter().find(|point| point.join("memory.limit_in_bytes").exists());
    let is_counted = v1.is_none_or(|point| point.join("memory.memsw.limit_in_bytes").exists());
    Ok((!is_counted && has_swap(&read("/proc/swaps".as_ref())?)).then(|| {
        Finding::warning("swap is not counted")
            .at_text("/proc/swaps")
            .because("a container may use more than its memory limit, in swap")
            .remedy("boot with swapaccount=1, or without swap")
    }))
}

fn has_swap(swaps: &str) -> bool {
    swaps.lines().count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_there_when_the_table_has_a_row() {
        assert!(!has_swap("Filename\tType\tSize\tUsed\tPriority\n"));
        assert!(has_swap("Filename\tType\n/dev/sda2 partition 1 0 -2\n"));
    }
}
