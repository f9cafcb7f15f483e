//! Executes one more process in a running container, with the restrictions of its init.
//!
//! Takes in: the bundle, whose `process` is the default; the differences from it ([`ExecRequest`]); a pidfd of the
//! container's init. Gives out: a [`Launcher`] whose answer is a process that waits for "go", as a container's init
//! does. Never does: give it a right that the bundle does not give.
//!
//! ```text
//! caller (single-threaded, reaps both)
//!   └ clone3 into the v2 cgroup ► launcher   reads config.json; looks at init; enters the v1 cgroups, then the namespaces by
//!                                 │          one setns; takes on user, capabilities, filter; finds the program
//!                                 └ clone ► process   its session; waits for "go"; exec
//! ```
//!
//! A process is visible in a PID namespace only if it was cloned in it. So the launcher does everything that needs
//! rights where the container cannot see it. The process that the container sees is a clone with no more rights than
//! the container itself and no descriptor of the host's; it is not dumpable, and its program is sealed
//! ([`crate::sealed`]). Even a container process that may trace every other (CAP_SYS_PTRACE) gains nothing from it.

mod target;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use contd_cgroup::{Cgroup, Hierarchies};
use contd_types::WindowSize;

use crate::config::{Config, Process};
use crate::fault::Fault;
use crate::init::terminal::{self, Terminal};
use crate::init::{FdTable, PreparedExec, ProcessContext, become_process};
use crate::launcher::{LaunchError, Launcher, Settings, Stdio, cgroup_fault, check_cgroup, child, filter_fault};
use crate::plan::FdIndex;
use crate::prepare::{self, namespaces};
use crate::sealed;
use crate::seccomp::Cache;
use crate::sys::{self, Cloned, Parent, rights};
use crate::wire::{Report, Wire};
use target::Init;

/// A running container.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The settings that the container was launched with.
    pub settings: &'a Settings,
    /// The node's cgroup hierarchies.
    pub hierarchies: &'a Hierarchies,
    /// The directory with the container's `config.json`.
    pub bundle: &'a Path,
    /// A pidfd of the container's init.
    pub init: BorrowedFd<'a>,
}

/// The process to execute; all other settings come from the bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// More of the environment, `NAME=value`; the last value of a name counts.
    pub env: Vec<String>,
    /// The working directory, in place of `process.cwd`; it must exist.
    pub cwd: Option<String>,
    /// The user, in place of `process.user`.
    pub user: Option<ExecUser>,
    /// More supplementary groups.
    pub additional_gids: Vec<u32>,
}

/// The descriptors 0, 1 and 2 of the process.
#[derive(Debug)]
pub enum ExecStdio {
    /// These.
    Given(Stdio),
    /// A terminal of its own, of this size; its master comes with the answer.
    Terminal(WindowSize),
}

/// The user and group of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecUser {
    /// The user.
    pub uid: u32,
    /// The group; `None` takes the bundle's.
    pub gid: Option<u32>,
    /// The supplementary groups; `None` takes the bundle's.
    pub groups: Option<Vec<u32>>,
}

/// Opens a pidfd of a process. [`Target::exec`] checks whether it is still the container's init.
///
/// # Errors
/// The process does not exist.
pub fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    contd_descriptors::pidfd::open(pid)
}

