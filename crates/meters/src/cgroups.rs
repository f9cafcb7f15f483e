//! The meters of a node: open files of each container that was asked for lately.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use contd_cgroup::{Cpu, Hierarchies, Limits, Memory, Meter};
use contd_types::{CgroupLimits, ContainerId, MemorySwap, NetworkUsage, Pid, ProcessInfo};
use procfs::process::Process;

use crate::{MeterError, Metered, Meters, Reading, processes};

/// How long files stay open that nobody asks for: a look each second, and a scrape each half minute, find them open.
const KEPT_FOR: Duration = Duration::from_secs(90);

/// The interface that everybody has, whose bytes go nowhere.
const LOOPBACK: &str = "lo";

/// Meters by cgroups and `/proc`.
#[derive(Debug)]
pub struct CgroupMeters {
    began: Instant,
    /// Read with the first container, since a node may have its cgroups mounted late.
    hierarchies: OnceLock<Hierarchies>,
    open: Mutex<HashMap<ContainerId, Entry>>,
}

#[derive(Debug, Clone)]
struct Entry {
    files: Arc<Files>,
    used: Instant,
}

/// The open files of one container.
#[derive(Debug)]
struct Files {
    pid: Pid,
    init: Process,
    meter: Meter,
}

impl Default for CgroupMeters {
    fn default() -> Self {
        Self { began: now(), hierarchies: OnceLock::new(), open: Mutex::default() }
    }
}

impl CgroupMeters {
    fn hierarchies(&self) -> Option<&Hierarchies> {
        if self.hierarchies.get().is_none() {
            // Another thread may have been first, with the same.
            let _same = self.hierarchies.set(Hierarchies::read().ok()?);
        }
        self.hierarchies.get()
    }

    /// The files of a container, opened now if they are not.
    fn files(&self, of: &Metered) -> Option<Arc<Files>> {
        let lock = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now();
        if let Some(entry) = lock().get_mut(&of.id).filter(|entry| entry.files.pid == of.pid) {
            entry.used = now;
            return Some(Arc::clone(&entry.files));
        }
        let (init, cgroup) = processes::find(self.hierarchies()?, of).ok().flatten()?;
        let files = Arc::new(Files { pid: of.pid, init, meter: cgroup.meter().ok()? });
        lock().insert(of.id.clone(), Entry { files: Arc::clone(&files), used: now });
        Some(files)
    }

    /// Closes what nobody has asked for lately.
    fn prune(&self) {
        let now = now();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, entry| now.duration_since(entry.used) < KEPT_FOR);
    }
}

impl Meters for CgroupMeters {
    fn read(&self, of: &[Metered]) -> Vec<Reading> {
        let mut buffer = Vec::new();
        let mut readings = Vec::with_capacity(of.len());
        for one in of {
            let Some(files) = self.files(one) else { continue };
            let network = network(&files.init);
            if network.is_none() && !files.init.is_alive() {
                self.forget(&one.id);
                continue;
            }
            let monotonic_ns = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let usage = files.meter.read(&mut buffer);
            readings.push(Reading { of: one.clone(), monotonic_ns, usage, network });
        }
        self.prune();
        readings
    }

    fn processes(&self, of: &Metered) -> Result<Vec<ProcessInfo>, MeterError> {
        let failed = |source| MeterError::Cgroup { id: of.id.clone(), source };
        let hierarchies = Hierarchies::read().map_err(failed)?;
        let found = processes::find(&hierarchies, of).map_err(failed)?;
        let (_init, cgroup) = found.ok_or_else(|| MeterError::Ended { id: of.id.clone() })?;
        processes::list(&cgroup, &of.id).map_err(failed)
    }

    fn limit(&self, of: &Metered, from: &CgroupLimits, to: &CgroupLimits) -> Result<(), MeterError> {
        let failed = |source| MeterError::Limits { id: of.id.clone(), source };
        let hierarchies = Hierarchies::read().map_err(failed)?;
        let found = processes::find(&hierarchies, of).map_err(failed)?;
        let (_init, mut cgroup) = found.ok_or_else(|| MeterError::Ended { id: of.id.clone() })?;
        cgroup.change(&hierarchies, &in_oci_terms(from), &in_oci_terms(to)).map_err(failed)
    }

    fn forget(&self, id: &ContainerId) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

fn in_oci_terms(limits: &CgroupLimits) -> Limits {
    // A limit above 2^63 is the same as none.
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    Limits {
        memory: Memory {
            limit: Some(signed(limits.memory_bytes)),
            reservation: limits.memory_reservation_bytes.map(signed),
            swap: limits.memory_swap.map(|swap| match swap {
                MemorySwap::Unlimited => -1,
                MemorySwap::Bytes(both) => signed(both),
            }),
            ..Memory::default()
        },
        cpu: Cpu {
            shares: Some(limits.cpu_shares),
            quota: Some(signed(limits.cpu_quota_us)),
            period: Some(limits.cpu_period_us),
            cpus: limits.cpuset_cpus.clone(),
            mems: limits.cpuset_mems.clone(),
            ..Cpu::default()
        },
        pids: Some(i64::from(limits.pids_limit)),
        block_io_weight: limits.blkio_weight,
        ..Limits::default()
    }
}

#[expect(clippy::disallowed_methods, reason = "figures of the kernel go with its own clock")]
fn now() -> Instant {
    Instant::now()
}

/// Sums up all interfaces but the loopback.
fn network(init: &Process) -> Option<NetworkUsage> {
    let devices = init.dev_status().ok()?;
    let mut usage = NetworkUsage::default();
    for device in devices.values().filter(|device| device.name != LOOPBACK) {
        usage.received_bytes = usage.received_bytes.saturating_add(device.recv_bytes);
        usage.sent_bytes = usage.sent_bytes.saturating_add(device.sent_bytes);
        usage.received_packets = usage.received_packets.saturating_add(device.recv_packets);
        usage.sent_packets = usage.sent_packets.saturating_add(device.sent_packets);
    }
    Some(usage)
}

#[cfg(test)]
pub(crate) fn open_count(meters: &CgroupMeters) -> usize {
    meters.open.lock().unwrap_or_else(PoisonError::into_inner).len()
}

/// Makes a cgroup that is named after a container and moves a process into it.
#[cfg(test)]
pub(crate) fn container(id: &ContainerId, pid: i32) -> contd_cgroup::Cgroup {
    let path = format!("/contd-t-meters-{}/{id}", std::process::id());
    contd_cgroup::Cgroup::take_in(std::path::Path::new(&path), pid).expect("as root");
    let hierarchies = Hierarchies::read().expect("mountinfo");
    contd_cgroup::Cgroup::open(&hierarchies, std::path::Path::new(&path)).expect("open it").expect("it was made")
}
