//! Init's side of a launch: receives its plan, carries it out, waits for "go", executes the entrypoint.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::fault::Fault;
use crate::init::{self, FdTable, PreparedExec, ProcessContext, Terminal, terminal};
use crate::plan::{FdIndex, Plan, ProcessPlan};
use crate::wire::{Readiness, Wire};

/// Runs init up to the entrypoint; returns an exit code only when the entrypoint was not executed.
pub(super) fn run(mut line: Wire, is_warm: bool) -> u8 {
    // Close the launcher's descriptors: an open end of its socket would hide its death.
    if let Err(error) = contd_process::close_all_but(&[line.as_fd()]) {
        return tell(&mut line, Fault::kernel("", "close the launcher's descriptors", &error));
    }
    if is_warm && let Err(error) = init::unmount_host() {
        return tell(&mut line, Fault::kernel("", "let go of the host's mounts", &error));
    }
    let (plan, fds) = match line.receive::<Plan>() {
        Ok(Some(received)) => received,
        // The launcher is gone, so there will be no container.
        Ok(None) => return 0,
        Err(error) => return tell(&mut line, Fault::kernel("", "receive the plan", &error)),
    };
    let (prepared, master) = match prepare(plan, fds) {
        Ok(prepared) => prepared,
        Err(fault) => return tell(&mut line, fault),
    };
    let master: Vec<OwnedFd> = master.into_iter().collect();
    let fds: Vec<BorrowedFd<'_>> = master.iter().map(AsFd::as_fd).collect();
    if line.send(&Readiness::Ready, &fds).is_err() {
        return 1;
    }
    // The container may not have it.
    drop(master);
    await_go(line, prepared)
}

/// Sets everything up; returns the master of the terminal if there is one.
fn prepare(plan: Plan, fds: Vec<OwnedFd>) -> Result<(PreparedExec, Option<OwnedFd>), Fault> {
    let fds = FdTable::new(fds);
    let terminal = init::set_up(&plan, &fds)?;
    let Some(Terminal { master, slave }) = terminal else {
        return Ok((init::become_process(&plan.process, &fds, ProcessContext::Init)?, None));
    };
    let process = ProcessPlan { stdio: [FdIndex(0); 3], ..plan.process };
    let prepared = init::become_process(&process, &FdTable::new(vec![slave]), ProcessContext::Init)?;
    // A session begins with init, which has no other terminal.
    terminal::control().map_err(|error| Fault::kernel("process.terminal", "control it", &error))?;
    Ok((prepared, Some(master)))
}

/// Waits for "go" and executes the program; if that fails, sends the reason to the caller.
pub(crate) fn await_go(mut line: Wire, prepared: PreparedExec) -> u8 {
    match line.receive_go() {
        Ok(true) => {}
        // The caller is gone, so no "go" will come.
        Ok(false) => return 0,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return 0,
        Err(_) => return 1,
    }
    give_up(&mut line, &prepared.exec())
}

/// Sends the reason why the process could not be made.
pub(crate) fn give_up(line: &mut Wire, fault: &Fault) -> u8 {
    // If the caller is gone, the exit status must do.
    let _nobody_listens = line.send(fault, &[]);
    fault.exit_code()
}

/// Sends the reason why there will be no container.
pub(super) fn tell(line: &mut Wire, fault: Fault) -> u8 {
    let code = fault.exit_code();
    let _nobody_listens = line.send(&Readiness::Failed(fault), &[]);
    code
}
