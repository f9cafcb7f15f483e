//! The undoing of each step. Every one may run twice, and when there is nothing to undo.

use std::sync::Arc;
use std::time::Duration;

use contd_failpoint::Failpoint;
use contd_shim_client::{Attached, Shim, ShimError};
use tracing::{debug, warn};

use super::Subject;
use crate::error::{Leftover, StepError, one_line};
use crate::messages::node::{ReleaseRoot, RemoveBundle, RemoveLog, Undone};

/// A release is a few unmounts and, for the last user, the end of a server.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(15);
/// Removing a directory of one file, or a few log files.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The runtime kills, waits and removes cgroups; less than the shim client's own 30 s, since a caller waits.
const SHIM_DELETE_TIMEOUT: Duration = Duration::from_secs(10);
/// A shim that has nothing to do ends at once.
const SHIM_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(6);
/// A living shim answers at once.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(5);
/// A process that was killed is gone at once, unless it waits in the kernel; above the shim client's own 10 s.
const END_SILENT_TIMEOUT: Duration = Duration::from_secs(12);
/// Behind a dead shim: the runtime may have to kill and remove the container.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(20);

/// Releases the root.
pub(crate) async fn release_root(subject: &Subject) -> Result<(), Leftover> {
    let message =
        ReleaseRoot { lane: Arc::clone(&subject.lane), namespace: subject.namespace.clone(), id: subject.id.clone() };
    let answer = subject.shared.flist.ask(message, RELEASE_TIMEOUT).await;
    contd_failpoint::hit(Failpoint::RootReleased);
    judge("root", answer.map_err(StepError::Call).and_then(|result| result))
}

/// Removes the bundle.
pub(crate) async fn remove_bundle(subject: &Subject) -> Result<(), Leftover> {
    let message =
        RemoveBundle { lane: Arc::clone(&subject.lane), namespace: subject.namespace.clone(), id: subject.id.clone() };
    let answer = subject.shared.bundle.ask(message, REMOVE_TIMEOUT).await;
    contd_failpoint::hit(Failpoint::BundleRemoved);
    judge("bundle", answer.map_err(StepError::Call).and_then(|result| result))
}

/// Removes the log files.
pub(crate) async fn remove_log(subject: &Subject) -> Result<(), Leftover> {
    let path = subject.shared.log_path(&subject.namespace, &subject.name);
    let message = RemoveLog { lane: Arc::clone(&subject.lane), id: subject.id.clone(), path };
    let answer = subject.shared.log.ask(message, REMOVE_TIMEOUT).await;
    contd_failpoint::hit(Failpoint::LogRemoved);
    judge("log", answer.map_err(StepError::Call).and_then(|result| result))
}

#[expect(clippy::result_large_err, reason = "made on the way of a failed clean-up only; a box would be noise")]
fn judge(what: &'static str, answer: Result<Undone, StepError>) -> Result<(), Leftover> {
    match answer {
        Ok(Undone::Now) => Ok(()),
        Ok(Undone::Later) => {
            warn!(what, "a call that hangs is in the way; it is undone when that returns");
            Ok(())
        }
        Err(source) => Err(Leftover { what, source }),
    }
}

/// Ends a container's shim and removes all it had: by its own hand while it answers, from outside when it is dead.
///
/// Without a connection, or when that is broken, the shim is looked for: a spawn may have failed only in its answer.
pub(crate) async fn end_shim(subject: &Subject, shim: Option<Arc<dyn Shim>>) -> Result<(), Leftover> {
    let result = if end_if_living(shim).await || end_if_living(find_living(subject).await).await {
        Ok(())
    } else {
        clean_up(subject).await
    };
    contd_failpoint::hit(Failpoint::ShimEnded);
    result
}

/// Removes from outside what a dead shim left; one that lives and does not answer, or does not get it done, is ended first:
/// what it was to look after is about to go.
async fn clean_up(subject: &Subject) -> Result<(), Leftover> {
    let ended = subject.shared.shims.end_silent(&subject.namespace, &subject.id);
    match tokio::time::timeout(END_SILENT_TIMEOUT, ended).await {
        Ok(Ok(())) => {}
        // The clean-up says what is left.
        Ok(Err(failure)) => debug!(error = one_line(&failure), "the shim could not be ended"),
        Err(_elapsed) => debug!("the shim does not die"),
    }
    let cleaned = subject.shared.shims.clean_up(&subject.namespace, &subject.id);
    let result = match tokio::time::timeout(CLEAN_UP_TIMEOUT, cleaned).await {
        Ok(result) => result.map_err(StepError::shim),
        Err(_elapsed) => Err(StepError::Deadline { what: "clean up behind the shim", waited: CLEAN_UP_TIMEOUT }),
    };
    result.map_err(|source| Leftover { what: "shim", source })
}

/// Looks for a shim that nobody is connected to.
async fn find_living(subject: &Subject) -> Option<Arc<dyn Shim>> {
    let attached = subject.shared.shims.attach(&subject.namespace, &subject.id);
    match tokio::time::timeout(ATTACH_TIMEOUT, attached).await {
        Ok(Ok(Attached::Alive { shim, .. })) => Some(shim),
        // Dead, absent or silent: the clean-up says what is left.
        Ok(Ok(_) | Err(_)) | Err(_) => None,
    }
}

async fn end_if_living(shim: Option<Arc<dyn Shim>>) -> bool {
    let Some(shim) = shim else { return false };
    match end_living(shim.as_ref()).await {
        Ok(()) => true,
        Err(failure) => {
            debug!(error = one_line(&failure), "the shim did not end by itself");
            false
        }
    }
}

async fn end_living(shim: &dyn Shim) -> Result<(), StepError> {
    bounded("delete the container at its shim", SHIM_DELETE_TIMEOUT, shim.delete(true)).await?;
    bounded("shut the shim down", SHIM_SHUTDOWN_TIMEOUT, shim.shutdown()).await
}

async fn bounded<T>(
    what: &'static str,
    waited: Duration,
    call: impl Future<Output = Result<T, ShimError>>,
) -> Result<T, StepError> {
    match tokio::time::timeout(waited, call).await {
        Ok(result) => result.map_err(StepError::shim),
        Err(_elapsed) => Err(StepError::Deadline { what, waited }),
    }
}
