//! The limits of a container, in OCI's terms: `linux.resources` of the runtime specification.

use std::collections::BTreeMap;

use crate::controllers::Controllers;

/// All limits of one container; a `None` leaves the kernel's default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// `memory`.
    pub memory: Memory,
    /// `cpu`.
    pub cpu: Cpu,
    /// `pids.limit`: the most processes and threads; 0 or less is no limit.
    pub pids: Option<i64>,
    /// `blockIO.weight`: the weight against others who want a block device, 10 to 1000.
    pub block_io_weight: Option<u16>,
    /// `devices`, in order: the last matching rule decides.
    pub devices: Vec<DeviceRule>,
    /// `unified`: files of v2, written as they are.
    pub unified: BTreeMap<String, String>,
}

/// `memory`, in bytes; -1 is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// The most memory.
    pub limit: Option<i64>,
    /// The amount that the container is reduced to under memory pressure.
    pub reservation: Option<i64>,
    /// The most memory and swap together.
    pub swap: Option<i64>,
    /// How readily the container's memory is swapped out, 0 to 100; v1 only.
    pub swappiness: Option<u64>,
    /// Whether the container waits for memory instead of being killed; v1 only.
    pub is_oom_killer_disabled: bool,
}

/// `cpu`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cpu {
    /// The weight under contention, 2 to 262144.
    pub shares: Option<u64>,
    /// Microseconds of CPU time in each period; -1 is no limit.
    pub quota: Option<i64>,
    /// Microseconds of unused CPU time that may be saved up.
    pub burst: Option<u64>,
    /// The period in microseconds.
    pub period: Option<u64>,
    /// The allowed CPUs, such as `0-3,7`.
    pub cpus: Option<String>,
    /// The allowed memory nodes.
    pub mems: Option<String>,
    /// Whether the container runs only when no other process wants the CPU.
    pub idle: Option<i64>,
}

/// The kind of devices that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// All devices.
    All,
    /// Character devices.
    Char,
    /// Block devices.
    Block,
}

/// The kinds of access that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Making a device node.
    pub make: bool,
}

impl Access {
    /// All three.
    pub const ALL: Self = Self { read: true, write: true, make: true };
}

/// One rule of `devices`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// Whether the rule allows the access.
    pub is_allowed: bool,
    /// The kind of devices.
    pub kind: DeviceKind,
    /// The major number; `None` matches every one.
    pub major: Option<u32>,
    /// The minor number; `None` matches every one.
    pub minor: Option<u32>,
    /// The kinds of access.
    pub access: Access,
}

impl DeviceRule {
    /// Tells whether the rule matches every device and access.
    pub(crate) fn is_for_all(&self) -> bool {
        self.kind == DeviceKind::All && self.major.is_none() && self.minor.is_none() && self.access == Access::ALL
    }
}

impl Limits {
    /// Returns the controllers that these limits need, and always the one that pausing needs.
    pub fn needs(&self) -> Controllers {
        let mut needs = Controllers::FREEZER;
        let mut need = |is_needed: bool, controller| {
            if is_needed {
                needs = needs | controller;
            }
        };
        need(self.memory != Memory::default(), Controllers::MEMORY);
        let Cpu { shares, quota, burst, period, cpus, mems, idle } = &self.cpu;
        let has_time = shares.is_some() || quota.is_some() || burst.is_some() || period.is_some() || idle.is_some();
        need(has_time, Controllers::CPU);
        need(cpus.is_some() || mems.is_some(), Controllers::CPUSET);
        need(self.pids.is_some(), Controllers::PIDS);
        need(self.block_io_weight.is_some(), Controllers::BLKIO);
        need(!self.devices.is_empty(), Controllers::DEVICES);
        needs
    }
}
