//! The limits, in OCI's terms: `linux.resources` of the runtime specification.

use std::collections::BTreeMap;

use crate::controllers::Controllers;

/// All limits of one container; what is `None` is left as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// `memory`.
    pub memory: Memory,
    /// `cpu`.
    pub cpu: Cpu,
    /// `pids.limit`: the most processes and threads; 0 or less is no limit.
    pub pids: Option<i64>,
    /// `devices`, in order: of the rules that match the last one counts.
    pub devices: Vec<DeviceRule>,
    /// `unified`: files of v2, written as they are.
    pub unified: BTreeMap<String, String>,
}

/// `memory`, in bytes; -1 is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// The most.
    pub limit: Option<i64>,
    /// What it gets back to under pressure.
    pub reservation: Option<i64>,
    /// The most of memory and swap together.
    pub swap: Option<i64>,
    /// How readily it is swapped, 0 to 100; v1 only.
    pub swappiness: Option<u64>,
    /// Whether it waits instead of being killed; v1 only.
    pub is_oom_killer_disabled: bool,
}

/// `cpu`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cpu {
    /// The weight under contention, 2 to 262144.
    pub shares: Option<u64>,
    /// Microseconds of CPU time in each period; -1 is no limit.
    pub quota: Option<i64>,
    /// Microseconds that may be saved up.
    pub burst: Option<u64>,
    /// Microseconds.
    pub period: Option<u64>,
    /// Which CPUs, such as `0-3,7`.
    pub cpus: Option<String>,
    /// Which memory nodes.
    pub mems: Option<String>,
    /// Whether it runs only when nobody else wants to.
    pub idle: Option<i64>,
}

/// Which devices a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// All.
    All,
    /// Character devices.
    Char,
    /// Block devices.
    Block,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Making a node.
    pub make: bool,
}

impl Access {
    /// All three.
    pub const ALL: Self = Self { read: true, write: true, make: true };
}

/// One of `devices`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// Whether it allows.
    pub is_allowed: bool,
    /// Which.
    pub kind: DeviceKind,
    /// `None` is every one.
    pub major: Option<u32>,
    /// `None` is every one.
    pub minor: Option<u32>,
    /// What.
    pub access: Access,
}

impl DeviceRule {
    /// Tells whether it is about everything.
    pub(crate) fn is_for_all(&self) -> bool {
        self.kind == DeviceKind::All && self.major.is_none() && self.minor.is_none() && self.access == Access::ALL
    }
}

impl Limits {
    /// Returns the controllers that these limits need; pausing needs its own one in any case.
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
        need(!self.devices.is_empty(), Controllers::DEVICES);
        needs
    }
}
