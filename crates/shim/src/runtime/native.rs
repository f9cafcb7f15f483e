//! Our own launcher: see `contd-launch`. Its short-lived process reads the bundle, so that this one never grows.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use contd_cgroup::{Cgroup, CgroupError, Hierarchies};
use contd_launch::exec::{ExecRequest, ExecStdio as LaunchExecStdio, ExecUser, Target};
use contd_launch::launcher::{LaunchError, Launcher, Settings, Stdio as LaunchStdio, Waiting};
use contd_launch::wire::LaunchRequest;
use contd_protocol::shim::{ExecProcess, TaskSpec};
use contd_types::ContainerId;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::worker::Worker;
use super::{ExecStdio, ExecStep, Executing, Held, Operation, Outcome, Runtime, RuntimeError, Stdio, Verb};
use crate::sys;

/// How long the processes of a killed container may take to vanish before its removal is given up.
const EMPTYING_TIMEOUT: Duration = Duration::from_secs(20);

/// The native runtime of one container.
#[derive(Debug)]
pub struct NativeRuntime {
    settings: Settings,
    hierarchies: Rc<Hierarchies>,
    /// A launcher that was forked ahead of time.
    warm: Option<Launcher>,
    /// The init that was made, until it is started.
    waiting: Rc<RefCell<Option<Waiting>>>,
}

impl NativeRuntime {
    /// Makes the runtime of a container.
    pub fn new(settings: Settings, hierarchies: Rc<Hierarchies>) -> Self {
        Self { settings, hierarchies, warm: None, waiting: Rc::default() }
    }

    /// Forks the launcher ahead of time: it makes and enters the cgroup, and clones init.
    ///
    /// # Errors
    /// No processes or descriptors.
    pub fn warm_up(&mut self) -> io::Result<()> {
        self.warm = Some(Launcher::fork(&self.settings, true)?);
        Ok(())
    }

    /// Returns the descriptor that becomes readable when a warm launcher gives up.
    pub(crate) fn warm_fd(&self) -> Option<BorrowedFd<'_>> {
        self.warm.as_ref().map(Launcher::fd)
    }

    /// Lets go of what [`Self::warm_up`] has made, and removes its cgroup.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn cool_down(&mut self) -> Result<(), CgroupError> {
        self.end_warm();
        remove(&self.hierarchies, &self.settings.cgroup)
    }

    /// Ends a launcher that waits; when this returns it makes nothing more.
    fn end_warm(&mut self) {
        if let Some(launcher) = self.warm.take() {
            // Our child and not reaped, so the pid is its own.
            let _ended_already = sys::end_child(launcher.pid());
        }
    }

    fn cgroup(&self) -> Result<Option<Cgroup>, CgroupError> {
        Cgroup::open(&self.hierarchies, &self.settings.cgroup)
    }

    /// Has a process of its own do what may wait for the kernel.
    fn in_worker(
        &self,
        verb: Verb,
        task: &TaskSpec,
        work: impl FnOnce(&Cgroup) -> Result<(), CgroupError>,
    ) -> Result<Box<dyn Operation>, RuntimeError> {
        let id = &task.id;
        let failed = |source| RuntimeError::Cgroup { verb, id: id.clone(), source };
        let Some(cgroup) = self.cgroup().map_err(failed)? else {
            return Err(RuntimeError::NoInit { verb, id: id.clone() });
        };
        let worker = Worker::fork(verb, id, move || work(&cgroup))?;
        Ok(Box::new(worker))
    }
}

/// Kills whoever is in a cgroup and removes it; fine when it is not there.
fn remove(hierarchies: &Hierarchies, path: &Path) -> Result<(), CgroupError> {
    let Some(cgroup) = Cgroup::open(hierarchies, path)? else { return Ok(()) };
    cgroup.thaw()?;
    cgroup.kill_all()?;
    cgroup.remove(EMPTYING_TIMEOUT)
}

