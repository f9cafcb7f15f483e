//! The `linux` section: namespaces, limits, devices, and the hidden and read-only paths of `/proc` and `/sys`.

use std::path::{Component, Path, PathBuf};

use contd_types::{ContainerSpec, CpuLimit, Propagation};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxCpuBuilder, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder,
    LinuxDeviceType, LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder,
    LinuxResources, LinuxResourcesBuilder, LinuxSeccomp,
};

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

const FUSE_DEVICE: CharDevice = CharDevice { major: 10, minor: Some(229) };
const ANY_ACCESS: &str = "rwm";

/// Makes the Linux section.
pub(crate) fn linux(request: &BundleRequest<'_>, profile: LinuxSeccomp) -> Result<Linux, BundleError> {
    let cgroup = cgroup_path(request)?;
    assemble(request, cgroup, profile)
        .map_err(|source| BundleError::Assemble { name: request.spec.name.to_string(), source })
}

fn assemble(request: &BundleRequest<'_>, cgroup: PathBuf, profile: LinuxSeccomp) -> Result<Linux, OciSpecError> {
    let is_elevated = request.spec.is_elevated;
    LinuxBuilder::default()
        .namespaces(namespaces(&request.netns)?)
        .cgroups_path(cgroup)
        .resources(resources(request)?)
        .devices(if is_elevated { vec![fuse_node()?] } else { Vec::new() })
        .seccomp(profile)
        .rootfs_propagation(propagation(request.spec.rootfs_propagation))
        .masked_paths(MASKED_PATHS.map(str::to_owned))
        .readonly_paths(READONLY_PATHS.map(str::to_owned))
        .build()
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

/// Makes the limits. Every container has all of them.
///
/// Swap is left out: on cgroup v1 a kernel without swap accounting has no such file and the runtime would fail, and
/// whether it has one is not part of the request. Where there is swap, a container may use it beyond its memory limit,
/// as with containerd.
fn resources(request: &BundleRequest<'_>) -> Result<LinuxResources, OciSpecError> {
    let spec = request.spec;
    let ResourceLimits { memory_bytes, cpu, pids_limit } = limits(spec, request.defaults);
    // A limit above 2^63 bytes is the same as none.
    let memory_bytes = i64::try_from(memory_bytes).unwrap_or(i64::MAX);
    LinuxResourcesBuilder::default()
        .devices(device_rules(spec.is_elevated)?)
        .memory(LinuxMemoryBuilder::default().limit(memory_bytes).build()?)
        .cpu(LinuxCpuBuilder::default().quota(quota(cpu)).period(CPU_PERIOD_US).shares(shares(cpu)).build()?)
        .pids(LinuxPidsBuilder::default().limit(i64::from(pids_limit)).build()?)
        .build()
}

/// Returns the microseconds of CPU time in each period.
fn quota(cpu: CpuLimit) -> i64 {
    i64::try_from(u64::from(cpu.millis()) * CPU_PERIOD_US / 1000).unwrap_or(i64::MAX)
}

/// Returns the weight under contention, in proportion to the limit.
fn shares(cpu: CpuLimit) -> u64 {
    (u64::from(cpu.millis()) * SHARES_PER_CPU / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// Makes the device rules: first deny all, then allow the listed ones.
fn device_rules(is_elevated: bool) -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    let mut rules = vec![LinuxDeviceCgroupBuilder::default().allow(false).access(ANY_ACCESS).build()?];
    let fuse = is_elevated.then_some(&FUSE_DEVICE);
    for device in ALLOWED_DEVICES.iter().chain(fuse) {
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
    Ok(rules)
}

/// Makes the `/dev/fuse` node, by which an elevated container serves file systems.
fn fuse_node() -> Result<LinuxDevice, OciSpecError> {
    LinuxDeviceBuilder::default()
        .path("/dev/fuse")
        .typ(LinuxDeviceType::C)
        .major(FUSE_DEVICE.major)
        .minor(FUSE_DEVICE.minor.unwrap_or_default())
        .file_mode(0o666u32)
        .uid(0u32)
        .gid(0u32)
        .build()
}

fn propagation(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Private => "private",
        Propagation::Slave => "slave",
        Propagation::Shared => "shared",
    }
}
