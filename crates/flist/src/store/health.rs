//! Tracks whether a store answers. A store that does not is paused for a while, so that readers do not queue up on it.
//!
//! ```text
//!            3 failures in a row              the pause is over
//! answering ────────────────────> paused ──────────────────────> one reader asks ──answer──> answering
//!                                   ^                                  │
//!                                   └── no answer: twice as long ──────┘
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::ATTEMPT_TIMEOUT;
use super::backoff::jittered;
use crate::clock::Deadline;

/// The failures in a row after which a store is paused: one lost connection is no outage.
const FAILURES_TO_PAUSE: u32 = 3;

/// The length of the first pause: about the time in which a service restarts.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause, after which a store that is back is used again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The health of a store, shared by all its readers.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Failures since the last answer.
    failures: u32,
    /// The last failure, for the errors of readers that may not ask.
    reason: String,
    paused: Option<Pause>,
}

#[derive(Debug)]
struct Pause {
    until: Deadline,
    length: Duration,
}

/// The permission of a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Admission {
    /// Ask, with retries.
    Open,
    /// Ask once, for all readers: the pause is over, and the others wait for the result.
    Probe,
    /// Do not ask: the store is paused.
    Paused {
        /// The number of failures since the last answer.
        failures: u32,
        /// The last failure.
        reason: String,
    },
}

impl Health {
    /// Returns what a reader may do now. A reader with [`Admission::Probe`] must ask at once.
    pub(super) fn admit(&self) -> Admission {
        let mut state = self.lock();
        match &mut state.paused {
            None => Admission::Open,
            Some(pause) if pause.until.has_passed() => {
                // The probe reports before then; if it was lost, another reader probes.
                pause.until = Deadline::after(ATTEMPT_TIMEOUT);
                Admission::Probe
            }
            Some(_) => Admission::Paused { failures: state.failures, reason: state.reason.clone() },
        }
    }

    /// Tells whether the store is paused.
    pub(super) fn is_paused(&self) -> bool {
        self.lock().paused.is_some()
    }

    /// Records an answer of any kind: the store works.
    pub(super) fn answered(&self) {
        let mut state = self.lock();
        if state.failures > 0 {
            *state = State::default();
        }
    }

    /// Records a missing answer. Readers already asking when a pause began do not prolong it; a probe does.
    pub(super) fn failed(&self, admission: &Admission, reason: String) {
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        state.reason = reason;
        let length = match &state.paused {
            Some(pause) if *admission == Admission::Probe => pause.length.saturating_mul(2).min(LONGEST_PAUSE),
            None if state.failures >= FAILURES_TO_PAUSE => FIRST_PAUSE,
            Some(_) | None => return,
        };
        state.paused = Some(Pause { until: Deadline::after(jittered(length)), length });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(health: &Health, admission: &Admission) {
        health.failed(admission, "no connection".to_owned());
    }

    /// Ends the pause, as time would.
    fn end_pause(health: &Health) -> Duration {
        let mut state = health.lock();
        let pause = state.paused.as_mut().unwrap();
        pause.until = Deadline::after(Duration::ZERO);
        pause.length
    }

    #[test]
    fn three_failures_in_a_row_pause_a_store_and_an_answer_ends_the_row() {
        let health = Health::default();
        for _ in 0..5 {
            fail(&health, &Admission::Open);
            fail(&health, &Admission::Open);
            assert_eq!(health.admit(), Admission::Open);
            health.answered();
        }
        (0..3).for_each(|_| fail(&health, &Admission::Open));
        assert_eq!(health.admit(), Admission::Paused { failures: 3, reason: "no connection".to_owned() });
    }

    #[test]
    fn after_the_pause_one_reader_asks_for_all_and_the_pauses_double_to_a_limit() {
        let health = Health::default();
        (0..100).for_each(|_| fail(&health, &Admission::Open));
        let mut lengths = Vec::new();
        for _ in 0..8 {
            lengths.push(end_pause(&health).as_secs());
            assert_eq!(health.admit(), Admission::Probe);
            assert!(matches!(health.admit(), Admission::Paused { .. }), "only one asks");
            fail(&health, &Admission::Probe);
            assert!(matches!(health.admit(), Admission::Paused { .. }));
        }
        assert_eq!(lengths, [1, 2, 4, 8, 16, 30, 30, 30]);
        end_pause(&health);
        assert_eq!(health.admit(), Admission::Probe);
        health.answered();
        assert_eq!(health.admit(), Admission::Open);
        assert!(!health.is_paused());
    }
}
