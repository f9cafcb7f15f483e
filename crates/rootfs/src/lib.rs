//! From a flist to a container's root: fetches it, starts or finds its server, lays the overlay on top.
//!
//! ```text
//!  flist source ──► <cache>/fl/<hash>.fl ──► contd-flistfs (one per flist) ──► <run>/f/<16 hex>/mnt   (shared, read-only)
//!                                                                                  │ lower
//!                  size-limited tmpfs or the caller's directory ──── upper ──► overlay at <state>/<ns>/<id>/rootfs
//! ```
//!
//! Takes in: what a container's root shall be ([`PrepareRootfs`]). Gives out: a mounted directory ([`PreparedRootfs`]).
//! Never does: decide when; it keeps no state but what lies on disk and in the mount table, so that a new daemon knows
//! everything the old one knew.
#![deny(unsafe_code)]

#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod provider;

pub use provider::{FetchProgress, PrepareRootfs, PreparedRootfs, RecoveredRootfs, RootfsError, RootfsProvider};
