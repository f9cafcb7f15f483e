//! The properties that every decoder must keep for any input. `cargo fuzz` checks them with generated inputs, and
//! `tests/fuzz_corpus.rs` of the main workspace with the corpus.

pub mod memory;
mod targets;

pub use targets::*;
