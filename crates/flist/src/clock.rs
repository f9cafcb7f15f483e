//! The one place that reads the clock: deadlines of downloads and of hostile databases, ages in the cache.

use std::time::{Duration, Instant, SystemTime};

/// A point in time after which a step gives up. Monotonic, so a changed wall clock moves nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// Ends `after` from now.
    pub(crate) fn after(after: Duration) -> Self {
        Self(now() + after)
    }

    /// Gives the one that comes first: this, or `limit` from now.
    pub(crate) fn sooner(self, limit: Duration) -> Self {
        Self(self.0.min(now() + limit))
    }

    /// Tells how long is left; zero when it has passed.
    pub(crate) fn remaining(self) -> Duration {
        self.0.saturating_duration_since(now())
    }

    /// Tells whether it has passed.
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
