//! Figures of running containers, and the processes in them.

use serde::{Deserialize, Serialize};

use crate::{ContainerId, ContainerName, NamespaceId, Pid, Timestamp};

/// The figures of a container since its start. Absent is what the kernel does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time.
    pub cpu: CpuUsage,
    /// Memory.
    pub memory: MemoryUsage,
    /// Processes and threads.
    pub pids: PidsUsage,
    /// Block devices.
    pub io: IoUsage,
    /// How long processes had to wait for each of the three (`CONFIG_PSI`, cgroup v2).
    pub pressure: PressureUsage,
}

/// Processor time, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuUsage {
    /// In all.
    pub total_ns: Option<u64>,
    /// In user mode.
    pub user_ns: Option<u64>,
    /// In the kernel.
    pub system_ns: Option<u64>,
    /// Periods of the limit in which it wanted to run.
    pub periods: Option<u64>,
    /// Those in which its limit made it wait.
    pub throttled_periods: Option<u64>,
    /// How long it was made to wait.
    pub throttled_ns: Option<u64>,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUsage {
    /// All of it, page cache too.
    pub bytes: Option<u64>,
    /// Without the page cache that was not used lately: what the kernel cannot take back easily, as Kubernetes counts it.
    pub working_set_bytes: Option<u64>,
    /// Memory of the processes themselves, without a file behind it.
    pub anonymous_bytes: Option<u64>,
    /// Page cache.
    pub file_bytes: Option<u64>,
    /// In swap.
    pub swap_bytes: Option<u64>,
    /// The most it ever was (v2 from Linux 5.19 on).
    pub peak_bytes: Option<u64>,
    /// The limit; `None` when there is none.
    pub limit_bytes: Option<u64>,
    /// Processes that were killed since it was reached.
    pub oom_kills: Option<u64>,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidsUsage {
    /// How many there are.
    pub count: Option<u64>,
    /// The limit; `None` when there is none.
    pub limit: Option<u64>,
}

/// Traffic of block devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoUsage {
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Bytes written.
    pub written_bytes: Option<u64>,
    /// Reads.
    pub reads: Option<u64>,
    /// Writes.
    pub writes: Option<u64>,
}

/// Time in which some process waited, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressureUsage {
    /// For a processor.
    pub cpu_ns: Option<u64>,
    /// For memory.
    pub memory_ns: Option<u64>,
    /// For a block device.
    pub io_ns: Option<u64>,
}

/// Traffic of a network namespace, without its loopback. A namespace that several containers have joined is counted for each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkUsage {
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Packets sent.
    pub sent_packets: u64,
}

/// The figures of a running container. Rates are the difference of two of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStats {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: ContainerName,
    /// Its namespace.
    pub namespace: NamespaceId,
    /// Its init: figures of another one are those of another run.
    pub pid: Pid,
    /// When it was looked at, by a clock that never goes back; in nanoseconds.
    pub monotonic_ns: u64,
    /// Its cgroup.
    pub usage: Usage,
    /// Its network namespace; `None` when it cannot be read.
    pub network: Option<NetworkUsage>,
}

/// A process in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its process id on the host.
    pub pid: Pid,
    /// Its process id in the container.
    pub container_pid: Pid,
    /// Its parent, on the host.
    pub parent: Pid,
    /// Its user, as a number of the host's.
    pub uid: u32,
    /// One letter: R, S, D, Z, T…, as `ps` has it.
    pub state: char,
    /// Processor time, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory that is present, in bytes.
    pub resident_bytes: u64,
    /// When it was started.
    pub started: Timestamp,
    /// Its program and arguments, as it shows them; of one that has none, its name in brackets.
    pub command: Vec<String>,
}
