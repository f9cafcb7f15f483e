//! The monotonic clock of a process without an async runtime, where time cannot be paused.

use std::time::Instant;

/// Returns the current time.
#[expect(clippy::disallowed_methods, reason = "this process waits by poll(2); there is no clock to inject")]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}