impl Target<'_> {
    /// Forks a launcher that makes the process. Only legal with one thread, in a program that was sealed by
    /// [`sealed::ensure`]. The caller must reap the launcher and the process in its answer
    /// ([`Launcher::answer`]).
    ///
    /// # Errors
    /// [`LaunchError::Fault`] when the container is gone or has no room for a process, [`LaunchError::Talk`].
    pub fn exec(&self, request: &ExecRequest, stdio: &ExecStdio) -> Result<Launcher, LaunchError> {
        if !sealed::is_sealed(Path::new("/proc/self/exe"))
            .map_err(|error| Fault::kernel("", "look at this program's mount", &error))?
        {
            let what = "exec in a container: this program lies on a writable mount, which the container could write by";
            return Err(Fault::kernel("", what, &io::Error::from_raw_os_error(libc::EPERM)).into());
        }
        let cgroup = Cgroup::open(self.hierarchies, &self.settings.cgroup);
        let cgroup = cgroup.map_err(|error| cgroup_fault("linux.cgroupsPath", &error))?.ok_or_else(target::ended)?;
        // A launcher in a frozen cgroup could not even be told to end.
        if cgroup.is_frozen().map_err(|error| cgroup_fault("", &error))? {
            let what = "exec in a container: it is paused";
            return Err(Fault::kernel("", what, &io::Error::from_raw_os_error(libc::EBUSY)).into());
        }
        let talk = |source| LaunchError::Talk { source };
        let (orders, their_orders) = Wire::pair().map_err(talk)?;
        let (line, their_line) = Wire::pair().map_err(talk)?;
        // Cloning into the v2 cgroup waits for no grace period, as a migration does.
        let failed = |error: io::Error| Fault::kernel("linux.cgroupsPath", "begin a process in the cgroup", &error);
        match sys::clone_process(0, Parent::Caller, cgroup.v2_dir()).map_err(failed)? {
            Cloned::Parent(pid) => Ok(Launcher::forked(pid, orders, line)),
            Cloned::Child => {
                let mut kept = vec![their_orders.as_fd(), their_line.as_fd(), self.init];
                if let ExecStdio::Given(Stdio { stdin, stdout, stderr }) = stdio {
                    kept.extend([stdin, stdout, stderr].map(AsFd::as_fd));
                }
                if contd_process::close_all_but(&kept).is_err() {
                    contd_process::exit_now(1);
                }
                contd_process::exit_now(self.launch(&cgroup, request, stdio, their_orders, their_line))
            }
        }
    }

    /// Runs in the launcher process.
    fn launch(&self, cgroup: &Cgroup, request: &ExecRequest, stdio: &ExecStdio, mut orders: Wire, line: Wire) -> u8 {
        let begun = self.join(cgroup, request, stdio).and_then(|(prepared, master)| {
            let pid = begin(prepared, &orders, line, master.as_ref())?;
            Ok((pid, master))
        });
        let (report, master) = match begun {
            Ok((pid, master)) => (Report::Ready { pid, has_other_line: false }, master),
            Err(fault) => (Report::Failed(fault), None),
        };
        let master: Vec<BorrowedFd<'_>> = master.iter().map(AsFd::as_fd).collect();
        // If the caller is gone, the process ends by itself: its socket has no other end.
        u8::from(orders.send(&report, &master).is_err())
    }

    /// Enters the container and prepares the process up to its exec; with the master of its terminal.
    fn join(
        &self,
        cgroup: &Cgroup,
        request: &ExecRequest,
        stdio: &ExecStdio,
    ) -> Result<(PreparedExec, Option<OwnedFd>), Fault> {
        // Hide first: no process in the container may look at this program or its descriptors.
        hide()?;
        let init = Init::open(self.init)?;
        let config = Config::read(self.bundle)?;
        let linux = config.linux.unwrap_or_default();
        let Some(mut process) = config.process else { return Err(Fault::invalid("process", "it is missing")) };
        request.apply(&mut process)?;
        check_cgroup(self.settings, prepare::cgroup_path(linux.cgroups_path.clone())?.as_deref())?;
        init.check(cgroup, self.hierarchies, &linux)?;
        let mut cache = Cache::new(self.settings.filters.clone(), self.settings.compiler.clone());
        let mut filters = |section: &[u8]| cache.get(section).map_err(|error| filter_fault(&error));
        let plan = prepare::process_plan(&process, &linux, [FdIndex(0), FdIndex(1), FdIndex(2)], &mut filters)?;
        if let Some(score) = process.oom_score_adj {
            fs::write("/proc/self/oom_score_adj", score.to_string())
                .map_err(|error| Fault::kernel("process.oomScoreAdj", format!("set it to {score}"), &error))?;
        }
        cgroup.enter_v1().map_err(|error| cgroup_fault("linux.cgroupsPath", &error))?;
        let joined = init.join_namespaces()?;
        // Changing credentials sets dumpable to `fs.suid_dumpable`.
        hide()?;
        if joined & namespaces::NEW_USER != 0 {
            // Become root inside the user namespace, as init was: the host's root has rights here that the container's
            // has not.
            rights::set_user(0, 0, None)
                .map_err(|error| Fault::kernel("linux.uidMappings", "become root in the user namespace", &error))?;
            hide()?;
        }
        let (stdio, master) = match stdio {
            ExecStdio::Given(Stdio { stdin, stdout, stderr }) => {
                ([stdin, stdout, stderr].map(OwnedFd::try_clone), None)
            }
            ExecStdio::Terminal(size) => {
                let Terminal { master, slave } = Terminal::open(*size)?;
                terminal::give(&slave, plan.uid)?;
                ([&slave, &slave, &slave].map(OwnedFd::try_clone), Some(master))
            }
        };
        let fds: io::Result<Vec<OwnedFd>> = stdio.into_iter().collect();
        let fds = FdTable::new(fds.map_err(|error| Fault::kernel("process", "take the descriptors", &error))?);
        Ok((become_process(&plan, &fds, ProcessContext::Exec)?, master))
    }
}

