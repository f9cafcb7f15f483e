//! What tests of several crates share, and `suite`, the program behind `make test`.
#![forbid(unsafe_code)]
