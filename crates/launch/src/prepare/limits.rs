//! `linux.resources`: converts it to the limits of a cgroup.

use contd_cgroup::{Access, Cpu, DeviceKind, DeviceRule, Limits, Memory};
use serde_json::Value;

use crate::config::Resources;
use crate::config::resources as config;
use crate::fault::Fault;

/// Makes the limits.
pub(super) fn limits(resources: Option<&Resources>) -> Result<Limits, Fault> {
    let Some(resources) = resources else { return Ok(Limits { devices: devices(&[])?, ..Limits::default() }) };
    for (name, value) in [
        ("linux.resources.hugepageLimits", &resources.hugepage_limits),
        ("linux.resources.network", &resources.network),
        ("linux.resources.rdma", &resources.rdma),
    ] {
        if value.as_ref().is_some_and(says_something) {
            return Err(Fault::unsupported(name));
        }
    }
    Ok(Limits {
        memory: memory(resources.memory.as_ref())?,
        cpu: cpu(resources.cpu.as_ref())?,
        pids: resources.pids.as_ref().and_then(|pids| pids.limit),
        block_io_weight: block_io_weight(resources.block_io.as_ref())?,
        devices: devices(resources.devices.as_deref().unwrap_or_default())?,
        unified: resources.unified.clone().unwrap_or_default(),
    })
}

fn block_io_weight(block_io: Option<&config::BlockIo>) -> Result<Option<u16>, Fault> {
    let Some(block_io) = block_io else { return Ok(None) };
    for (name, value) in [
        ("linux.resources.blockIO.leafWeight", &block_io.leaf_weight),
        ("linux.resources.blockIO.weightDevice", &block_io.weight_device),
        ("linux.resources.blockIO.throttleReadBpsDevice", &block_io.throttle_read_bps_device),
        ("linux.resources.blockIO.throttleWriteBpsDevice", &block_io.throttle_write_bps_device),
        ("linux.resources.blockIO.throttleReadIOPSDevice", &block_io.throttle_read_iops_device),
        ("linux.resources.blockIO.throttleWriteIOPSDevice", &block_io.throttle_write_iops_device),
    ] {
        if value.as_ref().is_some_and(says_something) {
            return Err(Fault::unsupported(name));
        }
    }
    // The other runtimes take 0 as "not given".
    Ok(block_io.weight.filter(|weight| *weight != 0))
}

fn says_something(value: &Value) -> bool {
    !matches!(value, Value::Null)
        && value.as_array().is_none_or(|list| !list.is_empty())
        && value.as_object().is_none_or(|fields| !fields.is_empty())
}

fn memory(memory: Option<&config::Memory>) -> Result<Memory, Fault> {
    let Some(memory) = memory else { return Ok(Memory::default()) };
    // Kernel memory has no limit of its own since Linux 5.16; before that, 0 and -1 meant none.
    let has_kernel_limit = |limit: Option<i64>| limit.is_some_and(|limit| limit > 0);
    if has_kernel_limit(memory.kernel) {
        return Err(Fault::unsupported("linux.resources.memory.kernel"));
    }
    if has_kernel_limit(memory.kernel_tcp) {
        return Err(Fault::unsupported("linux.resources.memory.kernelTCP"));
    }
    if memory.use_hierarchy == Some(false) {
        return Err(Fault::unsupported("linux.resources.memory.useHierarchy (false)"));
    }
    if memory.check_before_update == Some(true) {
        return Err(Fault::unsupported("linux.resources.memory.checkBeforeUpdate"));
    }
    // The other runtimes take 0 as "not given".
    let given = |limit: Option<i64>| limit.filter(|limit| *limit != 0);
    Ok(Memory {
        limit: given(memory.limit),
        reservation: given(memory.reservation),
        swap: given(memory.swap),
        swappiness: memory.swappiness,
        is_oom_killer_disabled: memory.disable_oom_killer.unwrap_or_default(),
    })
}

