//! The only readers of the clock in this crate: for deadlines of downloads and of hostile databases, and ages in the cache.

use std::time::{Duration, Instant, SystemTime};

/// The time at which a step gives up. Monotonic, so a change of the wall clock does not matter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// Returns the deadline at this time from now.
    pub(crate) fn after(after: Duration) -> Self {
        Self(now() + after)
    }

    /// Returns the earlier one of this deadline and `limit` from now.
    pub(crate) fn sooner(self, limit: Duration) -> Self {
        Self(self.0.min(now() + limit))
    }

    /// Returns the remaining time; zero after the deadline.
    pub(crate) fn remaining(self) -> Duration {
        self.0.saturating_duration_since(now())
    }

    /// Tells whether the deadline has passed.
    pub(crate) fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }
}

/// Reads the monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "bounds real I/O in a synchronous library that has no tokio clock and knows no other crate; \
              no decision that a test would want to steer depends on it"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Reads the wall clock.
#[expect(clippy::disallowed_methods, reason = "ages of files are counted on the clock of their time stamps")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
