//! Failpoints: named places in our own code where a test can kill, stop, delay or fail the process.
//!
//! Takes in: the run directory, once ([`arm`]), and an order in the file `failpoint` there. Gives out: the fault, at
//! the place that the order names. Never does anything in a build without debug assertions: there the functions are
//! empty and inlined, so that not even their call is left.
//!
//! ```text
//! test ── writes ──► <run_dir>/failpoint ◄── reads ── hit(point), in the daemon and in every shim
//!                         │ renamed by the process that takes the order
//!                         ▼
//!                    failpoint.struck         carried out once; the test sees it
//! ```
//!
//! An order is one line:
//!
//! ```text
//! <name> kill [<pid>…] | stop | delay <ms> | error <errno>  [skip <n>] [only <pid>…] [except <pid>…]
//! ```
//!
//! `kill` kills these processes, then the process at the point. `error` takes effect only at a [`check`]. `skip` lets
//! the process pass the point this often first; `only` and `except` say which processes the order is for.
#![forbid(unsafe_code)]

#[cfg(debug_assertions)]
mod order;
mod points;

use std::io;
use std::path::Path;

pub use points::Failpoint;

/// The name of the file with the order, in the run directory.
pub const ORDER: &str = "failpoint";

/// The name of the order's file after the order was carried out.
pub const STRUCK: &str = "failpoint.struck";

/// Sets the directory of the orders. Before this call, and in a release build, no failpoint does anything.
#[inline(always)]
pub fn arm(run_dir: &Path) {
    #[cfg(debug_assertions)]
    order::arm(run_dir);
    #[cfg(not(debug_assertions))]
    let _nothing_in_a_release = run_dir;
}

/// Marks a failpoint: kills, stops or delays this process here if a test ordered that.
#[inline(always)]
pub fn hit(point: Failpoint) {
    #[cfg(debug_assertions)]
    let _only_checks_fail = order::reach(point);
    #[cfg(not(debug_assertions))]
    let _nothing_in_a_release = point;
}

/// Marks a failpoint that can fail too: like [`hit`], and returns the error that a test ordered.
///
/// # Errors
/// The ordered error.
#[inline(always)]
pub fn check(point: Failpoint) -> io::Result<()> {
    #[cfg(debug_assertions)]
    return order::reach(point);
    #[cfg(not(debug_assertions))]
    {
        let _nothing_in_a_release = point;
        Ok(())
    }
}
