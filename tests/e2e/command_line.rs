//! A command that is typed means what people of docker and podman think, and a command that is said can be typed.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::Node;

#[test]
fn flags_behind_the_flist_reach_the_container() {
    let node = Node::start();
    let flist = node.flist();
    let flags =
        ["-d", "--rm", "--port", "80", "--help", "-h", "--version", "-n", "blue", "--address=/x", "--", "--name", "x"];
    let mut words = vec!["run", "--rm", "--entrypoint", "/bin/echo", flist.arg()];
    words.extend(flags);
    assert_eq!(node.contd(&words).ok(), flags.join(" "));
    let mut words = vec!["create", "--name", "made", "--entrypoint", "/bin/echo", flist.arg()];
    words.extend(flags);
    node.contd(&words).ok();
    assert_eq!(node.inspect("made")["command"].as_array().expect("a list")[1..], flags);
    node.contd(["rm", "made"]).ok();
    node.finish();
}

#[test]
fn a_container_that_removes_itself_is_gone_when_its_end_is_told() {
    let node = Node::start();
    let flist = node.flist();
    let upper = node.root.join("input/upper");
    std::fs::create_dir(&upper).expect("make the directory");
    let upper = upper.display().to_string();
    let attached = ["run", "--rm", "--name", "again", "--upper", &upper, flist.arg(), "/bin/true"];
    for _ in 0..8 {
        node.contd(attached).ok();
    }
    let detached = ["run", "-d", "--rm", "--name", "again", "--upper", &upper, flist.arg(), "/bin/sleep", "1000"];
    for _ in 0..4 {
        node.contd(detached).ok();
        node.contd(["stop", "-t", "0", "again"]).ok();
    }
    for _ in 0..4 {
        node.contd(detached).ok();
        let mut wait = node.command();
        wait.args(["wait", "again"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut wait = wait.spawn().expect("start wait");
        node.contd(["kill", "again"]).ok();
        // It came in time and tells the end, or it came later and found nothing: both when all is gone.
        wait.wait().expect("wait ends with the container");
        node.contd(attached).ok();
    }
    node.finish();
}

fn cgroup_limit(node: &Node, id: &str, controller: &str, v1: &str, v2: &str) -> String {
    let below = Path::new(&node.cgroup_parent).join(id);
    let paths = [
        Path::new("/sys/fs/cgroup").join(controller).join(&below).join(v1),
        Path::new("/sys/fs/cgroup").join(&below).join(v2),
    ];
    let found = paths.iter().find_map(|path| std::fs::read_to_string(path).ok());
    found.unwrap_or_else(|| panic!("none of {paths:?}")).trim().to_owned()
}

#[test]
fn inspect_shows_what_is_in_force_and_a_list_the_labels() {
    let mut node = Node::with_config("[defaults]\nmemory_mib = 96\npids = 77\ncpu_millis = 700\nrootfs_mib = 33");
    let flist = node.flist();
    node.contd([
        "run",
        "-d",
        "--name",
        "own",
        "-m",
        "48m",
        "--pids-limit",
        "55",
        "--label",
        "tier=front",
        "-l",
        "x=",
        flist.arg(),
        "/bin/sleep",
        "1000",
    ])
    .ok();
    node.contd(["run", "-d", "--name", "default", flist.arg(), "/bin/sleep", "1000"]).ok();
    // A later daemon with other defaults changes nothing for what is there.
    let path = node.root.join("config.toml");
    let config = std::fs::read_to_string(&path).expect("read the configuration");
    std::fs::write(&path, config.replace("memory_mib = 96", "memory_mib = 128")).expect("write the configuration");
    node.stop_daemon();
    node.start_daemon();
    for (name, memory, pids) in [("own", 48 << 20, 55), ("default", 96 << 20, 77)] {
        let info = node.inspect(name);
        assert_eq!((info["memory_bytes"].as_u64(), info["pids_limit"].as_u64()), (Some(memory), Some(pids)), "{name}");
        assert_eq!(info["cpus"].as_f64(), Some(0.7), "{name}");
        // None where the file system of the layer has no quotas: `layers` tests what is enforced where.
        assert!(info["rootfs_size_bytes"].as_u64().is_none_or(|size| size == 33 << 20), "{name}: {info}");
        let id = info["id"].as_str().expect("an id");
        assert_eq!(cgroup_limit(&node, id, "memory", "memory.limit_in_bytes", "memory.max"), memory.to_string());
        assert_eq!(cgroup_limit(&node, id, "pids", "pids.max", "pids.max"), pids.to_string());
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", info["pid"])).expect("read the limits");
        let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a limit");
        let soft = open_files.split_whitespace().next().and_then(|soft| soft.parse().ok());
        assert_eq!(info["open_files"].as_u64(), soft, "{name}: {open_files}");
        let runtime = std::env::var("CONTD_TEST_RUNTIME").unwrap_or_else(|_| "native".to_owned());
        assert_eq!(info["runtime"], runtime.as_str(), "{name}");
    }
    let lines = node.contd(["ps", "--format", "json"]);
    let own = lines.ok().lines().find(|line| line.contains("\"own\"")).expect("a line");
    let own: serde_json::Value = serde_json::from_str(own).expect("JSON");
    assert_eq!(own["labels"], serde_json::json!({"tier": "front", "x": ""}));
    node.contd(["rm", "-f", "-t", "0", "own", "default"]).ok();
    node.finish();
}

#[test]
fn what_execve_would_refuse_is_refused_by_name_and_leaves_nothing() {
    let node = Node::start();
    let flist = node.flist();
    let file = node.root.join("input/env");
    std::fs::write(&file, format!("SMALL=1\nHUGE={}\n", "x".repeat(200_000))).expect("write the variables");
    let file = file.display().to_string();
    for verb in ["run", "create"] {
        let output = node.contd([verb, "--name", "big", "--env-file", &file, flist.arg(), "/bin/true"]);
        output.fails_with(125, "environment variable HUGE has 200005 bytes");
        assert!(!output.stderr.contains("xxx"), "the value is shown");
    }
    // Below the bound of one string it runs.
    std::fs::write(&file, format!("LARGE={}\n", "x".repeat(120_000))).expect("write the variables");
    let output = node.contd(["run", "--rm", "--env-file", &file, flist.arg(), "/bin/sh", "-c", "echo ${#LARGE}"]);
    assert_eq!(output.ok(), "120000");
    assert_eq!(node.contd(["ps", "-aq"]).ok(), "");
    node.finish();
}

#[test]
fn all_of_the_environment_fits_into_what_the_stack_limit_leaves() {
    let mut node = Node::start();
    let flist = node.flist();
    node.stop_daemon();
    let daemon = node.daemon_command();
    let log = std::fs::File::options().append(true).open(node.root.join("daemon.log")).expect("open the log");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "ulimit -s 512; exec \"$0\" \"$@\""]).arg(daemon.get_program()).args(daemon.get_args());
    let shell = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
    node.adopt_daemon(shell.expect("start the daemon"));
    node.wait_for_own_answer();
    let file = node.root.join("input/env");
    let run = |count: u32| {
        let variables: String = (0..count).map(|number| format!("V{number}={}\n", "x".repeat(30_000))).collect();
        std::fs::write(&file, variables).expect("write the variables");
        let file = file.display().to_string();
        node.contd(["run", "--rm", "--env-file", &file, flist.arg(), "/bin/sh", "-c", "echo ${#V3}"])
    };
    // A quarter of 512 KiB, and of that what is kept for the path of the program and the like.
    run(5).fails_with(125, "command and environment take 150107 bytes, more than the 122880 that the kernel takes");
    assert_eq!(run(4).ok(), "30000");
    assert_eq!(node.contd(["ps", "-aq"]).ok(), "");
    node.finish();
}
