//! The way of the daemon to its shims: start one, find it again, call it.
//!
//! ```text
//!  ContainerActor ──► dyn ShimClient ──► (spawn | attach) ──► dyn Shim ──► bincode frames ──► contd-shim
//!                          │
//!                          └── <run dir>/s/<16 hex>/   lease.json lock sock task.json stdout stderr exit.json
//! ```
//!
//! Takes in: what to make ([`contd_protocol::shim::TaskSpec`]). Gives out: calls with typed errors and deadlines.
//! Never does: decide what happens to a container; it has no opinion about states.
#![forbid(unsafe_code)]

pub mod client;
pub mod deadline;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
mod greet;
pub mod process;
mod vault;

pub use client::{Attached, Executed, FoundShim, Holdout, Shim, ShimClient, ShimError};
pub use process::{ProcessShimClient, ShimClientConfig, SlotConfig, is_kept_name};
pub use vault::{NoVault, Vault};
