//! The monotonic clock of a process without an async runtime, where no time can be paused.

use std::time::Instant;

/// Returns the time.
#[expect(clippy::disallowed_methods, reason = "this process waits by poll(2); there is no clock to inject")]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}
