//! What is asked of every decoder, whatever it is fed with. `cargo fuzz` feeds it with inventions, `tests/fuzz_corpus.rs` of
//! the main workspace with the corpus.

pub mod memory;
mod targets;

pub use targets::*;
