//! Processes of containers in `/proc`, each asked by a descriptor of its directory.

use contd_cgroup::{Cgroup, CgroupError, Hierarchies};
use contd_types::{ContainerId, Pid, ProcessInfo, Timestamp};
use procfs::ProcResult;
use procfs::process::Process;

use crate::Metered;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// Finds the init of a container and its cgroup; `None` when the pid is not in one of this container, or not there.
///
/// # Errors
/// [`CgroupError`].
pub(crate) fn find(hierarchies: &Hierarchies, of: &Metered) -> Result<Option<(Process, Cgroup)>, CgroupError> {
    let Ok(init) = Process::new(of.pid.0) else { return Ok(None) };
    let Ok(memberships) = memberships(&init) else { return Ok(None) };
    let cgroup = Cgroup::of_memberships(hierarchies, &memberships, of.id.as_str())?;
    Ok(cgroup.map(|cgroup| (init, cgroup)))
}

/// Lists the processes in a cgroup and below. Those that end meanwhile are absent.
///
/// # Errors
/// [`CgroupError`].
pub(crate) fn list(cgroup: &Cgroup, id: &ContainerId) -> Result<Vec<ProcessInfo>, CgroupError> {
    let (ticks, page) = (procfs::ticks_per_second().max(1), procfs::page_size());
    let booted = procfs::boot_time_secs().unwrap_or(0);
    let describe = |pid: i32| -> ProcResult<Option<ProcessInfo>> {
        let process = Process::new(pid)?;
        if !memberships(&process)?.contains(id.as_str()) {
            // Its pid is another process's by now.
            return Ok(None);
        }
        let (stat, status) = (process.stat()?, process.status()?);
        let mut command = process.cmdline().unwrap_or_default();
        if command.is_empty() {
            command.push(format!("[{}]", stat.comm));
        }
        let of_ticks = |count: u64| count.saturating_mul(NS_PER_SECOND / ticks);
        let innermost = status.nspid.as_ref().and_then(|pids| pids.last().copied());
        Ok(Some(ProcessInfo {
            pid: Pid(pid),
            container_pid: Pid(innermost.unwrap_or(pid)),
            parent: Pid(stat.ppid),
            uid: status.euid,
            state: stat.state,
            cpu_ns: of_ticks(stat.utime.saturating_add(stat.stime)),
            resident_bytes: stat.rss.saturating_mul(page),
            started: Timestamp(booted.saturating_mul(NS_PER_SECOND).saturating_add(of_ticks(stat.starttime))),
            command,
        }))
    };
    let mut pids = cgroup.pids_below()?;
    pids.sort_unstable();
    pids.dedup();
    Ok(pids.into_iter().filter_map(|pid| describe(pid).ok().flatten()).collect())
}

/// Reads the lines of `/proc/<pid>/cgroup`.
fn memberships(process: &Process) -> ProcResult<String> {
    let mut text = String::new();
    std::io::Read::read_to_string(&mut process.open_relative("cgroup")?, &mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use super::*;
    use crate::cgroups::{container, open_count};
    use crate::{CgroupMeters, MeterError, Meters};

    /// A shell in a pid namespace of its own, with a child, which waits for its input to end.
    fn processes() -> (Child, Pid) {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "/bin/sh", "-c", "sleep 1000 & echo $!; read line; kill $!; wait"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run it");
        let mut line = String::new();
        let mut stdout = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
        std::io::BufRead::read_line(&mut stdout, &mut line).expect("a line");
        assert_eq!(line.trim(), "2", "the first child of its namespace's first process");
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).expect("it lives");
        let pid = Pid(children.trim().parse().expect("one"));
        (child, pid)
    }

    #[test]
    fn a_container_is_known_by_the_name_of_its_cgroup_with_pids_of_both_sides_and_nothing_stays_open() {
        let (mut child, init) = processes();
        let id = ContainerId::from_random([7; 16]);
        let cgroup = container(&id, init.0);
        let children = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).expect("it lives");
        let sleep: i32 = children.trim().parse().expect("one");
        container(&id, sleep);
        // Until then it is the shell's twin.
        let command = || std::fs::read(format!("/proc/{sleep}/cmdline")).expect("it lives");
        while !command().starts_with(b"sleep\0") {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (meters, of) = (CgroupMeters::default(), Metered { id: id.clone(), pid: init });

        let [first, second] = meters.processes(&of).expect("a list").try_into().expect("two");
        assert_eq!((first.pid, first.container_pid, first.uid), (init, Pid(1), 0));
        assert_eq!(first.command[..2], ["/bin/sh", "-c"]);
        assert_eq!((second.pid, second.container_pid, second.parent), (Pid(sleep), Pid(2), init));
        assert_eq!(second.command, ["sleep", "1000"]);
        assert!(second.resident_bytes > 0 && second.started >= first.started, "{first:?} {second:?}");

        let readings = meters.read(std::slice::from_ref(&of));
        let [reading] = readings.as_slice() else { panic!("{readings:?}") };
        assert_eq!((reading.usage.pids.count, reading.network.is_some()), (Some(2), true), "{reading:?}");
        // A process that is not in a cgroup of this name is nobody of ours.
        let stranger = Metered { id: ContainerId::from_random([8; 16]), pid: init };
        assert_eq!(meters.read(std::slice::from_ref(&stranger)), []);
        assert!(matches!(meters.processes(&stranger), Err(MeterError::Ended { .. })));

        drop(child.stdin.take());
        child.wait().expect("reap it");
        assert_eq!(meters.read(std::slice::from_ref(&of)), [], "it has ended");
        assert_eq!(open_count(&meters), 0);
        assert!(matches!(meters.processes(&of), Err(MeterError::Ended { .. })));
        cgroup.remove(Duration::from_secs(60)).expect("remove it");
        let parent = format!("contd-t-meters-{}", std::process::id());
        for dir in std::fs::read_dir("/sys/fs/cgroup").expect("mounted").flatten() {
            let _absent = std::fs::remove_dir(dir.path().join(&parent));
        }
        let _absent = std::fs::remove_dir(std::path::Path::new("/sys/fs/cgroup").join(&parent));
    }
}
