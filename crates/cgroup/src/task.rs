//! The cgroup of a running process that another program placed there, found by `/proc/<pid>/cgroup`.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup::write;
use crate::error::CgroupError;
use crate::hierarchies::Hierarchies;
use crate::members;

/// The controllers by which a container's processes are found, best first. The empty one is v2.
const MEMBERSHIP: [&str; 6] = ["", "pids", "memory", "freezer", "cpu", "name=systemd"];

/// The parts of a container's cgroup that its parent needs; serialized for the parent's successor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCgroup {
    /// A directory that only the container's processes are in; `None` when the container shares its parent's.
    own_dir: Option<PathBuf>,
    oom_file: Option<PathBuf>,
    oom_kills_before: u64,
    freezer: Option<Freezer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Freezer {
    V1(PathBuf),
    V2(PathBuf),
}

impl Hierarchies {
    /// Finds the cgroup of a running process.
    ///
    /// # Errors
    /// [`CgroupError::File`].
    pub fn of_process(&self, pid: i32) -> Result<TaskCgroup, CgroupError> {
        let memberships =
            |path: String| fs::read_to_string(&path).map_err(|source| CgroupError::file("read", path, source));
        let theirs = memberships(format!("/proc/{pid}/cgroup"))?;
        let ours = memberships("/proc/self/cgroup".to_owned())?;
        let own_dir = |controller: &str| {
            let dir = self.dir(controller, &theirs)?;
            (Some(&dir) != self.dir(controller, &ours).as_ref() && dir.join("cgroup.procs").exists()).then_some(dir)
        };
        let oom_file = [("memory", "memory.oom_control"), ("", "memory.events")]
            .into_iter()
            .filter_map(|(controller, file)| Some(self.dir(controller, &theirs)?.join(file)))
            .find(|file| file.exists());
        let freezer = own_dir("freezer").map(|dir| Freezer::V1(dir.join("freezer.state"))).or_else(|| {
            let file = own_dir("")?.join("cgroup.freeze");
            file.exists().then_some(Freezer::V2(file))
        });
        let oom_kills_before = oom_file.as_deref().map_or(0, read_oom_kills);
        Ok(TaskCgroup { own_dir: MEMBERSHIP.into_iter().find_map(own_dir), oom_file, oom_kills_before, freezer })
    }
}

impl TaskCgroup {
    /// Returns how many processes were OOM-killed since this value was made.
    pub fn oom_kills(&self) -> u64 {
        self.oom_file.as_deref().map_or(0, read_oom_kills).saturating_sub(self.oom_kills_before)
    }

    /// Sends a signal to all processes in the container's own cgroup; `false` when it has none of its own.
    ///
    /// # Errors
    /// [`CgroupError::File`].
    pub fn signal_all(&self, signal: i32) -> Result<bool, CgroupError> {
        match &self.own_dir {
            Some(dir) => members::signal_all(dir, signal).map(|()| true),
            None => Ok(false),
        }
    }

    /// Tells whether the processes are frozen; `false` when that cannot be read.
    pub fn is_frozen(&self) -> bool {
        let says = |file: &PathBuf, word: &str| fs::read_to_string(file).is_ok_and(|text| text.trim() == word);
        match &self.freezer {
            Some(Freezer::V1(file)) => says(file, "FROZEN"),
            Some(Freezer::V2(file)) => says(file, "1"),
            None => false,
        }
    }

    /// Lets frozen processes run again, so that a SIGKILL reaches them: v1 delays it otherwise.
    ///
    /// # Errors
    /// [`CgroupError::File`].
    pub fn thaw(&self) -> Result<(), CgroupError> {
        match &self.freezer {
            Some(Freezer::V1(file)) => write(file, "THAWED", None),
            Some(Freezer::V2(file)) => write(file, "0", None),
            None => Ok(()),
        }
    }
}

fn read_oom_kills(file: &std::path::Path) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_in_our_own_cgroup_has_none_of_its_own() {
        let hierarchies = Hierarchies::read().expect("mountinfo");
        let own = i32::try_from(std::process::id()).expect("pid");
        let cgroup = hierarchies.of_process(own).expect("alive");
        assert!(cgroup.own_dir.is_none(), "{cgroup:?}");
        assert!(!cgroup.signal_all(libc::SIGKILL).expect("nothing to do"));
    }
}
