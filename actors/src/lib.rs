//! Who owns what, and in which order things happen: the only place that knows actix.
//!
//! Takes in: a [`NodeConfig`], the boundaries of the node ([`Parts`]) and the verbs ([`messages`]). Gives out: typed answers,
//! streams of log and events. Never does: sockets, files of its own, mounts, processes; those are behind the boundaries.
//!
//! ```text
//! Supervisor ─┬─ NamespaceActor (per namespace) ── ContainerActor (per container) ── one task at a time: make, settle,
//!             │                                        │ asks                     remove, recover
//!             ├─ FlistActor ◄──────────────────────────┤
//!             ├─ BundleActor ◄─────────────────────────┤        everyone reads the View: what inspect and list show
//!             ├─ LogActor ◄────────────────────────────┤
//!             └─ EventActor ◄──────────────────────────┘
//! ```
//!
//! Parents rebuild lost children from the store. Whoever is asked answers, or its loss is the answer: nobody hangs.
#![forbid(unsafe_code)]

mod addresses;
mod admission;
mod bundle;
mod call;
mod config;
mod container;
mod containers;
mod error;
mod event;
mod flist;
mod judge;
mod locks;
mod log;
pub mod messages;
mod namespace;
mod node;
mod pool;
mod random;
mod records;
mod services;
mod shared;
mod startup;
mod supervision;
mod supervisor;
mod sweep;
mod task;
mod view;

#[cfg(test)]
mod tests;

pub use call::{CallError, ask, ask_api, tell};
pub use config::{
    Defaults, LOG_NOTES_DIR, Limits, LogRotation, NodeConfig, NodeRuntime, RemovedLogsRule, Runtimes, Settings,
};
pub use judge::{Judge, Judgement, NoRules};
pub use node::{Node, Parts, start, until_ended};
pub use pool::runtime;
pub use supervisor::Supervisor;
