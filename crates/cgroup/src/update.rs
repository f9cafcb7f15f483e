//! Changes the limits of a cgroup in which processes run. What is in use is never cut off, and a change of several limits is made whole or
//! not at all.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nix::libc;

use crate::cgroup::{Cgroup, Dir, read, write};
use crate::error::CgroupError;
use crate::hierarchies::Hierarchies;
use crate::limits::{Cpu, Limits, Memory};

const MEMORY_LIMIT: &str = "linux.resources.memory.limit";
const PIDS_LIMIT: &str = "linux.resources.pids.limit";
/// How often processes are looked for that were made while others were moved.
const MAX_ROUNDS: u32 = 64;

impl Cgroup {
    /// Changes limits, from those in force: only what differs is written. A limit below what is in use is refused; on v2 the kernel is
    /// asked to take memory back first, so that no process is killed for it. Device rules and `unified` are not changed.
    ///
    /// # Errors
    /// [`CgroupError::InUse`], with the figure; others of [`Self::apply`]. What was in force is in force again then, as far as the
    /// kernel lets it.
    pub fn change(&mut self, hierarchies: &Hierarchies, from: &Limits, to: &Limits) -> Result<(), CgroupError> {
        let changed = difference(from, to);
        self.check_use(&changed)?;
        self.join(hierarchies, &changed)?;
        let result = self.with_room(&changed, || self.apply(&changed)).map_err(|error| self.in_use(error, &changed));
        if result.is_err() {
            // One of them was refused; the kernel took these before.
            let _as_far_as_it_goes = self.apply(&difference(to, from));
        }
        result
    }

    fn check_use(&self, limits: &Limits) -> Result<(), CgroupError> {
        let used = self.meter()?.read(&mut Vec::new());
        let is_below = |limit: Option<i64>, used: Option<u64>| {
            let limit = limit.and_then(|limit| u64::try_from(limit).ok())?;
            used.filter(|used| *used > limit).map(|used| (limit, used))
        };
        // Without the page cache, which the kernel gives up.
        if let Some((limit, used)) = is_below(limits.memory.limit, used.memory.working_set_bytes) {
            return Err(CgroupError::InUse { field: MEMORY_LIMIT, limit, used });
        }
        match is_below(limits.pids.filter(|limit| *limit > 0), used.pids.count) {
            Some((limit, used)) => Err(CgroupError::InUse { field: PIDS_LIMIT, limit, used }),
            None => Ok(()),
        }
    }

    /// Says of v1's EBUSY what it means: the memory cannot be taken back.
    fn in_use(&self, error: CgroupError, limits: &Limits) -> CgroupError {
        let is_memory = error.field().is_some_and(|field| field.starts_with("linux.resources.memory."));
        if !is_memory || error.errno() != Some(libc::EBUSY) {
            return error;
        }
        let used = self.meter().ok().and_then(|meter| meter.read(&mut Vec::new()).memory.bytes);
        match (limits.memory.limit.and_then(|limit| u64::try_from(limit).ok()), used) {
            (Some(limit), Some(used)) => CgroupError::InUse { field: MEMORY_LIMIT, limit, used },
            _ => error,
        }
    }

    /// Does something while v2's `memory.high` keeps the memory below a new limit: reaching `memory.max` would kill.
    fn with_room(&self, limits: &Limits, act: impl FnOnce() -> Result<(), CgroupError>) -> Result<(), CgroupError> {
        let dir = self.dirs.iter().find(|dir| dir.is_v2 && dir.path.join("memory.high").exists());
        let limit = limits.memory.limit.and_then(|limit| u64::try_from(limit).ok());
        let (Some(dir), Some(limit)) = (dir, limit) else { return act() };
        let current = || number(&dir.path.join("memory.current"));
        if current()? <= limit {
            return act();
        }
        let high = dir.path.join("memory.high");
        let before = read(&high)?;
        write(&high, &limit.to_string(), Some(MEMORY_LIMIT))?;
        let result = match current() {
            Ok(used) if used > limit => Err(CgroupError::InUse { field: MEMORY_LIMIT, limit, used }),
            Ok(_) => act(),
            Err(error) => Err(error),
        };
        let restored = write(&high, before.trim(), Some(MEMORY_LIMIT));
        result.and(restored)
    }

