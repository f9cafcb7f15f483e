//! Checks of a node: whether it can run containers, and what was left behind; removes what is safe to remove.
//!
//! Takes in: the configuration of the daemon. Gives out: [`Finding`]s. Works on the daemon's directories directly, with or
//! without a running daemon; of one that runs it asks which containers there are. Looking changes nothing but for one
//! trial directory; never touched are containers with a record, and whatever lies outside our directories and cgroup parent.
//!
//! ```text
//!  config ─► node (daemon? records, mounts) ─► preflight checks ───────────────────────────► findings
//!                                           └► leak checks ─ pause ─ again, with new records ─┘   └► fix (--fix)
//! ```
//!
//! A leak stands still: it is one only if two looks have found it and three lists of records do not know it. What may be
//! in the making is recognised by its lease, or by its age where a daemon runs.
#![forbid(unsafe_code)]

mod capabilities;
mod cgroups;
mod clock;
mod daemon;
mod directories;
mod error;
mod filesystems;
mod finding;
mod fix;
mod groups;
mod kernel;
mod known;
mod limits;
mod logs;
mod members;
mod mismatch;
mod mounts;
mod node;
mod process;
mod processes;
mod programs;
mod records;
mod run_files;
mod servers;
mod shims;
mod space;
mod state_files;
mod temps;

use std::time::Duration;

use contd_types::{ApiError, ErrorKind};

use crate::error::LookError;
pub use crate::finding::{Finding, Severity};
pub use crate::fix::Fix;
use crate::node::{Daemon, Node};
use contd_node::{Config, NodeLock};

/// Between two looks for leaks: a removal that is under way is through, or has got on to another thing.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a warm slot may take to end when its daemon has gone.
const SLOT_ENDS_WITHIN: Duration = Duration::from_secs(30);

