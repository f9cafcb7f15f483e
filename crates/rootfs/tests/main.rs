//! The tests of this crate, in one binary: it is linked once. A file that is not named here is found by `tests/workspace.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[allow(unused_imports, reason = "by this name in the modules")]
use contd_test_harness::mounted as support;

mod cache;
mod layers;
mod letting_go;
mod node;
mod roots;
