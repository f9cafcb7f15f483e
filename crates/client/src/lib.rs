//! Async client of the API socket: the command line uses nothing else.
//!
//! Takes in: the path of the socket, and requests. Gives out: typed answers, and streams with bounded memory.
//! Never does: retries of what may have been done, start-up of a daemon, anything on a thread of its own.
//!
//! ```text
//!  Client ──call──► slot (256 at most) ──frame──► ┐                    ┌──► socket
//!  RunStream, LogStream, EventStream… ─credit──►  ├─ one task per  ────┤
//!                                    ◄──items───  ┘  connection        └──◄ socket
//! ```
//!
//! A [`Follower`] asks again what may be asked twice: wait, logs, events, stop and attached runs go on across daemons.
//!
//! Every call takes a [`Deadline`]. When the connection ends, every call under way fails with the same
//! [`ClientError::Lost`] or [`ClientError::Protocol`]; connect again to go on. A dropped stream or call is cancelled.
#![forbid(unsafe_code)]

mod call;
mod connect;
mod deadline;
mod error;
mod exec;
mod follow;
mod requests;
mod socket;
mod stream;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

// The crates whose types stand in the signatures here: a caller of a daemon names no other crate.
pub use {contd_protocol, contd_types};

pub use deadline::Deadline;
pub use error::{ClientError, ProtocolError};
pub use exec::{Executed, ended};
pub use follow::{FollowedEvents, FollowedLog, FollowedRun, Follower, PATIENCE};
pub use requests::{Attached, Client, ListFilter, LogsOptions};
pub use stream::{EventItem, EventStream, ExecItem, ExecStream, LogStream, Progress, RunItem, RunStream};
