//! The container's cgroup, as far as its parent needs it: who is in it, how many were killed for lack of memory, thaw.
//!
//! Works on v1, v2 and the hybrid of both. The cgroup is found by `/proc/<init>/cgroup`, whatever the runtime chose.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use contd_durable::{Fs, RealFs};
use contd_lease::ProcessIdentity;
use contd_types::Signal;

/// Rounds of killing before giving up on a container that forks faster than we read.
const MAX_KILL_ROUNDS: usize = 64;

/// An OCI configuration with a large seccomp profile has some 100 KiB.
const MAX_CONFIG_BYTES: u64 = 4 * 1024 * 1024;

/// The controllers to find the container's processes by, best first. The empty one is v2.
const MEMBERSHIP: [&str; 6] = ["", "pids", "memory", "freezer", "cpu", "name=systemd"];

#[derive(Debug)]
struct Mount {
    /// Empty for v2.
    controllers: Vec<String>,
    /// Which part of the hierarchy is mounted.
    root: PathBuf,
    point: PathBuf,
}

/// Where the node's cgroup hierarchies are mounted; read once.
#[derive(Debug, Default)]
pub(crate) struct Hierarchies {
    mounts: Vec<Mount>,
}

/// The cgroup of one container.
#[derive(Debug, Default)]
pub(crate) struct TaskCgroup {
    /// A directory in which only the container's processes are; `None` when it shares the shim's.
    own_dir: Option<PathBuf>,
    oom_file: Option<PathBuf>,
    oom_kills_before: u64,
    freezer: Option<Freezer>,
}

#[derive(Debug)]
enum Freezer {
    V1(PathBuf),
    V2(PathBuf),
}

impl Hierarchies {
    /// Reads the mounts of our own mount namespace.
    pub(crate) fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    fn parse(mountinfo: &str) -> Self {
        Self { mounts: mountinfo.lines().filter_map(parse_mount).collect() }
    }

    /// Finds the directory of a controller for a line of `/proc/<pid>/cgroup`.
    fn dir(&self, controller: &str, memberships: &str) -> Option<PathBuf> {
        let path = memberships.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            controllers.split(',').any(|name| name == controller).then_some(Path::new(path))
        })?;
        let mount = self.mounts.iter().find(|mount| {
            if controller.is_empty() {
                mount.controllers.is_empty()
            } else {
                mount.controllers.iter().any(|name| name == controller)
            }
        })?;
        let below = path.strip_prefix(&mount.root).ok()?;
        // `..` stands for what lies outside our cgroup namespace.
        let is_plain = below.components().all(|part| matches!(part, Component::Normal(_)));
        is_plain.then(|| mount.point.join(below))
    }

    /// Finds the cgroup of a process that is alive.
    pub(crate) fn of_process(&self, pid: i32) -> io::Result<TaskCgroup> {
        let theirs = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let ours = fs::read_to_string("/proc/self/cgroup")?;
        let own_dir = |controller: &str| {
            let dir = self.dir(controller, &theirs)?;
            (Some(&dir) != self.dir(controller, &ours).as_ref() && dir.join("cgroup.procs").exists()).then_some(dir)
        };
        let oom_file = [("memory", "memory.oom_control"), ("", "memory.events")]
            .into_iter()
            .filter_map(|(controller, file)| Some(self.dir(controller, &theirs)?.join(file)))
            .find(|file| file.exists());
        let freezer = own_dir("")
            .map(|dir| dir.join("cgroup.freeze"))
            .filter(|file| file.exists() && self.dir("freezer", &theirs).is_none())
            .map(Freezer::V2)
            .or_else(|| own_dir("freezer").map(|dir| Freezer::V1(dir.join("freezer.state"))));
        let oom_kills_before = oom_file.as_deref().map_or(0, read_oom_kills);
        Ok(TaskCgroup { own_dir: MEMBERSHIP.into_iter().find_map(own_dir), oom_file, oom_kills_before, freezer })
    }
}

impl Hierarchies {
    /// Removes the cgroup that a bundle names from every hierarchy, as far as it is there and nobody is in it.
    ///
    /// For a runtime that was killed after it had made the cgroup and before it had written down that it did.
    pub(crate) fn remove_leaf_of_bundle(&self, bundle: &Path) {
        let Some(path) = cgroups_path(bundle) else { return };
        for mount in &self.mounts {
            // Only an empty one can be removed; what is absent or in use stays as it is, which is right for both.
            let _absent_or_in_use = fs::remove_dir(mount.point.join(&path));
        }
    }
}

