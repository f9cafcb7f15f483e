//! The shared types of contd: ids, specs, the lifecycle table, events and the errors of the API.
//!
//! Takes in: text and numbers from outside, through parsing constructors. Gives out: values that can only be valid.
//! Never does: I/O, threads, async, randomness.
//!
//! ```text
//! id, name      names          ContainerId, NamespaceId, ContainerName, ContainerRef
//! spec          a container    ContainerSpec and its parts
//! exec          execve's limits on a command
//! exec_spec     one more process  ExecSpec, ExecId
//! layer         place of the writable layer  LayerKind
//! lifecycle     states         State × Event -> State, one pure table
//! caller        limited user   Caller: a user with limited rights
//! exit          end of a run   Exit: code or signal, and how that is known
//! info          published      ContainerInfo, ContainerSummary
//! event         changes        ContainerEvent
//! error         API errors     ApiError, ErrorKind, trait Explain
//! hint          commands       complete_commands
//! request       id of an operation, for logs  RequestId
//! shortage      used up        Shortage
//! usage         figures        Usage, ContainerStats, ProcessInfo
//! time          wall clock     Timestamp, trait Clock
//! ```
#![forbid(unsafe_code)]

pub mod amount;
pub mod backoff;
pub mod caller;
mod changes;
pub mod error;
pub mod event;
pub mod exec;
pub mod exec_spec;
pub mod exit;
pub mod hint;
pub mod id;
pub mod info;
pub mod layer;
pub mod lifecycle;
pub mod mount;
pub mod name;
pub mod request;
pub mod shortage;
pub mod signal;
pub mod spec;
pub mod time;
pub mod usage;

pub use backoff::Backoff;
pub use caller::Caller;
pub use changes::{CgroupLimits, Changes};
pub use error::{ApiError, ErrorKind, Explain, causes, one_line};
pub use event::{ContainerEvent, EventKind};
pub use exec::exec_limit_bytes;
pub use exec_spec::{ExecId, ExecInfo, ExecSpec, ExecSpecError, WindowSize};
pub use exit::{Exit, ExitCause, ExitSource};
pub use hint::complete_commands;
pub use id::{ContainerId, ContainerRef};
pub use info::{ContainerInfo, ContainerSummary, InForce};
pub use layer::LayerKind;
pub use lifecycle::{Event, IllegalTransition, Pid, State, StateName, Step};
pub use mount::MountSpec;
pub use name::{ContainerName, NameError, NamespaceId, NetnsName};
pub use request::{RequestId, RequestIdError};
pub use shortage::Shortage;
pub use signal::{Signal, SignalError};
pub use spec::{
    Capability, ContainerSpec, CpuLimit, DeviceSpec, Entrypoint, HostEntry, MAX_TIMEOUT, MIN_MEMORY_BYTES, MemorySwap,
    NameService, Network, Propagation, Resources, RestartPolicy, Rights, Seccomp, SpecError, Ulimit, UlimitKind,
    UserSpec,
};
pub use time::{Clock, SystemClock, Timestamp};
pub use usage::{
    ContainerStats, CpuUsage, IoUsage, MemoryUsage, NetworkUsage, PidsUsage, PressureUsage, ProcessInfo, Usage,
};
