//! Shares and limits of a container beyond memory, CPU and processes.

use serde::{Deserialize, Serialize};

use super::{MIN_MEMORY_BYTES, SpecError, shorten};

/// The bounds of the CPU shares that the kernel takes.
const CPU_SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;
/// The bounds of the period in which CPU time is counted, in microseconds.
const CPU_PERIOD_US: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
/// The least quota, in microseconds.
const MIN_CPU_QUOTA_US: u64 = 1_000;
/// The bounds of the weight of block I/O.
const BLKIO_WEIGHT: std::ops::RangeInclusive<u16> = 10..=1000;

/// Shares and limits; `None` is the kernel's default, or follows from the memory and CPU limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Memory and swap together.
    pub memory_swap: Option<MemorySwap>,
    /// The memory that it is brought back to when the node runs short, in bytes.
    pub memory_reservation_bytes: Option<u64>,
    /// The weight against others who want the processors; 1024 is that of one processor.
    pub cpu_shares: Option<u64>,
    /// CPU time in each period, in microseconds. Not together with the CPU limit.
    pub cpu_quota_us: Option<u64>,
    /// That period, in microseconds.
    pub cpu_period_us: Option<u64>,
    /// The processors that it may run on, such as `0-3,7`.
    pub cpuset_cpus: Option<String>,
    /// The memory nodes that it may use.
    pub cpuset_mems: Option<String>,
    /// The weight against others who want a block device, 10 to 1000. Takes a scheduler that has weights (bfq).
    pub blkio_weight: Option<u16>,
    /// The size of `/dev/shm` in bytes.
    pub shm_bytes: Option<u64>,
}

/// Memory and swap together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemorySwap {
    /// As much swap as there is.
    Unlimited,
    /// So many bytes, memory included: as many as the memory limit is no swap.
    Bytes(u64),
}

impl Resources {
    /// Checks all that can be checked without the machine, beside these limits of memory and CPU.
    ///
    /// # Errors
    /// The first [`SpecError`] found.
    pub(super) fn validate(&self, memory_bytes: Option<u64>, has_cpu_limit: bool) -> Result<(), SpecError> {
        let within = |field, given: Option<u64>, bounds: std::ops::RangeInclusive<u64>| match given {
            Some(given) if !bounds.contains(&given) => {
                Err(SpecError::OutOfBounds { field, given, least: *bounds.start(), most: *bounds.end() })
            }
            _ => Ok(()),
        };
        within("cpu shares", self.cpu_shares, CPU_SHARES)?;
        within("cpu period (microseconds)", self.cpu_period_us, CPU_PERIOD_US)?;
        within("cpu quota (microseconds)", self.cpu_quota_us, MIN_CPU_QUOTA_US..=u64::MAX / 2)?;
        let (least, most) = (u64::from(*BLKIO_WEIGHT.start()), u64::from(*BLKIO_WEIGHT.end()));
        within("blkio weight", self.blkio_weight.map(u64::from), least..=most)?;
        within("memory reservation", self.memory_reservation_bytes, MIN_MEMORY_BYTES..=u64::MAX / 2)?;
        within("shm size", self.shm_bytes, 1..=u64::MAX / 2)?;
        if has_cpu_limit && self.cpu_quota_us.is_some() {
            return Err(SpecError::TwoCpuLimits);
        }
        for (field, set) in [("cpuset cpus", &self.cpuset_cpus), ("cpuset mems", &self.cpuset_mems)] {
            if let Some(set) = set.as_deref().filter(|set| !is_set(set)) {
                return Err(SpecError::BadCpuset { field, given: shorten(set) });
            }
        }
        match (self.memory_swap, memory_bytes) {
            (Some(MemorySwap::Bytes(_)), None) => Err(SpecError::SwapWithoutMemory),
            (Some(MemorySwap::Bytes(both)), Some(memory)) if both < memory => {
                Err(SpecError::OutOfBounds { field: "memory and swap", given: both, least: memory, most: u64::MAX / 2 })
            }
            _ => Ok(()),
        }
    }
}

/// Tells whether it is a list of numbers and ranges of them.
fn is_set(text: &str) -> bool {
    let number = |text: &str| text.parse::<u16>().ok();
    text.split(',').all(|part| match part.split_once('-') {
        None => number(part).is_some(),
        Some((from, to)) => number(from).zip(number(to)).is_some_and(|(from, to)| from <= to),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_numbers_and_ranges() {
        assert!(["0", "0-3", "0,2-3,7"].into_iter().all(is_set));
        assert!(!["", "a", "3-1", "0-", "0,,1", "-1", "0 1"].into_iter().any(is_set));
    }

    #[test]
    fn what_contradicts_the_kernel_or_itself_is_refused() {
        let check = |resources: Resources| resources.validate(Some(64 << 20), true);
        assert_eq!(check(Resources::default()), Ok(()));
        let swap = |both| Resources { memory_swap: Some(MemorySwap::Bytes(both)), ..Resources::default() };
        assert_eq!(check(swap(64 << 20)), Ok(()));
        assert!(check(swap(1 << 20)).is_err() && swap(1 << 30).validate(None, false).is_err());
        for bad in [
            Resources { cpu_shares: Some(1), ..Resources::default() },
            Resources { cpu_period_us: Some(999), ..Resources::default() },
            Resources { cpu_quota_us: Some(5000), ..Resources::default() },
            Resources { cpuset_cpus: Some("x".into()), ..Resources::default() },
            Resources { blkio_weight: Some(9), ..Resources::default() },
            Resources { shm_bytes: Some(0), ..Resources::default() },
        ] {
            assert!(check(bad.clone()).is_err(), "{bad:?}");
        }
    }
}
