//! Init's side: receives its plan, carries it out, waits for "go", executes the entrypoint.

use std::io;
use std::os::fd::AsFd;

use super::process;
use crate::fault::Fault;
use crate::init::{self, FdTable, PreparedExec, ProcessContext};
use crate::plan::Plan;
use crate::wire::{Readiness, Wire};

/// Is init, from its first moment to the entrypoint; returns an exit code only when it could not become the entrypoint.
pub(super) fn run(mut line: Wire, is_warm: bool) -> u8 {
    // Of the launcher's descriptors nothing may stay open: its end of a socket would hide its death.
    if let Err(error) = process::close_all_but(&[line.as_fd()]) {
        return tell(&mut line, Fault::kernel("", "close the launcher's descriptors", &error));
    }
    if is_warm && let Err(error) = init::leave_host() {
        return tell(&mut line, Fault::kernel("", "let go of the host's mounts", &error));
    }
    let (plan, fds) = match line.receive::<Plan>() {
        Ok(Some(received)) => received,
        // There will be no container.
        Ok(None) => return 0,
        Err(error) => return tell(&mut line, Fault::kernel("", "receive the plan", &error)),
    };
    let fds = FdTable::new(fds);
    let prepared = match init::set_up(&plan, &fds)
        .and_then(|()| init::become_process(&plan.process, &fds, ProcessContext::Init))
    {
        Ok(prepared) => prepared,
        Err(fault) => return tell(&mut line, fault),
    };
    drop(fds);
    if line.send(&Readiness::Ready, &[]).is_err() {
        return 1;
    }
    await_go(line, prepared)
}

/// Waits for "go", and executes; tells whoever said it why it could not.
pub(crate) fn await_go(mut line: Wire, prepared: PreparedExec) -> u8 {
    match line.receive_go() {
        Ok(true) => {}
        // Whoever could say "go" has gone.
        Ok(false) => return 0,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return 0,
        Err(_) => return 1,
    }
    give_up(&mut line, &prepared.exec())
}

/// Tells why the process is not what it should be.
pub(crate) fn give_up(line: &mut Wire, fault: &Fault) -> u8 {
    // The caller sees the status in any case.
    let _nobody_listens = line.send(fault, &[]);
    fault.exit_code()
}

/// Tells why there will be no container.
pub(super) fn tell(line: &mut Wire, fault: Fault) -> u8 {
    let code = fault.exit_code();
    let _nobody_listens = line.send(&Readiness::Failed(fault), &[]);
    code
}
