//! The view and the rights of a container, read from inside it.

use crate::harness::{Netns, Node};

/// Runs a script in a new container and returns its output.
#[track_caller]
fn inside(node: &Node, flags: &[&str], script: &str) -> String {
    let flist = node.root.join("input/busybox.fl");
    if !flist.exists() {
        node.flist();
    }
    let mut args = vec!["run", "--rm"];
    args.extend_from_slice(flags);
    let flist = flist.display().to_string();
    args.extend_from_slice(&[&flist, "/bin/sh", "-c", script]);
    node.contd(args).ok().to_owned()
}

#[test]
fn capabilities_seccomp_and_no_new_privileges_are_as_promised() {
    let node = Node::start();
    let status = inside(&node, &[], "cat /proc/self/status");
    let field = |name: &str| {
        let line =
            status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {status}"));
        line.split_whitespace().nth(1).expect("a value").to_owned()
    };
    // containerd's fourteen: chown dac_override fsetid fowner mknod net_raw setgid setuid setfcap setpcap
    // net_bind_service sys_chroot kill audit_write.
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(field(set), "00000000a80425fb", "{set}");
    }
    for set in ["CapInh:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("NoNewPrivs:"), "1");
    node.finish();
}

#[test]
fn masked_and_read_only_paths_and_forbidden_calls_are_closed() {
    let node = Node::start();
    // A masked path is empty, or is not there in this kernel; either way not a byte of the host is seen.
    let masked = "for path in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/latency_stats; do
            cat $path | wc -c; done; ls /proc/acpi /proc/scsi | grep -v : | grep -c .; ls /sys/firmware | wc -l";
    let forbidden = "echo 1 > /proc/sys/kernel/panic && echo writable;
        echo x > /proc/sysrq-trigger && echo writable;
        touch /sys/x && echo writable;
        mount -t tmpfs none /data && echo mounted;
        unshare -m true && echo unshared;
        mknod /dev/mine b 8 0 && cat /dev/mine > /dev/null && echo device;
        echo end";
    let lines = inside(&node, &[], &format!("( {masked} ; {forbidden} ) 2>/dev/null"));
    assert_eq!(lines.lines().collect::<Vec<_>>(), ["0", "0", "0", "0", "0", "0", "0", "end"]);
    node.finish();
}

#[test]
fn a_container_sees_its_own_processes_host_name_and_network_only() {
    let node = Node::start();
    let seen = inside(
        &node,
        &["--name", "alone"],
        "hostname; echo $$; ip -o link | awk '{print $2}'; ls /dev | grep -c sda; true",
    );
    assert_eq!(seen.lines().collect::<Vec<_>>(), ["alone", "1", "lo:", "0"]);
    node.finish();
}

#[test]
fn a_named_network_namespace_is_joined() {
    let node = Node::start();
    let netns = Netns::new("join");
    let seen = inside(&node, &["--net", &netns.name], "ip -o -4 addr show test0");
    assert!(seen.contains("10.99.0.1/24"), "{seen}");
    node.finish();
}

#[test]
fn environment_user_and_working_directory_arrive() {
    let node = Node::start();
    std::fs::write(node.root.join("input/env"), "# a comment\nFROM_FILE=two words\n").expect("write");
    let env_file = node.root.join("input/env").display().to_string();
    let flags = ["-e", "A=1=2", "--env-file", &env_file, "-u", "app", "-w", "/home/app"];
    let seen = inside(&node, &flags, "echo $A; echo $FROM_FILE; echo $PATH; pwd; id -u; id -g; id -G; echo $HOME");
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let expected = ["1=2", "two words", path, "/home/app", "1000", "1000", "1000 2000", "/home/app"];
    assert_eq!(seen.lines().collect::<Vec<_>>(), expected);
    node.finish();
}

#[test]
fn limits_arrive_in_the_cgroup() {
    let node = Node::start();
    let flist = node.flist();
    let flags = ["run", "-d", "--name", "small", "-m", "32m", "--cpus", "0.5", "--pids-limit", "17"];
    node.contd(flags.iter().chain(&[flist.arg(), "/bin/sleep", "1000"])).ok();
    let id = node.inspect("small")["id"].as_str().expect("id").to_owned();
    let read = |v1: &str, v2: &str| {
        let v1_path = format!(
            "/sys/fs/cgroup/{}/{}/{id}/{}",
            v1.split('/').next().expect("controller"),
            node.cgroup_parent,
            v1.split('/').nth(1).expect("file")
        );
        let v2_path = format!("/sys/fs/cgroup/{}/{id}/{v2}", node.cgroup_parent);
        let text = std::fs::read_to_string(&v1_path).or_else(|_| std::fs::read_to_string(&v2_path));
        text.unwrap_or_else(|error| panic!("{v1_path} or {v2_path}: {error}")).trim().to_owned()
    };
    assert_eq!(read("memory/memory.limit_in_bytes", "memory.max"), (32 * 1024 * 1024).to_string());
    assert_eq!(read("pids/pids.max", "pids.max"), "17");
    assert!(["50000", "50000 100000"].contains(&read("cpu/cpu.cfs_quota_us", "cpu.max").as_str()));
    node.contd(["rm", "-f", "-t", "0", "small"]).ok();
    node.finish();
}

#[test]
fn a_memory_hog_is_killed_and_its_exit_says_so() {
    let node = Node::start();
    let flist = node.flist();
    let run = [
        "run",
        "--name",
        "hog",
        "-m",
        "16m",
        flist.arg(),
        "/bin/sh",
        "-c",
        "x=$(yes | head -c 100000000); echo survived",
    ];
    let output = node.contd(run);
    assert_ne!(output.code, 0);
    assert!(!output.stdout.contains("survived"));
    assert!(
        node.inspect("hog")["exit"]["oom_kills"].as_u64().is_some_and(|kills| kills > 0),
        "{}",
        node.inspect("hog")
    );
    node.contd(["rm", "hog"]).ok();
    node.finish();
}

#[test]
fn mounts_keep_type_and_options() {
    let node = Node::start();
    let input = node.root.join("input");
    std::fs::write(input.join("file"), "from the host\n").expect("write");
    let (rw, ro) = (format!("{}:/data", input.display()), format!("{}:/mnt/ro:ro", input.display()));
    let tmpfs = "type=tmpfs,dst=/scratch,options=size=1m:mode=0700";
    let script = "cat /mnt/ro/file; echo x > /mnt/ro/new || echo refused; echo made > /data/made;
        df -k /scratch | awk 'END{print $2}'; stat -c %a /scratch; dd if=/dev/zero of=/scratch/big bs=64k count=100 2>/dev/null || echo full";
    let seen = inside(&node, &["-v", &rw, "-v", &ro, "--mount", tmpfs], &format!("( {script} ) 2>/dev/null"));
    assert_eq!(seen.lines().collect::<Vec<_>>(), ["from the host", "refused", "1024", "700", "full"]);
    assert_eq!(std::fs::read_to_string(input.join("made")).expect("made on the host"), "made\n");
    std::fs::remove_file(input.join("made")).expect("remove");
    node.finish();
}

#[test]
fn a_read_only_root_refuses_writes_and_a_limited_one_fills_up() {
    let node = Node::start();
    assert_eq!(inside(&node, &["--read-only"], "echo x 2>/dev/null > /data/x || echo refused"), "refused");
    let fill = "dd if=/dev/zero of=/data/big bs=64k count=1000 2>/dev/null || echo full";
    assert_eq!(inside(&node, &["--layer", "memory", "--rootfs-size", "8m"], fill), "full");
    node.finish();
}
