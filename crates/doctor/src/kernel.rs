//! The kernel: its version, and the calls without which nothing works. What can be tried is tried, the rest goes by version.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use contd_lease::{ExitInfo, ProcessIdentity, exit_info, pidfd, wait_dead};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::utsname::uname;

use crate::error::LookError;
use crate::finding::Finding;
use crate::node::Node;

/// Features that are needed and cannot be tried without using them, with the version that brought each.
const NEEDED: [(&str, (u32, u32)); 3] =
    [("the mount API", (5, 2)), ("clone3 into a cgroup", (5, 7)), ("mount_setattr", (5, 12))];
/// FUSE passthrough: cached files are read without our server.
const PASSTHROUGH: (u32, u32) = (6, 9);
/// How long a program that only says its version may take.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Checks it.
pub(crate) fn check(_node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let name = uname().map_err(|errno| LookError::Kernel { what: "its version", source: errno.into() })?;
    let release = name.release().to_string_lossy().into_owned();
    let mut findings = by_version(&release);
    if let Err(errno) = openat2(
        nix::fcntl::AT_FDCWD,
        Path::new("/"),
        OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT),
    ) {
        findings.push(lacks("openat2", &errno.to_string()));
    }
    findings.extend(match exit_behind_a_pidfd() {
        Ok(ExitInfo::Known(_)) => None,
        Ok(ExitInfo::Unsupported | ExitInfo::NotYet) => Some(
            Finding::note("only a parent is told how a process has ended: no PIDFD_GET_INFO")
                .at_text(&release)
                .because(
                    "a container whose shim died, and the holder of shims too, before it ended has the exit `unknown`",
                )
                .remedy("run Linux 6.15 or newer"),
        ),
        Err(error) => Some(lacks("pidfd", &error.to_string())),
    });
    if findings.is_empty() {
        findings.push(Finding::ok(format!("Linux {release} has all that is needed")));
    }
    Ok(findings)
}

fn lacks(what: &str, why: &str) -> Finding {
    Finding::problem(format!("no {what}: {why}"))
        .because("contd cannot run containers without it")
        .remedy("run Linux 5.12 or newer, and let no seccomp filter around contd forbid the call")
}

fn by_version(release: &str) -> Vec<Finding> {
    let Some(version) = version(release) else {
        return vec![
            Finding::note("the version of the kernel cannot be understood")
                .at_text(release)
                .because("whether it has what contd needs is not known")
                .remedy("compare it with 5.12"),
        ];
    };
    let missing = NEEDED.into_iter().filter(|(_, since)| version < *since);
    let mut findings: Vec<Finding> =
        missing.map(|(what, (major, minor))| lacks(what, &format!("it came with Linux {major}.{minor}"))).collect();
    if version < PASSTHROUGH {
        findings.push(
            Finding::note("no FUSE passthrough")
                .at_text(release)
                .because("files of flists are read through contd-flistfs also when they are cached")
                .remedy("run Linux 6.9 or newer for faster reads"),
        );
    }
    findings
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Lets a process end and asks how it did, as a successor of a shim would.
fn exit_behind_a_pidfd() -> io::Result<ExitInfo> {
    let own = std::env::current_exe()?;
    let mut command = Command::new(own);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let look = || -> Result<Option<std::os::fd::OwnedFd>, contd_lease::ProcessError> {
        let pid = i32::try_from(child.id()).unwrap_or(-1);
        // Our child, not reaped: its pid is its own.
        let fd = ProcessIdentity::of(pid)?.as_ref().map(pidfd).transpose()?.flatten();
        if let Some(fd) = &fd {
            wait_dead(fd, ENDS_WITHIN)?;
        }
        Ok(fd)
    };
    let fd = look().map_err(io::Error::other);
    // It has ended, or takes far too long.
    let _gone = child.kill();
    child.wait()?;
    let fd = fd?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    exit_info(&fd).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    #[test]
    fn versions_are_read_from_what_kernels_call_themselves() {
        for (release, expected) in
            [("6.18.44-fc-v669", Some((6, 18))), ("5.10.0-13-amd64", Some((5, 10))), ("6.1", Some((6, 1))), ("x", None)]
        {
            assert_eq!(version(release), expected, "{release}");
        }
    }

    #[test]
    fn an_old_kernel_is_a_problem_with_each_thing_it_lacks_and_a_new_one_none() {
        let old = by_version("5.4.0");
        let problems: Vec<&str> =
            old.iter().filter(|f| f.severity == Severity::Problem).map(|f| f.what.as_str()).collect();
        assert_eq!(problems.len(), 2, "got {problems:?}");
        assert!(by_version("6.18.44-fc-v669").is_empty());
        assert!(by_version("5.15.0").iter().all(|finding| finding.severity == Severity::Note));
    }

    #[test]
    fn the_exit_of_a_process_is_asked_for_without_an_error() {
        exit_behind_a_pidfd().expect("this kernel has pidfds");
    }
}
