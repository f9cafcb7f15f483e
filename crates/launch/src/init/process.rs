//! Takes on the entrypoint's user and rights. Shared by a container's init and by exec into a running container.

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, fstat, makedev, umask};
use nix::unistd::{Gid, Uid, chdir, fchown, getcwd};

use super::exec::PreparedExec;
use super::fds::FdTable;
use super::passwd;
use crate::fault::Fault;
use crate::plan::ProcessPlan;
use crate::sys::rights;

/// The role of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessContext {
    /// A container's init.
    Init,
    /// One more process in a running container.
    Exec,
}

/// Takes on the user and the rights of the entrypoint, and finds its program. Only legal inside the container's root.
///
/// # Errors
/// [`Fault`]; the process must end then.
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
    take_stdio(plan, fds, context)?;
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
        // Without no-new-privileges, loading needs CAP_SYS_ADMIN, which is dropped below.
        filter.install().map_err(|error| Fault::kernel("linux.seccomp", "load the filter", &error))?;
    }
    // Change directory as root and as the user: either alone may be refused (a network file system, a 0700 directory).
    let as_root = chdir(plan.cwd.as_str());
    let failed = |what: &'static str| move |error: io::Error| Fault::kernel("process.capabilities", what, &error);
    rights::bound(plan.capabilities.bounding).map_err(failed("reduce the bounding set"))?;
    rights::keep_capabilities(true).map_err(failed("keep capabilities over the change of the user"))?;
    umask(Mode::from_bits_truncate(plan.umask.unwrap_or(DEFAULT_UMASK)));
    rights::set_user(plan.uid, plan.gid, Some(&plan.additional_gids))
        .map_err(|error| Fault::kernel("process.user", format!("become {}:{}", plan.uid, plan.gid), &error))?;
    // After a change of user the host's fs.suid_dumpable applies; hide until the entrypoint runs.
    rights::set_dumpable(false).map_err(io_failed("stay hidden from the container"))?;
    // If the user has no right to the directory, the one that root entered stays.
    let as_user = chdir(plan.cwd.as_str());
    as_root.or(as_user).map_err(|errno| Fault::kernel("process.cwd", format!("go to {}", plan.cwd), &errno.into()))?;
    check_cwd(&plan.cwd)?;
    rights::keep_capabilities(false).map_err(failed("let capabilities go at the next change of the user"))?;
    rights::set_capabilities(&plan.capabilities).map_err(failed("set the capabilities"))?;
    rights::set_ambient(plan.capabilities.ambient & plan.capabilities.permitted & plan.capabilities.inheritable)
        .map_err(failed("set the ambient set"))?;
    PreparedExec::new(&plan.args, &environment(plan), filter)
}

/// The umask of a process whose configuration gives none, as with `runc`.
const DEFAULT_UMASK: u32 = 0o022;

/// Sets the container's descriptors 0, 1 and 2, and lets its user open them again by `/dev/stdout`.
fn take_stdio(plan: &ProcessPlan, fds: &FdTable, context: ProcessContext) -> Result<(), Fault> {
    for (index, number) in plan.stdio.iter().zip(0..) {
        let fd = fds.get(*index)?;
        give_to_user(fd, plan.uid, context)
            .and_then(|()| rights::duplicate_to(fd, number))
            .map_err(|error| Fault::kernel("process", format!("take descriptor {number}"), &error))?;
    }
    Ok(())
}

fn give_to_user(fd: BorrowedFd<'_>, uid: u32, context: ProcessContext) -> io::Result<()> {
    let status = fstat(fd)?;
    let kind = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT;
    let is_spared = match context {
        // Compare by device number, not with the container's `/dev/null`, which the image may have brought. The host's
        // belongs to every user.
        ProcessContext::Init => kind == SFlag::S_IFCHR && status.st_rdev == makedev(1, 3),
        // Files, terminals and sockets are the caller's, who would lose them; a pipe was made for this.
        ProcessContext::Exec => kind != SFlag::S_IFIFO,
    };
    if is_spared || status.st_uid == uid {
        return Ok(());
    }
    match fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(status.st_gid))) {
        // The owner cannot be changed for some pipes, on a read-only file system, or to an id that a user namespace
        // does not map. The container works without.
        Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Refuses a working directory outside the root: a leaked descriptor of the host's would be a way out (CVE-2024-21626).
fn check_cwd(cwd: &str) -> Result<(), Fault> {
    match getcwd() {
        Ok(path) if path.is_absolute() => Ok(()),
        Ok(_) | Err(Errno::ENOENT) => Err(Fault::invalid("process.cwd", format!("{cwd} is outside the container"))),
        Err(errno) => Err(Fault::kernel("process.cwd", format!("look where {cwd} is"), &errno.into())),
    }
}

/// Returns the environment: the last value of each name counts, and `HOME` is added if missing.
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
