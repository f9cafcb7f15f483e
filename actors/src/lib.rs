//! The actors of a node: which of them owns which state, and in which order things happen. The only crate that knows actix.
//!
//! Takes in: a [`NodeConfig`], the boundaries of the node ([`Parts`]) and the verbs ([`messages`]). Gives out: typed answers,
//! streams of log and events. Works through the boundaries (store, shims, root file systems, bundles); the files that it touches
//! itself are the logs of containers, through `contd_logs`, a flist's `.startup.toml`, and the journal of events.
//!
//! ```text
//!   a verb for a container: straight to its actor, whose address its namespace publishes
//!        ┌───────────────────────────────────────┐
//! Supervisor ─┬─ NamespaceActor (per namespace) ─┴─ ContainerActor (per container) ── one task at a time: make, settle,
//!             │    admits runs: names, quota            │ the task asks                 remove, recover; its result
//!             ├─ FlistActor ◄───────────────────────────┤                               comes back as a value
//!             ├─ BundleActor ◄──────────────────────────┤
//!             ├─ LogActor ◄─────────────────────────────┘
//!             └─ EventActor ◄── a queue, into which everyone publishes      everyone reads the View: what inspect and list show
//! ```
//!
//! An operation begins in one function each: `begin_make`, `begin_recovery`, `begin_remove` (`container/`), `begin_stop`
//! (`container/requests.rs`).
//!
//! Parents rebuild lost children from the store. An actor that is asked answers, or its loss is the answer: nobody hangs. Pools
//! and locks outlive actors, because a thread that hangs does: see `locks.rs`, and docs/decisions/0025.
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

// The crates whose types stand in the signatures here: an embedder of the actors names no other crate.
pub use {actix, contd_bundle, contd_meters, contd_rootfs, contd_shim_client, contd_store, contd_types};

pub use call::{CallError, ask, ask_api, tell};
pub use config::{
    DEFAULT_CGROUP_PARENT, DEFAULT_NETNS_DIR, DEFAULT_RUNTIME_TIMEOUT, Defaults, LOG_NOTES_DIR, Limits, LogRetention,
    LogRotation, NodeConfig, NodeRuntime, Runtimes, Settings,
};
pub use judge::{Judge, Judgement, NoRules};
pub use node::{Node, Parts, start, until_ended};
pub use pool::runtime;
pub use supervisor::Supervisor;