/// One check.
pub struct Check {
    /// Its name, one word.
    pub name: &'static str,
    /// The things that it looks at.
    pub tells: &'static str,
    kind: Kind,
    run: fn(&Node<'_>) -> Result<Vec<Finding>, LookError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Preflight,
    Leak,
}

const fn preflight(
    name: &'static str,
    tells: &'static str,
    run: fn(&Node<'_>) -> Result<Vec<Finding>, LookError>,
) -> Check {
    Check { name, tells, kind: Kind::Preflight, run }
}

const fn leak(name: &'static str, tells: &'static str, run: fn(&Node<'_>) -> Result<Vec<Finding>, LookError>) -> Check {
    Check { name, tells, kind: Kind::Leak, run }
}

/// All checks. Remedies are applied in this order: what uses another thing goes before it.
pub const CHECKS: [Check; 21] = [
    preflight("kernel", "its version, and the calls without which nothing works", kernel::check),
    preflight("capabilities", "what root may do here", capabilities::check),
    preflight("cgroups", "the controllers that limits need, and whether swap is counted", cgroups::check),
    preflight("filesystems", "/dev/fuse, and an overlay tried on the state directory", filesystems::check),
    preflight(
        "programs",
        "contd's own programs and the OCI runtimes: found, working, of this version",
        programs::check,
    ),
    preflight("limits", "descriptors, pids, namespaces, watches and pipes", limits::check),
    preflight("directories", "who owns and may write them; a tmpfs below the run directory", directories::check),
    preflight("space", "free space and inodes", space::check),
    preflight("clock", "whether the wall clock can be right", clock::check),
    preflight("daemon", "whether it answers, and its version", daemon::check),
    preflight("versions", "shims and flist servers that an earlier version has left", daemon::check_versions),
    leak("records", "records that cannot be read, or were set aside", records::check),
    leak("shims", "leases of shims without a record, and of warm slots nobody waits for", shims::check),
    leak("processes", "shims and flist servers whose lease is gone", processes::check),
    leak("mounts", "mounts below the state and run directories that nobody owns, namespaces included", mounts::check),
    leak("servers", "flist servers without users, and users without a record", servers::check),
    leak("groups", "cgroups below the parent without a record", groups::check),
    leak("run-files", "sockets, FIFOs and a runtime's state that belong to nothing", run_files::check),
    leak("state-files", "directories of containers without a record", state_files::check),
    leak("temp-files", "temp files whose writer is dead", temps::check),
    leak("logs", "logs of containers without a record; they are kept", logs::check),
];

/// The result of an examination.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order of the checks.
    pub findings: Vec<Finding>,
    /// The checks that failed.
    pub failures: Vec<ApiError>,
}

impl Report {
    fn run(&mut self, kind: Kind, node: &Node<'_>) {
        for check in CHECKS.iter().filter(|check| check.kind == kind) {
            match (check.run)(node) {
                Ok(findings) => {
                    let named = findings.into_iter().map(|found| Finding { check: check.name, ..found });
                    self.findings.extend(named);
                }
                Err(error) => self.failures.push(ApiError::from_error(&error)),
            }
        }
    }
}

/// Looks at everything.
///
/// # Errors
/// When hardly anything can be looked at: no `/proc`, no rights. What a single check could not do is in the report.
pub async fn examine(config: &Config) -> Result<Report, ApiError> {
    let look = async || Node::look(config).await.map_err(|error| ApiError::from_error(&error));
    let node = look().await?;
    let mut report = Report::default();
    report.run(Kind::Preflight, &node);
    if matches!(node.daemon, Daemon::Silent { .. }) {
        // A container in the making cannot be told from one that was left; the check of the daemon says so.
        return Ok(report);
    }
    match mismatch::find(&node) {
        Ok(None) => {}
        Ok(Some(finding)) => {
            report.findings.push(Finding { check: "directories", ..finding });
            return Ok(report);
        }
        Err(error) => return Err(ApiError::from_error(&error)),
    }
    let mut first = Report::default();
    first.run(Kind::Leak, &node);
    let mut second = Report::default();
    if first.findings.iter().any(|finding| finding.severity > Severity::Ok) {
        tokio::time::sleep(PAUSE).await;
        let node = look().await?;
        second.run(Kind::Leak, &node);
        let daemon = node::contact(config).await.map_err(|error| ApiError::from_error(&error))?;
        let known = node::known(&node.state, &daemon).map_err(|error| ApiError::from_error(&error))?;
        second.findings = confirmed(&first.findings, second.findings, |finding| {
            finding.container.as_ref().is_some_and(|id| known.is_listed(id))
        });
    } else {
        second = first;
    }
    report.findings.extend(second.findings);
    report.failures.extend(second.failures);
    Ok(report)
}

/// Keeps what both looks have found, and what is as it should be.
fn confirmed(first: &[Finding], second: Vec<Finding>, has_record: impl Fn(&Finding) -> bool) -> Vec<Finding> {
    let stands = |finding: &Finding| {
        let was_there = first.iter().any(|before| before.is_same_as(finding));
        finding.severity == Severity::Ok || (was_there && !has_record(finding))
    };
    second.into_iter().filter(stands).collect()
}

/// Makes sure that remedies can be applied at all.
///
/// # Errors
/// We are not root.
pub fn may_fix() -> Result<(), ApiError> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let error = ApiError::new(ErrorKind::PermissionDenied, "remove what was left behind: only root may do that");
    Err(error.with_hint("run contd doctor --fix as root; without --fix it only looks"))
}

/// The result of one remedy.
#[derive(Debug)]
pub struct Outcome {
    /// The finding that it was for.
    pub finding: Finding,
    /// Why it was not applied, if it was not.
    pub failure: Option<ApiError>,
}

/// Applies the remedies of what was found. Without a daemon, none can start meanwhile.
///
/// # Errors
/// Before anything was done: we are not root, or a daemon has come up since.
pub async fn fix(config: &Config, findings: Vec<Finding>) -> Result<Vec<Outcome>, ApiError> {
    may_fix()?;
    let node = Node::look(config).await.map_err(|error| ApiError::from_error(&error))?;
    let _no_daemon_starts = if !node.has_daemon() && node.run.is_dir() {
        let lock = NodeLock::keep_away(&node.run);
        let hint = "run contd doctor again: a daemon was started meanwhile";
        Some(lock.map_err(|error| ApiError::new(ErrorKind::Conflict, error.to_string()).with_hint(hint))?)
    } else {
        None
    };
    let mut outcomes = Vec::new();
    for finding in findings {
        let Some(fix) = &finding.fix else { continue };
        let failure = fix.apply(&node).await.err().map(|error| ApiError::from_error(&error));
        outcomes.push(Outcome { finding, failure });
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_a_name_of_its_own_and_leaks_come_last() {
        let mut names: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CHECKS.len());
        assert!(CHECKS.iter().map(|check| check.kind == Kind::Leak).is_sorted());
        assert!(CHECKS.iter().all(|check| !check.tells.is_empty()));
    }

    #[test]
    fn a_leak_is_what_two_looks_have_found_and_no_record_claims() {
        let of = |what: &str| Finding::warning(what);
        let first = [of("stays"), of("goes"), of("claimed")];
        let second = vec![of("stays"), of("comes"), of("claimed"), Finding::ok("7 things")];
        let kept = confirmed(&first, second, |finding| finding.what == "claimed");
        assert_eq!(kept.iter().map(|finding| finding.what.as_str()).collect::<Vec<_>>(), ["stays", "7 things"]);
    }
}
