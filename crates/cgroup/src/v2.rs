//! Writes limits to the files of v2.

use std::fs;
use std::path::Path;

use crate::block_io;
use crate::cgroup::write;
use crate::controllers::Controllers;
use crate::error::CgroupError;
use crate::limits::{Cpu, Limits, Memory};

/// The kernel's default period, in microseconds.
const DEFAULT_PERIOD_US: u64 = 100_000;
/// The ranges of v1's shares and v2's weights; the specification maps one linearly to the other.
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
const MAX_WEIGHT: u64 = 10_000;

/// Enables controllers for the children of a directory. A controller that cannot be enabled is reported later, by the
/// limit that needs it.
pub(crate) fn enable(dir: &Path, needs: Controllers) {
    let file = dir.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&file).unwrap_or_default();
    for name in needs.v2_names() {
        if !enabled.split_whitespace().any(|known| known == name) {
            let _missed_by_its_limit = write(&file, &format!("+{name}"), None);
        }
    }
}

/// Tells whether controllers are enabled for the children of a directory.
pub(crate) fn has_enabled(dir: &Path, needs: Controllers) -> bool {
    let enabled = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    needs.v2_names().all(|name| enabled.split_whitespace().any(|known| known == name))
}

/// Writes all limits except device rules.
pub(crate) fn apply(dir: &Path, limits: &Limits) -> Result<(), CgroupError> {
    memory(dir, &limits.memory)?;
    cpu(dir, &limits.cpu)?;
    if let Some(limit) = limits.pids {
        let value = if limit > 0 { limit.to_string() } else { "max".to_owned() };
        write(&dir.join("pids.max"), &value, Some("linux.resources.pids.limit"))?;
    }
    if let Some(weight) = limits.block_io_weight {
        block_io::apply(dir, weight, true)?;
    }
    for (file, value) in &limits.unified {
        if file.contains('/') {
            let what = "a file of cgroup v2 has no slash in its name";
            return Err(CgroupError::Value { field: "linux.resources.unified", what });
        }
        write(&dir.join(file), value, Some("linux.resources.unified"))?;
    }
    Ok(())
}

fn memory(dir: &Path, memory: &Memory) -> Result<(), CgroupError> {
    let bytes = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
    if memory.swappiness.is_some() || memory.is_oom_killer_disabled {
        let what = "cgroup v2 has neither swappiness nor a switch for the OOM killer";
        return Err(CgroupError::Value { field: "linux.resources.memory", what });
    }
    if let Some(swap) = memory.swap {
        const FIELD: &str = "linux.resources.memory.swap";
        let own = match (swap, memory.limit) {
            (swap, _) if swap < 0 => swap,
            (swap, Some(limit)) if limit >= 0 && swap >= limit => swap - limit,
            _ => {
                return Err(CgroupError::Value {
                    field: FIELD,
                    what: "swap is less than memory, or memory is not limited",
                });
            }
        };
        write(&dir.join("memory.swap.max"), &bytes(own), Some(FIELD))?;
    }
    if let Some(limit) = memory.limit {
        write(&dir.join("memory.max"), &bytes(limit), Some("linux.resources.memory.limit"))?;
    }
    if let Some(low) = memory.reservation {
        write(&dir.join("memory.low"), &bytes(low), Some("linux.resources.memory.reservation"))?;
    }
    Ok(())
}

fn cpu(dir: &Path, cpu: &Cpu) -> Result<(), CgroupError> {
    if let Some(idle) = cpu.idle {
        write(&dir.join("cpu.idle"), &idle.to_string(), Some("linux.resources.cpu.idle"))?;
    }
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        write(&dir.join("cpu.weight"), &weight(shares).to_string(), Some("linux.resources.cpu.shares"))?;
    }
    if cpu.quota.is_some() || cpu.period.is_some() {
        let quota = cpu.quota.filter(|quota| *quota > 0).map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        let period = cpu.period.filter(|period| *period != 0).unwrap_or(DEFAULT_PERIOD_US);
        write(&dir.join("cpu.max"), &format!("{quota} {period}"), Some("linux.resources.cpu.quota"))?;
    }
    if let Some(burst) = cpu.burst {
        write(&dir.join("cpu.max.burst"), &burst.to_string(), Some("linux.resources.cpu.burst"))?;
    }
    for (file, field, value) in
        [("cpuset.cpus", "linux.resources.cpu.cpus", &cpu.cpus), ("cpuset.mems", "linux.resources.cpu.mems", &cpu.mems)]
    {
        if let Some(value) = value {
            write(&dir.join(file), value, Some(field))?;
        }
    }
    Ok(())
}

/// Converts v1's shares to v2's weight, as the OCI runtimes do.
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(MIN_SHARES, MAX_SHARES);
    1 + (shares - MIN_SHARES) * (MAX_WEIGHT - 1) / (MAX_SHARES - MIN_SHARES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_as_with_the_other_runtimes() {
        assert_eq!((weight(2), weight(1024), weight(262_144), weight(0)), (1, 39, 10_000, 1));
    }

    #[test]
    fn limits_are_written_in_the_words_of_v2() {
        let dir = tempfile::tempdir().expect("scratch");
        for file in ["memory.max", "memory.swap.max", "cpu.max", "cpu.weight", "pids.max"] {
            std::fs::write(dir.path().join(file), "").expect("file");
        }
        let memory = Memory { limit: Some(1000), swap: Some(1500), ..Memory::default() };
        let cpu = Cpu { shares: Some(1024), quota: Some(50_000), ..Cpu::default() };
        apply(dir.path(), &Limits { memory, cpu, pids: Some(-1), ..Limits::default() }).expect("written");
        let text = |file: &str| std::fs::read_to_string(dir.path().join(file)).expect("file");
        assert_eq!(text("memory.max"), "1000");
        assert_eq!(text("memory.swap.max"), "500");
        assert_eq!(text("cpu.max"), "50000 100000");
        assert_eq!(text("cpu.weight"), "39");
        assert_eq!(text("pids.max"), "max");
    }

    #[test]
    fn swap_below_memory_is_refused_by_its_name() {
        let dir = tempfile::tempdir().expect("scratch");
        let memory = Memory { limit: Some(1000), swap: Some(10), ..Memory::default() };
        let error = apply(dir.path(), &Limits { memory, ..Limits::default() }).expect_err("nonsense");
        assert_eq!(error.field(), Some("linux.resources.memory.swap"));
    }
}
