//! The tests of this crate, in one binary: it is linked once. A file that is not named here is found by `tests/workspace.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod adoption;
mod common;
mod contract;
mod crate_graph;
mod exec;
mod faults;
mod protocol;
mod runc;
mod terminate;
