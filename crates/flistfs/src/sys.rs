//! The one call that the compiler cannot check.

use std::io;

use nix::unistd::{ForkResult, Pid, fork as nix_fork};

/// Which of the two processes this is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fork {
    /// The one that was there before, and the pid of the other.
    Parent(Pid),
    /// The new one.
    Child,
}

/// Forks. Must be called while the process has one thread only; refuses otherwise.
pub(crate) fn fork() -> io::Result<Fork> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("fork with {threads} threads")));
    }
    // SAFETY: a fork is only unsound when another thread of the parent may hold a lock (of the allocator, of stdio) at
    // that moment, which then stays locked in the child. The count above is 1: there is no other thread, and this one is
    // here. Nothing of this crate starts a thread before the launcher and the keeper have forked; the keeper never does.
    match unsafe { nix_fork() }? {
        ForkResult::Parent { child } => Ok(Fork::Parent(child)),
        ForkResult::Child => Ok(Fork::Child),
    }
}