impl Runtime for NativeRuntime {
    fn begin_create(&mut self, task: &TaskSpec, stdio: Stdio) -> Result<Box<dyn Operation>, RuntimeError> {
        let id = &task.id;
        let talk =
            |source| RuntimeError::Launch { verb: Verb::Create, id: id.clone(), source: LaunchError::Talk { source } };
        let mut launcher = match self.warm.take() {
            Some(warm) => warm,
            None => Launcher::fork(&self.settings, false).map_err(talk)?,
        };
        let stdin = match stdio.stdin {
            Some(stdin) => stdin,
            None => OpenOptions::new().read(true).open("/dev/null").map_err(talk)?,
        };
        let stdio = LaunchStdio { stdin: stdin.into(), stdout: stdio.stdout.into(), stderr: stdio.stderr.into() };
        // One that has ended says why in its answer.
        let _told_by_the_answer = launcher.request(&LaunchRequest { bundle: task.bundle.clone() }, &stdio);
        Ok(Box::new(Creating { id: id.clone(), launcher, waiting: Rc::clone(&self.waiting) }))
    }

    fn begin_start(&mut self, task: &TaskSpec) -> Result<Box<dyn Operation>, RuntimeError> {
        let no_init = || RuntimeError::NoInit { verb: Verb::Start, id: task.id.clone() };
        let mut waiting = self.waiting.take().ok_or_else(no_init)?;
        // An init that has died closes its line, which ends the operation; its status tells the rest.
        let _told_by_its_status = waiting.go();
        Ok(Box::new(Starting { id: task.id.clone(), waiting }))
    }

    fn begin_delete(&mut self, task: &TaskSpec, _is_forced: bool) -> Result<Box<dyn Operation>, RuntimeError> {
        self.end_warm();
        drop(self.waiting.take());
        let failed = |source| RuntimeError::Cgroup { verb: Verb::Delete, id: task.id.clone(), source };
        let is_gone = match self.cgroup().map_err(failed)? {
            Some(cgroup) => cgroup.try_remove().map_err(failed)?,
            None => true,
        };
        if is_gone {
            return Ok(Box::new(Over::new(Verb::Delete, &task.id)?));
        }
        let (hierarchies, path) = (Rc::clone(&self.hierarchies), self.settings.cgroup.clone());
        Ok(Box::new(Worker::fork(Verb::Delete, &task.id, move || remove(&hierarchies, &path))?))
    }

    fn begin_pause(&mut self, task: &TaskSpec) -> Result<Box<dyn Operation>, RuntimeError> {
        self.in_worker(Verb::Pause, task, Cgroup::freeze)
    }

    fn begin_resume(&mut self, task: &TaskSpec) -> Result<Box<dyn Operation>, RuntimeError> {
        self.in_worker(Verb::Resume, task, Cgroup::thaw)
    }

    fn begin_exec(
        &mut self,
        task: &TaskSpec,
        process: &ExecProcess,
        init: BorrowedFd<'_>,
        stdio: ExecStdio,
    ) -> Result<Box<dyn Executing>, RuntimeError> {
        let id = &task.id;
        let user = process.user.as_ref().map(|user| {
            let groups = Some(user.additional_gids.clone());
            ExecUser { uid: user.uid, gid: Some(user.gid), groups }
        });
        let request = ExecRequest {
            args: process.args.clone(),
            env: process.env.clone(),
            cwd: process.cwd.clone(),
            user,
            additional_gids: Vec::new(),
        };
        let stdio = match stdio {
            ExecStdio::Given([stdin, stdout, stderr]) => LaunchExecStdio::Given(LaunchStdio { stdin, stdout, stderr }),
            ExecStdio::Terminal(size) => LaunchExecStdio::Terminal(size),
        };
        let (settings, hierarchies) = (&self.settings, &*self.hierarchies);
        let target = Target { settings, hierarchies, bundle: &task.bundle, init };
        let launcher = target.exec(&request, &stdio).map_err(|source| exec_failed(id, source))?;
        Ok(Box::new(LaunchingExec { id: id.clone(), launcher }))
    }
}

fn exec_failed(id: &ContainerId, source: LaunchError) -> RuntimeError {
    RuntimeError::Launch { verb: Verb::Exec, id: id.clone(), source }
}

/// A launcher makes the process.
#[derive(Debug)]
struct LaunchingExec {
    id: ContainerId,
    launcher: Launcher,
}

