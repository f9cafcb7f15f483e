//! The words that every part of contd shares: ids, specs, the lifecycle table, events and the errors that travel.
//!
//! Takes in: text and numbers from outside, through parsing constructors. Gives out: values that can only be valid.
//! Never does: I/O, threads, async, randomness. Whoever depends on this crate gets vocabulary and nothing else.
//!
//! ```text
//! id, name      who            ContainerId, NamespaceId, ContainerName, ContainerRef
//! spec          what to run    ContainerSpec and its parts
//! exec          what execve takes
//! layer         where what it writes lies  LayerKind
//! lifecycle     where it is    State × Event -> State, one pure table
//! caller        who asked     Caller: a user with limited rights
//! exit          how it ended   Exit: code or signal, and how that is known
//! info          what we tell   ContainerInfo, ContainerSummary
//! event         what happened  ContainerEvent
//! error         what went wrong ApiError, ErrorKind, trait Explain
//! hint          what to type  complete_commands
//! shortage      what ran out   Shortage
//! time          when           Timestamp, trait Clock
//! ```
#![forbid(unsafe_code)]

pub mod backoff;
pub mod caller;
pub mod error;
pub mod event;
pub mod exec;
pub mod exit;
pub mod hint;
pub mod id;
pub mod info;
pub mod layer;
pub mod lifecycle;
pub mod mount;
pub mod name;
pub mod shortage;
pub mod signal;
pub mod spec;
pub mod time;

pub use backoff::Backoff;
pub use caller::Caller;
pub use error::{ApiError, ErrorKind, Explain, causes, one_line};
pub use event::{ContainerEvent, EventKind};
pub use exec::exec_limit_bytes;
pub use exit::{Exit, ExitCause, ExitSource};
pub use hint::complete_commands;
pub use id::{ContainerId, ContainerRef};
pub use info::{ContainerInfo, ContainerSummary, InForce};
pub use layer::LayerKind;
pub use lifecycle::{Event, IllegalTransition, Pid, State, StateName, Step};
pub use mount::MountSpec;
pub use name::{ContainerName, NameError, NamespaceId, NetnsName};
pub use shortage::Shortage;
pub use signal::{Signal, SignalError};
pub use spec::{
    ContainerSpec, CpuLimit, Entrypoint, MAX_TIMEOUT, MIN_MEMORY_BYTES, Network, Propagation, RestartPolicy, SpecError,
    UserSpec,
};
pub use time::{Clock, SystemClock, Timestamp};
