//! The unified hierarchy: all, or beside v1 what needs no controller.

use std::path::Path;

use super::parse::{keyed, number, pressure, summed};
use contd_types::{CpuUsage, IoUsage, MemoryUsage, PidsUsage, PressureUsage, Usage};

use super::Gauge;
use crate::error::CgroupError;

#[derive(Debug)]
pub(super) struct Files {
    cpu_stat: Gauge,
    memory_current: Gauge,
    memory_stat: Gauge,
    memory_swap: Gauge,
    memory_peak: Gauge,
    memory_max: Gauge,
    memory_events: Gauge,
    pids_current: Gauge,
    pids_max: Gauge,
    io_stat: Gauge,
    cpu_pressure: Gauge,
    memory_pressure: Gauge,
    io_pressure: Gauge,
}

impl Files {
    pub(super) fn open(dir: &Path) -> Result<Self, CgroupError> {
        let open = |name| Gauge::open(dir, name);
        Ok(Self {
            cpu_stat: open("cpu.stat")?,
            memory_current: open("memory.current")?,
            memory_stat: open("memory.stat")?,
            memory_swap: open("memory.swap.current")?,
            memory_peak: open("memory.peak")?,
            memory_max: open("memory.max")?,
            memory_events: open("memory.events")?,
            pids_current: open("pids.current")?,
            pids_max: open("pids.max")?,
            io_stat: open("io.stat")?,
            cpu_pressure: open("cpu.pressure")?,
            memory_pressure: open("memory.pressure")?,
            io_pressure: open("io.pressure")?,
        })
    }

    pub(super) fn read(&self, buffer: &mut Vec<u8>) -> Usage {
        let nanoseconds = |microseconds: Option<u64>| microseconds.map(|time| time.saturating_mul(1000));
        let text = self.cpu_stat.read(buffer);
        let cpu = CpuUsage {
            total_ns: nanoseconds(keyed(text, "usage_usec")),
            user_ns: nanoseconds(keyed(text, "user_usec")),
            system_ns: nanoseconds(keyed(text, "system_usec")),
            periods: keyed(text, "nr_periods"),
            throttled_periods: keyed(text, "nr_throttled"),
            throttled_ns: nanoseconds(keyed(text, "throttled_usec")),
        };
        let bytes = number(self.memory_current.read(buffer));
        let text = self.memory_stat.read(buffer);
        let inactive = keyed(text, "inactive_file");
        let memory = MemoryUsage {
            bytes,
            working_set_bytes: bytes.zip(inactive).map(|(bytes, inactive)| bytes.saturating_sub(inactive)),
            anonymous_bytes: keyed(text, "anon"),
            file_bytes: keyed(text, "file"),
            swap_bytes: number(self.memory_swap.read(buffer)),
            peak_bytes: number(self.memory_peak.read(buffer)),
            limit_bytes: number(self.memory_max.read(buffer)),
            oom_kills: keyed(self.memory_events.read(buffer), "oom_kill"),
        };
        let pids =
            PidsUsage { count: number(self.pids_current.read(buffer)), limit: number(self.pids_max.read(buffer)) };
        let text = self.io_stat.read(buffer);
        // A cgroup that did nothing has an empty file.
        let did_nothing = if self.io_stat.0.is_some() { Some(0) } else { None };
        let of = |key| summed(text, key).or(did_nothing);
        let io =
            IoUsage { read_bytes: of("rbytes"), written_bytes: of("wbytes"), reads: of("rios"), writes: of("wios") };
        let pressure = PressureUsage {
            cpu_ns: nanoseconds(pressure(self.cpu_pressure.read(buffer))),
            memory_ns: nanoseconds(pressure(self.memory_pressure.read(buffer))),
            io_ns: nanoseconds(pressure(self.io_pressure.read(buffer))),
        };
        Usage { cpu, memory, pids, io, pressure }
    }
}
