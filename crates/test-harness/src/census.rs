//! A census of a node: processes, mounts, cgroups, sockets, files, the daemon's descriptors.
//!
//! Only what belongs to one node is counted, by its root directory and its cgroup parent, so that tests run side by side.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The launcher and the init that waits: the processes in the cgroup of a slot.
const SLOT_PROCESSES: usize = 2;

/// A word of the command line of a holder of shims.
const HOLDER: &str = " --hold ";

/// The next word when a holder has executed another version.
const RESUMED: &str = " --resume ";

/// A count, with names, so that a difference says what leaked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    processes: BTreeSet<String>,
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
    sockets: BTreeSet<String>,
    files: BTreeSet<PathBuf>,
    daemon_descriptors: Vec<String>,
}

impl Census {
    /// Counts. `keep` names files whose growth is the purpose (cache, event journal, the daemon's own log); the logs of
    /// removed containers are kept on purpose, too, and bounded.
    pub fn take(root: &Path, cgroup_parent: &str, daemon: Option<u32>, keep: &[&str]) -> Self {
        let cgroups = cgroups_below(cgroup_parent);
        let slots = Slots::find(root);
        let rename_path = |path: PathBuf| PathBuf::from(slots.rename(&path.to_string_lossy()));
        Self {
            processes: slots.number(processes(root, &cgroups, daemon)),
            mounts: mounts(root),
            // Parents may stay until the daemon ends; what counts is what lies below them.
            cgroups: cgroups.into_iter().filter(|path| !path.ends_with(cgroup_parent)).map(rename_path).collect(),
            sockets: sockets(root).iter().map(|path| slots.rename(path)).collect(),
            files: files(root, keep).into_iter().map(rename_path).collect(),
            daemon_descriptors: daemon.map(descriptors).unwrap_or_default(),
        }
    }

    /// Counts the warm slots that are whole ([`is_slot_whole`]).
    pub fn warm_slots(root: &Path, cgroup_parent: &str) -> usize {
        Slots::find(root).0.iter().filter(|id| is_slot_whole(root, cgroup_parent, id)).count()
    }

    /// Tells whether the daemon reads nothing of the kernel's at this moment.
    pub fn is_at_rest(&self) -> bool {
        !self.daemon_descriptors.iter().any(|target| target.starts_with("/proc/"))
    }

    /// Tells whether the daemon has the same open as in another census.
    pub fn has_same_descriptors(&self, other: &Self) -> bool {
        self.daemon_descriptors == other.daemon_descriptors
    }

    /// Says how the node differs from `before`; nothing if there is no leak and nothing is lost.
    ///
    /// Of processes and descriptors only an excess counts: `before` may have been taken while one was just ending.
    pub fn difference(&self, before: &Self) -> String {
        let mut text = String::new();
        let mut compare = |what: &str, now: Vec<String>, mut then: Vec<String>, may_go: bool| {
            for item in now {
                match then.iter().position(|known| *known == item) {
                    Some(known) => drop(then.swap_remove(known)),
                    None => text.push_str(&format!("  + {what} {item}\n")),
                }
            }
            if !may_go {
                then.iter().for_each(|item| text.push_str(&format!("  - {what} {item}\n")));
            }
        };
        let paths = |set: &BTreeSet<PathBuf>| set.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        let texts = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
        compare("process", texts(&self.processes), texts(&before.processes), true);
        compare("mount", texts(&self.mounts), texts(&before.mounts), false);
        compare("cgroup", paths(&self.cgroups), paths(&before.cgroups), false);
        compare("socket", texts(&self.sockets), texts(&before.sockets), false);
        compare("file", paths(&self.files), paths(&before.files), false);
        compare("descriptor of the daemon:", self.daemon_descriptors.clone(), before.daemon_descriptors.clone(), true);
        text
    }
}

/// Tells whether a warm slot is whole: its shim listens, the launcher and the init that waits are in every cgroup, and nothing else bears
/// its name; the process that has started the shim has ended.
pub fn is_slot_whole(root: &Path, cgroup_parent: &str, id: &str) -> bool {
    let dir = root.join("run/s").join(&id[..16]);
    let own = cgroups_below(cgroup_parent).into_iter().filter(|cgroup| cgroup.ends_with(id));
    let members: Vec<Vec<i32>> = own.map(|cgroup| members(&cgroup)).collect();
    let is_full = !members.is_empty() && members.iter().all(|pids| pids.len() == SLOT_PROCESSES);
    let named = dir.display().to_string();
    let others = || {
        let by_name = command_lines().into_iter().filter(|(_, command)| command.contains(&named));
        by_name.filter(|(pid, _)| !members[0].contains(pid)).count()
    };
    // The shim itself is in no cgroup of the slot.
    is_full && dir.join("sock").exists() && others() == 1
}

/// The warm slots that wait: one that is used is replaced by another with other names, so in a census they are numbered.
struct Slots(Vec<String>);

