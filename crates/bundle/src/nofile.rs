//! The limit of open files for a container's process.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

/// The limit of open files of one process, soft and hard, as docker and podman set it, where the node allows so many.
pub const NOFILE_LIMIT: u64 = 1_048_576;

/// The kernel's number of the capability to raise a hard limit.
const CAP_SYS_RESOURCE: u32 = 24;

/// Returns the limit of open files for a container.
///
/// It cannot exceed `fs.nr_open`, nor, without `CAP_SYS_RESOURCE` (which a node in a virtual machine or a container may
/// lack), this process's own limit: a container with a higher one would not start.
pub fn limit() -> u64 {
    let own = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_soft, hard)| hard);
    let most = fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    let status =
        if own < NOFILE_LIMIT { fs::read_to_string("/proc/self/status").unwrap_or_default() } else { String::new() };
    lowest(own, most.unwrap_or(NOFILE_LIMIT), &status)
}

fn lowest(own: u64, most: u64, status: &str) -> u64 {
    let wanted = NOFILE_LIMIT.min(most);
    if own >= wanted || may_raise(status) { wanted } else { own }
}

/// Tells whether the process with this `/proc/self/status` may raise its hard limits.
fn may_raise(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or_default();
    set >> CAP_SYS_RESOURCE & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_gets_what_the_engines_give_as_far_as_the_node_allows() {
        let (with, without) = ("Name:\tx\nCapEff:\t000001ffffffffff\n", "CapEff:\t000001fffeffffff\n");
        assert_eq!(lowest(NOFILE_LIMIT, NOFILE_LIMIT, without), NOFILE_LIMIT);
        assert_eq!(lowest(u64::MAX, 1 << 30, without), NOFILE_LIMIT);
        assert_eq!(lowest(20_000, 1 << 30, with), NOFILE_LIMIT);
        assert_eq!(lowest(20_000, 1 << 30, without), 20_000);
        assert_eq!(lowest(20_000, 1 << 30, ""), 20_000);
        assert_eq!(lowest(u64::MAX, 65_536, with), 65_536);
    }
}
