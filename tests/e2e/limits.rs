//! Limits of containers that are changed while they run, as the kernel has them and as they are kept.

use crate::harness::Node;

/// Reads a file of a container's cgroup, whichever version this node has.
fn cgroup_file(pid: &serde_json::Value, controller: &str, v1: &str, v2: &str) -> String {
    let memberships = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    let of = |names: &str| {
        let line = memberships
            .lines()
            .find(|line| line.split(':').nth(1).is_some_and(|found| found.split(',').any(|name| name == names)));
        line.and_then(|line| line.splitn(3, ':').nth(2)).map(str::to_owned)
    };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("proc");
    let point = |is_it: &dyn Fn(&str) -> bool| {
        let line = mounts.lines().find(|line| is_it(line)).unwrap_or_else(|| panic!("no mount in {mounts}"));
        line.split(' ').nth(4).expect("a mount point").to_owned()
    };
    let path = match of(controller) {
        Some(path) => {
            let is_it = |line: &str| {
                line.contains(" - cgroup ")
                    && line.rsplit(' ').next().is_some_and(|options| options.split(',').any(|name| name == controller))
            };
            format!("{}{path}/{v1}", point(&is_it))
        }
        None => format!("{}{}/{v2}", point(&|line| line.contains(" - cgroup2 ")), of("").expect("v2")),
    };
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")).trim().to_owned()
}

#[test]
fn limits_of_a_running_container_change_beside_one_that_keeps_its_own_and_are_there_after_a_restart() {
    let mut node = Node::start();
    let flist = node.flist();
    for name in ["web", "other"] {
        node.contd([
            "run",
            "-d",
            "--name",
            name,
            "-m",
            "256m",
            "--pids-limit",
            "50",
            flist.arg(),
            "/bin/sleep",
            "1000",
        ])
        .ok();
    }
    let (web, other) = (node.inspect("web")["pid"].clone(), node.inspect("other")["pid"].clone());
    let memory = |pid: &serde_json::Value| cgroup_file(pid, "memory", "memory.limit_in_bytes", "memory.max");
    let pids = |pid: &serde_json::Value| cgroup_file(pid, "pids", "pids.max", "pids.max");
    let cpus = |pid: &serde_json::Value| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).expect("a line").to_owned()
    };
    assert_eq!((memory(&web), pids(&web)), ((256u64 << 20).to_string(), "50".to_owned()));
    let all = cpus(&other);

    node.contd(["update", "-m", "64m", "--pids-limit", "20", "--cpuset-cpus", "0", "web"]).ok();
    assert_eq!((memory(&web), pids(&web), cpus(&web)), ((64u64 << 20).to_string(), "20".to_owned(), "0".to_owned()));
    assert_eq!((memory(&other), pids(&other), cpus(&other)), ((256u64 << 20).to_string(), "50".to_owned(), all));
    let seen = node.inspect("web");
    assert_eq!((&seen["memory_bytes"], &seen["pids_limit"]), (&(64 << 20).into(), &20.into()));
    // A process that is executed later is in there, too.
    assert_eq!(
        node.contd(["exec", "web", "/bin/sh", "-c", "grep Cpus_allowed_list /proc/self/status | cut -f2"]).ok(),
        "0"
    );

    // Kept by the next daemon, and for the next start.
    node.kill_daemon();
    node.start_daemon();
    assert_eq!(node.inspect("web")["memory_bytes"], 64 << 20);
    node.contd(["update", "--memory", "96m", "web"]).ok();
    assert_eq!(memory(&web), (96u64 << 20).to_string());
    node.contd(["restart", "-t", "0", "web"]).ok();
    let web = node.inspect("web")["pid"].clone();
    assert_eq!((memory(&web), pids(&web), cpus(&web)), ((96u64 << 20).to_string(), "20".to_owned(), "0".to_owned()));
    assert_eq!(node.inspect("other")["pid"], other, "it has not noticed");
    node.contd(["rm", "-f", "-t", "0", "web", "other"]).ok();
    node.finish();
}

#[test]
fn a_limit_below_what_is_in_use_is_refused_with_the_figure_and_costs_no_process() {
    let node = Node::start();
    let flist = node.flist();
    // Twenty million bytes in a variable of the shell, and one child.
    let hold = "x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo held; sleep 1000 & wait";
    node.contd(["run", "-d", "--name", "web", "-m", "256m", flist.arg(), "/bin/sh", "-c", hold]).ok();
    crate::harness::eventually("it holds", || (node.contd(["logs", "web"]).ok() == "held").then_some(()));
    let pid = node.inspect("web")["pid"].clone();
    let limits = || {
        (
            node.inspect("web")["memory_bytes"].clone(),
            node.inspect("web")["pids_limit"].clone(),
            cgroup_file(&pid, "memory", "memory.limit_in_bytes", "memory.max"),
        )
    };
    let before = limits();
    let refused = node.contd(["update", "-m", "8m", "--pids-limit", "500", "web"]);
    refused.fails_with(1, "it uses ");
    node.contd(["update", "--pids-limit", "1", "web"]).fails_with(1, "it uses 2");
    node.contd(["update", "--cpuset-cpus", "0-4000", "--pids-limit", "77", "web"]).fails_with(1, "cpuset.cpus");
    node.contd(["update", "web"]).fails_with(1, "no setting");
    assert_eq!(limits(), before);
    assert_eq!(node.inspect("web")["pid"], pid, "it runs on");
    node.contd(["rm", "-f", "-t", "0", "web"]).ok();
    // One that has ended has them from its next start on.
    node.contd(["run", "--name", "job", flist.arg(), "/bin/true"]).ok();
    node.contd(["update", "-m", "32m", "job"]).ok();
    node.contd(["start", "job"]).ok();
    node.contd(["wait", "job"]).ok();
    assert_eq!(node.inspect("job")["memory_bytes"], 32 << 20);
    node.contd(["rm", "job"]).ok();
    node.finish();
}
