//! Waiting for a condition.

use std::time::{Duration, Instant};

/// How long a test waits for something that should happen soon. It ends only a wait that is in vain, so it holds for a machine that
/// many tests and a load share.
pub const SOON: Duration = Duration::from_secs(300);

/// The longest pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until `check` gives a value; panics with what was awaited.
#[track_caller]
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let (begin, mut pause) = (Instant::now(), Duration::from_millis(10));
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(begin.elapsed() < SOON, "waited {SOON:?} in vain for: {what}");
        std::thread::sleep(pause);
        pause = PAUSE.min(pause * 3 / 2);
    }
}
