//! Finds out what has become of a container while no daemon, or no actor, looked after it.

use std::sync::Arc;
use std::time::Duration;

use contd_protocol::shim::TaskState;
use contd_shim_client::{Attached, Shim};
use contd_types::{Backoff, Exit, Pid};
use tracing::warn;

use super::{Cancel, Subject};
use crate::error::{StepError, one_line};
use crate::random::jitter;

/// One look: a living shim answers at once, a silent one after the client's own deadlines, and a successor for a dead one
/// takes as long as a start.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two looks at a shim that does not answer: it may be swapped out, or stopped by a person.
const RETRY: Backoff = Backoff::RESTART;

/// The condition in which a container was found.
#[derive(Debug)]
pub(crate) enum Finding {
    /// It runs.
    Runs { shim: Arc<dyn Shim>, pid: Pid, is_paused: bool },
    /// It has ended; `None` when nobody knows how, and why nobody does.
    Ended { exit: Option<Exit>, reason: &'static str },
    /// There is nothing that runs, and no word of an end: it never ran, or a reboot took it.
    Nothing,
}

/// Looks until it is known; `None` when nobody wants to know any more.
pub(crate) async fn recover(subject: Subject, mut cancel: Cancel) -> Option<Finding> {
    let _alone = Arc::clone(&subject.locks.operation).lock_owned().await;
    let mut attempt = 0;
    loop {
        let failure = match look_bounded(&subject).await {
            Ok(finding) => return Some(finding),
            Err(failure) => failure,
        };
        attempt += 1;
        if failure.is_silence() {
            // A successor goes on where it stood still.
            end_silent(&subject).await;
        }
        warn!(attempt, error = one_line(&failure), "shim not attached yet");
        tokio::select! {
            () = cancel.cancelled() => return None,
            () = tokio::time::sleep(RETRY.delay(attempt, jitter())) => {}
        }
    }
}

/// Ends a shim that does not answer; the next look starts its successor.
async fn end_silent(subject: &Subject) {
    let ended = subject.shared.shims.end_silent(&subject.namespace, &subject.id);
    let failure = match tokio::time::timeout(ATTACH_TIMEOUT, ended).await {
        Ok(Ok(())) => return,
        Ok(Err(failure)) => one_line(&failure),
        Err(_elapsed) => "it does not die".to_owned(),
    };
    warn!(error = failure, "silent shim not ended");
}

async fn look_bounded(subject: &Subject) -> Result<Finding, StepError> {
    // A closed semaphore means that the node goes down; then looking unbounded for a moment is harmless.
    let _permit = Arc::clone(&subject.shared.recoveries).acquire_owned().await.ok();
    let attached = subject.shared.shims.attach(&subject.namespace, &subject.id);
    let attached = match tokio::time::timeout(ATTACH_TIMEOUT, attached).await {
        Ok(result) => result.map_err(StepError::shim)?,
        Err(_elapsed) => {
            return Err(StepError::Deadline { what: "attach to the shim", waited: ATTACH_TIMEOUT });
        }
    };
    match attached {
        Attached::Alive { shim, state } => Ok(match state {
            TaskState::Running { pid } => Finding::Runs { shim, pid, is_paused: false },
            TaskState::Paused { pid } => Finding::Runs { shim, pid, is_paused: true },
            TaskState::Exited { exit } => Finding::Ended { exit: Some(exit), reason: "the shim knows" },
            TaskState::Empty | TaskState::Creating | TaskState::Created { .. } => Finding::Nothing,
        }),
        Attached::Dead { exit: Some(exit) } => {
            Ok(Finding::Ended { exit: Some(exit), reason: "the shim wrote it down" })
        }
        Attached::Dead { exit: None } | Attached::Absent => Ok(Finding::Nothing),
    }
}
