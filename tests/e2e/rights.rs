//! Flags about rights and resources, as seen from inside the container.

use crate::harness::Node;
use crate::harness::census::cgroups_below;

/// Runs a script in a new container with these flags, and returns its output.
#[track_caller]
fn inside(node: &Node, flags: &[&str], script: &str) -> String {
    let flist = node.root.join("input/busybox.fl");
    if !flist.exists() {
        node.flist();
    }
    let flist = flist.display().to_string();
    let args = [&["run", "--rm"][..], flags, &[&flist, "/bin/sh", "-c", script]].concat();
    node.contd(args).ok().to_owned()
}

/// Refused before anything is made, in words.
#[track_caller]
fn refused(node: &Node, flags: &[&str], word: &str) {
    let flist = node.root.join("input/busybox.fl").display().to_string();
    node.contd([&["run", "--rm"][..], flags, &[&flist, "/bin/true"]].concat()).fails_with(125, word);
}

#[test]
fn capabilities_filters_and_privileges_are_as_they_were_asked_for() {
    let mut node = Node::start();
    // A profile is understood when the bundle is made.
    node.announce("run rolled back");
    let status = |flags: &[&str]| {
        let text = inside(&node, flags, "grep -E 'CapEff|CapBnd|Seccomp:|NoNewPrivs' /proc/self/status");
        let of = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{text}"));
            line.split_whitespace().nth(1).expect("a value").to_owned()
        };
        (of("CapEff"), of("Seccomp:"), of("NoNewPrivs"))
    };
    let of = |effective: u64, seccomp: &str, no_new: &str| {
        (format!("{effective:016x}"), seccomp.to_owned(), no_new.to_owned())
    };
    let usual = 0xa804_25fb;
    assert_eq!(status(&["--cap-add", "net_admin", "--cap-drop", "CAP_CHOWN"]), of((usual | 1 << 12) & !1, "2", "1"));
    assert_eq!(status(&["--cap-drop", "ALL", "--cap-add", "KILL"]), of(1 << 5, "2", "1"));
    assert_eq!(status(&["--security-opt", "seccomp=unconfined"]), of(usual, "0", "1"));
    assert_eq!(status(&["--security-opt", "no-new-privileges=false"]), of(usual, "2", "0"));
    let last: u32 =
        std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").expect("proc").trim().parse().expect("a number");
    let all = (1u64 << (last + 1)) - 1;
    let own = std::fs::read_to_string("/proc/self/status").expect("proc");
    let bounding = own.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("a line").trim().to_owned();
    // A node that lacks some, as in a virtual machine, cannot give them.
    if u64::from_str_radix(&bounding, 16) == Ok(all) {
        assert_eq!(status(&["--privileged"]), of(all, "0", "0"));
    }
    let profile = node.root.join("input/profile.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7}]}"#;
    std::fs::write(&profile, text).expect("written");
    let option = format!("seccomp={}", profile.display());
    let said = inside(&node, &["--security-opt", &option], "mkdir /tmp/x 2>&1; true");
    assert!(said.contains("Argument list too long"), "{said}");
    refused(&node, &["--cap-add", "NET"], "no capability");
    refused(&node, &["--security-opt", "apparmor=x"], "AppArmor");
    refused(&node, &["--security-opt", "seccomp=/nowhere"], "/nowhere");
    std::fs::write(&profile, "{}").expect("written");
    refused(&node, &["--security-opt", &option], "seccomp profile");
    node.finish();
}

