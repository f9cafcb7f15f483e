//! One more process in a running container: the boundary to the runtime that makes it.
//!
//! ```text
//! begin_exec ──► Executing ── ready, finish ──► Made: our child, waiting ── let_go ──► Executing ── ready, finish ──► Runs
//!                                        └────► Made, and it runs its program already
//! ```

use std::fmt::Debug;
use std::os::fd::{BorrowedFd, OwnedFd};

use contd_types::WindowSize;

use super::RuntimeError;

/// The descriptors 0, 1 and 2 of a process.
#[derive(Debug)]
pub enum ExecStdio {
    /// These.
    Given([OwnedFd; 3]),
    /// A terminal that the runtime makes, of this size.
    Terminal(WindowSize),
}

/// A process on its way to its program.
pub trait Executing: Debug {
    /// Returns the descriptor that becomes readable when this step is over.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Tells whether a child is one that must not be reaped before [`Self::finish`]: the runtime's own process, or the one that it
    /// makes, which may have ended already.
    fn owns(&self, pid: i32) -> bool;

    /// Takes the result. Only legal once the descriptor is readable.
    ///
    /// # Errors
    /// [`RuntimeError`] when there is no process, or it could not execute its program; a process that was made ends by itself.
    fn finish(self: Box<Self>) -> Result<ExecStep, RuntimeError>;

    /// Breaks it off. What was made so far ends by itself.
    fn abort(self: Box<Self>);
}

/// The result of a step.
#[derive(Debug)]
pub enum ExecStep {
    /// There is a process, our child.
    Made {
        /// On the host.
        pid: i32,
        /// The master of its terminal.
        terminal: Option<OwnedFd>,
        /// Lets it go; `None` when it runs its program already.
        waiting: Option<Box<dyn Held>>,
    },
    /// The process that was let go runs its program, or has ended before: its status tells.
    Runs,
}

/// A process that waits until it may execute its program.
pub trait Held: Debug {
    /// Lets it go.
    fn let_go(self: Box<Self>) -> Box<dyn Executing>;
}
