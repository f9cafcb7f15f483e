//! Work that nobody waits for yet: blocks and files that will probably be read next, and files to put together.
//!
//! Guesses are few and cheap to lose: a bounded queue that forgets its oldest, and that is passed over while a reader waits.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Threads that work ahead: enough to hide the round trips of a store, and few beside a node's cores.
pub(crate) const AHEAD_THREADS: usize = 3;

/// Jobs that wait. More would be guesses that are overtaken before their turn comes.
const MAX_JOBS: usize = 64;

/// How long there must be no work before memory is given back: not between two files of one program.
const TIDY_AFTER: Duration = Duration::from_secs(2);

/// Trails that are followed at the same time, one per sequential reader.
const MAX_TRAILS: usize = 16;

/// Something to do ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// Bring one block of a file.
    Block { ino: u64, index: u64 },
    /// Bring a small file.
    File { ino: u64 },
    /// Put a large file together, or check the one that is there.
    Assemble { ino: u64 },
    /// Give free memory back: the work is over for now.
    Tidy,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    state: Mutex<State>,
    changed: Condvar,
    /// Requests that wait for a thread: while there are any, guesses are dropped.
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    is_closed: bool,
    /// Whether there was work since the last [`Job::Tidy`].
    is_untidy: bool,
}

impl Ahead {
    /// Asks for something; the oldest guess goes if there are too many.
    pub(crate) fn push(&self, job: Job) {
        let mut state = self.state();
        state.is_untidy = true;
        if state.jobs.contains(&job) {
            return;
        }
        if state.jobs.len() >= MAX_JOBS {
            state.jobs.pop_front();
        }
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_one();
    }

    /// Waits for a job; `None` at the end.
    pub(crate) fn next(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            if state.is_closed {
                return None;
            }
            match state.jobs.pop_front() {
                Some(Job::Block { .. } | Job::File { .. }) if self.waiting.load(Ordering::Relaxed) > 0 => {}
                Some(job) => return Some(job),
                None if state.is_untidy => {
                    let waited = self.changed.wait_timeout(state, TIDY_AFTER).unwrap_or_else(PoisonError::into_inner);
                    state = waited.0;
                    if waited.1.timed_out() && state.is_untidy && state.jobs.is_empty() && !state.is_closed {
                        state.is_untidy = false;
                        return Some(Job::Tidy);
                    }
                }
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Says how many requests wait for a thread.
    pub(crate) fn set_waiting(&self, count: usize) {
        self.waiting.store(count, Ordering::Relaxed);
    }

    /// Ends all who wait in [`Ahead::next`].
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the last readers were: tells who goes forward step by step, and how far it is worth looking ahead of him.
#[derive(Debug)]
pub(crate) struct Trails {
    /// The longest step that still counts as the next one.
    max_step: u64,
    /// Steps after which somebody is believed to go on.
    min_steps: u32,
    /// How many positions to look ahead.
    window: u64,
    trails: Mutex<VecDeque<Trail>>,
}

#[derive(Debug, Clone, Copy)]
struct Trail {
    key: u64,
    position: u64,
    steps: u32,
    /// The last position that was asked for.
    asked: u64,
}

impl Trails {
    pub(crate) const fn new(max_step: u64, min_steps: u32, window: u64) -> Self {
        Self { max_step, min_steps, window, trails: Mutex::new(VecDeque::new()) }
    }

    /// Notes a position and returns the ones to bring: none unless the reader goes forward, and none where all is here
    /// already. `is_missing` says that this one was not.
    pub(crate) fn follow(&self, key: u64, position: u64, is_missing: bool) -> RangeInclusive<u64> {
        let mut trails = self.trails.lock().unwrap_or_else(PoisonError::into_inner);
        let known = trails.iter().position(|trail| trail.key == key).and_then(|at| trails.remove(at));
        let mut trail = known.unwrap_or(Trail { key, position, steps: 0, asked: position });
        if position > trail.position && position - trail.position <= self.max_step {
            trail.steps = trail.steps.saturating_add(1);
        } else if position != trail.position {
            (trail.steps, trail.asked) = (0, position);
        }
        trail.position = position;
        trail.asked = trail.asked.max(position);
        let left = trail.asked - position;
        // While the next ones had to be brought, so will those behind them.
        let rolls = left > 0 && left <= self.window / 2;
        let range = if trail.steps >= self.min_steps && (is_missing || rolls) {
            let end = position.saturating_add(self.window);
            let start = trail.asked + 1;
            trail.asked = trail.asked.max(end);
            start..=end
        } else {
            // Empty.
            RangeInclusive::new(1, 0)
        };
        if trails.len() >= MAX_TRAILS {
            trails.pop_front();
        }
        trails.push_back(trail);
        range
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_guess_goes_first_and_all_go_while_a_reader_waits() {
        let ahead = Ahead::default();
        let job = |index: usize| Job::Block { ino: 1, index: index as u64 };
        for index in 0..=MAX_JOBS {
            ahead.push(job(index));
            ahead.push(job(index));
        }
        assert_eq!(ahead.next(), Some(job(1)));
        ahead.set_waiting(1);
        ahead.push(Job::Assemble { ino: 9 });
        assert_eq!(ahead.next(), Some(Job::Assemble { ino: 9 }), "that one is no guess");
        ahead.set_waiting(0);
        ahead.push(job(0));
        assert_eq!(ahead.next(), Some(job(0)));
        assert_eq!(ahead.next(), Some(Job::Tidy), "once, after the work");
        ahead.close();
        assert_eq!(ahead.next(), None);
    }

    #[test]
    fn a_window_rolls_ahead_of_a_reader_that_goes_forward_through_what_is_missing() {
        let trails = Trails::new(1, 1, 4);
        let follow = |position, is_missing| trails.follow(7, position, is_missing).collect::<Vec<_>>();
        assert_eq!(follow(0, true), [0; 0], "one position is no direction");
        assert_eq!(follow(1, true), [2, 3, 4, 5]);
        assert_eq!(follow(2, false), [0; 0], "enough is on its way");
        assert_eq!(follow(3, false), [6, 7]);
        assert_eq!(follow(4, true), [8], "asked for, but not there yet");
        assert_eq!(follow(90, true), [0; 0], "a jump");
        assert_eq!(follow(91, false), [0; 0], "all is here");
        assert_eq!(follow(92, true), [93, 94, 95, 96]);
        assert_eq!(follow(10, true), [0; 0], "backwards");
        for key in 100..100 + MAX_TRAILS as u64 {
            assert!(trails.follow(key, 0, true).is_empty());
        }
        assert_eq!(follow(11, true), [0; 0], "forgotten");
    }
}
