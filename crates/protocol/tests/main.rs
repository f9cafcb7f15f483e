//! The tests of this crate, in one binary: it is linked once. A file that is not named here is found by `tests/workspace.rs`.

mod golden;
mod roundtrip;
