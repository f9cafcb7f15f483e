//! The four directories: whose they are, who may write to them, and which of them are in memory.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::geteuid;

use crate::error::LookError;
use crate::finding::Finding;
use crate::node::Node;

const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;
/// Logs are for operators to read, and may lie in /var/log.
const LOGS_MODE: u32 = 0o755;

/// Checks them.
pub(crate) fn check(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let mut findings = Vec::new();
    // The modes that the daemon gives.
    let dirs = [
        ("state", &node.state, 0o700),
        ("run", &node.run, 0o711),
        ("cache", &node.cache, 0o700),
        ("log", &node.logs, LOGS_MODE),
    ];
    for (name, dir, mode) in dirs {
        findings.extend(judge(name, dir, mode)?);
    }
    if node.run.is_dir() && !is_in_memory(&node.run)? {
        findings.push(
            Finding::note("the run directory is not on a tmpfs")
                .at(&node.run)
                .because("sockets and leases outlive a reboot (their boot id tells), and starts write to a disk")
                .remedy("put run_dir on a tmpfs, such as /run"),
        );
    }
    let losses = [
        ("state", &node.state, "a reboot takes all records and layers, and layers fill the memory of the node"),
        ("cache", &node.cache, "flists and blocks fill the memory of the node, and are fetched again after a reboot"),
    ];
    for (name, dir, why) in losses {
        if dir.is_dir() && is_in_memory(dir)? {
            findings.push(
                Finding::note(format!("the {name} directory is in memory"))
                    .at(dir)
                    .because(why)
                    .remedy("set root to a directory on a disk, or give contd daemon --root DIR"),
            );
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("the directories are as the daemon makes them"));
    }
    Ok(findings)
}

fn is_in_memory(dir: &Path) -> Result<bool, LookError> {
    let kind = statfs(dir).map_err(|errno| LookError::path("look at", dir, errno.into()))?;
    Ok(kind.filesystem_type() == TMPFS_MAGIC)
}

fn judge(name: &str, dir: &Path, wanted: u32) -> Result<Option<Finding>, LookError> {
    let metadata = match dir.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Some(
                Finding::note(format!("the {name} directory is not there yet"))
                    .at(dir)
                    .because("nothing has run on this node, or the configuration is another one")
                    .remedy("contd daemon makes it; was another one meant, give the same flags as to contd daemon"),
            ));
        }
        Err(source) => return Err(LookError::path("look at", dir, source)),
    };
    if !metadata.is_dir() {
        return Ok(Some(
            Finding::problem(format!("the {name} directory is none"))
                .at(dir)
                .because("contd daemon does not start")
                .remedy("name a directory, or move what is there"),
        ));
    }
    let (mode, owner) = (metadata.mode(), metadata.uid());
    if owner != geteuid().as_raw() && owner != 0 {
        return Ok(Some(
            Finding::problem(format!("the {name} directory belongs to user {owner}"))
                .at(dir)
                .because("its owner can put anything in the place of what contd trusts")
                .remedy(format!("chown root {}", dir.display())),
        ));
    }
    // In a sticky directory nobody can replace what is another's.
    let is_open = mode & WRITABLE_BY_OTHERS != 0 && mode & STICKY == 0;
    if is_open {
        return Ok(Some(
            Finding::problem(format!("the {name} directory can be written by others: mode {:o}", mode & 0o7777))
                .at(dir)
                .because("who can write there can take over what contd runs as root")
                .remedy(format!("chmod {wanted:o} {}", dir.display())),
        ));
    }
    // Group rights on logs are an operator's choice.
    let extra = mode & 0o777 & !wanted;
    Ok((extra != 0 && wanted != LOGS_MODE).then(|| {
        Finding::note(format!("the {name} directory is open wider than needed: mode {:o}", mode & 0o7777))
            .at(dir)
            .because("records and caches may hold secrets of namespaces; what lies below is closed by itself")
            .remedy(format!("chmod {wanted:o} {}", dir.display()))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_that_others_can_write_is_a_problem_and_a_wide_one_a_note() {
        let dir = tempfile::tempdir().expect("a directory");
        let of = |mode| {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).expect("set");
            judge("state", dir.path(), 0o700).expect("looked").map(|finding| finding.severity)
        };
        assert_eq!(of(0o700), None);
        assert_eq!(of(0o755), Some(Severity::Note));
        assert_eq!(of(0o777), Some(Severity::Problem));
        assert_eq!(of(0o1777), Some(Severity::Note));
    }

    #[test]
    fn what_is_not_there_is_a_note_and_what_is_no_directory_a_problem() {
        let dir = tempfile::tempdir().expect("a directory");
        let of = |path: &Path| judge("state", path, 0o700).expect("looked").map(|finding| finding.severity);
        assert_eq!(of(&dir.path().join("none")), Some(Severity::Note));
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("written");
        assert_eq!(of(&file), Some(Severity::Problem));
    }
}
