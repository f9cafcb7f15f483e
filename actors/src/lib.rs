//! Who owns what, and in which order things happen: the only place that knows actix.
#![forbid(unsafe_code)]

mod call;
mod config;
pub mod messages;

pub use call::{CallError, ask, ask_api, tell};
pub use config::{Defaults, Limits, LogRotation, NodeConfig};
