//! Named places in our own code where a test may have us die, stand still, wait or fail.
//!
//! Takes in: the run directory, once ([`arm`]), and an order in the file `failpoint` there. Gives out: the fault, at the
//! place that the order names. Never does anything in a build without debug assertions: there the functions are empty
//! and inlined, so that not even their call is left.
//!
//! ```text
//! test ── writes ──► <run_dir>/failpoint ◄── reads ── hit(point), in the daemon and in every shim
//!                         │ renamed by the one that strikes, before it does
//!                         ▼
//!                    failpoint.struck         strikes once, and the test knows
//! ```
//!
//! An order is one line:
//!
//! ```text
//! <name> kill [<pid>…] | stop | delay <ms> | error <errno>  [skip <n>] [only <pid>…] [except <pid>…]
//! ```
//!
//! `kill` kills these processes, then the one that came by. `error` counts at a [`check`] only. `skip` lets the process
//! that strikes come by so often before; `only` and `except` say which processes are meant.
#![forbid(unsafe_code)]

mod points;
#[cfg(debug_assertions)]
mod strike;

use std::io;
use std::path::Path;

pub use points::Failpoint;

/// The file with the order, in the run directory.
pub const ORDER: &str = "failpoint";

/// What it is called once it was carried out.
pub const STRUCK: &str = "failpoint.struck";

/// Says where orders are. Until then, and in a release, no point does anything.
#[inline(always)]
pub fn arm(run_dir: &Path) {
    #[cfg(debug_assertions)]
    strike::arm(run_dir);
    #[cfg(not(debug_assertions))]
    let _nothing_in_a_release = run_dir;
}

/// Comes by a point: dies, stands still or waits here when that was ordered.
#[inline(always)]
pub fn hit(point: Failpoint) {
    #[cfg(debug_assertions)]
    let _only_checks_fail = strike::come_by(point);
    #[cfg(not(debug_assertions))]
    let _nothing_in_a_release = point;
}

/// The same where something may fail: fails when that was ordered.
///
/// # Errors
/// The one that was ordered.
#[inline(always)]
pub fn check(point: Failpoint) -> io::Result<()> {
    #[cfg(debug_assertions)]
    return strike::come_by(point);
    #[cfg(not(debug_assertions))]
    {
        let _nothing_in_a_release = point;
        Ok(())
    }
}
