//! The undoing of each step. Every one may run twice, and when there is nothing to undo.

use std::sync::Arc;
use std::time::Duration;

use contd_failpoint::Failpoint;
use contd_shim_client::{Attached, Shim, ShimError};
use contd_types::LayerKind;
use tracing::{debug, warn};

use super::Subject;
use crate::error::{Leftover, StepError, one_line};
use crate::messages::node::{FreeMemory, ReleaseRoot, RemoveBundle, RemoveLog, Undone};
use crate::pool::WhenBlocked;

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
/// Behind a dead shim: the runtime may have to kill and remove the container.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(20);

/// Releases the root.
pub(crate) async fn release_root(subject: &Subject, when_blocked: WhenBlocked) -> Result<(), Leftover> {
    let (locks, namespace, id) = (Arc::clone(&subject.locks), subject.namespace.clone(), subject.id.clone());
    let message = ReleaseRoot { locks, namespace, id, when_blocked, span: subject.span().clone() };
    let answer = subject.services.flist.ask(message, RELEASE_TIMEOUT).await;
    contd_failpoint::hit(Failpoint::RootReleased);
    judge("root", when_blocked, answer.map_err(StepError::Call).and_then(|result| result))
}

/// Frees the memory of a layer that lies there: it is charged to the run that has ended, and to nobody from now on.
pub(crate) async fn free_memory(subject: &Subject) -> Result<(), Leftover> {
    if subject.layer() != LayerKind::Memory {
        return Ok(());
    }
    let (locks, namespace, id) = (Arc::clone(&subject.locks), subject.namespace.clone(), subject.id.clone());
    let answer = subject.services.flist.ask(FreeMemory { locks, namespace, id }, RELEASE_TIMEOUT).await;
    judge("layer", WhenBlocked::Queue, answer.map_err(StepError::Call).and_then(|result| result))
}

/// Removes the bundle.
pub(crate) async fn remove_bundle(subject: &Subject, when_blocked: WhenBlocked) -> Result<(), Leftover> {
    let (locks, namespace, id) = (Arc::clone(&subject.locks), subject.namespace.clone(), subject.id.clone());
    let message = RemoveBundle { locks, namespace, id, when_blocked };
    let answer = subject.services.bundle.ask(message, REMOVE_TIMEOUT).await;
    contd_failpoint::hit(Failpoint::BundleRemoved);
    judge("bundle", when_blocked, answer.map_err(StepError::Call).and_then(|result| result))
}

/// Removes the log files or keeps them as those of a removed container, unless another container has the name by now:
/// then it has put them away.
pub(crate) async fn remove_log(subject: &Subject, when_blocked: WhenBlocked) -> Result<(), Leftover> {
    if subject.shared.view.is_name_of_another(&subject.namespace, &subject.name, &subject.id) {
        return Ok(());
    }
    let files = subject.shared.log_files(&subject.namespace, &subject.name, &subject.id);
    let (locks, namespace) = (Arc::clone(&subject.locks), subject.namespace.clone());
    let message = RemoveLog { locks, namespace, files, when_blocked };
    let answer = subject.services.log.ask(message, REMOVE_TIMEOUT).await;
    contd_failpoint::hit(Failpoint::LogRemoved);
    judge("log", when_blocked, answer.map_err(StepError::Call).and_then(|result| result))
}

#[expect(clippy::result_large_err, reason = "made on the way of a failed clean-up only; a box would be noise")]
fn judge(what: &'static str, when_blocked: WhenBlocked, answer: Result<Undone, StepError>) -> Result<(), Leftover> {
    match answer {
        Ok(Undone::Now) => Ok(()),
        Ok(Undone::Later) if when_blocked == WhenBlocked::Drop => {
            Err(Leftover { what, source: StepError::Blocked { what } })
        }
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
/// One that stands still is ended first: nobody can ask it for anything.
pub(crate) async fn end_shim(subject: &Subject, shim: Option<Arc<dyn Shim>>) -> Result<(), Leftover> {
    let result = end_in_some_way(subject, shim).await;
    contd_failpoint::hit(Failpoint::ShimEnded);
    result
}

async fn end_in_some_way(subject: &Subject, shim: Option<Arc<dyn Shim>>) -> Result<(), Leftover> {
    let mut ended = match shim {
        Some(shim) => end_living(subject.shim_for(&shim).as_ref()).await,
        None => Ended::Unreachable,
    };
    if matches!(ended, Ended::Unreachable) {
        ended = end_found(subject).await;
    }
    match ended {
        Ended::Yes => return Ok(()),
        Ended::NotYet(source) => return Err(Leftover { what: "shim", source }),
        Ended::StandsStill => end_silent(subject).await,
        Ended::Unreachable => {}
    }
    clean_up(subject).await.map_err(|source| Leftover { what: "shim", source })
}

/// The outcome for a shim that was told to end.
enum Ended {
    /// It has ended, and its container with it.
    Yes,
    /// It lives and answers, and cannot.
    NotYet(StepError),
    /// It lives and does not answer.
    StandsStill,
    /// It is dead, or the connection broke.
    Unreachable,
}

async fn clean_up(subject: &Subject) -> Result<(), StepError> {
    let cleaned = subject.shared.shims.clean_up(&subject.namespace, &subject.id);
    match tokio::time::timeout(CLEAN_UP_TIMEOUT, cleaned).await {
        Ok(result) => result.map_err(StepError::shim),
        Err(_elapsed) => Err(StepError::Deadline { what: "clean up behind the shim", waited: CLEAN_UP_TIMEOUT }),
    }
}

/// Looks for a shim that nobody is connected to, and tells it to end.
async fn end_found(subject: &Subject) -> Ended {
    let attached = subject.shared.shims.attach(&subject.namespace, &subject.id);
    match tokio::time::timeout(ATTACH_TIMEOUT, attached).await {
        Ok(Ok(Attached::Alive { shim, .. })) => end_living(subject.shim_for(&shim).as_ref()).await,
        Ok(Err(ShimError::Silent { .. })) | Err(_) => Ended::StandsStill,
        // Dead or absent: the clean-up says what is left.
        Ok(Ok(_) | Err(_)) => Ended::Unreachable,
    }
}

/// Ends a shim that does not answer; the container it leaves is the clean-up's.
async fn end_silent(subject: &Subject) {
    let ended = subject.shared.shims.end_silent(&subject.namespace, &subject.id);
    let failure = match tokio::time::timeout(CLEAN_UP_TIMEOUT, ended).await {
        Ok(Ok(())) => return,
        Ok(Err(failure)) => one_line(&failure),
        Err(_elapsed) => "it does not die".to_owned(),
    };
    warn!(error = failure, "silent shim not ended");
}

async fn end_living(shim: &dyn Shim) -> Ended {
    let failure = match delete_and_shut_down(shim).await {
        Ok(()) => return Ended::Yes,
        Err(failure) => failure,
    };
    let is_slow = match &failure {
        StepError::Shim(source) if matches!(**source, ShimError::Refused { .. }) => return Ended::NotYet(failure),
        StepError::Shim(source) => matches!(**source, ShimError::Silent { .. }),
        _ => true,
    };
    if !is_slow {
        debug!(error = one_line(&failure), "the shim did not end by itself");
        return Ended::Unreachable;
    }
    // Does it wait for its container, or does it stand still itself?
    match shim.state().await {
        Ok(_) => Ended::NotYet(failure),
        Err(ShimError::Silent { .. }) => Ended::StandsStill,
        Err(_) => Ended::Unreachable,
    }
}

async fn delete_and_shut_down(shim: &dyn Shim) -> Result<(), StepError> {
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