fn hide() -> Result<(), Fault> {
    rights::set_dumpable(false).map_err(|error| Fault::kernel("", "hide the launcher from the container", &error))
}

/// Clones the process: from here on the container can see it.
fn begin(prepared: PreparedExec, orders: &Wire, mut line: Wire, master: Option<&OwnedFd>) -> Result<i32, Fault> {
    // The clone must not have the pidfd, or any other descriptor of the host's, at any moment.
    let mut kept = vec![orders.as_fd(), line.as_fd()];
    kept.extend(master.map(AsFd::as_fd));
    contd_process::close_all_but(&kept)
        .map_err(|error| Fault::kernel("", "close the launcher's descriptors", &error))?;
    match sys::clone_under_filter() {
        Ok(Cloned::Parent(pid)) => Ok(pid),
        Ok(Cloned::Child) => {
            let part = || {
                contd_process::close_all_but(&[line.as_fd()])?;
                rights::new_session()?;
                if master.is_some() { terminal::control() } else { Ok(()) }
            };
            if let Err(error) = part() {
                let fault = Fault::kernel("", "part with the launcher", &error);
                contd_process::exit_now(child::give_up(&mut line, &fault));
            }
            contd_process::exit_now(child::await_go(line, prepared))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
            Err(Fault::kernel("", "begin a process in the container: it is ending, or there is no memory", &error))
        }
        Err(error) => Err(Fault::kernel("", "begin a process in the container", &error)),
    }
}

impl ExecRequest {
    /// Replaces the bundle's values by those of the request.
    fn apply(&self, process: &mut Process) -> Result<(), Fault> {
        process.args = Some(self.args.clone());
        process.env.get_or_insert_default().extend(self.env.iter().cloned());
        if let Some(cwd) = &self.cwd {
            process.cwd.clone_from(cwd);
        }
        if let Some(ExecUser { uid, gid, groups }) = &self.user {
            process.user.uid = *uid;
            process.user.gid = gid.unwrap_or(process.user.gid);
            if let Some(groups) = groups {
                process.user.additional_gids = Some(groups.clone());
            }
        }
        process.user.additional_gids.get_or_insert_default().extend(&self.additional_gids);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> Process {
        Process::parse(
            r#"{"user": {"uid": 1, "gid": 2, "additionalGids": [3]}, "args": ["a"], "env": ["A=1"], "cwd": "/"}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_request_replaces_only_what_it_names() {
        let mut process = process();
        let request = ExecRequest { args: vec!["b".into()], ..ExecRequest::default() };
        request.apply(&mut process).unwrap();
        assert_eq!(process.args, Some(vec!["b".into()]));
        assert_eq!((process.user.uid, process.user.gid, process.cwd.as_str()), (1, 2, "/"));
        assert_eq!((process.env, process.user.additional_gids), (Some(vec!["A=1".into()]), Some(vec![3])));
    }

    #[test]
    fn what_a_request_adds_comes_after_what_the_bundle_has() {
        let mut process = process();
        let user = Some(ExecUser { uid: 7, gid: None, groups: None });
        let request = ExecRequest { env: vec!["A=2".into()], additional_gids: vec![9], user, ..ExecRequest::default() };
        request.apply(&mut process).unwrap();
        assert_eq!((process.user.uid, process.user.gid), (7, 2));
        assert_eq!(process.env, Some(vec!["A=1".into(), "A=2".into()]));
        assert_eq!(process.user.additional_gids, Some(vec![3, 9]));
    }
}
