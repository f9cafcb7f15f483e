//! Ends a verb on Ctrl-C, SIGTERM or SIGHUP: removes unfinished files first.

use std::process;
use std::thread;

use contd_flist::unfinished;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::cli::output::Output;

/// Restores the usual effect of signals when dropped, at the end of the verb.
pub(super) struct Guard {
    before: Option<SigSet>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // A signal that is pending takes effect now.
            let _unchanged = before.thread_set_mask();
        }
    }
}

/// Handles the signals that end a command, from here on, in a thread that removes unfinished files. `stays` names what
/// is left in spite of that. Call it before the verb starts threads: they inherit the blocked signals.
pub(super) fn guard(output: &Output, stays: &'static str) -> Guard {
    let ending = ending_signals();
    let Ok(before) = ending.thread_swap_mask(SigmaskHow::SIG_BLOCK) else { return Guard { before: None } };
    let output = output.clone();
    let watching = thread::Builder::new().name("ending".to_owned()).spawn(move || {
        if let Ok(signal) = ending.wait() {
            end(&output, signal, stays);
        }
    });
    if watching.is_err() {
        let _unchanged = before.thread_set_mask();
        return Guard { before: None };
    }
    Guard { before: Some(before) }
}

#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "the main thread may be stuck on a store; what its destructors would remove is removed here"
)]
fn end(output: &Output, signal: Signal, stays: &str) {
    let left = unfinished::remove_all();
    let clear = if output.is_err_terminal { "\r\x1b[K" } else { "" };
    let mut text = format!("{clear}contd: error: ended by {signal}\n");
    for (path, error) in left {
        text.push_str(&format!("  left behind: {}: {error}\n", path.display().to_string().escape_debug()));
    }
    if !stays.is_empty() {
        text.push_str(&format!("hint: {stays}\n"));
    }
    output.tell(&text);
    process::exit(128 + signal as i32);
}

/// Returns the signals that are not ignored: under `nohup` or in the background the parent ignores some on purpose.
fn ending_signals() -> SigSet {
    let ignored = ignored_mask();
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        if ignored & (1 << (signal as i32 - 1)) == 0 {
            set.add(signal);
        }
    }
    set
}

fn ignored_mask() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
