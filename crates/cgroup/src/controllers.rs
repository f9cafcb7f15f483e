//! Sets of cgroup controllers.

use std::ops::BitOr;

/// A set of controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Controllers(u16);

impl Controllers {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// The number of processes.
    pub const PIDS: Self = Self(1);
    /// Memory.
    pub const MEMORY: Self = Self(1 << 1);
    /// CPU time.
    pub const CPU: Self = Self(1 << 2);
    /// Accounting of CPU time; v1 only.
    pub const CPUACCT: Self = Self(1 << 3);
    /// Device nodes; v1 only, a program on v2.
    pub const DEVICES: Self = Self(1 << 4);
    /// Freezing; v1 only, built in on v2.
    pub const FREEZER: Self = Self(1 << 5);
    /// The allowed CPUs and memory nodes.
    pub const CPUSET: Self = Self(1 << 6);

    /// Block devices; `io` on v2.
    pub const BLKIO: Self = Self(1 << 7);

    const NAMES: [(Self, &'static str); 8] = [
        (Self::PIDS, "pids"),
        (Self::MEMORY, "memory"),
        (Self::CPU, "cpu"),
        (Self::CPUACCT, "cpuacct"),
        (Self::DEVICES, "devices"),
        (Self::FREEZER, "freezer"),
        (Self::CPUSET, "cpuset"),
        (Self::BLKIO, "blkio"),
    ];

    /// Returns the controllers that every container of ours needs: for its limits, pausing and device rules.
    pub fn usual() -> Self {
        Self::counting() | Self::DEVICES | Self::FREEZER
    }

    /// Returns the controllers that only tell what a container uses: it runs as well without them.
    pub fn telling() -> Self {
        Self::CPUACCT | Self::BLKIO
    }

    /// Returns the controllers that count what processes take, and can limit it.
    pub fn counting() -> Self {
        Self::PIDS | Self::MEMORY | Self::CPU
    }

    /// Tells whether all of `other` are in this set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Tells whether any of `other` is in this set.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns the controller with a name of the kernel; the empty set for one that we do not use.
    pub(crate) fn named(name: &str) -> Self {
        Self::NAMES.iter().find(|(_, known)| *known == name).map_or(Self::NONE, |(controller, _)| *controller)
    }

    /// Returns the controllers in this set with their names.
    pub(crate) fn each(self) -> impl Iterator<Item = (Self, &'static str)> {
        Self::NAMES.into_iter().filter(move |(one, _)| self.contains(*one))
    }

    /// Returns the v2 names of the controllers in this set.
    pub(crate) fn v2_names(self) -> impl Iterator<Item = &'static str> {
        let on_v2 = Self::PIDS | Self::MEMORY | Self::CPU | Self::CPUSET | Self::BLKIO;
        Self::NAMES
            .iter()
            .filter(move |(one, _)| self.contains(*one) && on_v2.contains(*one))
            .map(|(one, name)| if *one == Self::BLKIO { "io" } else { *name })
    }
}

impl BitOr for Controllers {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
