//! The cgroups of one container, on cgroup v1, the hybrid of both, and v2.
//!
//! Takes in: a path such as `/contd/<id>`, limits in OCI's terms. Gives out: directories that were made, entered, limited,
//! frozen, killed and removed. Never does: choose names, touch anything outside the path it was given.
//!
//! Only the controllers that a limit needs are joined. Where there is a v2 tree it is joined too, without any
//! controller: it can kill a whole cgroup at once (`cgroup.kill`) and tells when one is empty (`cgroup.events`).
#![deny(unsafe_code)]

mod block_io;
mod cgroup;
mod clock;
mod controllers;
mod device_program;
mod error;
mod hierarchies;
mod limits;
mod members;
mod remove;
#[expect(unsafe_code, reason = "bpf(2) and pidfds, which nix does not offer")]
mod sys;
mod task;
mod update;
mod usage;
mod v1;
mod v2;

pub use cgroup::Cgroup;
pub use controllers::Controllers;
pub use error::CgroupError;
pub use hierarchies::{Hierarchies, Joined, Kind};
pub use limits::{Access, Cpu, DeviceKind, DeviceRule, Limits, Memory};
pub use task::TaskCgroup;
pub use usage::Meter;