    /// Joins the controllers that the limits need and that were not needed before, with all processes.
    fn join(&mut self, hierarchies: &Hierarchies, limits: &Limits) -> Result<(), CgroupError> {
        let Some(path) = self.dirs.first().and_then(|dir| below(hierarchies, dir)) else { return Ok(()) };
        let joined = Self::create(hierarchies, &path, limits.needs())?;
        for dir in joined.dirs {
            if self.dirs.iter().any(|own| own.path == dir.path) {
                continue;
            }
            self.take_all_in(&dir.path)?;
            self.dirs.push(dir);
        }
        Ok(())
    }

    /// Moves all processes into another directory of this cgroup.
    fn take_all_in(&self, dir: &Path) -> Result<(), CgroupError> {
        let procs = dir.join("cgroup.procs");
        for _round in 0..MAX_ROUNDS {
            let inside: BTreeSet<i32> = read(&procs)?.lines().filter_map(|line| line.parse().ok()).collect();
            let outside: BTreeSet<i32> = self.pids_below()?.into_iter().filter(|pid| !inside.contains(pid)).collect();
            if outside.is_empty() {
                return Ok(());
            }
            for pid in outside {
                match write(&procs, &pid.to_string(), None) {
                    // It has ended.
                    Err(error) if error.errno() == Some(libc::ESRCH) => {}
                    written => written?,
                }
            }
        }
        Err(CgroupError::Restless { path: dir.to_owned(), rounds: MAX_ROUNDS })
    }
}

/// Returns the path of a directory below its hierarchy, as it was made.
fn below(hierarchies: &Hierarchies, dir: &Dir) -> Option<PathBuf> {
    let is_same = |one: &&crate::hierarchies::Hierarchy| one.controllers == dir.controllers && one.is_v2() == dir.is_v2;
    let point = &hierarchies.all.iter().find(is_same)?.point;
    Some(Path::new("/").join(dir.path.strip_prefix(point).ok()?))
}

fn number(path: &Path) -> Result<u64, CgroupError> {
    read(path)?.trim().parse().map_err(|_| {
        let source = std::io::Error::from(std::io::ErrorKind::InvalidData);
        CgroupError::file("read", path, source)
    })
}