#[test]
fn limits_groups_devices_and_sysctls_arrive() {
    let mut node = Node::start();
    // Devices and groups are looked up when it is made.
    node.announce("run rolled back");
    let limits =
        inside(&node, &["--ulimit", "nofile=64:128", "--ulimit", "core=0"], "ulimit -n; ulimit -Hn; ulimit -c");
    assert_eq!(limits, "64\n128\n0");
    assert_eq!(inside(&node, &["--group-add", "27", "--group-add", "app"], "id -G"), "0 27 1000");
    // One that is on every node of contd, and in no container by default.
    let device = "/dev/fuse:/dev/mine:r";
    let script = "ls -l /dev/mine | cut -c1; (: </dev/mine) && echo read; (: 2>/dev/null >/dev/mine) || echo refused";
    assert_eq!(inside(&node, &["--device", device], script), "c\nread\nrefused");
    let read = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni";
    let flags = ["--sysctl", "net.ipv4.ip_unprivileged_port_start=0", "--sysctl", "kernel.shmmni=77"];
    assert_eq!(inside(&node, &flags, read), "0\n77");
    assert_eq!(inside(&node, &["--oom-score-adj", "700"], "cat /proc/self/oom_score_adj"), "700");
    refused(&node, &["--device", "/etc/passwd"], "/etc/passwd");
    refused(&node, &["--sysctl", "kernel.panic=1"], "whole machine");
    refused(&node, &["--ulimit", "files=1"], "ulimit");
    refused(&node, &["--group-add", "nobody-knows"], "nobody-knows");
    node.finish();
}

#[test]
fn names_mounts_and_shares_arrive() {
    let node = Node::start();
    let seen =
        inside(&node, &["--name", "web", "--hostname", "www.example"], "hostname; cat /etc/hostname 2>/dev/null; true");
    assert!(seen.starts_with("www.example"), "{seen}");
    let script = "df -k /dev/shm /t | awk 'NR > 1 {print $2}'; touch /t/x && echo written";
    assert_eq!(inside(&node, &["--shm-size", "2m", "--tmpfs", "/t:size=1m,mode=1777"], script), "2048\n1024\nwritten");
    let flist = node.root.join("input/busybox.fl").display().to_string();
    let shares = [
        "run",
        "-d",
        "--name",
        "shares",
        "-m",
        "64m",
        "--memory-reservation",
        "32m",
        "--cpu-shares",
        "512",
        "--cpu-quota",
        "20000",
        "--cpu-period",
        "50000",
        "--cpuset-cpus",
        "0",
        "--annotation",
        "a=b",
        "--log-opt",
        "max-size=1m",
        "--log-opt",
        "max-file=2",
        &flist,
        "/bin/sleep",
        "1000",
    ];
    node.contd(shares).ok();
    let pid = node.inspect("shares")["pid"].as_i64().expect("a pid");
    let cpus = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("proc");
    assert!(cpus.lines().any(|line| line == "Cpus_allowed_list:\t0"), "{cpus}");
    let id = node.inspect("shares")["id"].as_str().expect("an id").to_owned();
    let dirs: Vec<_> = cgroups_below(&node.cgroup_parent).into_iter().filter(|dir| dir.ends_with(&id)).collect();
    let file = |name: &str| {
        let text = dirs.iter().find_map(|dir| std::fs::read_to_string(dir.join(name)).ok());
        text.unwrap_or_else(|| panic!("no {name} in {dirs:?}")).trim().to_owned()
    };
    let reservation = (32 << 20).to_string();
    if dirs.iter().any(|dir| dir.join("cpu.max").exists()) {
        assert_eq!((file("cpu.max"), file("memory.low")), ("20000 50000".into(), reservation));
    } else {
        assert_eq!((file("cpu.cfs_quota_us"), file("cpu.cfs_period_us")), ("20000".into(), "50000".into()));
        assert_eq!((file("cpu.shares"), file("memory.soft_limit_in_bytes")), ("512".into(), reservation));
    }
    refused(&node, &["--cpus", "1", "--cpu-quota", "5000"], "--cpus");
    refused(&node, &["--memory-swap", "1g"], "memory limit");
    refused(&node, &["--hostname=-x-"], "host name");
    refused(&node, &["--annotation", "tech.contd.name=x"], "tech.contd.name");
    refused(&node, &["--log-opt", "mode=non-blocking"], "log options");
    node.contd(["rm", "-f", "-t", "0", "shares"]).ok();
    node.finish();
}
