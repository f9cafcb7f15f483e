//! The end of a node that no daemon brings about: a reboot, and what a failed test leaves.

use std::fs;

use super::Node;
use crate::census::{cgroups_below, command_lines, members, mounts};

impl Node {
    /// Does to the node, without its daemon, what a reboot does: nothing runs, nothing is mounted, the run directory is
    /// empty, and what lies on disk carries another boot id.
    pub fn simulate_reboot(&self) {
        assert!(self.daemon.is_none(), "the daemon runs");
        self.end_everything();
        fs::remove_dir_all(self.root.join("run")).expect("empty the run directory");
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot id");
        let earlier = "00000000-0000-4000-8000-000000000000";
        let mut changed = 0;
        let mut dirs = vec![self.root.join("state")];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).expect("read the state").flatten() {
                if entry.file_type().expect("type").is_dir() {
                    dirs.push(entry.path());
                } else if ["record.json", "intent.json"].iter().any(|name| entry.file_name() == *name) {
                    let text = fs::read_to_string(entry.path()).expect("read a record");
                    assert!(text.contains(boot_id.trim()), "a record without a boot id: {text}");
                    fs::write(entry.path(), text.replace(boot_id.trim(), earlier)).expect("write a record");
                    changed += 1;
                }
            }
        }
        assert!(changed > 0, "no record carries a boot id");
    }

    /// Kills, unmounts and removes whatever bears this node's names.
    pub(super) fn end_everything(&self) {
        let signal = |pid: i32| {
            let _gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        };
        let root = self.root.display().to_string();
        for (pid, command) in command_lines() {
            if command.contains(&root) {
                signal(pid);
            }
        }
        let cgroups = cgroups_below(&self.cgroup_parent);
        for cgroup in &cgroups {
            members(cgroup).into_iter().for_each(signal);
        }
        let is_empty = || cgroups.iter().all(|cgroup| members(cgroup).is_empty());
        for _ in 0..100 {
            if is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        for point in mounts(&self.root).iter().rev() {
            let _gone = nix::mount::umount2(point.as_str(), nix::mount::MntFlags::MNT_DETACH);
        }
        for cgroup in cgroups.iter().rev() {
            let _gone = fs::remove_dir(cgroup);
        }
    }
}
