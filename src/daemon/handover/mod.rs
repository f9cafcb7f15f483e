//! The handover from one daemon to its successor on the same directories, without a refused connection (docs/decisions/0008).
//!
//! ```text
//!  old                                            new
//!  serves, Desk listens at takeover.sock          lock held ─► asks at takeover.sock
//!  stops accepting, hands the listener over ────► connections wait in its backlog
//!  comes to rest, hands over what it keeps ─────►
//!  lets go of the lock, ends                      takes the lock, starts, accepts
//! ```
//! A predecessor that does not answer, or does not let go in time, is killed by pidfd: its containers do not notice, and its
//! listening descriptor is taken out of it before.

mod desk;
mod successor;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use desk::{Desk, Successor};
pub(crate) use successor::{Entered, enter};

/// How long either side may take for one message: local programs need microseconds; more is a process that stands still. Callers
/// who wait in its backlog give up after 5 s, so a successor must be there before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a predecessor may take to come to rest: its connections 2 s, its actors 20 s, its warm slots 10 s, and a margin.
const REST_TIMEOUT: Duration = Duration::from_secs(45);

/// Where a daemon hears its successor.
fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("takeover.sock")
}
