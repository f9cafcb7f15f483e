//! The processes that are left in a container that does not end: read from its cgroup and `/proc`, for people.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use contd_cgroup::{Cgroup, Hierarchies};
use contd_durable::{Fs, RealFs};
use contd_protocol::shim::{InitRecord, RuntimeSpec, TaskSpec, files};
use contd_types::Pid;

use super::Place;
use crate::Holdout;

/// The most that are looked at: a reason names a few and counts the rest.
const MAX_LOOKED_AT: usize = 64;

/// No `config.json` of ours is larger: most of it is the seccomp profile.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Lists them; what vanishes meanwhile, or cannot be read, is left out.
pub(super) fn list(place: &Place) -> Vec<Holdout> {
    let mut pids = BTreeSet::new();
    if let Some(cgroup) = place.read::<TaskSpec>(files::TASK).and_then(cgroup_of) {
        let members = || {
            Ok::<_, contd_cgroup::CgroupError>(match Cgroup::open(&Hierarchies::read()?, &cgroup)? {
                Some(cgroup) => cgroup.pids_below()?,
                None => Vec::new(),
            })
        };
        pids.extend(members().unwrap_or_default());
    }
    if let Ok(Some(_lives)) = place.living_init()
        && let Some(init) = place.read::<InitRecord>(files::INIT)
    {
        pids.insert(init.pid.0);
    }
    pids.into_iter().take(MAX_LOOKED_AT).filter_map(look).collect()
}

/// Returns the container's cgroup; an OCI runtime has made the one that the bundle names.
fn cgroup_of(task: TaskSpec) -> Option<PathBuf> {
    match task.runtime {
        RuntimeSpec::Native { cgroup, .. } => Some(cgroup),
        RuntimeSpec::Oci { .. } => {
            let bytes = RealFs.read(&task.bundle.join("config.json"), MAX_CONFIG_BYTES).ok()?;
            let config: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
            config.pointer("/linux/cgroupsPath")?.as_str().map(PathBuf::from)
        }
    }
}

fn look(pid: i32) -> Option<Holdout> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, parentheses and spaces included: it ends at the last one.
    let (head, tail) = stat.rsplit_once(") ")?;
    let name: String = head.split_once('(')?.1.chars().filter(|c| !c.is_control()).collect();
    let state = tail.chars().next()?;
    if matches!(state, 'Z' | 'X') {
        return None;
    }
    let place = fs::read_to_string(format!("/proc/{pid}/wchan")).ok();
    let place = place.filter(|place| !place.is_empty() && place != "0");
    Some(Holdout { pid: Pid(pid), name, state, place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_described_and_one_that_is_gone_is_not() {
        let own = i32::try_from(std::process::id()).unwrap();
        let found = look(own).unwrap();
        assert_eq!(found.pid, Pid(own));
        assert!(matches!(found.state, 'R' | 'S') && !found.name.is_empty(), "{found:?}");
        assert_eq!(look(i32::MAX), None);
        let waits = Holdout { pid: Pid(7), name: "dd".into(), state: 'D', place: Some("io_schedule".into()) };
        assert_eq!(waits.to_string(), "7 (dd) in D state at io_schedule");
    }
}
