//! The two clocks of the shim: a monotonic one for deadlines, the wall's for what is written down.

use std::time::Instant;

use contd_types::{Clock, SystemClock, Timestamp};

/// Returns the time for deadlines.
#[expect(clippy::disallowed_methods, reason = "the one place of this program where monotonic time enters; no runtime")]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

/// Returns the time of day; never measured with.
pub(crate) fn wall() -> Timestamp {
    SystemClock.now()
}
