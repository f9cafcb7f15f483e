//! Waiting for a condition.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How long a test waits for something that should happen soon. It ends only a wait that is in vain, so it holds for a machine that
/// many tests and a load share. An emulated machine is slower than any load makes one: `CONTD_TEST_SLOWNESS` says how many times
/// longer its tests wait.
pub static SOON: LazyLock<Duration> = LazyLock::new(|| {
    let slowness = std::env::var("CONTD_TEST_SLOWNESS").ok();
    Duration::from_secs(300) * slowness.map_or(1, |text| text.parse().expect("CONTD_TEST_SLOWNESS is a number"))
});

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
        assert!(begin.elapsed() < *SOON, "waited {:?} in vain for: {what}", *SOON);
        std::thread::sleep(pause);
        pause = PAUSE.min(pause * 3 / 2);
    }
}