impl TaskCgroup {
    /// Returns how many processes were killed for lack of memory since the container was made.
    pub(crate) fn oom_kills(&self) -> u64 {
        self.oom_file.as_deref().map_or(0, read_oom_kills).saturating_sub(self.oom_kills_before)
    }

    /// Sends a signal to all processes in the container's own cgroup; `false` when it has none.
    ///
    /// SIGKILL is repeated until nobody new is found, since they may fork in the meantime.
    pub(crate) fn signal_all(&self, signal: Signal) -> io::Result<bool> {
        let Some(dir) = &self.own_dir else { return Ok(false) };
        let mut done = BTreeSet::new();
        for _ in 0..MAX_KILL_ROUNDS {
            let mut is_complete = true;
            for pid in members(dir)? {
                if done.insert(pid) {
                    is_complete = false;
                    signal_member(dir, pid, signal)?;
                }
            }
            if is_complete || signal != Signal::KILL {
                break;
            }
        }
        Ok(true)
    }

    /// Lets frozen processes run again, so that a SIGKILL reaches them: v1 keeps it waiting otherwise.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        match &self.freezer {
            Some(Freezer::V1(file)) => fs::write(file, "THAWED"),
            Some(Freezer::V2(file)) => fs::write(file, "0"),
            None => Ok(()),
        }
    }
}

/// Reads `linux.cgroupsPath` of a bundle, when it is a plain path below the root.
fn cgroups_path(bundle: &Path) -> Option<PathBuf> {
    let bytes = RealFs.read(&bundle.join("config.json"), MAX_CONFIG_BYTES).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let path = Path::new(config.get("linux")?.get("cgroupsPath")?.as_str()?).strip_prefix("/").ok()?;
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    (is_plain && path.components().next().is_some()).then(|| path.to_owned())
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (mount, source) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, point) = (PathBuf::from(mount.next()?), PathBuf::from(mount.next()?));
    let mut source = source.split(' ');
    let controllers = match source.next()? {
        "cgroup2" => Vec::new(),
        "cgroup" => source.nth(1)?.split(',').map(str::to_owned).collect(),
        _ => return None,
    };
    Some(Mount { controllers, root, point })
}

fn members(dir: &Path) -> io::Result<Vec<i32>> {
    match fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(error) if matches!(error.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::ENODEV)) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Signals by pidfd, after the process behind it was seen in the cgroup: its pid may have a new owner by now.
fn signal_member(dir: &Path, pid: i32, signal: Signal) -> io::Result<()> {
    let Some(identity) = ProcessIdentity::of(pid).map_err(io::Error::other)? else { return Ok(()) };
    let Some(pidfd) = contd_lease::pidfd(&identity).map_err(io::Error::other)? else { return Ok(()) };
    if members(dir)?.contains(&pid) {
        contd_lease::signal(&pidfd, signal.number()).map_err(io::Error::other)?;
    }
    Ok(())
}

fn read_oom_kills(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        41 31 0:38 /sub /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn each_controller_is_found_in_its_own_hierarchy() {
        let hierarchies = Hierarchies::parse(HYBRID);
        let memberships = "4:memory:/a/b\n3:cpu,cpuacct:/c\n0::/sub/d\n";
        let dir = |controller| hierarchies.dir(controller, memberships);
        assert_eq!(dir("memory"), Some("/sys/fs/cgroup/memory/a/b".into()));
        assert_eq!(dir("cpuacct"), Some("/sys/fs/cgroup/cpu/c".into()));
        assert_eq!(dir(""), Some("/sys/fs/cgroup/unified/d".into()));
        assert_eq!(dir("pids"), None);
    }

    #[test]
    fn a_path_outside_of_what_is_mounted_is_not_followed() {
        let hierarchies = Hierarchies::parse(HYBRID);
        assert_eq!(hierarchies.dir("memory", "4:memory:/../../etc\n"), None);
        assert_eq!(hierarchies.dir("", "0::/elsewhere\n"), None);
    }

    #[test]
    fn a_process_in_our_own_cgroup_has_none_of_its_own() {
        let hierarchies = Hierarchies::read().expect("mountinfo");
        let own = i32::try_from(std::process::id()).expect("pid");
        let cgroup = hierarchies.of_process(own).expect("alive");
        assert!(cgroup.own_dir.is_none(), "{cgroup:?}");
        assert!(!cgroup.signal_all(Signal::KILL).expect("nothing to do"));
    }
}
