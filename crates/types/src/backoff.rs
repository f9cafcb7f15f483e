//! Back-off for all retries: doubling, bounded, with jitter.

use std::time::Duration;

/// A back-off schedule: `min`, 2 × `min`, 4 × `min` … up to `max`, each shortened by up to a quarter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
}

impl Backoff {
    /// The schedule for restarts of a container: 0.5 s to 5 min.
    pub const RESTART: Self = Self { min: Duration::from_millis(500), max: Duration::from_secs(300) };

    /// The schedule for rebuilding an actor: quick at first, since one bad message usually causes a panic; then slow.
    pub const REBUILD: Self = Self { min: Duration::from_millis(10), max: Duration::from_secs(10) };

    /// The schedule for removals that fail: soon at first, since a mount is usually busy for moments only; then rarely
    /// enough that hundreds of them cost nothing.
    pub const REMOVE: Self = Self { min: Duration::from_millis(500), max: Duration::from_secs(60) };

    /// Makes a schedule; `max` below `min` is taken as `min`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min) }
    }

    /// Returns the wait before attempt `attempt` (1 is the first). `jitter` is any number: its use spreads callers.
    pub fn delay(&self, attempt: u32, jitter: u64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let full = self.min.saturating_mul(1u32 << doublings).min(self.max);
        let quarter = u64::try_from(full.as_nanos() / 4).unwrap_or(u64::MAX);
        let cut = if quarter == 0 { 0 } else { jitter % quarter };
        full - Duration::from_nanos(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_restart_schedule_is_the_documented_one() {
        let waits: Vec<u128> = (1..=11).map(|attempt| Backoff::RESTART.delay(attempt, 0).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 128_000, 256_000, 300_000]);
    }

    proptest! {
        #[test]
        fn jitter_takes_at_most_a_quarter(attempt in 0u32..1000, jitter: u64) {
            let full = Backoff::RESTART.delay(attempt, 0);
            let got = Backoff::RESTART.delay(attempt, jitter);
            prop_assert!(got <= full && got >= full.mul_f64(0.75));
        }
    }
}