impl Slots {
    fn find(root: &Path) -> Self {
        let mut ids = Vec::new();
        for entry in fs::read_dir(root.join("run/s")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path().join("slot.json")).unwrap_or_default();
            let slot: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            if let Some(id) = slot["id"].as_str().filter(|_| !entry.path().join("task.json").exists()) {
                ids.push(id.to_owned());
            }
        }
        Self(ids)
    }

    /// Puts a number in the place of a slot's id, whole or as the name of its directory.
    fn rename(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (number, id) in self.0.iter().enumerate() {
            text = text.replace(id, &format!("slot-{number}")).replace(&id[..16], &format!("slot-{number}"));
        }
        text
    }

    /// Puts the n-th process of a slot in the place of its pid.
    fn number(&self, processes: BTreeSet<String>) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for process in processes {
            let renamed = self.rename(&process);
            // As a slot, a holder is as good as another; so is one that has taken over in its own process.
            if renamed == process && !process.contains(HOLDER) {
                found.insert(process);
                continue;
            }
            let (_pid, rest) = renamed.split_once(' ').unwrap_or_default();
            let rest = rest.split_once(RESUMED).map_or(rest, |(before, _lock)| before).trim_end();
            let free = (0..).map(|number| format!("#{number} {rest}")).find(|name| !found.contains(name));
            found.extend(free);
        }
        found
    }
}

/// Lists the directories named `parent` at the top of each cgroup hierarchy, and all below them.
pub fn cgroups_below(parent: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let top = Path::new("/sys/fs/cgroup");
    let mut roots = vec![top.join(parent)];
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        roots.push(entry.path().join(parent));
    }
    while let Some(dir) = roots.pop() {
        if !dir.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                roots.push(entry.path());
            }
        }
        found.insert(dir);
    }
    found
}

/// Lists the pids in a cgroup.
pub fn members(cgroup: &Path) -> Vec<i32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Lists the processes, but for the daemon, that name the node's root in their command line or live in its cgroups.
fn processes(root: &Path, cgroups: &BTreeSet<PathBuf>, daemon: Option<u32>) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = cgroups
        .iter()
        .flat_map(|cgroup| members(cgroup).into_iter().map(|pid| format!("{pid} in {}", cgroup.display())))
        .collect();
    let root = root.to_string_lossy();
    for (pid, command) in command_lines() {
        let is_daemon = daemon.is_some_and(|daemon| daemon.cast_signed() == pid);
        if command.contains(root.as_ref()) && !is_daemon {
            found.insert(format!("{pid} {command}"));
        }
    }
    found
}

/// Lists every process with its command line.
pub fn command_lines() -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(bytes) = fs::read(entry.path().join("cmdline")) else { continue };
        let command = String::from_utf8_lossy(&bytes).replace('\0', " ");
        if !command.is_empty() {
            found.push((pid, command));
        }
    }
    found
}

/// Tells whether a process has started another that has not been reaped yet.
pub fn has_children(pid: u32) -> bool {
    fs::read_dir("/proc").into_iter().flatten().flatten().any(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // Behind the name in parentheses: the state, then the parent.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        parent.is_some_and(|parent| parent == pid.to_string())
    })
}

/// Tells whether somebody is connected to a listening socket, or was until a moment ago.
pub fn is_anybody_connected(socket: &Path) -> bool {
    /// `SS_CONNECTED`; the listening socket itself is not.
    const CONNECTED: &str = "03";
    let text = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let socket = socket.display().to_string();
    text.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(5) == Some(&CONNECTED) && fields.get(7) == Some(&socket.as_str())
    })
}

/// Lists the mount points below the root.
pub fn mounts(root: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below = format!("{}/", root.display());
    let point = |line: &str| line.split(' ').nth(4).map(str::to_owned);
    text.lines().filter_map(point).filter(|point| point.starts_with(&below)).collect()
}

fn sockets(root: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let below = root.display().to_string();
    let path = |line: &str| line.split_whitespace().nth(7).map(str::to_owned);
    text.lines().filter_map(path).filter(|path| path.starts_with(&below)).collect()
}

fn files(root: &Path, keep: &[&str]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let relative = path.strip_prefix(root).unwrap_or(&path).to_path_buf();
            let is_kept_log = relative.starts_with("log") && relative.iter().any(|part| part == ".removed");
            if is_kept_log || keep.iter().any(|keep| relative.starts_with(keep)) {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(path);
            } else {
                found.insert(relative);
            }
        }
    }
    found
}

/// Lists what a process has open, by kind: numbers differ from run to run, counts may not.
fn descriptors(pid: u32) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let target = fs::read_link(entry.path()).map(|path| path.display().to_string()).unwrap_or_default();
        found.push(target.split(":[").next().unwrap_or_default().to_owned());
    }
    found.sort();
    found
}
