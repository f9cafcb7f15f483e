//! The container's first process, from its clone to its exec: carries out a [`Plan`] step by step.
//!
//! ```text
//! session, user namespace's root, namespaces, loopback, hostname
//!   → file systems made (the old `/proc` must still be visible for that in a user namespace)
//!   → root attached, pivot, old root detached          from here on nothing of the host can be named
//!   → mounts, devices, links, terminal, sysctls, read-only and masked paths, read-only root
//!   → user, rights                                      "ready"; waits for "go"; seccomp, exec
//! ```
//!
//! Targets are resolved by `openat2` inside the new root, descriptor by descriptor, so an image's symlinks never lead
//! out of it (`mounts`).

mod devices;
mod exec;
mod fds;
mod mounts;
mod passwd;
mod paths;
mod process;
mod root;
pub(crate) mod terminal;

use std::io;

pub use exec::PreparedExec;
pub use fds::FdTable;
pub use process::{ProcessContext, become_process};
pub(crate) use root::unmount_host;
pub use terminal::Terminal;

use crate::fault::Fault;
use crate::plan::{Join, Plan};
use crate::prepare::namespaces::NEW_CGROUP;
use crate::sys::{self, rights};

/// Carries out the plan up to the entrypoint's user and rights; returns its terminal if it is to have one. Only legal in a process with one thread in namespaces
/// of its own: a mount namespace at least.
///
/// # Errors
/// [`Fault`]; the process must end then.
pub fn set_up(plan: &Plan, fds: &FdTable) -> Result<Option<Terminal>, Fault> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| Fault::kernel("", what, &error)
    };
    // No process in the container may look at this program or its descriptors before they are gone.
    rights::set_dumpable(false).map_err(failed("hide init from the container"))?;
    rights::new_session().map_err(failed("begin a session"))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    if plan.is_in_new_user_namespace {
        rights::set_user(0, 0, None)
            .map_err(|error| Fault::kernel("linux.uidMappings", "become root in the user namespace", &error))?;
    }
    for join in &plan.joins {
        let result = match join {
            Join::Enter { fd, flag } => sys::setns(fds.get(*fd)?, *flag),
            Join::Unshare { flag } => sys::unshare(*flag),
        };
        result.map_err(|error| Fault::kernel("linux.namespaces", "enter a namespace", &error))?;
    }
    if plan.has_new_network {
        sys::bring_loopback_up()
            .map_err(|error| Fault::kernel("linux.namespaces", "bring up the loopback interface", &error))?;
    }
    if plan.has_cgroup_namespace {
        sys::unshare(NEW_CGROUP)
            .map_err(|error| Fault::kernel("linux.namespaces", "make a cgroup namespace", &error))?;
    }
    if let Some(name) = &plan.hostname {
        nix::unistd::sethostname(name)
            .map_err(|errno| Fault::kernel("hostname", format!("set {name}"), &errno.into()))?;
    }
    if let Some(name) = &plan.domainname {
        rights::set_domainname(name).map_err(|error| Fault::kernel("domainname", format!("set {name}"), &error))?;
    }
    let made = mounts::make_all(plan, fds)?;
    let root = root::enter(&plan.root, fds)?;
    mounts::attach_all(&root, plan, made)?;
    if plan.has_default_devices {
        devices::make_all(&root, &plan.devices, fds)?;
        devices::link_all(&root)?;
    }
    let terminal = plan.terminal.map(Terminal::open).transpose()?;
    if let Some(terminal) = &terminal {
        terminal::give(&terminal.slave, plan.process.uid)?;
        terminal::make_console(&root, &terminal.slave)?;
    }
    mounts::make_dev_read_only(&root, plan)?;
    paths::write_sysctls(&root, &plan.sysctls)?;
    paths::make_cwd(&root, &plan.process.cwd)?;
    paths::make_all_read_only(&root, &plan.readonly_paths)?;
    paths::mask_all(&root, &plan.masked_paths)?;
    root::finish(&root, &plan.root)?;
    Ok(terminal)
}
