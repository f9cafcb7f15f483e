//! Makes a run repeatable: randomness from a seed, and blocking jobs on the test's own thread, each after a few turns of
//! everybody else. Only for the thread that asked for it.

use std::cell::RefCell;
use std::time::Duration;

/// The generator `SplitMix64`: no version of a crate changes what a seed that is kept means.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
    }

    /// Is true this many times in a hundred.
    pub(crate) fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let count = u64::try_from(choices.len()).unwrap();
        choices[usize::try_from(self.below(count)).unwrap()]
    }
}

#[derive(Debug)]
struct Replay {
    dice: Dice,
    /// How many of the next jobs take so long.
    slow: (u32, Duration),
    /// Whether the process is dead that has jobs.
    is_halted: bool,
}

thread_local! {
    static REPLAY: RefCell<Option<Replay>> = const { RefCell::new(None) };
}

/// Ends the repeatable time of this thread when it is dropped.
#[derive(Debug)]
pub(crate) struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        REPLAY.set(None);
    }
}

/// Begins it.
pub(crate) fn begin(seed: u64) -> Guard {
    REPLAY.set(Some(Replay { dice: Dice::new(seed), slow: (0, Duration::ZERO), is_halted: false }));
    Guard
}

/// Lets the next jobs take longer: a disk or a mount that hangs for a while.
pub(crate) fn slow_down(jobs: u32, time: Duration) {
    with(|replay| replay.slow = (jobs, time));
}

/// Has jobs that have not begun never begin, as the death of a process does, or lets them begin again.
pub(crate) fn halt(is_halted: bool) {
    with(|replay| replay.is_halted = is_halted);
}

pub(crate) fn is_halted() -> bool {
    with(|replay| replay.is_halted).unwrap_or_default()
}

/// Lets every other task that is ready run once.
///
/// Not tokio's `yield_now`: that lets all run until nothing is ready any more.
pub(crate) async fn turn() {
    let mut has_turned = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut has_turned, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

pub(crate) fn is_on() -> bool {
    REPLAY.with_borrow(Option::is_some)
}

/// Returns the next number, while a seed is set.
pub(crate) fn number() -> Option<u64> {
    with(|replay| replay.dice.number())
}

/// Runs a job in a task of its own, as a thread would: to its end, and its panic is its own.
pub(crate) async fn run<T: 'static>(job: impl FnOnce() -> T + 'static) -> Result<T, tokio::task::JoinError> {
    let (turns, delay) = with(|replay| {
        let delay = (replay.slow.0 > 0).then_some(replay.slow.1);
        replay.slow.0 = replay.slow.0.saturating_sub(1);
        (replay.dice.below(4), delay)
    })
    .unwrap_or_default();
    let thread = actix_rt::spawn(async move {
        if let Some(time) = delay {
            tokio::time::sleep(time).await;
        }
        for _ in 0..turns {
            turn().await;
        }
        if is_halted() {
            std::future::pending::<()>().await;
        }
        job()
    });
    thread.await
}

fn with<T>(change: impl FnOnce(&mut Replay) -> T) -> Option<T> {
    REPLAY.with_borrow_mut(|replay| replay.as_mut().map(change))
}
