//! A whole node in one process: `contd daemon` is this crate, a socket and a command line.
//!
//! Takes in: a [`Config`]. Gives out: a [`Node`], whose supervisor answers all of [`contd_actors::messages`]. Makes directories,
//! takes the lock of the node, starts shims and flist servers. Never does: command lines, sockets of an API, signals, files of
//! configuration.
//!
//! ```text
//!  Config ──check, programs──► Plan ──directories, lock──► Assembled ──start──► Node ──► Supervisor (contd-actors)
//! ```
//!
//! # Use
//!
//! As root, with `contd-shim`, `contd-flistfs` and `contd-seccomp` beside the running program (or named in the configuration):
//!
//! ```ignore
#![doc = include_str!("../examples/open.rs")]
//! ```
#![forbid(unsafe_code)]

mod assembly;
mod cache_mode;
mod cgroups;
mod config;
mod error;
mod flists;
mod judge;
mod limits;
pub mod lock;
mod node;
pub mod programs;
mod vault;

use std::future::Future;
use std::io;

pub use assembly::{EVENTS_DIR, RUNTIME_STATE_DIR};
pub use cgroups::{Cgroups, UNIT_FILE};
pub use config::{
    Access, AllowedPath, Api, BindRule, Cache, Clash, Config, ConfigError, Defaults, FlistRule, Limits, Logs, Runtime,
    parse_address,
};
pub use contd_actors;
pub use error::OpenError;
pub use flists::FlistPlaces;
pub use judge::{Gate, Rules, fits, is_in_scope};
pub use limits::raise_open_files;
pub use lock::{NodeLock, Role};
pub use node::{Assembled, Node, Plan};

/// Runs a future in an actix system of this thread, which a [`Node`] wants.
///
/// # Errors
/// The process has no thread or descriptor left for a runtime.
pub fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = contd_actors::runtime()?;
    Ok(actix::System::with_tokio_rt(|| runtime).block_on(future))
}
