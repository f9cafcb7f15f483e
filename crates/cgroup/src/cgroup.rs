//! One container's cgroup: a directory in each hierarchy that the container joins.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::controllers::Controllers;
use crate::error::CgroupError;
use crate::hierarchies::{Hierarchies, Hierarchy, is_plain};
use crate::limits::Limits;
use crate::{clock, device_program, members, v1, v2};

/// The time limit for a v1 freezer: processes in an uninterruptible wait freeze late.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);
/// The interval between two reads of the v1 freezer's state, which announces no changes.
const FREEZE_LOOK_EVERY: Duration = Duration::from_millis(2);

/// The cgroup's directory in one hierarchy.
#[derive(Debug)]
pub(crate) struct Dir {
    pub(crate) is_v2: bool,
    pub(crate) controllers: Controllers,
    pub(crate) path: PathBuf,
}

/// The cgroup of one container.
#[derive(Debug)]
pub struct Cgroup {
    pub(crate) dirs: Vec<Dir>,
    v2: Option<File>,
    /// Whether v2 has all the controllers.
    is_pure_v2: bool,
}

impl Cgroup {
    /// Makes the directories of a path such as `/contd/<id>`; existing ones are kept.
    ///
    /// # Errors
    /// [`CgroupError`]; directories made until then stay, for [`Self::open`] and a removal.
    pub fn create(hierarchies: &Hierarchies, path: &Path, needs: Controllers) -> Result<Self, CgroupError> {
        let below = below(path)?;
        let is_pure_v2 = hierarchies.kind() == crate::Kind::V2;
        let mut dirs = Vec::new();
        for hierarchy in hierarchies.needed(needs) {
            let path = hierarchy.point.join(below);
            make_dir(hierarchy, &path, is_pure_v2.then_some(needs))?;
            dirs.push(Dir { is_v2: hierarchy.is_v2(), controllers: hierarchy.controllers, path });
        }
        Self::of(dirs, is_pure_v2)
    }

