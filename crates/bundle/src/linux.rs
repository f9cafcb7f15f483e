//! The `linux` section: namespaces, limits, devices, and the hidden and read-only paths of `/proc` and `/sys`.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use contd_types::{CgroupLimits, ContainerSpec, CpuLimit, MemorySwap, Propagation, Rights};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Linux, LinuxBlockIoBuilder, LinuxBuilder, LinuxCpu, LinuxCpuBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder,
    LinuxDeviceType, LinuxMemory, LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, LinuxSeccomp,
};

use crate::devices::{self, GivenDevice};
use crate::error::BundleError;
use crate::request::{BundleRequest, Defaults, Netns};

/// The paths that are hidden from a container: containerd's list (pkg/oci/spec.go), and `/proc/interrupts`, a side
/// channel of the host that moby hides too.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// The paths that a container can read and not write: containerd's list.
pub const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The period in which CPU time is counted, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// The CPU shares of one whole CPU, and the bounds that the kernel accepts.
const SHARES_PER_CPU: u64 = 1024;
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;

/// A character device by its numbers; `None` stands for every minor.
struct CharDevice {
    major: i64,
    minor: Option<i64>,
}

/// The devices that a container may read, write and make nodes of: containerd's list (`oci.WithDefaultUnixDevices`).
const ALLOWED_DEVICES: [CharDevice; 9] = [
    CharDevice { major: 1, minor: Some(3) }, // null
    CharDevice { major: 1, minor: Some(5) }, // zero
    CharDevice { major: 1, minor: Some(7) }, // full
    CharDevice { major: 1, minor: Some(8) }, // random
    CharDevice { major: 1, minor: Some(9) }, // urandom
    CharDevice { major: 5, minor: Some(0) }, // tty
    CharDevice { major: 5, minor: Some(1) }, // console
    CharDevice { major: 5, minor: Some(2) }, // ptmx
    CharDevice { major: 136, minor: None },  // pts/*
];

const ANY_ACCESS: &str = "rwm";

/// Makes the Linux section.
pub(crate) fn linux(request: &BundleRequest<'_>, profile: Option<LinuxSeccomp>) -> Result<Linux, BundleError> {
    let cgroup = cgroup_path(request)?;
    let devices = devices::given(request.spec)?;
    assemble(request, cgroup, profile, &devices)
        .map_err(|source| BundleError::Assemble { name: request.spec.name.to_string(), source })
}

fn assemble(
    request: &BundleRequest<'_>,
    cgroup: PathBuf,
    profile: Option<LinuxSeccomp>,
    devices: &[GivenDevice],
) -> Result<Linux, OciSpecError> {
    let Rights { is_privileged, sysctls, .. } = &request.spec.rights;
    let nodes = devices.iter().map(GivenDevice::node).collect::<Result<Vec<_>, _>>()?;
    let paths =
        |paths: &[&str]| paths.iter().filter(|_| !is_privileged).map(|path| (*path).to_owned()).collect::<Vec<_>>();
    let linux = LinuxBuilder::default()
        .namespaces(namespaces(&request.netns)?)
        .cgroups_path(cgroup)
        .resources(resources(request, devices)?)
        .devices(nodes)
        .rootfs_propagation(propagation(request.spec.rootfs_propagation))
        .masked_paths(paths(&MASKED_PATHS))
        .readonly_paths(paths(&READONLY_PATHS));
    let linux = match profile {
        Some(profile) => linux.seccomp(profile),
        None => linux,
    };
    let linux =
        if sysctls.is_empty() { linux } else { linux.sysctl(sysctls.clone().into_iter().collect::<HashMap<_, _>>()) };
    linux.build()
}

/// Returns `/<parent>/<id>`; the id is unique on the node, so the namespace need not be in it.
fn cgroup_path(request: &BundleRequest<'_>) -> Result<PathBuf, BundleError> {
    let parent = Path::new(request.cgroup_parent);
    let is_plain = parent.components().all(|part| matches!(part, Component::Normal(_)));
    if request.cgroup_parent.is_empty() || !is_plain {
        return Err(BundleError::CgroupParent { parent: request.cgroup_parent.to_owned() });
    }
    Ok(Path::new("/").join(parent).join(request.id.as_str()))
}

fn namespaces(netns: &Netns) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let own = [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Cgroup,
    ];
    let mut namespaces = Vec::with_capacity(own.len() + 1);
    for kind in own {
        namespaces.push(LinuxNamespaceBuilder::default().typ(kind).build()?);
    }
    let network = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Network);
    namespaces.push(match netns {
        Netns::Private => network.build()?,
        Netns::Path(path) => network.path(path.clone()).build()?,
    });
    Ok(namespaces)
}

/// The limits of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// CPU time.
    pub cpu: CpuLimit,
    /// Processes and threads.
    pub pids_limit: u32,
}

