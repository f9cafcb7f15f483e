//! Hierarchies of v1, each with its controllers.

use super::parse::{keyed, number, of_operation};
use contd_types::{CpuUsage, IoUsage, MemoryUsage, PidsUsage, PressureUsage, Usage};

use super::Gauge;
use crate::cgroup::Cgroup;
use crate::controllers::Controllers;
use crate::error::CgroupError;

/// The kernel's ticks, in which `cpuacct.stat` counts: `USER_HZ`, 100 on all machines that Linux has a Rust for.
const NS_PER_TICK: u64 = 10_000_000;
/// From here on `memory.limit_in_bytes` is no limit: the kernel rounds the largest signed number down to a page.
const NO_LIMIT: u64 = i64::MAX as u64 / (64 << 10) * (64 << 10);

#[derive(Debug)]
pub(super) struct Files {
    cpu_total: Gauge,
    cpu_split: Gauge,
    cpu_stat: Gauge,
    memory_usage: Gauge,
    memory_stat: Gauge,
    memory_peak: Gauge,
    memory_limit: Gauge,
    memory_events: Gauge,
    pids_current: Gauge,
    pids_max: Gauge,
    io_bytes: Gauge,
    io_operations: Gauge,
}

impl Files {
    pub(super) fn open(cgroup: &Cgroup) -> Result<Self, CgroupError> {
        let open = |controller, name| {
            let dir = cgroup.dirs.iter().find(|dir| !dir.is_v2 && dir.controllers.intersects(controller));
            dir.map_or(Ok(Gauge(None)), |dir| Gauge::open(&dir.path, name))
        };
        Ok(Self {
            cpu_total: open(Controllers::CPUACCT, "cpuacct.usage")?,
            cpu_split: open(Controllers::CPUACCT, "cpuacct.stat")?,
            cpu_stat: open(Controllers::CPU, "cpu.stat")?,
            memory_usage: open(Controllers::MEMORY, "memory.usage_in_bytes")?,
            memory_stat: open(Controllers::MEMORY, "memory.stat")?,
            memory_peak: open(Controllers::MEMORY, "memory.max_usage_in_bytes")?,
            memory_limit: open(Controllers::MEMORY, "memory.limit_in_bytes")?,
            memory_events: open(Controllers::MEMORY, "memory.oom_control")?,
            pids_current: open(Controllers::PIDS, "pids.current")?,
            pids_max: open(Controllers::PIDS, "pids.max")?,
            io_bytes: open(Controllers::BLKIO, "blkio.throttle.io_service_bytes_recursive")?,
            io_operations: open(Controllers::BLKIO, "blkio.throttle.io_serviced_recursive")?,
        })
    }

    pub(super) fn read(&self, buffer: &mut Vec<u8>) -> Usage {
        let nanoseconds = |ticks: Option<u64>| ticks.map(|ticks| ticks.saturating_mul(NS_PER_TICK));
        let total_ns = number(self.cpu_total.read(buffer));
        let text = self.cpu_split.read(buffer);
        let (user_ns, system_ns) = (nanoseconds(keyed(text, "user")), nanoseconds(keyed(text, "system")));
        let text = self.cpu_stat.read(buffer);
        let cpu = CpuUsage {
            total_ns,
            user_ns,
            system_ns,
            periods: keyed(text, "nr_periods"),
            throttled_periods: keyed(text, "nr_throttled"),
            throttled_ns: keyed(text, "throttled_time"),
        };
        let bytes = number(self.memory_usage.read(buffer));
        let text = self.memory_stat.read(buffer);
        let inactive = keyed(text, "total_inactive_file");
        let memory = MemoryUsage {
            bytes,
            working_set_bytes: bytes.zip(inactive).map(|(bytes, inactive)| bytes.saturating_sub(inactive)),
            anonymous_bytes: keyed(text, "total_rss"),
            file_bytes: keyed(text, "total_cache"),
            // Absent without accounting of swap.
            swap_bytes: keyed(text, "total_swap"),
            peak_bytes: number(self.memory_peak.read(buffer)),
            limit_bytes: number(self.memory_limit.read(buffer)).filter(|limit| *limit < NO_LIMIT),
            oom_kills: keyed(self.memory_events.read(buffer), "oom_kill"),
        };
        let pids =
            PidsUsage { count: number(self.pids_current.read(buffer)), limit: number(self.pids_max.read(buffer)) };
        let text = self.io_bytes.read(buffer);
        let (read_bytes, written_bytes) = (of_operation(text, "Read"), of_operation(text, "Write"));
        let text = self.io_operations.read(buffer);
        let io = IoUsage {
            read_bytes,
            written_bytes,
            reads: of_operation(text, "Read"),
            writes: of_operation(text, "Write"),
        };
        Usage { cpu, memory, pids, io, pressure: PressureUsage::default() }
    }
}