    /// Opens the existing directories of a path; `None` when none exists.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn open(hierarchies: &Hierarchies, path: &Path) -> Result<Option<Self>, CgroupError> {
        let below = below(path)?;
        let is_pure_v2 = hierarchies.kind() == crate::Kind::V2;
        let dirs: Vec<Dir> = hierarchies
            .all
            .iter()
            .map(|one| Dir { is_v2: one.is_v2(), controllers: one.controllers, path: one.point.join(below) })
            .filter(|dir| dir.path.join("cgroup.procs").exists())
            .collect();
        if dirs.is_empty() { Ok(None) } else { Self::of(dirs, is_pure_v2).map(Some) }
    }

    /// Opens the cgroups of a process by the lines of its `/proc/<pid>/cgroup`: of each hierarchy the one that is called `name`, or is
    /// above it; `None` when none is.
    ///
    /// # Errors
    /// [`CgroupError::File`].
    pub fn of_memberships(
        hierarchies: &Hierarchies,
        memberships: &str,
        name: &str,
    ) -> Result<Option<Self>, CgroupError> {
        let named = |one: &Hierarchy| {
            let member = hierarchies.dir(one.names.first().map_or("", String::as_str), memberships)?;
            let path = member.ancestors().find(|dir| dir.file_name().is_some_and(|last| last == name))?;
            Some(Dir { is_v2: one.is_v2(), controllers: one.controllers, path: path.to_owned() })
        };
        let dirs: Vec<Dir> = hierarchies.all.iter().filter_map(named).collect();
        if dirs.is_empty() { Ok(None) } else { Self::of(dirs, hierarchies.kind() == crate::Kind::V2).map(Some) }
    }

    fn of(dirs: Vec<Dir>, is_pure_v2: bool) -> Result<Self, CgroupError> {
        let open = |dir: &Dir| {
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW);
            options.open(&dir.path).map_err(|source| CgroupError::file("open", &dir.path, source))
        };
        let v2 = dirs.iter().find(|dir| dir.is_v2).map(open).transpose()?;
        Ok(Self { dirs, v2, is_pure_v2 })
    }

    /// Moves the calling process into the cgroup. Its children start in it, so they need no migration.
    ///
    /// # Errors
    /// [`CgroupError::File`].
    pub fn attach_self(&self) -> Result<(), CgroupError> {
        // 0 stands for the writing process.
        self.attach(0)
    }

    /// Moves a process into the cgroup of a path, which is made where it is missing, and counted in it from then on; nothing when
    /// it is there already or has ended. Children that it has stay where they are, those to come start in it. The caller knows
    /// that the pid is still that of the process it means. Takes some milliseconds.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn take_in(path: &Path, pid: i32) -> Result<(), CgroupError> {
        let has_ended = |error: &CgroupError| matches!(error.errno(), Some(libc::ENOENT | libc::ESRCH));
        let hierarchies = Hierarchies::read()?;
        let cgroup = Self::create(&hierarchies, path, Controllers::counting())?;
        let moved = read(&PathBuf::from(format!("/proc/{pid}/cgroup")))
            .and_then(|memberships| if cgroup.holds(&hierarchies, &memberships) { Ok(()) } else { cgroup.attach(pid) });
        moved.or_else(|error| if has_ended(&error) { Ok(()) } else { Err(error) })
    }

    fn attach(&self, pid: i32) -> Result<(), CgroupError> {
        for dir in &self.dirs {
            write(&dir.path.join("cgroup.procs"), &pid.to_string(), None)?;
        }
        Ok(())
    }

    /// Moves the calling thread, the only one of its process, into the v1 directories. For v2, clone a process into
    /// [`Self::v2_dir`].
    ///
    /// # Errors
    /// [`CgroupError::File`].
    pub fn enter_v1(&self) -> Result<(), CgroupError> {
        for dir in self.dirs.iter().filter(|dir| !dir.is_v2) {
            // A thread that moves itself, by `tasks`, avoids the RCU grace period that `cgroup.procs` waits for (Linux
            // 5.15).
            write(&dir.path.join("tasks"), "0", None)?;
        }
        Ok(())
    }

    /// Tells whether a process with these lines in its `/proc/<pid>/cgroup` is in this cgroup, or in one below it, in
    /// every hierarchy.
    pub fn holds(&self, hierarchies: &Hierarchies, memberships: &str) -> bool {
        let is_member = |dir: &Dir| {
            let hierarchy = hierarchies.all.iter().find(|one| dir.path.starts_with(&one.point));
            let name = hierarchy.map(|one| one.names.first().map_or("", String::as_str));
            let found = name.and_then(|name| hierarchies.dir(name, memberships));
            found.is_some_and(|found| found.starts_with(&dir.path))
        };
        self.dirs.iter().all(is_member)
    }

    /// Tells whether the processes are frozen, or are about to be.
    ///
    /// # Errors
    /// [`CgroupError::File`].
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        if let Some(dir) = self.v1_dir(Controllers::FREEZER) {
            return Ok(read(&dir.join("freezer.state"))?.trim() != "THAWED");
        }
        match self.dirs.iter().find(|dir| dir.is_v2) {
            Some(dir) => Ok(read(&dir.path.join("cgroup.freeze"))?.trim() == "1"),
            None => Ok(false),
        }
    }

    /// Returns the v2 directory, for `CLONE_INTO_CGROUP`.
    pub fn v2_dir(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(AsFd::as_fd)
    }

    /// Writes the limits.
    ///
    /// # Errors
    /// [`CgroupError`], with the limit's name in OCI's words.
    pub fn apply(&self, limits: &Limits) -> Result<(), CgroupError> {
        if self.is_pure_v2 {
            let Some(dir) = self.dirs.iter().find(|dir| dir.is_v2) else { return Ok(()) };
            v2::apply(&dir.path, limits)?;
            return match self.v2_dir() {
                Some(fd) if !limits.devices.is_empty() => device_program::attach(fd, &dir.path, &limits.devices),
                _ => Ok(()),
            };
        }
        v1::apply(self, limits)?;
        for (file, value) in &limits.unified {
            let dir = self.dirs.iter().find(|dir| dir.is_v2);
            let dir = dir.ok_or(CgroupError::NoController { field: "linux.resources.unified" })?;
            write(&dir.path.join(file), value, Some("linux.resources.unified"))?;
        }
        Ok(())
    }

    /// Returns the directory in the hierarchy of a v1 controller.
    pub(crate) fn v1_dir(&self, controller: Controllers) -> Option<&Path> {
        self.dirs.iter().find(|dir| dir.controllers.contains(controller)).map(|dir| dir.path.as_path())
    }

    /// Freezes all processes until [`Self::thaw`]; returns when none runs any more.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn freeze(&self) -> Result<(), CgroupError> {
        let deadline = clock::monotonic() + FREEZE_TIMEOUT;
        let late = |path: &Path| CgroupError::NotFrozen { path: path.to_owned(), waited: FREEZE_TIMEOUT };
        let (file, frozen, path) = match (self.v1_dir(Controllers::FREEZER), &self.v2) {
            (Some(dir), _) => (dir.join("freezer.state"), "FROZEN", dir),
            (None, Some(_)) => {
                let Some(dir) = self.dirs.iter().find(|dir| dir.is_v2) else { return Ok(()) };
                write(&dir.path.join("cgroup.freeze"), "1", None)?;
                let events = dir.path.join("cgroup.events");
                return if members::await_event(&events, "frozen 1", deadline)? {
                    Ok(())
                } else {
                    Err(late(&dir.path))
                };
            }
            (None, None) => return Err(CgroupError::NoController { field: "freezer" }),
        };
        // A process that forks during the freeze keeps the state at FREEZING; writing it again completes the freeze.
        while clock::monotonic() < deadline {
            write(&file, frozen, None)?;
            if read(&file)?.trim() == frozen {
                return Ok(());
            }
            thread::sleep(FREEZE_LOOK_EVERY);
        }
        Err(late(path))
    }

    /// Lets frozen processes run again; processes that are not frozen are no error.
    ///
    /// # Errors
    /// [`CgroupError::File`].
    pub fn thaw(&self) -> Result<(), CgroupError> {
        if let Some(dir) = self.v1_dir(Controllers::FREEZER) {
            return write(&dir.join("freezer.state"), "THAWED", None);
        }
        match self.dirs.iter().find(|dir| dir.is_v2) {
            Some(dir) => write(&dir.path.join("cgroup.freeze"), "0", None),
            None => Ok(()),
        }
    }

    /// Kills all processes, also those that are being forked, and those in cgroups below. Does not wait until they have
    /// ended.
    ///
    /// # Errors
    /// [`CgroupError::File`].
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        if let Some(dir) = self.dirs.iter().find(|dir| dir.is_v2) {
            let file = dir.path.join("cgroup.kill");
            match write(&file, "1", None) {
                // `cgroup.kill` is missing before Linux 5.14.
                Err(CgroupError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                result => return result,
            }
        }
        self.signal_all(libc::SIGKILL)
    }

    /// Sends a signal to each process.
    ///
    /// # Errors
    /// [`CgroupError::File`].
    pub fn signal_all(&self, signal: i32) -> Result<(), CgroupError> {
        match self.membership_dir() {
            Some(dir) => members::signal_all(dir, signal),
            None => Ok(()),
        }
    }

    /// Returns a directory that all processes of the container are in.
    pub(crate) fn membership_dir(&self) -> Option<&Path> {
        let dir = self.dirs.iter().find(|dir| dir.is_v2).or_else(|| self.dirs.first());
        dir.map(|dir| dir.path.as_path())
    }

    /// Returns the processes of this cgroup and of those below.
    ///
    /// # Errors
    /// [`CgroupError::File`].
    pub fn pids_below(&self) -> Result<Vec<i32>, CgroupError> {
        let mut pids = Vec::new();
        let mut dirs: Vec<PathBuf> = self.membership_dir().map(Path::to_owned).into_iter().collect();
        while let Some(dir) = dirs.pop() {
            pids.extend(members::pids(&dir)?);
            dirs.extend(crate::remove::subdirectories(&dir)?);
        }
        Ok(pids)
    }

    /// Returns the processes of this cgroup.
    ///
    /// # Errors
    /// [`CgroupError::File`].
    pub fn pids(&self) -> Result<Vec<i32>, CgroupError> {
        self.membership_dir().map_or(Ok(Vec::new()), members::pids)
    }
}