fn cpu(cpu: Option<&config::Cpu>) -> Result<Cpu, Fault> {
    let Some(cpu) = cpu else { return Ok(Cpu::default()) };
    if cpu.realtime_period.is_some_and(|period| period != 0) {
        return Err(Fault::unsupported("linux.resources.cpu.realtimePeriod"));
    }
    if cpu.realtime_runtime.is_some_and(|runtime| runtime != 0) {
        return Err(Fault::unsupported("linux.resources.cpu.realtimeRuntime"));
    }
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    Ok(Cpu {
        shares: cpu.shares.filter(|shares| *shares != 0),
        quota: cpu.quota.filter(|quota| *quota != 0),
        burst: cpu.burst,
        period: cpu.period.filter(|period| *period != 0),
        cpus: text(&cpu.cpus),
        mems: text(&cpu.mems),
        idle: cpu.idle,
    })
}

/// The devices that every container may use, whatever its rules say, because every container has them: the default
/// devices, its terminals, and making nodes that it then cannot open. As with `runc`, without `/dev/net/tun`.
const ALWAYS_ALLOWED: [(DeviceKind, Option<u32>, Option<u32>, Access); 10] = [
    (DeviceKind::Char, None, None, ONLY_MAKE),
    (DeviceKind::Block, None, None, ONLY_MAKE),
    (DeviceKind::Char, Some(1), Some(3), Access::ALL),
    (DeviceKind::Char, Some(1), Some(8), Access::ALL),
    (DeviceKind::Char, Some(1), Some(7), Access::ALL),
    (DeviceKind::Char, Some(5), Some(0), Access::ALL),
    (DeviceKind::Char, Some(1), Some(5), Access::ALL),
    (DeviceKind::Char, Some(1), Some(9), Access::ALL),
    (DeviceKind::Char, Some(136), None, Access::ALL),
    (DeviceKind::Char, Some(5), Some(2), Access::ALL),
];
const ONLY_MAKE: Access = Access { read: false, write: false, make: true };
const DENY_ALL: DeviceRule =
    DeviceRule { is_allowed: false, kind: DeviceKind::All, major: None, minor: None, access: Access::ALL };

/// Makes the rules: first deny all, then the bundle's, then those that always apply.
fn devices(rules: &[config::DeviceRule]) -> Result<Vec<DeviceRule>, Fault> {
    let mut found = vec![DENY_ALL];
    for (index, rule) in rules.iter().enumerate() {
        let invalid =
            |(name, what): (&str, String)| Fault::invalid(format!("linux.resources.devices[{index}].{name}"), what);
        found.push(device(rule).map_err(invalid)?);
    }
    for (kind, major, minor, access) in ALWAYS_ALLOWED {
        let rule = DeviceRule { is_allowed: true, kind, major, minor, access };
        if !found.contains(&rule) {
            found.push(rule);
        }
    }
    Ok(found)
}

fn device(rule: &config::DeviceRule) -> Result<DeviceRule, (&'static str, String)> {
    let kind = match rule.kind.as_deref().unwrap_or("a") {
        "" | "a" => DeviceKind::All,
        "c" | "u" => DeviceKind::Char,
        "b" => DeviceKind::Block,
        other => return Err(("type", format!("{other:?} is no kind of device"))),
    };
    let number = |name: &'static str, number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number).map(Some).map_err(|_| (name, "it is no device number".to_owned())),
    };
    let mut access = Access { read: false, write: false, make: false };
    for letter in rule.access.as_deref().filter(|text| !text.is_empty()).unwrap_or("rwm").chars() {
        match letter {
            'r' => access.read = true,
            'w' => access.write = true,
            'm' => access.make = true,
            _ => return Err(("access", format!("{letter:?} is none of r, w, m"))),
        }
    }
    let (major, minor) = (number("major", rule.major)?, number("minor", rule.minor)?);
    Ok(DeviceRule { is_allowed: rule.allow, kind, major, minor, access })
}
