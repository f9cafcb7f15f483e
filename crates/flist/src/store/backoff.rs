//! Retries one request a few times, within a deadline, with doubling and randomized pauses.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::thread;
use std::time::Duration;

use super::{ATTEMPT_TIMEOUT, StoreError};
use crate::clock::Deadline;

/// The most attempts on one store for one block while failures look transient.
pub(super) const MAX_ATTEMPTS: u32 = 3;

/// The pause before the second attempt; it doubles for each further one.
const FIRST_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Waits before attempt `number` (from 1 for the second), or less if the deadline comes first.
pub(super) fn wait_before_retry(number: u32, deadline: Deadline) {
    let pause = jittered(FIRST_RETRY_PAUSE.saturating_mul(1 << number.saturating_sub(1).min(8)));
    thread::sleep(pause.min(deadline.remaining()));
}

/// Shortens a pause by up to half, at random: readers that failed together shall not retry together.
pub(super) fn jittered(pause: Duration) -> Duration {
    // A new `RandomState` has random keys: good enough to spread the pauses, without another dependency.
    let [spread, ..] = RandomState::new().hash_one(0_u8).to_le_bytes();
    pause - pause.mul_f64(f64::from(spread) / 512.0)
}

/// Runs a step until it succeeds, fails permanently, was tried three times, or time is up. The step gets its time limit.
pub(super) fn retry<T>(
    within: Duration,
    mut step: impl FnMut(Duration) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let deadline = Deadline::after(within);
    let mut attempt = 1;
    loop {
        match step(ATTEMPT_TIMEOUT.min(deadline.remaining())) {
            Err(error) if error.is_transient() && attempt < MAX_ATTEMPTS && !deadline.has_passed() => {
                tracing::debug!(fault = %error, attempt, "store request failed, retried");
                wait_before_retry(attempt, deadline);
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}
