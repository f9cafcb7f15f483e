//! Kernel calls that serve limited users: their groups, and opening what they name on the host.
//!
//! Takes in a directory that an access rule allows and a path that a caller names. Gives out a descriptor of the file
//! there, found without leaving the directory, and attaches exactly that descriptor as a mount. Never judges a rule,
//! and never looks a path up a second time: the checked file is the one that is used.
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
