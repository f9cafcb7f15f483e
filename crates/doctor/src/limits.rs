//! Limits of the kernel and of the daemon's process, against how many containers one namespace may have.

use std::path::{Path, PathBuf};

use crate::error::{LookError, read};
use crate::finding::Finding;
use crate::node::{Daemon, Node};

/// Descriptors that the daemon holds per running container: its shim's connection, init's pidfd, two FIFOs.
const DESCRIPTORS_PER_CONTAINER: u64 = 4;
/// Descriptors that the daemon needs for itself.
const OWN_DESCRIPTORS: u64 = 128;
/// The kernel's own default; a container or two with a few hundred processes each reach less than this quickly.
const LEAST_PIDS: u64 = 32_768;
/// Programs in containers watch files; the kernel's least.
const LEAST_WATCHES: u64 = 8192;
/// Namespaces of which each container has one of each kind.
const NAMESPACES: [&str; 6] = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];
/// The kernel's default: a thousand pipes of the usual size.
const LEAST_PIPE_PAGES: u64 = 16_384;

/// Checks them.
pub(crate) fn check(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let containers = u64::try_from(node.config.limits.containers_per_namespace).unwrap_or(u64::MAX);
    let connections = u64::try_from(node.config.limits.connections).unwrap_or(u64::MAX);
    let process = match &node.daemon {
        Daemon::Answers { pid, .. } => pid.to_string(),
        Daemon::Silent { .. } | Daemon::Absent => "self".to_owned(),
    };
    let limits = PathBuf::from(format!("/proc/{process}/limits"));
    let mut findings = Vec::new();
    let wanted = containers.saturating_mul(DESCRIPTORS_PER_CONTAINER) + connections + OWN_DESCRIPTORS;
    findings.extend(descriptors(open_files(&read(&limits)?), wanted, &limits));
    for name in NAMESPACES {
        let path = PathBuf::from(format!("/proc/sys/user/max_{name}_namespaces"));
        findings.extend(namespaces(number(&path)?, containers, name, &path));
    }
    let notes = [
        ("/proc/sys/kernel/pid_max", LEAST_PIDS, "processes and threads", "no container can start a process"),
        ("/proc/sys/fs/inotify/max_user_watches", LEAST_WATCHES, "inotify watches", "programs cannot watch files"),
        (
            "/proc/sys/fs/pipe-user-pages-soft",
            LEAST_PIPE_PAGES,
            "pages in pipes",
            "without CAP_SYS_RESOURCE pipes for output shrink to a page",
        ),
    ];
    for (path, least, what, then) in notes {
        // 0 is no limit for the pipes.
        if let Some(value) = number(Path::new(path))?.filter(|value| *value < least && *value > 0) {
            findings.push(
                Finding::note(format!("only {value} {what} on the node"))
                    .at_text(path)
                    .because(format!("when they are used up, {then}"))
                    .remedy(format!("write {least} or more into {path}")),
            );
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("limits leave room for all containers that the configuration allows"));
    }
    Ok(findings)
}

/// Reads a number of the kernel's; `None` where it has none.
fn number(path: &Path) -> Result<Option<u64>, LookError> {
    if !path.exists() {
        return Ok(None);
    }
    Ok(read(path)?.trim().parse().ok())
}

/// The soft limit of open files, as `/proc/<pid>/limits` has it.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let value = line.split_ascii_whitespace().next()?;
    if value == "unlimited" { Some(u64::MAX) } else { value.parse().ok() }
}

fn descriptors(limit: Option<u64>, wanted: u64, place: &Path) -> Option<Finding> {
    let limit = limit.filter(|limit| *limit < wanted)?;
    let finding = if limit < OWN_DESCRIPTORS * 2 { Finding::problem } else { Finding::note };
    Some(
        finding(format!("only {limit} descriptors; {wanted} for all containers that one namespace may have"))
            .at(place)
            .because("beyond that, runs and connections fail")
            .remedy(format!("start contd daemon with ulimit -n {wanted} (LimitNOFILE= of systemd), or lower [limits]")),
    )
}

fn namespaces(limit: Option<u64>, containers: u64, name: &str, place: &Path) -> Option<Finding> {
    let limit = limit.filter(|limit| *limit < containers)?;
    let finding = if limit == 0 { Finding::problem } else { Finding::note };
    Some(
        finding(format!("only {limit} {name} namespaces for {containers} containers"))
            .at(place)
            .because("each container has one of its own")
            .remedy(format!("write {containers} or more into {}", place.display())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    #[test]
    fn the_soft_limit_of_open_files_is_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max open files            1024                 524288               files\n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(
            open_files("Max open files            unlimited            unlimited            files\n"),
            Some(u64::MAX)
        );
        assert_eq!(open_files(""), None);
    }

    #[test]
    fn few_descriptors_are_a_note_and_hardly_any_a_problem() {
        let of = |limit| descriptors(Some(limit), 4480, Path::new("/")).map(|finding| finding.severity);
        assert_eq!((of(4480), of(1024), of(64)), (None, Some(Severity::Note), Some(Severity::Problem)));
    }

    #[test]
    fn no_namespaces_at_all_are_a_problem() {
        let of = |limit| namespaces(limit, 10, "pid", Path::new("/")).map(|finding| finding.severity);
        assert_eq!(
            (of(Some(0)), of(Some(5)), of(Some(10)), of(None)),
            (Some(Severity::Problem), Some(Severity::Note), None, None)
        );
    }
}