impl Executing for LaunchingExec {
    fn fd(&self) -> BorrowedFd<'_> {
        self.launcher.fd()
    }

    fn owns(&self, pid: i32) -> bool {
        // The process waits to be let go.
        pid == self.launcher.pid()
    }

    fn finish(self: Box<Self>) -> Result<ExecStep, RuntimeError> {
        // The launcher ends with its answer; it is then reaped as one that nobody waits for.
        let Self { id, launcher } = *self;
        let (waiting, terminal) = launcher.answer().map_err(|source| exec_failed(&id, source))?;
        let pid = waiting.pid;
        Ok(ExecStep::Made { pid, terminal, waiting: Some(Box::new(HeldExec { id, waiting })) })
    }

    fn abort(self: Box<Self>) {
        // Our child and not reaped, so the pid is its own; the process ends with its line.
        let _ended_already = sys::kill_child(self.launcher.pid());
    }
}

/// The process waits for "go".
#[derive(Debug)]
struct HeldExec {
    id: ContainerId,
    waiting: Waiting,
}

impl Held for HeldExec {
    fn let_go(mut self: Box<Self>) -> Box<dyn Executing> {
        // A process that has died closes its line, which ends the step; its status tells the rest.
        let _told_by_its_status = self.waiting.go();
        self
    }
}

impl Executing for HeldExec {
    fn fd(&self) -> BorrowedFd<'_> {
        self.waiting.fd()
    }

    fn owns(&self, _pid: i32) -> bool {
        false
    }

    fn finish(self: Box<Self>) -> Result<ExecStep, RuntimeError> {
        let Self { id, waiting } = *self;
        let refused = |fault| exec_failed(&id, LaunchError::Fault(fault));
        waiting.outcome().map(|()| ExecStep::Runs).map_err(refused)
    }

    fn abort(self: Box<Self>) {}
}

/// The launcher is at work.
#[derive(Debug)]
struct Creating {
    id: ContainerId,
    launcher: Launcher,
    waiting: Rc<RefCell<Option<Waiting>>>,
}

impl Operation for Creating {
    fn fd(&self) -> BorrowedFd<'_> {
        self.launcher.fd()
    }

    fn child(&self) -> Option<i32> {
        Some(self.launcher.pid())
    }

    fn finish(self: Box<Self>) -> Result<Outcome, RuntimeError> {
        // Its own end follows its answer at once; it is then reaped as one that nobody waits for.
        let failed = |source| RuntimeError::Launch { verb: Verb::Create, id: self.id.clone(), source };
        let (waiting, terminal) = self.launcher.answer().map_err(failed)?;
        let pid = waiting.pid;
        self.waiting.replace(Some(waiting));
        Ok(Outcome::Created { pid, terminal })
    }

    fn abort(self: Box<Self>) {
        // Our child and not reaped, so the pid is its own; init ends with its line. Waited for: a launcher that still made
        // directories behind a deletion would leave them.
        let _ended_already = sys::end_child(self.launcher.pid());
    }
}

/// Init was told to go.
#[derive(Debug)]
struct Starting {
    id: ContainerId,
    waiting: Waiting,
}

impl Operation for Starting {
    fn fd(&self) -> BorrowedFd<'_> {
        self.waiting.fd()
    }

    fn child(&self) -> Option<i32> {
        None
    }

    fn finish(self: Box<Self>) -> Result<Outcome, RuntimeError> {
        let Self { id, waiting } = *self;
        let failed = |fault| RuntimeError::Launch { verb: Verb::Start, id, source: LaunchError::Fault(fault) };
        waiting.outcome().map(|()| Outcome::Done).map_err(failed)
    }

    fn abort(self: Box<Self>) {}
}

/// An operation that was over before anyone could wait for it.
#[derive(Debug)]
struct Over {
    fd: OwnedFd,
}

impl Over {
    fn new(verb: Verb, id: &ContainerId) -> Result<Self, RuntimeError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_value_and_flags(1, flags);
        let event = event.map_err(|errno| RuntimeError::Watch { verb, id: id.clone(), source: errno.into() })?;
        Ok(Self { fd: event.into() })
    }
}

impl Operation for Over {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn child(&self) -> Option<i32> {
        None
    }

    fn finish(self: Box<Self>) -> Result<Outcome, RuntimeError> {
        Ok(Outcome::Done)
    }

    fn abort(self: Box<Self>) {}
}
