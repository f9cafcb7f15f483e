//! Tools that tests of several crates share, and `suite`, the program behind `make test`.
//!
//! ```text
//! machine     what this machine has, so that a test can say what it expects here
//! wait        eventually: a condition, and a deadline that ends a wait in vain
//! node        a daemon with directories of its own; census, manager, netns, dead_fuse, limited_user, servers, flists beside it
//! flist       a fixture on a copy, trees to compare, a small web server; zdb, image: what else flists are made from and read from
//! mounted     a mounted tree beside its manifest
//! port        a port of this machine that nobody else gets
//! stats       medians, their spread and ratios, for the benches
//! ```
//!
//! The crate is no part of contd: it is a dependency of tests and benches only.
#![deny(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::new_without_default,
    clippy::disallowed_methods,
    reason = "tests: a broken assumption shall end the test, loudly, and real processes live in real time"
)]

mod built;
pub mod census;
pub mod dead_fuse;
pub mod flist;
mod flists;
pub mod image;
pub mod limited_user;
pub mod machine;
#[allow(unsafe_code, reason = "passes descriptors by number between fork and exec")]
pub mod manager;
pub mod mounted;
mod netns;
pub mod node;
mod port;
mod said;
pub mod servers;
pub mod stats;
mod wait;
pub mod zdb;

pub use built::built;
pub use census::Census;
pub use flists::{Flist, busybox_tree};
pub use manager::Manager;
pub use netns::Netns;
pub use node::Node;
pub use port::Port;
pub use said::{assert_counted, said};
pub use wait::{SOON, eventually, tick};
