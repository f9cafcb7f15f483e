//! Executed processes: the caller holds their descriptors itself, and learns their ends from the kernel where it tells.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use contd_lease::{ExitInfo, ProcessExit};
use contd_types::{Clock as _, ContainerId, ExecId, Exit, ExitCause, ExitSource, Pid, SystemClock};
use tokio::net::unix::pipe::Receiver;
use tokio::time::Instant;

/// How long the kernel may need from the end of a process until it is reaped and its code told.
const TOLD_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A process that was executed in a container. It needs neither the daemon nor its shim to go on.
#[derive(Debug)]
pub struct Executed {
    /// Its container.
    pub container: ContainerId,
    /// Names it in further requests.
    pub exec: ExecId,
    /// Its process id on the host.
    pub pid: Pid,
    /// The master of its terminal, if it has one: when the last descriptor of it is closed, the process gets SIGHUP.
    pub terminal: Option<OwnedFd>,
    pub(crate) pidfd: OwnedFd,
}

impl Executed {
    /// Returns a pidfd of the process.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits for its end, without the daemon. `None` when the kernel does not tell how it ended, as before Linux 6.15:
    /// then [`crate::Client::wait_exec`] does.
    ///
    /// # Errors
    /// The system's.
    pub async fn ended(&self) -> io::Result<Option<Exit>> {
        ended(self.pidfd.as_fd()).await
    }
}

/// Waits for the end of a process by a pidfd of it. `None` when the kernel does not tell how it ended, as before Linux 6.15.
///
/// # Errors
/// The system's.
pub async fn ended(process: BorrowedFd<'_>) -> io::Result<Option<Exit>> {
    // Of all that tokio waits for, a pipe asks least of its descriptor.
    let pidfd = Receiver::from_owned_fd_unchecked(process.try_clone_to_owned()?)?;
    pidfd.readable().await?;
    let late = Instant::now() + TOLD_WITHIN;
    loop {
        match contd_lease::exit_info(process).map_err(io::Error::other)? {
            ExitInfo::Known(status) => return Ok(Some(exit_of(status))),
            ExitInfo::NotYet if Instant::now() < late => tokio::time::sleep(LOOK_AGAIN).await,
            ExitInfo::NotYet | ExitInfo::Unsupported => return Ok(None),
        }
    }
}

fn exit_of(status: ProcessExit) -> Exit {
    let (cause, source) = match status {
        ProcessExit::Code(code) => (ExitCause::Code(code), ExitSource::Pidfd),
        ProcessExit::Signal(number) => ExitCause::from_signal(number, ExitSource::Pidfd),
    };
    Exit { cause, at: SystemClock.now(), oom_kills: 0, source, is_drained: true }
}