/// Returns the limits in force: the spec's own, or else the node's.
pub fn limits(spec: &ContainerSpec, defaults: &Defaults) -> ResourceLimits {
    ResourceLimits {
        memory_bytes: spec.memory_bytes.unwrap_or(defaults.memory_bytes),
        cpu: spec.cpu.unwrap_or(defaults.cpu),
        pids_limit: spec.pids_limit.unwrap_or(defaults.pids_limit),
    }
}

/// Returns the limits in force of a container's cgroup.
pub fn cgroup_limits(spec: &ContainerSpec, defaults: &Defaults) -> CgroupLimits {
    let ResourceLimits { memory_bytes, cpu, pids_limit } = limits(spec, defaults);
    let own = &spec.resources;
    // The time that is counted in each period is the caller's quota, or follows from the limit in processors; so do the shares.
    let cpu_period_us = own.cpu_period_us.unwrap_or(CPU_PERIOD_US);
    CgroupLimits {
        memory_bytes,
        memory_swap: own.memory_swap,
        memory_reservation_bytes: own.memory_reservation_bytes,
        cpu_shares: own.cpu_shares.unwrap_or_else(|| shares(cpu)),
        cpu_quota_us: own.cpu_quota_us.unwrap_or_else(|| quota(cpu, cpu_period_us)),
        cpu_period_us,
        cpuset_cpus: own.cpuset_cpus.clone(),
        cpuset_mems: own.cpuset_mems.clone(),
        pids_limit,
        blkio_weight: own.blkio_weight,
    }
}

/// Makes the limits. Every container has those of memory, CPU and processes.
///
/// Swap is left out unless the spec says something: on cgroup v1 a kernel without swap accounting has no such file and the runtime would fail,
/// and whether it has one is not part of the request. Where there is swap, a container may use it beyond its memory limit,
/// as with containerd.
fn resources(request: &BundleRequest<'_>, devices: &[GivenDevice]) -> Result<LinuxResources, OciSpecError> {
    let limits = cgroup_limits(request.spec, request.defaults);
    let made = LinuxResourcesBuilder::default()
        .devices(device_rules(request.spec.rights.is_privileged, devices)?)
        .memory(memory(&limits)?)
        .cpu(cpu_section(&limits)?)
        .pids(LinuxPidsBuilder::default().limit(i64::from(limits.pids_limit)).build()?);
    match limits.blkio_weight {
        Some(weight) => made.block_io(LinuxBlockIoBuilder::default().weight(weight).build()?).build(),
        None => made.build(),
    }
}

/// A limit above 2^63 is the same as none.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn memory(limits: &CgroupLimits) -> Result<LinuxMemory, OciSpecError> {
    let made = LinuxMemoryBuilder::default().limit(signed(limits.memory_bytes));
    let made = match limits.memory_swap {
        Some(MemorySwap::Unlimited) => made.swap(-1),
        Some(MemorySwap::Bytes(both)) => made.swap(signed(both)),
        None => made,
    };
    match limits.memory_reservation_bytes {
        Some(reservation) => made.reservation(signed(reservation)).build(),
        None => made.build(),
    }
}

fn cpu_section(limits: &CgroupLimits) -> Result<LinuxCpu, OciSpecError> {
    let made = LinuxCpuBuilder::default()
        .quota(signed(limits.cpu_quota_us))
        .period(limits.cpu_period_us)
        .shares(limits.cpu_shares);
    let made = match &limits.cpuset_cpus {
        Some(cpus) => made.cpus(cpus.clone()),
        None => made,
    };
    match &limits.cpuset_mems {
        Some(mems) => made.mems(mems.clone()).build(),
        None => made.build(),
    }
}

/// Returns the microseconds of CPU time in each period.
fn quota(cpu: CpuLimit, period_us: u64) -> u64 {
    u64::from(cpu.millis()).saturating_mul(period_us) / 1000
}

/// Returns the weight under contention, in proportion to the limit.
fn shares(cpu: CpuLimit) -> u64 {
    (u64::from(cpu.millis()) * SHARES_PER_CPU / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// Makes the device rules: first deny all, then allow the listed ones, and those that are given; all to a privileged container.
fn device_rules(is_privileged: bool, given: &[GivenDevice]) -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    let all = LinuxDeviceCgroupBuilder::default().allow(is_privileged).access(ANY_ACCESS).build()?;
    if is_privileged {
        return Ok(vec![all]);
    }
    let mut rules = vec![all];
    for device in &ALLOWED_DEVICES {
        let rule = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(LinuxDeviceType::C)
            .major(device.major)
            .access(ANY_ACCESS);
        rules.push(match device.minor {
            Some(minor) => rule.minor(minor).build()?,
            None => rule.build()?,
        });
    }
    for device in given {
        rules.push(device.rule()?);
    }
    Ok(rules)
}

fn propagation(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Private => "private",
        Propagation::Slave => "slave",
        Propagation::Shared => "shared",
    }
}
