//! Descriptors that change hands: from a process to its successor, to the service manager and back.
//!
//! Takes in: sockets, names, descriptors. Gives out: owned descriptors under the names they were given. Never does: decide
//! who succeeds whom, or what a name means. Blocks as long as the socket's own time-outs say; no async.
//!
//! ```text
//!  predecessor ── bytes + SCM_RIGHTS ──► successor                rights
//!  process ── FDSTORE=1 ──► service manager ── LISTEN_FDS ──► the next process of the service      manager
//!  a predecessor that stands still ── pidfd_getfd ──► successor                                    rights::take_from
//! ```
#![deny(unsafe_code)]

mod manager;
mod rights;
#[expect(
    unsafe_code,
    reason = "descriptors by number: from the kernel's ancillary data, the environment, another process"
)]
mod sys;

pub use manager::{ManagerError, ServiceManager, received};
pub use rights::{MAX_DESCRIPTORS_AT_ONCE, RightsError, receive, send, take_from};

use std::os::fd::OwnedFd;

/// A descriptor under the name that its giver gave it.
#[derive(Debug)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The descriptor.
    pub fd: OwnedFd,
}
