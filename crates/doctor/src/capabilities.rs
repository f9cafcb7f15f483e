//! Checks the capabilities of the daemon: root does not have all of them everywhere.

use std::path::PathBuf;

use crate::error::{LookError, read};
use crate::finding::Finding;
use crate::node::{Daemon, Node};

/// Numbers of linux/capability.h; without these no container can be made.
const NEEDED: [(u32, &str); 9] = [
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (5, "CAP_KILL"),
    (6, "CAP_SETGID"),
    (7, "CAP_SETUID"),
    (8, "CAP_SETPCAP"),
    (18, "CAP_SYS_CHROOT"),
    (21, "CAP_SYS_ADMIN"),
    (27, "CAP_MKNOD"),
];
const SYS_RESOURCE: u32 = 24;

/// Checks the running daemon, or ourselves where there is none.
pub(crate) fn check(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let process = match &node.daemon {
        Daemon::Answers { pid, .. } => pid.to_string(),
        Daemon::Silent { .. } | Daemon::Absent => "self".to_owned(),
    };
    let path = PathBuf::from(format!("/proc/{process}/status"));
    Ok(judge(effective(&read(&path)?), &path.display().to_string()))
}

fn effective(status: &str) -> u64 {
    let digits = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default().trim();
    u64::from_str_radix(digits, 16).unwrap_or(0)
}

fn judge(set: u64, place: &str) -> Vec<Finding> {
    let has = |number: u32| set & (1 << number) != 0;
    let missing: Vec<&str> = NEEDED.into_iter().filter(|(number, _)| !has(*number)).map(|(_, name)| name).collect();
    if !missing.is_empty() {
        return vec![
            Finding::problem(format!("capabilities are missing: {}", missing.join(", ")))
                .at_text(place)
                .because("the daemon mounts, makes namespaces and gives files to users: containers cannot be made")
                .remedy("run contd daemon as root with all capabilities"),
        ];
    }
    if !has(SYS_RESOURCE) {
        return vec![
            Finding::note("root lacks CAP_SYS_RESOURCE")
                .at_text(place)
                .because(
                    "limits of this process bind containers too: no higher RLIMIT_NOFILE, smaller pipes for output",
                )
                .remedy("run contd daemon with CAP_SYS_RESOURCE where containers ask for more"),
        ];
    }
    vec![Finding::ok("all capabilities that are needed")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    #[test]
    fn missing_capabilities_are_named_and_a_missing_sys_resource_is_a_note() {
        let of = |status: &str| judge(effective(status), "").remove(0);
        assert_eq!(of("CapEff:\t000001ffffffffff\n").severity, Severity::Ok);
        assert_eq!(of("Name:\tx\nCapEff:\t000001fffeffffff\n").severity, Severity::Note);
        let none = of("CapEff:\t0000000000000000\n");
        assert!(none.severity == Severity::Problem && none.what.contains("CAP_SYS_ADMIN"), "got {none:?}");
    }
}
