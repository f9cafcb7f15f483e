//! The messages between actors. One struct per message, typed reply.
//!
//! - [`api`]: the verbs, answered by [`crate::Supervisor`]; what embedders and the API server use.
//! - the others are between the actors of this crate.

pub mod api;
pub(crate) mod container;
pub(crate) mod namespace;
pub(crate) mod node;
pub(crate) mod supervisor;

pub use api::*;
#[cfg(any(test, feature = "testing"))]
pub use supervisor::{PanicIn, PlantPanic};
