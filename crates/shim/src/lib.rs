//! One container's shim: its parent, the keeper of its output, and the only one who may signal it.
//!
//! Takes in: `task.json` in a reserved lease directory, and calls on a local socket. Gives out: a container made by a
//! [`runtime::Runtime`], its log, its true exit. Never does: threads, async, network, decisions about restarts.
//!
//! ```text
//!            sock ──► session ─────► task ──► runtime (create, start, pause, resume, delete)
//!   poll ──┤ init's pidfd ─────────►  │  ──► init.json, exit.json
//!            FIFOs ──► pump ──► log   │
//!            SIGCHLD ──► reaper ◄─────┘   descendants of the container that nobody waits for
//! ```
//!
//! Everything is driven by one `poll(2)`: what to wait for is computed from the state on each turn, so nothing can be
//! forgotten in a registration. Nothing in the loop blocks except local file operations and one write to the log.
//!
//! Signals are blocked and read from a descriptor, not ignored: an ignored signal stays ignored in the container. The
//! mask is emptied for the moment in which a process is started.
#![deny(unsafe_code)]

mod args;
mod clock;
mod console;
mod daemonize;
mod diagnostics;
mod error;
mod event_loop;
#[cfg(feature = "testing")]
pub mod fuzzing;
mod holder;
mod init;
mod input;
mod leftover;
mod log;
mod process;
mod pump;
mod reaper;
pub mod runtime;
mod slot;
mod spool;
mod start;
#[expect(unsafe_code, reason = "waitid by pidfd and sigaction, which nix does not offer safely or at all")]
mod sys;
mod task;
mod task_file;

pub use start::{Options, main};
