//! Leases: how a process that outlives the daemon is found again, and never mistaken for another.
//!
//! Takes in: a directory per process on tmpfs. Gives out: whether the process lives, where its socket is, and a pidfd
//! that is certainly its own. Never does: start processes, talk to them, or signal by a bare pid. Blocks only for local
//! file operations; no async.
//!
//! ```text
//!   spawner (daemon)                              started process (shim, flist server)
//!   reserve ── lease.json{process: none} + lock
//!   fork + exec ───────────────────────────────►  claim ── takes the lock, fills in pid and start time
//!   probe ──── Absent|Reserved|Held|Dead|OtherBoot          (the kernel drops the lock when the process dies)
//!   retire ─── only with the lock in hand: a late starter finds nothing to claim and exits
//! ```
//!
//! The lock is a write lock of the open file description (`F_OFD_SETLK`): it dies with the last descriptor, an exec
//! closes it, and unlike `flock(2)` it can be looked at without taking it, so that a probe never makes a claim fail.
//! Proof of life is the lock alone; pid and start time are for the pidfd. Boot id, pid and start time must all match
//! before a pidfd is given out.
#![deny(unsafe_code)]

mod dir;
mod file;
mod lock;
mod log;
mod process;
#[expect(unsafe_code, reason = "an ioctl that no crate has")]
mod sys;

pub use dir::{HeldLease, LeaseDir, LeaseError, LeaseState};
pub use file::{LEASE_VERSION, Lease};
pub use log::ProcessLog;
pub use process::{BootId, ExitInfo, ProcessError, ProcessExit, ProcessIdentity, exit_info, pidfd, signal, wait_dead};
