//! Who the entrypoint is and what it may do. Shared by a container's first process and by exec into a running one.

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::stat::{Mode, fstat, stat, umask};
use nix::unistd::{Gid, Uid, chdir, fchown, getcwd};

use super::exec::PreparedExec;
use super::fds::FdTable;
use super::passwd;
use crate::fault::Fault;
use crate::plan::ProcessPlan;
use crate::sys::rights;

/// Whose process it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessContext {
    /// A container's first.
    Init,
    /// One more in a running container.
    Exec,
}

/// Takes on the user and the rights of the entrypoint, and finds its program. Only legal inside the container's root.
///
/// # Errors
/// [`Fault`]; the process is of no use then.
pub fn become_process(plan: &ProcessPlan, fds: &FdTable, context: ProcessContext) -> Result<PreparedExec, Fault> {
    for (resource, soft, hard) in &plan.rlimits {
        rights::set_rlimit(*resource, *soft, *hard).map_err(|error| {
            Fault::kernel("process.rlimits", format!("set limit {resource} to {soft}:{hard}"), &error)
        })?;
    }
    if let Some(persona) = plan.personality {
        rights::set_personality(persona)
            .map_err(|error| Fault::kernel("linux.personality", "set the personality", &error))?;
    }
    take_stdio(plan, fds)?;
    let io_failed = |what: &'static str| move |error: io::Error| Fault::kernel("process", what, &error);
    rights::reset_signals().map_err(io_failed("give signals their default actions"))?;
    if context == ProcessContext::Exec {
        rights::new_session().map_err(io_failed("begin a session"))?;
    }
    if plan.no_new_privileges {
        rights::set_no_new_privileges().map_err(io_failed("give up new privileges"))?;
    }
    let mut filter = plan.seccomp.clone();
    if !plan.no_new_privileges
        && let Some(filter) = filter.take()
    {
        // It takes CAP_SYS_ADMIN, which goes below.
        filter.install().map_err(|error| Fault::kernel("linux.seccomp", "load the filter", &error))?;
    }
    // Once as root, once as the user: either alone may be refused on the way (a network file system, a 0700 directory).
    let as_root = chdir(plan.cwd.as_str());
    let failed = |what: &'static str| move |error: io::Error| Fault::kernel("process.capabilities", what, &error);
    rights::bound(plan.capabilities.bounding).map_err(failed("reduce the bounding set"))?;
    rights::keep_capabilities(true).map_err(failed("keep capabilities over the change of the user"))?;
    umask(Mode::from_bits_truncate(plan.umask.unwrap_or(DEFAULT_UMASK)));
    rights::set_user(plan.uid, plan.gid, Some(&plan.additional_gids))
        .map_err(|error| Fault::kernel("process.user", format!("become {}:{}", plan.uid, plan.gid), &error))?;
    // A change of the user makes it what `fs.suid_dumpable` says.
    rights::set_dumpable(false).map_err(failed("hide the process from the container"))?;
    // As the user without a right to pass: the way in that root had stays.
    let as_user = chdir(plan.cwd.as_str());
    as_root.or(as_user).map_err(|errno| Fault::kernel("process.cwd", format!("go to {}", plan.cwd), &errno.into()))?;
    check_cwd(&plan.cwd)?;
    rights::keep_capabilities(false).map_err(failed("let capabilities go at the next change of the user"))?;
    rights::set_capabilities(&plan.capabilities).map_err(failed("set the capabilities"))?;
    rights::set_ambient(plan.capabilities.ambient & plan.capabilities.permitted & plan.capabilities.inheritable)
        .map_err(failed("set the ambient set"))?;
    PreparedExec::new(&plan.args, &environment(plan), filter)
}

/// The mask of a process that asks for none: as `runc` has it.
const DEFAULT_UMASK: u32 = 0o022;

/// Makes the container's descriptors 0, 1 and 2, which its user must be able to open again by `/dev/stdout`.
fn take_stdio(plan: &ProcessPlan, fds: &FdTable) -> Result<(), Fault> {
    for (index, number) in plan.stdio.iter().zip(0..) {
        let fd = fds.get(*index)?;
        give_to_user(fd, plan.uid)
            .and_then(|()| rights::duplicate_to(fd, number))
            .map_err(|error| Fault::kernel("process", format!("take descriptor {number}"), &error))?;
    }
    Ok(())
}

fn give_to_user(fd: BorrowedFd<'_>, uid: u32) -> io::Result<()> {
    let status = fstat(fd)?;
    let is_null = stat("/dev/null").is_ok_and(|null| null.st_rdev == status.st_rdev);
    if is_null || status.st_uid == uid {
        return Ok(());
    }
    match fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(status.st_gid))) {
        // Of a pipe's owner, of a read-only file system, of an id that a user namespace does not map: it works without.
        Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// A working directory that is a descriptor of the host's would be a way out (CVE-2024-21626).
fn check_cwd(cwd: &str) -> Result<(), Fault> {
    match getcwd() {
        Ok(path) if path.is_absolute() => Ok(()),
        Ok(_) | Err(Errno::ENOENT) => Err(Fault::invalid("process.cwd", format!("{cwd} is outside the container"))),
        Err(errno) => Err(Fault::kernel("process.cwd", format!("look where {cwd} is"), &errno.into())),
    }
}

/// Returns the environment: of a name that is given twice the last value counts, and `HOME` is never missing.
fn environment(plan: &ProcessPlan) -> Vec<String> {
    let name_of = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    let mut env: Vec<String> = Vec::with_capacity(plan.env.len() + 1);
    for pair in &plan.env {
        let name = name_of(pair);
        match env.iter_mut().find(|known| name_of(known) == name) {
            Some(known) => known.clone_from(pair),
            None => env.push(pair.clone()),
        }
    }
    if !env.iter().any(|pair| pair.strip_prefix("HOME=").is_some_and(|home| !home.is_empty())) {
        env.retain(|pair| !pair.starts_with("HOME="));
        env.push(format!("HOME={}", passwd::home_of(plan.uid)));
    }
    env
}
