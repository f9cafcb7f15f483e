//! Changes of a container that exists.

use serde::{Deserialize, Serialize};

use crate::spec::{ContainerSpec, CpuLimit, MemorySwap, Resources, RestartPolicy, SpecError};

/// Changes of a container's settings; `None` leaves one as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    /// The restart policy.
    pub restart: Option<RestartPolicy>,
    /// Memory limit in bytes.
    pub memory_bytes: Option<u64>,
    /// CPU limit; in the place of a quota.
    pub cpu: Option<CpuLimit>,
    /// The most processes and threads.
    pub pids_limit: Option<u32>,
    /// Shares and further limits; not the size of `/dev/shm`.
    pub resources: Resources,
}

impl Changes {
    /// Changes the restart policy alone.
    pub fn restart(policy: RestartPolicy) -> Self {
        Self { restart: Some(policy), ..Self::default() }
    }

    /// Tells whether it changes anything that the kernel enforces.
    pub fn has_limits(&self) -> bool {
        Self { restart: None, ..self.clone() } != Self::default()
    }

    /// Returns the spec with the changes in it.
    ///
    /// # Errors
    /// The first [`SpecError`] found in the result; [`SpecError::Unchangeable`].
    pub fn apply(&self, spec: &ContainerSpec) -> Result<ContainerSpec, SpecError> {
        let Self { restart, memory_bytes, cpu, pids_limit, resources } = self;
        let mut changed = spec.clone();
        changed.restart = restart.unwrap_or(spec.restart);
        changed.memory_bytes = memory_bytes.or(spec.memory_bytes);
        changed.cpu = cpu.or(spec.cpu);
        changed.pids_limit = pids_limit.or(spec.pids_limit);
        let Resources {
            memory_swap,
            memory_reservation_bytes,
            cpu_shares,
            cpu_quota_us,
            cpu_period_us,
            cpuset_cpus,
            cpuset_mems,
            blkio_weight,
            shm_bytes,
        } = resources.clone();
        if shm_bytes.is_some() {
            return Err(SpecError::Unchangeable { field: "shm size" });
        }
        let own = &mut changed.resources;
        own.memory_swap = memory_swap.or(own.memory_swap);
        own.memory_reservation_bytes = memory_reservation_bytes.or(own.memory_reservation_bytes);
        own.cpu_shares = cpu_shares.or(own.cpu_shares);
        own.cpu_period_us = cpu_period_us.or(own.cpu_period_us);
        own.cpuset_cpus = cpuset_cpus.or(own.cpuset_cpus.take());
        own.cpuset_mems = cpuset_mems.or(own.cpuset_mems.take());
        own.blkio_weight = blkio_weight.or(own.blkio_weight);
        // Each takes the place of the other; both at once are refused below.
        match (cpu, cpu_quota_us) {
            (Some(_), None) => own.cpu_quota_us = None,
            (None, Some(_)) => (own.cpu_quota_us, changed.cpu) = (cpu_quota_us, None),
            _ => own.cpu_quota_us = cpu_quota_us.or(own.cpu_quota_us),
        }
        changed.validate()?;
        Ok(changed)
    }
}

/// The limits of a container's cgroup, in the kernel's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupLimits {
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Memory and swap together.
    pub memory_swap: Option<MemorySwap>,
    /// The memory that it is brought back to when the node runs short, in bytes.
    pub memory_reservation_bytes: Option<u64>,
    /// The weight against others who want the processors.
    pub cpu_shares: u64,
    /// CPU time in each period, in microseconds.
    pub cpu_quota_us: u64,
    /// That period, in microseconds.
    pub cpu_period_us: u64,
    /// The processors that it may run on.
    pub cpuset_cpus: Option<String>,
    /// The memory nodes that it may use.
    pub cpuset_mems: Option<String>,
    /// The most processes and threads.
    pub pids_limit: u32,
    /// The weight against others who want a block device.
    pub blkio_weight: Option<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ContainerName;

    fn spec() -> ContainerSpec {
        let mut spec = ContainerSpec::new(ContainerName::new("web").expect("valid"), "/x.fl");
        spec.memory_bytes = Some(64 << 20);
        spec.cpu = CpuLimit::from_millis(500).ok();
        spec.resources.cpuset_cpus = Some("0".into());
        spec
    }

    #[test]
    fn what_is_given_is_changed_and_nothing_else() {
        assert_eq!(Changes::default().apply(&spec()), Ok(spec()));
        assert!(!Changes::default().has_limits() && !Changes::restart(RestartPolicy::Always).has_limits());
        let mut changes = Changes { pids_limit: Some(7), ..Changes::restart(RestartPolicy::Always) };
        changes.resources.blkio_weight = Some(100);
        assert!(changes.has_limits());
        let mut expected = spec();
        (expected.pids_limit, expected.restart) = (Some(7), RestartPolicy::Always);
        expected.resources.blkio_weight = Some(100);
        assert_eq!(changes.apply(&spec()), Ok(expected));
    }

    #[test]
    fn a_quota_and_a_number_of_processors_take_each_others_place() {
        let quota = |cpu_quota_us| Resources { cpu_quota_us, ..Resources::default() };
        let with_quota =
            Changes { resources: quota(Some(20_000)), ..Changes::default() }.apply(&spec()).expect("valid");
        assert_eq!((with_quota.cpu, with_quota.resources.cpu_quota_us), (None, Some(20_000)));
        let cpu = CpuLimit::from_millis(1500).ok();
        let back = Changes { cpu, ..Changes::default() }.apply(&with_quota).expect("valid");
        assert_eq!((back.cpu, back.resources.cpu_quota_us), (cpu, None));
        let both = Changes { cpu, resources: quota(Some(20_000)), ..Changes::default() };
        assert_eq!(both.apply(&spec()), Err(SpecError::TwoCpuLimits));
    }

    #[test]
    fn what_makes_no_sense_together_is_refused() {
        let mut wide = spec();
        wide.resources.memory_swap = Some(MemorySwap::Bytes(128 << 20));
        assert!(Changes { memory_bytes: Some(1 << 30), ..Changes::default() }.apply(&wide).is_err());
        let shm = Changes { resources: Resources { shm_bytes: Some(1), ..Resources::default() }, ..Changes::default() };
        assert_eq!(shm.apply(&spec()), Err(SpecError::Unchangeable { field: "shm size" }));
    }
}