fn below(path: &Path) -> Result<&Path, CgroupError> {
    match path.strip_prefix("/") {
        Ok(below) if is_plain(below) && below.components().next().is_some() => Ok(below),
        _ => Err(CgroupError::Path { path: path.to_owned() }),
    }
}

/// Makes a directory and its missing parents, with the settings that each kind of hierarchy needs.
fn make_dir(hierarchy: &Hierarchy, path: &Path, v2_needs: Option<Controllers>) -> Result<(), CgroupError> {
    if is_made_below_others(hierarchy, path, v2_needs) {
        return Ok(());
    }
    let below = path.strip_prefix(&hierarchy.point).unwrap_or(path);
    let mut dir = hierarchy.point.clone();
    for name in below {
        if let Some(needs) = v2_needs.filter(|_| hierarchy.is_v2()) {
            v2::enable(&dir, needs);
        }
        let parent = dir.clone();
        dir.push(name);
        match fs::create_dir(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(CgroupError::file("make", dir, source)),
        }
        if hierarchy.controllers.contains(Controllers::CPUSET) && !hierarchy.is_v2() {
            v1::inherit_cpuset(&parent, &dir)?;
        }
    }
    Ok(())
}

/// Makes a directory where that is all to do: its parent is there and, on v2, has the controllers for it, which it can have only
/// if all above have them. So it is for every container but the first, however deep the parent lies. `false`: nothing is lost by
/// the long way.
fn is_made_below_others(hierarchy: &Hierarchy, path: &Path, v2_needs: Option<Controllers>) -> bool {
    // A cpuset has settings that are copied from level to level.
    if hierarchy.controllers.contains(Controllers::CPUSET) {
        return false;
    }
    let is_made = match fs::create_dir(path) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::AlreadyExists,
    };
    let needs = v2_needs.filter(|_| hierarchy.is_v2());
    is_made && needs.is_none_or(|needs| path.parent().is_some_and(|parent| v2::has_enabled(parent, needs)))
}

