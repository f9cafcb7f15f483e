//! Kernel calls about callers with limited rights: who they are, and what of the host they may name.
//!
//! Takes in a directory that a rule of the operator allows and a path that a caller names. Gives out a descriptor of what
//! lies there, found without leaving the directory, and attaches just that descriptor as a mount. Never judges a rule,
//! and never looks a path up a second time: what was checked is what is used.
//!
//! ```text
//!  rule: /srv/alice ──► descriptor, no symlinks ─┐
//!  caller: data/in  ──────────────────────────── openat2(RESOLVE_BENEATH) ──► descriptor ──► open_tree ──► move_mount
//! ```

#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests end loudly"))]

mod below;
mod open;
#[expect(
    unsafe_code,
    reason = "mounts by descriptor, peer groups, and the groups of one thread, which nix does not offer"
)]
mod sys;
mod tree;

pub use below::Below;
pub use open::{OpenError, open, open_dir_as, open_entry, open_file_as};
pub use sys::peer_groups;
pub use tree::{AttachError, attach};