/// Keeps what differs. Of what the kernel knows as one, both stay.
fn difference(from: &Limits, to: &Limits) -> Limits {
    fn new<T: PartialEq + Clone>(from: &Option<T>, to: &Option<T>) -> Option<T> {
        if from == to { None } else { to.clone() }
    }
    let is_memory_new = (from.memory.limit, from.memory.swap) != (to.memory.limit, to.memory.swap);
    let is_time_new = (from.cpu.quota, from.cpu.period) != (to.cpu.quota, to.cpu.period);
    Limits {
        memory: Memory {
            limit: to.memory.limit.filter(|_| is_memory_new),
            swap: to.memory.swap.filter(|_| is_memory_new),
            reservation: new(&from.memory.reservation, &to.memory.reservation),
            swappiness: new(&from.memory.swappiness, &to.memory.swappiness),
            is_oom_killer_disabled: false,
        },
        cpu: Cpu {
            shares: new(&from.cpu.shares, &to.cpu.shares),
            quota: to.cpu.quota.filter(|_| is_time_new),
            period: to.cpu.period.filter(|_| is_time_new),
            burst: new(&from.cpu.burst, &to.cpu.burst),
            cpus: new(&from.cpu.cpus, &to.cpu.cpus),
            mems: new(&from.cpu.mems, &to.cpu.mems),
            idle: new(&from.cpu.idle, &to.cpu.idle),
        },
        pids: new(&from.pids, &to.pids),
        block_io_weight: new(&from.block_io_weight, &to.block_io_weight),
        ..Limits::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Controllers;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Child, Command, Stdio};

    /// A shell that holds so many MiB of memory and has one child; it ends with its input.
    struct Holder {
        child: Child,
        cgroup: Cgroup,
        hierarchies: Hierarchies,
    }

    impl Holder {
        fn new(name: &str, limits: &Limits) -> Self {
            let hierarchies = Hierarchies::read().expect("mountinfo");
            let path = PathBuf::from(format!("/contd-t-{name}-{}", std::process::id()));
            let cgroup = Cgroup::create(&hierarchies, &path, limits.needs()).expect("as root");
            cgroup.apply(limits).expect("limited");
            let mut child = Command::new("/bin/sh");
            child.args([
                "-c",
                "read go; x=$(head -c 20000000 /dev/zero | tr '\\0' x); sleep 1000 & echo $!; read end; kill $!; wait",
            ]);
            let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run it");
            let pid = i32::try_from(child.id()).expect("a pid");
            for dir in &cgroup.dirs {
                write(&dir.path.join("cgroup.procs"), &pid.to_string(), None).expect("moved");
            }
            child.stdin.as_mut().expect("a pipe").write_all(b"go\n").expect("told");
            let mut line = String::new();
            BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("a line");
            Self { child, cgroup, hierarchies }
        }

        fn change(&mut self, from: &Limits, to: &Limits) -> Result<(), CgroupError> {
            self.cgroup.change(&self.hierarchies, from, to)
        }

        fn file(&self, v1: (Controllers, &str), v2: &str) -> String {
            let path = match self.cgroup.v1_dir(v1.0) {
                Some(dir) => dir.join(v1.1),
                None => self.cgroup.dirs.iter().find(|dir| dir.is_v2).expect("v2").path.join(v2),
            };
            read(&path).expect("a file").trim().to_owned()
        }
    }

    impl Drop for Holder {
        fn drop(&mut self) {
            drop(self.child.stdin.take());
            let _code = self.child.wait();
            self.cgroup.remove(std::time::Duration::from_secs(5)).expect("removed");
        }
    }

    fn limits(mib: i64, pids: i64) -> Limits {
        let memory = Memory { limit: Some(mib << 20), ..Memory::default() };
        Limits { memory, pids: Some(pids), ..Limits::default() }
    }

    #[test]
    fn limits_change_under_running_processes_and_never_below_what_they_use() {
        let before = limits(256, 100);
        let mut holder = Holder::new("change", &before);
        let memory = |holder: &Holder| holder.file((Controllers::MEMORY, "memory.limit_in_bytes"), "memory.max");
        let pids = |holder: &Holder| holder.file((Controllers::PIDS, "pids.max"), "pids.max");
        holder.change(&before, &limits(128, 50)).expect("changed");
        assert_eq!((memory(&holder), pids(&holder)), ((128u64 << 20).to_string(), "50".to_owned()));
        let now = limits(128, 50);
        let refused = |holder: &mut Holder, to: Limits| match holder.change(&now, &to) {
            Err(CgroupError::InUse { field, limit, used }) => (field, limit, used),
            other => panic!("{other:?}"),
        };
        let (field, limit, used) = refused(&mut holder, limits(4, 40));
        assert_eq!((field, limit), (MEMORY_LIMIT, 4 << 20));
        assert!(used > 19_000_000, "{used}");
        assert_eq!(refused(&mut holder, limits(200, 1)), (PIDS_LIMIT, 1, 2));
        // All or nothing.
        assert_eq!((memory(&holder), pids(&holder)), ((128u64 << 20).to_string(), "50".to_owned()));
        assert!(holder.child.try_wait().expect("looked").is_none(), "nothing was killed");
    }

    #[test]
    fn a_controller_that_was_not_needed_is_joined_with_all_processes() {
        let before = limits(256, 100);
        let mut holder = Holder::new("join", &before);
        let mut to = before.clone();
        to.cpu.cpus = Some("0".to_owned());
        holder.change(&before, &to).expect("changed");
        assert_eq!(holder.file((Controllers::CPUSET, "cpuset.cpus"), "cpuset.cpus"), "0");
        let procs = holder.file((Controllers::CPUSET, "cgroup.procs"), "cgroup.procs");
        assert_eq!(procs.lines().count(), 2, "{procs}");
        let status = std::fs::read_to_string(format!("/proc/{}/status", holder.child.id())).expect("it lives");
        assert!(status.lines().any(|line| line == "Cpus_allowed_list:\t0"), "{status}");
        // A value that the kernel refuses leaves all as it was.
        let mut bad = to.clone();
        (bad.cpu.cpus, bad.pids) = (Some("0-4000".to_owned()), Some(77));
        assert!(holder.change(&to, &bad).is_err());
        assert_eq!(holder.file((Controllers::PIDS, "pids.max"), "pids.max"), "100");
    }

    #[test]
    fn only_what_differs_is_written() {
        let mut to = limits(256, 100);
        assert_eq!(difference(&to, &to.clone()), Limits::default());
        to.cpu.quota = Some(5);
        let from = to.clone();
        to.cpu.period = Some(1000);
        let changed = difference(&from, &to);
        assert_eq!((changed.cpu.quota, changed.cpu.period, changed.pids), (Some(5), Some(1000), None));
        assert_eq!(changed.memory, Memory::default());
    }
}
