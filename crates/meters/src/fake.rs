//! Meters whose figures a test sets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use contd_cgroup::CgroupError;
use contd_types::{CgroupLimits, ContainerId, NetworkUsage, Pid, ProcessInfo, Timestamp, Usage};

use crate::{MeterError, Metered, Meters, Reading};

/// Each container uses what was set for it, by default nothing; it has one process, its init. Clones share the figures.
#[derive(Debug, Clone, Default)]
pub struct FakeMeters(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    usages: HashMap<ContainerId, Usage>,
    forgotten: Vec<ContainerId>,
    looks: u64,
    /// The memory in use below which no limit is taken.
    least_memory_bytes: u64,
    limited: Vec<(ContainerId, CgroupLimits)>,
}

impl FakeMeters {
    /// Sets the figures of a container.
    pub fn set(&self, id: &ContainerId, usage: Usage) {
        self.lock().usages.insert(id.clone(), usage);
    }

    /// Lists the containers that were forgotten, in order.
    pub fn forgotten(&self) -> Vec<ContainerId> {
        self.lock().forgotten.clone()
    }

    /// Sets the memory that each container uses, below which it cannot be limited.
    pub fn use_memory(&self, bytes: u64) {
        self.lock().least_memory_bytes = bytes;
    }

    /// Lists the limits that were set, in order.
    pub fn limited(&self) -> Vec<(ContainerId, CgroupLimits)> {
        self.lock().limited.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meters for FakeMeters {
    fn read(&self, of: &[Metered]) -> Vec<Reading> {
        let mut inner = self.lock();
        inner.looks += 1;
        let monotonic_ns = inner.looks * 1_000_000_000;
        let reading = |one: &Metered| {
            let usage = inner.usages.get(&one.id).copied().unwrap_or_default();
            Reading { of: one.clone(), monotonic_ns, usage, network: Some(NetworkUsage::default()) }
        };
        of.iter().map(reading).collect()
    }

    fn processes(&self, of: &Metered) -> Result<Vec<ProcessInfo>, MeterError> {
        Ok(vec![ProcessInfo {
            pid: of.pid,
            container_pid: Pid(1),
            parent: Pid(1),
            uid: 0,
            state: 'S',
            cpu_ns: 0,
            resident_bytes: 4096,
            started: Timestamp(0),
            command: vec!["/bin/sh".to_owned()],
        }])
    }

    fn limit(&self, of: &Metered, _from: &CgroupLimits, to: &CgroupLimits) -> Result<(), MeterError> {
        let mut inner = self.lock();
        let (limit, used) = (to.memory_bytes, inner.least_memory_bytes);
        if limit < used {
            let source = CgroupError::InUse { field: "linux.resources.memory.limit", limit, used };
            return Err(MeterError::Limits { id: of.id.clone(), source });
        }
        inner.limited.push((of.id.clone(), to.clone()));
        Ok(())
    }

    fn forget(&self, id: &ContainerId) {
        self.lock().forgotten.push(id.clone());
    }
}
