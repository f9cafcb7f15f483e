//! Waiting for a condition.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How long a test waits for something that should happen soon. It ends only a wait that is in vain, so it holds for a machine that
/// many tests and a load share. An emulated machine is slower than any load makes one: `CONTD_TEST_SLOWNESS` says how many times
/// longer its tests wait.
pub static SOON: LazyLock<Duration> = LazyLock::new(|| Duration::from_secs(300) * *SLOWNESS);

static SLOWNESS: LazyLock<u32> = LazyLock::new(|| {
    let slowness = std::env::var("CONTD_TEST_SLOWNESS").ok();
    slowness.map_or(1, |text| text.parse().expect("CONTD_TEST_SLOWNESS is a number"))
});

/// Tells whether this machine is so slow that deadlines of the daemon pass although all is well.
fn is_slow() -> bool {
    *SLOWNESS > 1
}

/// How long a container that counts waits between two lines, in seconds: as short as the machine bears. Emulated, two of them at
/// full speed leave the daemon no time to keep its deadlines.
pub fn tick() -> &'static str {
    if is_slow() { "0.1" } else { "0.002" }
}

/// The longest pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until `check` gives a value; panics with what was awaited.
#[track_caller]
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let (begin, mut pause) = (Instant::now(), Duration::from_millis(10));
    loop {
        let look = Instant::now();
        if let Some(value) = check() {
            return value;
        }
        let took = look.elapsed();
        assert!(begin.elapsed() < *SOON, "waited {:?} in vain for: {what}", *SOON);
        // On a slow machine a look is work that the awaited one has to wait for: it is half of the time at most.
        std::thread::sleep(pause.max(took));
        pause = PAUSE.min(pause * 3 / 2);
    }
}
