//! Writes limits to the files of v1's controllers.

use std::path::Path;

use crate::block_io;
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
    if let Some(weight) = limits.block_io_weight {
        let dir = need(cgroup, Controllers::BLKIO, "linux.resources.blockIO.weight")?;
        block_io::apply(dir, weight, false)?;
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
            // The memory limit may never exceed the limit of memory and swap: when both grow, write the latter first.
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
        // Write the period first: the kernel checks a quota against it.
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

/// Copies the parent's CPUs and memory nodes: a new cpuset has none, and accepts no process until it has.
pub(crate) fn inherit_cpuset(parent: &Path, dir: &Path) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if read(&dir.join(file))?.trim().is_empty() {
            write(&dir.join(file), read(&parent.join(file))?.trim(), None)?;
        }
    }
    Ok(())
}

const DEVICES: &str = "linux.resources.devices";
const NOT_EXPRESSIBLE: &str =
    "cgroup v1 cannot take a device out of a rule that allows it among others; allow the others one by one";

fn devices(dir: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    for (file, text) in writes(rules)? {
        write(&dir.join(file), &text, Some(DEVICES))?;
    }
    Ok(())
}

/// Returns the writes, file and value, for these rules.
///
/// The kernel keeps a list of allowed entries. A denial removes only an entry with exactly the same numbers, and has no
/// effect on any other; so one denial is written for each entry that it is about.
fn writes(rules: &[DeviceRule]) -> Result<Vec<(&'static str, String)>, CgroupError> {
    // Rules before the last one about everything have no effect.
    let start = rules.iter().rposition(DeviceRule::is_for_all).unwrap_or(0);
    let is_closed = rules.get(start).is_some_and(|first| first.is_for_all() && !first.is_allowed);
    let (mut made, mut open) = (Vec::new(), Vec::<DeviceRule>::new());
    for rule in rules.iter().skip(start).flat_map(by_kind) {
        if rule.is_allowed || !is_closed || rule.is_for_all() {
            made.push((if rule.is_allowed { "devices.allow" } else { "devices.deny" }, text(&rule)));
            if rule.is_allowed {
                open.push(rule);
            }
            continue;
        }
        for entry in open.iter_mut().filter(|entry| overlap(entry, &rule)) {
            let is_whole = |of_rule: Option<u32>, of_entry| of_rule.is_none() || of_rule == of_entry;
            if !is_whole(rule.major, entry.major) || !is_whole(rule.minor, entry.minor) {
                return Err(CgroupError::Value { field: DEVICES, what: NOT_EXPRESSIBLE });
            }
            made.push(("devices.deny", text(&DeviceRule { access: rule.access, ..*entry })));
            let Access { read, write, make } = rule.access;
            entry.access.read &= !read;
            entry.access.write &= !write;
            entry.access.make &= !make;
        }
    }
    Ok(made)
}

/// Tells whether some access matches both rules.
fn overlap(one: &DeviceRule, other: &DeviceRule) -> bool {
    let meets = |one: Option<u32>, other: Option<u32>| one.is_none() || other.is_none() || one == other;
    let (a, b) = (one.access, other.access);
    let is_common = (a.read && b.read) || (a.write && b.write) || (a.make && b.make);
    one.kind == other.kind && meets(one.major, other.major) && meets(one.minor, other.minor) && is_common
}

/// Splits a rule by the kinds of devices. The kernel takes `a` as everything, whatever follows it: so a rule for both
/// kinds with numbers, or with less than all access, becomes one rule for each kind.
fn by_kind(rule: &DeviceRule) -> Vec<DeviceRule> {
    if rule.kind != DeviceKind::All || rule.is_for_all() {
        return vec![*rule];
    }
    [DeviceKind::Char, DeviceKind::Block].map(|kind| DeviceRule { kind, ..*rule }).to_vec()
}

/// Formats a rule for the kernel.
fn text(rule: &DeviceRule) -> String {
    let kind = match rule.kind {
        DeviceKind::All => return "a".to_owned(),
        DeviceKind::Char => 'c',
        DeviceKind::Block => 'b',
    };
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    let Access { read, write, make } = rule.access;
    let mut access = String::new();
    for (is_set, letter) in [(read, 'r'), (write, 'w'), (make, 'm')] {
        if is_set {
            access.push(letter);
        }
    }
    format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: DeviceRule =
        DeviceRule { is_allowed: true, kind: DeviceKind::All, major: None, minor: None, access: Access::ALL };
    const NONE: DeviceRule = DeviceRule { is_allowed: false, ..ALL };

    fn rule(is_allowed: bool, kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: &str) -> DeviceRule {
        let access = Access { read: access.contains('r'), write: access.contains('w'), make: access.contains('m') };
        DeviceRule { is_allowed, kind, major, minor, access }
    }

    #[track_caller]
    fn written(rules: &[DeviceRule]) -> Vec<String> {
        let made = writes(rules).expect("expressible");
        made.into_iter().map(|(file, text)| format!("{} {text}", file.trim_start_matches("devices."))).collect()
    }

    #[test]
    fn rules_are_written_as_the_kernel_reads_them() {
        let rules = [ALL, NONE, rule(true, DeviceKind::Char, Some(136), None, "rw")];
        assert_eq!(written(&rules), ["deny a", "allow c 136:* rw"]);
    }

    #[test]
    fn a_rule_for_both_kinds_is_everything_only_without_numbers_and_with_all_access() {
        let rules =
            [NONE, rule(true, DeviceKind::All, Some(1), Some(3), "rwm"), rule(true, DeviceKind::All, None, None, "r")];
        assert_eq!(written(&rules)[1..], ["allow c 1:3 rwm", "allow b 1:3 rwm", "allow c *:* r", "allow b *:* r"]);
    }

    #[test]
    fn a_denial_is_written_for_each_entry_that_it_takes_back() {
        let char_device = |is_allowed, major, minor, access| rule(is_allowed, DeviceKind::Char, major, minor, access);
        let rules = [
            NONE,
            char_device(true, Some(10), Some(229), "rwm"),
            char_device(true, Some(10), Some(200), "rw"),
            char_device(true, Some(1), Some(3), "rwm"),
            char_device(false, Some(10), None, "w"),
            char_device(false, Some(10), Some(200), "w"),
            char_device(false, Some(99), None, "rwm"),
        ];
        assert_eq!(written(&rules)[4..], ["deny c 10:229 w", "deny c 10:200 w"]);
        // Where everything is allowed, a denial is an entry of its own.
        let rules = [ALL, char_device(false, Some(10), Some(200), "rwm")];
        assert_eq!(written(&rules), ["allow a", "deny c 10:200 rwm"]);
    }

    #[test]
    fn a_denial_that_the_kernel_would_pass_over_is_refused() {
        for taken in [
            rule(false, DeviceKind::Char, Some(10), Some(200), "rw"),
            rule(false, DeviceKind::All, Some(10), None, "m"),
        ] {
            let wider = rule(true, DeviceKind::Char, if taken.minor.is_some() { Some(10) } else { None }, None, "rwm");
            let refused = writes(&[NONE, wider, taken]);
            assert!(matches!(refused, Err(CgroupError::Value { field: DEVICES, .. })), "{refused:?}");
        }
    }
}