/// Writes a value into a cgroup's file.
pub(crate) fn write(path: &Path, value: &str, field: Option<&'static str>) -> Result<(), CgroupError> {
    let result = OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(value.as_bytes()));
    result.map_err(|source| CgroupError::File { verb: "write", path: path.to_owned(), field, source })
}

/// Reads a cgroup's file.
pub(crate) fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::file("read", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_taken_into_a_cgroup_that_is_made_for_it_and_none_that_has_ended() {
        let hierarchies = Hierarchies::read().expect("mountinfo");
        let path = PathBuf::from(format!("/contd-t-taken-{}", std::process::id()));
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("run as root, with sleep");
        let pid = i32::try_from(child.id()).expect("a pid");
        Cgroup::take_in(&path, pid).expect("moved");
        Cgroup::take_in(&path, pid).expect("twice is fine");
        let cgroup = Cgroup::open(&hierarchies, &path).expect("opened").expect("it was made");
        let memberships = read(&PathBuf::from(format!("/proc/{pid}/cgroup"))).expect("it lives");
        assert!(cgroup.holds(&hierarchies, &memberships), "{memberships}");
        assert_eq!(cgroup.pids().expect("listed"), [pid]);
        let name = path.file_name().expect("a name").to_str().expect("utf-8");
        let of_name = |name| Cgroup::of_memberships(&hierarchies, &memberships, name).expect("read");
        assert_eq!(of_name(name).expect("its own").pids().expect("listed"), [pid]);
        assert!(of_name("contd-t-another").is_none());
        child.kill().expect("killed");
        child.wait().expect("reaped");
        Cgroup::take_in(&path, pid).expect("one that has ended is fine");
        cgroup.remove(Duration::from_secs(10)).expect("removed");
    }
}
