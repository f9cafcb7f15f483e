//! The moment between "start" and the entrypoint: an OCI runtime answers `start` when it has let init go, and init is still
//! the runtime's own program then. A signal that came now would hit that program, not the entrypoint: `runc init` ends
//! with code 2 at SIGTERM. So `Start` is answered once init has executed something else.
//!
//! The kernel announces no exec to a parent that does not trace, so this looks, for a bounded time.

use std::time::{Duration, Instant};

use contd_protocol::shim::Response;

use super::{Answer, CallRef, Task};
use crate::clock;

/// How often init is looked at: its exec takes well under a millisecond on an idle machine.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How long at most; an entrypoint that lies on a slow flist is fetched meanwhile. Past it, `Start` is answered as it is.
const LOOK_FOR: Duration = Duration::from_secs(5);

/// Callers of `Start` who wait for the entrypoint.
#[derive(Debug)]
pub(super) struct LettingGo {
    callers: Vec<CallRef>,
    response: Response,
    next_look: Instant,
    until: Instant,
}

impl LettingGo {
    /// Returns when init is to be looked at again.
    pub(super) fn next_look(&self) -> Instant {
        self.next_look
    }
}

impl Task {
    /// Keeps the answer of `Start` back until the entrypoint runs.
    pub(super) fn let_go(&mut self, callers: Vec<CallRef>, response: Response) {
        let now = clock::monotonic();
        self.letting_go = Some(LettingGo { callers, response, next_look: now, until: now + LOOK_FOR });
        self.look_whether_it_runs(now);
    }

    /// Answers `Start` when the entrypoint runs, has ended already, or is too slow.
    pub(super) fn look_whether_it_runs(&mut self, now: Instant) {
        let Some(waiting) = &mut self.letting_go else { return };
        let runs = self.ending.is_some() || self.init.as_ref().is_none_or(super::Init::has_become_another);
        if !runs && now < waiting.until {
            if waiting.next_look <= now {
                waiting.next_look = now + LOOK_EVERY;
            }
            return;
        }
        let Some(LettingGo { callers, response, .. }) = self.letting_go.take() else { return };
        self.replies.extend(callers.into_iter().map(|caller| Answer::new(caller, Ok(response.clone()))));
    }
}
