//! Starting a shim: lease first, then the process, then the hello; undone when it does not come up.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use contd_durable::{Fs, RealFs, replace_volatile};
use contd_failpoint::Failpoint;
use contd_lease::{Lease, LeaseError, LeaseState, ProcessError};
use contd_protocol::shim::{EXIT_RUN_OUT, TaskSpec, files};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::holder::Holder;
use super::shim::ProcessShim;
use super::{Place, ProcessShimClient, blocking};
use crate::{ShimError, deadline};

const VERB: &str = "start the shim of";
const SUCCEED: &str = "start a successor for the shim of";

/// The most bytes of a program's standard error that are kept; the rest is read and dropped.
const MAX_STDERR_BYTES: usize = 4096;

/// How long standard error is read after the program's end, when a descendant of it keeps the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Where programs are looked for when we have no `PATH` ourselves.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The result of preparing.
enum Prepared {
    /// A shim lives already.
    Lives,
    /// A lease is reserved. `is_successor`: an earlier shim's files are there and stay, whatever happens now.
    Reserved { is_successor: bool },
}

/// Starts the shim of a container, or connects to the one that lives. A caller that drops this half-way cleans up.
pub(super) async fn spawn(client: &ProcessShimClient, place: &Place, task: TaskSpec) -> Result<ProcessShim, ShimError> {
    let (run_dir, keep) = (client.config.run_dir.clone(), &client.keep);
    let is_successor = match blocking(place, VERB, move |place| prepare(place, &run_dir, &task)).await? {
        Prepared::Lives => return ProcessShim::connect(place, Arc::clone(keep), VERB).await,
        Prepared::Reserved { is_successor } => is_successor,
    };
    contd_failpoint::hit(Failpoint::SpawnReserved);
    let launched = launch(&client.holder, place, None, None).await;
    contd_failpoint::hit(Failpoint::SpawnLaunched);
    let failure = match launched {
        Ok(()) => match ProcessShim::connect(place, Arc::clone(keep), VERB).await {
            Ok(shim) => return Ok(shim),
            Err(error) => error,
        },
        Err(error) => error,
    };
    // One that said why it ended is not there any more; who holds the lease then is somebody else's.
    let is_ended = matches!(failure, ShimError::EndedEarly { .. });
    let ended = if is_ended { Ok(()) } else { blocking(place, VERB, end_silent).await };
    let undone = match ended {
        Ok(()) if is_successor => Ok(()),
        Ok(()) => blocking(place, VERB, Place::retire).await,
        Err(error) => Err(error),
    };
    if let Err(error) = undone {
        // The failure that led here is the one to tell; what is left is found by `list`.
        tracing::warn!(%error, "shim that did not come up could not be removed");
    }
    Err(failure)
}

/// Starts a successor for a shim that died under its container; `kept` is a pidfd of init.
pub(super) async fn succeed(holder: &Holder, place: &Place, kept: Option<OwnedFd>) -> Result<(), ShimError> {
    let reserve = |place: &Place| {
        let owner = match place.read::<TaskSpec>(files::TASK) {
            Some(task) => format!("{}/{}", task.namespace, task.id),
            None => return Err(place.clean_up_failed(&place.file(files::TASK), io::ErrorKind::NotFound.into())),
        };
        match place.lease.reserve(&owner, &place.socket) {
            // Somebody was faster.
            Err(LeaseError::Held { .. }) => Ok(false),
            reserved => reserved.map(|()| true).map_err(|source| place.lease_failed(source)),
        }
    };
    if !blocking(place, SUCCEED, reserve).await? {
        return Ok(());
    }
    contd_failpoint::hit(Failpoint::AttachReserved);
    let launched = launch(holder, place, Some("--adopt"), kept).await;
    contd_failpoint::hit(Failpoint::AttachLaunched);
    let failure = match launched {
        Ok(()) => return Ok(()),
        Err(failure) => failure,
    };
    if !matches!(failure, ShimError::EndedEarly { .. })
        && let Err(error) = blocking(place, SUCCEED, end_silent).await
    {
        tracing::warn!(%error, "successor that did not come up could not be ended");
    }
    Err(failure)
}

fn prepare(place: &Place, run_dir: &std::path::Path, task: &TaskSpec) -> Result<Prepared, ShimError> {
    let lease_failed = |source| place.lease_failed(source);
    let is_successor = match place.lease.probe().map_err(lease_failed)? {
        LeaseState::Held(_) => return Ok(Prepared::Lives),
        LeaseState::Absent | LeaseState::OtherBoot(_) => {
            // Files of an earlier boot, or of a removal that was broken off: a new shim must not take them for its own.
            place.retire()?;
            false
        }
        // Files tell whether a shim has ever done something here.
        LeaseState::Reserved | LeaseState::Dead(_) => {
            let init = place.living_init();
            if init.map_err(|error| place.clean_up_failed(&place.file(files::INIT), error))?.is_some() {
                // A second container would be made beside it.
                return Err(ShimError::Orphaned { id: place.id.clone() });
            }
            let is_there = |name| RealFs.exists(&place.file(name)).unwrap_or(true);
            is_there(files::INIT) || is_there(files::EXIT)
        }
    };
    make_dirs(place, run_dir)?;
    let owner = format!("{}/{}", task.namespace, task.id);
    match place.lease.reserve(&owner, &place.socket) {
        Ok(()) => {}
        Err(LeaseError::Held { .. }) => return Ok(Prepared::Lives),
        Err(source) => return Err(lease_failed(source)),
    }
    match write_task(place, task) {
        Ok(()) => Ok(Prepared::Reserved { is_successor }),
        Err(error) => {
            // A successor's directory stays, with the old task.
            if !is_successor && let Err(second) = place.retire() {
                tracing::warn!(error = %second, "reserved lease could not be removed");
            }
            Err(error)
        }
    }
}

