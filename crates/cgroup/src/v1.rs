//! The files of v1's controllers.

use std::path::Path;

use crate::cgroup::{Cgroup, read, write};
use crate::controllers::Controllers;
use crate::error::CgroupError;
use crate::limits::{Access, Cpu, DeviceKind, DeviceRule, Limits, Memory};

const MEMORY_LIMIT: &str = "linux.resources.memory.limit";
const MEMORY_SWAP: &str = "linux.resources.memory.swap";

/// Writes all limits.
pub(crate) fn apply(cgroup: &Cgroup, limits: &Limits) -> Result<(), CgroupError> {
    if limits.memory != Memory::default() {
        memory(need(cgroup, Controllers::MEMORY, MEMORY_LIMIT)?, &limits.memory)?;
    }
    cpu(cgroup, &limits.cpu)?;
    if let Some(limit) = limits.pids {
        const FIELD: &str = "linux.resources.pids.limit";
        let dir = need(cgroup, Controllers::PIDS, FIELD)?;
        let value = if limit > 0 { limit.to_string() } else { "max".to_owned() };
        write(&dir.join("pids.max"), &value, Some(FIELD))?;
    }
    if limits.devices.is_empty() {
        return Ok(());
    }
    devices(need(cgroup, Controllers::DEVICES, "linux.resources.devices")?, &limits.devices)
}

fn need<'a>(cgroup: &'a Cgroup, controller: Controllers, field: &'static str) -> Result<&'a Path, CgroupError> {
    cgroup.v1_dir(controller).ok_or(CgroupError::NoController { field })
}

fn memory(dir: &Path, memory: &Memory) -> Result<(), CgroupError> {
    let (limit, swap) = (dir.join("memory.limit_in_bytes"), dir.join("memory.memsw.limit_in_bytes"));
    let write_limit = |value: i64| write(&limit, &value.to_string(), Some(MEMORY_LIMIT));
    let write_swap = |value: i64| write(&swap, &value.to_string(), Some(MEMORY_SWAP));
    match (memory.limit, memory.swap) {
        (Some(limit), Some(swap)) => {
            // Memory may at no moment be above memory and swap together: when both grow, the sum goes first.
            if write_limit(limit).is_ok() {
                write_swap(swap)?;
            } else {
                write_swap(swap)?;
                write_limit(limit)?;
            }
        }
        (Some(limit), None) => write_limit(limit)?,
        (None, Some(swap)) => write_swap(swap)?,
        (None, None) => {}
    }
    if let Some(value) = memory.reservation {
        const FIELD: &str = "linux.resources.memory.reservation";
        write(&dir.join("memory.soft_limit_in_bytes"), &value.to_string(), Some(FIELD))?;
    }
    if let Some(value) = memory.swappiness {
        const FIELD: &str = "linux.resources.memory.swappiness";
        write(&dir.join("memory.swappiness"), &value.to_string(), Some(FIELD))?;
    }
    if memory.is_oom_killer_disabled {
        write(&dir.join("memory.oom_control"), "1", Some("linux.resources.memory.disableOOMKiller"))?;
    }
    Ok(())
}

fn cpu(cgroup: &Cgroup, cpu: &Cpu) -> Result<(), CgroupError> {
    let Cpu { shares, quota, burst, period, cpus, mems, idle } = cpu;
    let numbers: [(&str, &'static str, Option<String>); 5] = [
        ("cpu.shares", "linux.resources.cpu.shares", shares.map(|value| value.to_string())),
        // The period first: a quota is checked against it.
        ("cpu.cfs_period_us", "linux.resources.cpu.period", period.map(|value| value.to_string())),
        ("cpu.cfs_quota_us", "linux.resources.cpu.quota", quota.map(|value| value.to_string())),
        ("cpu.cfs_burst_us", "linux.resources.cpu.burst", burst.map(|value| value.to_string())),
        ("cpu.idle", "linux.resources.cpu.idle", idle.map(|value| value.to_string())),
    ];
    for (file, field, value) in numbers {
        if let Some(value) = value {
            write(&need(cgroup, Controllers::CPU, field)?.join(file), &value, Some(field))?;
        }
    }
    let sets = [("cpuset.cpus", "linux.resources.cpu.cpus", cpus), ("cpuset.mems", "linux.resources.cpu.mems", mems)];
    for (file, field, value) in sets {
        if let Some(value) = value {
            write(&need(cgroup, Controllers::CPUSET, field)?.join(file), value, Some(field))?;
        }
    }
    Ok(())
}

/// A new cpuset has no CPU and no memory, and takes no process until it has: it gets its parent's.
pub(crate) fn inherit_cpuset(parent: &Path, dir: &Path) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if read(&dir.join(file))?.trim().is_empty() {
            write(&dir.join(file), read(&parent.join(file))?.trim(), None)?;
        }
    }
    Ok(())
}

fn devices(dir: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    const FIELD: &str = "linux.resources.devices";
    // What comes before the last rule about everything has no effect.
    let start = rules.iter().rposition(DeviceRule::is_for_all).unwrap_or(0);
    for rule in rules.iter().skip(start) {
        let file = dir.join(if rule.is_allowed { "devices.allow" } else { "devices.deny" });
        for text in texts(rule) {
            write(&file, &text, Some(FIELD))?;
        }
    }
    Ok(())
}

/// Writes a rule as the kernel reads it. `a` is everything there, whatever stands behind it: a rule for both kinds of devices
/// with numbers, or with less than all access, is one for each kind.
fn texts(rule: &DeviceRule) -> Vec<String> {
    if rule.is_for_all() {
        return vec!["a".to_owned()];
    }
    let kinds: &[char] = match rule.kind {
        DeviceKind::All => &['c', 'b'],
        DeviceKind::Char => &['c'],
        DeviceKind::Block => &['b'],
    };
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    let Access { read, write, make } = rule.access;
    let mut access = String::new();
    for (is_set, letter) in [(read, 'r'), (write, 'w'), (make, 'm')] {
        if is_set {
            access.push(letter);
        }
    }
    let (major, minor) = (number(rule.major), number(rule.minor));
    kinds.iter().map(|kind| format!("{kind} {major}:{minor} {access}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_written_as_the_kernel_reads_them() {
        let access = Access { read: true, write: true, make: false };
        let rule = DeviceRule { is_allowed: true, kind: DeviceKind::Char, major: Some(136), minor: None, access };
        assert_eq!(texts(&rule), ["c 136:* rw"]);
        let all =
            DeviceRule { is_allowed: false, kind: DeviceKind::All, major: None, minor: None, access: Access::ALL };
        assert_eq!(texts(&all), ["a"]);
    }

    #[test]
    fn a_rule_for_both_kinds_is_everything_only_without_numbers_and_with_all_access() {
        let all = DeviceRule { is_allowed: true, kind: DeviceKind::All, major: None, minor: None, access: Access::ALL };
        let numbered = DeviceRule { major: Some(1), minor: Some(3), ..all };
        assert_eq!(texts(&numbered), ["c 1:3 rwm", "b 1:3 rwm"]);
        let readable = DeviceRule { access: Access { read: true, write: false, make: false }, ..all };
        assert_eq!(texts(&readable), ["c *:* r", "b *:* r"]);
    }
}
