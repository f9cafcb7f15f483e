//! How much of the suite is run, and the running of many cases beside each other.

use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// How many cases run at once: each waits most of its time.
const THREADS: usize = 4;

/// Tells whether all is to be run: `CONTD_FAULTS=full`, as `make faults` sets it.
pub(crate) fn is_full() -> bool {
    match std::env::var("CONTD_FAULTS").as_deref() {
        Ok("full") => true,
        Ok("short") | Err(_) => false,
        Ok(other) => panic!("CONTD_FAULTS={other} is neither full nor short"),
    }
}

/// Takes every n-th case in the short form, all in the full one, or those whose name contains `CONTD_FAULTS_ONLY`.
pub(crate) fn select<C>(cases: Vec<(String, C)>, every: usize) -> Vec<(String, C)> {
    if let Ok(only) = std::env::var("CONTD_FAULTS_ONLY") {
        return cases.into_iter().filter(|(name, _)| only.split(',').any(|part| name.contains(part))).collect();
    }
    if is_full() {
        return cases;
    }
    cases.into_iter().step_by(every).collect()
}

/// Runs all cases, prints each, and fails at the end with the names of those that failed.
pub(crate) fn run_all<C: Sync>(title: &str, cases: &[(String, C)], run: impl Fn(&str, &C) + Sync) {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS.min(cases.len()) {
            scope.spawn(|| {
                while let Some((name, case)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begin = Instant::now();
                    let result = std::panic::catch_unwind(AssertUnwindSafe(|| run(name, case)));
                    let time = begin.elapsed().as_secs_f32();
                    println!("{title}: {name}: {} ({time:.1} s)", if result.is_ok() { "ok" } else { "FAILED" });
                    if result.is_err() {
                        failures.lock().expect("no panic under the lock").push(name.clone());
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic under the lock");
    let form = if is_full() { "full" } else { "short" };
    println!("{title}: {form} form, {} cases in {:.0} s", cases.len(), begin.elapsed().as_secs_f32());
    let is_chosen_by_hand = std::env::var_os("CONTD_FAULTS_ONLY").is_some();
    assert!(!cases.is_empty() || is_chosen_by_hand, "{title}: no case was selected");
    assert!(failures.is_empty(), "{title}: {} of {} failed: {failures:#?}", failures.len(), cases.len());
}