/// Makes the directories above a lease's own.
pub(super) fn make_dirs(place: &Place, run_dir: &std::path::Path) -> Result<(), ShimError> {
    let make = |dir: &std::path::Path, mode| {
        RealFs
            .create_dir_all(dir, mode)
            .map_err(|source| place.lease_failed(LeaseError::CreateDir { dir: dir.to_owned(), source }))
    };
    make(run_dir, 0o711)?;
    make(place.lease.path().parent().unwrap_or(run_dir), 0o711)
}

fn write_task(place: &Place, task: &TaskSpec) -> Result<(), ShimError> {
    write_json(place, files::TASK, task)
}

/// Writes one of the directory's files.
pub(super) fn write_json(place: &Place, name: &str, value: &impl serde::Serialize) -> Result<(), ShimError> {
    let path = place.file(name);
    let failed = |source| ShimError::WriteTask { id: place.id.clone(), path: path.clone(), source };
    let bytes = serde_json::to_vec(value).map_err(|error| failed(error.into()))?;
    replace_volatile(&RealFs, &path, &bytes, 0o600).map_err(|error| failed(io::Error::other(error)))
}

/// Starts a shim in the lease directory of a place, with another word at most, and waits until it is ready.
pub(super) async fn launch(
    holder: &Holder,
    place: &Place,
    role: Option<&str>,
    stdin: Option<OwnedFd>,
) -> Result<(), ShimError> {
    let (id, binary) = (place.id.clone(), place.shim_binary.clone());
    let mut words = vec![binary.as_os_str(), OsStr::new("--dir"), place.lease.path().as_os_str()];
    words.extend(role.map(OsStr::new));
    match holder.run(&words, stdin, deadline::SPAWN).await {
        Ok(Captured { status, .. }) if status.success() => Ok(()),
        Ok(Captured { status, stderr }) => {
            let has_run_out = status.code() == Some(EXIT_RUN_OUT);
            Err(ShimError::EndedEarly { id, status: status.to_string(), stderr, has_run_out })
        }
        Err(source) => Err(ShimError::Spawn { id, binary, source }),
    }
}

/// Ends a shim that holds the lease and does not answer; its container, if it has one, does not need it to live.
pub(super) fn end_silent(place: &Place) -> Result<(), ShimError> {
    let LeaseState::Held(lease) = place.lease.probe().map_err(|source| place.lease_failed(source))? else {
        return Ok(());
    };
    let failed = |error| place.clean_up_failed(place.lease.path(), io::Error::other(error));
    if end_process_of(&lease).map_err(failed)? { Ok(()) } else { Err(ShimError::StillAlive { id: place.id.clone() }) }
}

/// Kills the process that a lease names and waits for its end; `false` when it does not end in time.
pub(super) fn end_process_of(lease: &Lease) -> Result<bool, ProcessError> {
    let Some(pidfd) = lease.pidfd()? else { return Ok(true) };
    contd_lease::signal(&pidfd, nix::libc::SIGKILL)?;
    contd_lease::wait_dead(&pidfd, deadline::KILLED)
}

/// How a program ended and what it said on standard error.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) status: ExitStatus,
    pub(super) stderr: String,
}

/// Returns where programs are looked for.
pub(super) fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into())
}

/// Runs a program to its end with an empty environment but for `PATH`; kills it when it takes too long or nobody waits.
pub(super) async fn run_captured(command: &mut Command, stdin: Stdio, limit: Duration) -> io::Result<Captured> {
    command.env_clear().env("PATH", search_path()).stdin(stdin).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let stderr = child.stderr.take().ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
    match captured(child.wait(), stderr, limit).await {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => child.kill().await.and(Err(error)),
        ended => ended.map(|(status, stderr)| Captured { status, stderr }),
    }
}

/// Waits for the end of a program while its standard error is read, and then for the last words.
pub(super) async fn captured<T>(
    end: impl Future<Output = io::Result<T>>,
    mut stderr: impl AsyncRead + Unpin,
    limit: Duration,
) -> io::Result<(T, String)> {
    let mut said = Vec::new();
    let run = async {
        tokio::select! {
            biased;
            end = end => end,
            () = keep_reading(&mut stderr, &mut said) => std::future::pending().await,
        }
    };
    let too_late = |_elapsed| io::Error::new(io::ErrorKind::TimedOut, format!("it was not done after {limit:?}"));
    let end = tokio::time::timeout(limit, run).await.map_err(too_late)??;
    // A descendant that keeps the pipe open costs the last words, nothing else.
    let _cut_off = tokio::time::timeout(LAST_WORDS, read_capped(&mut stderr, &mut said)).await.is_err();
    Ok((end, String::from_utf8_lossy(&said).trim().to_owned()))
}

/// Reads until the end of the file, and then waits for ever: only the program's own end counts.
async fn keep_reading(pipe: &mut (impl AsyncRead + Unpin), said: &mut Vec<u8>) {
    read_capped(pipe, said).await;
    std::future::pending::<()>().await;
}

async fn read_capped(pipe: &mut (impl AsyncRead + Unpin), said: &mut Vec<u8>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let room = MAX_STDERR_BYTES.saturating_sub(said.len());
        said.extend_from_slice(buffer.get(..count.min(room)).unwrap_or_default());
    }
}
