//! The restrictions of init apply to every process that is executed beside it.

use serde_json::{Value, json};

use crate::scene::{Container, Running, Start, await_level, read_of};
use crate::told;

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "user", "uts"];

/// Returns the lines of `/proc/<pid>/status` that describe a process's rights.
fn rights(status: &str) -> Vec<&str> {
    let kept = ["Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp", "SigBlk", "SigIgn", "SigCgt"];
    status.lines().filter(|line| kept.iter().any(|name| line.starts_with(name))).collect()
}

#[track_caller]
fn assert_same_as_init(container: &Container, running: &Running) {
    // The shell that says so is ready before it executes this.
    await_level("init is the program that stays", || read_of(container.pid, "comm").trim() == "sleep");
    for name in NAMESPACES {
        let name = format!("ns/{name}");
        assert_eq!(running.read(&name), read_of(container.pid, &name), "{name}");
    }
    assert_eq!(running.read("root"), "/");
    for name in ["cgroup", "limits", "oom_score_adj", "mountinfo", "personality", "uid_map"] {
        assert_eq!(running.read(name), read_of(container.pid, name), "{name}");
    }
    let init = read_of(container.pid, "status");
    let own = running.read("status");
    assert_eq!(rights(&own), rights(&init));
}

fn check(start: Start, change: impl FnOnce(&mut Value)) {
    let container = Container::with(start, change);
    let running = container.run(&[]);
    assert_same_as_init(&container, &running);
    running.finish();
    container.finish();
}

#[test]
fn exec_in_a_cold_container_has_all_restrictions_of_init() {
    check(Start::Cold, |_| {});
}

#[test]
fn exec_in_a_warm_container_has_all_restrictions_of_init() {
    check(Start::Warm, |_| {});
}

#[test]
fn exec_without_no_new_privileges_has_the_filter_too() {
    check(Start::Cold, |config| config["process"]["noNewPrivileges"] = false.into());
}

#[test]
fn exec_as_the_bundles_user_has_all_restrictions_of_init() {
    check(Start::Warm, |config| {
        config["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 7], "umask": 63});
    });
}

#[test]
fn exec_in_a_container_with_fewer_namespaces_enters_only_those() {
    check(Start::Cold, |config| config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}]));
}

#[test]
fn exec_in_a_user_namespace_is_its_root_and_not_the_hosts() {
    check(Start::Cold, |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    });
}

#[test]
fn exec_as_another_user_has_its_ids_groups_and_home() {
    let container = Container::start(Start::Cold);
    let options = ["--user", "1000:1001", "--additional-gids", "5", "--additional-gids", "7"];
    let output = container.exec_with(&options, &["sh", "-c", "cat /proc/self/status; echo $HOME"]);
    let (code, out, error) = told(&output);
    assert_eq!((code, error.as_str()), (0, ""));
    let line = |name: &str| {
        let line = out.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!((line("Uid:").as_str(), line("Gid:").as_str()), ("1000 1000 1000 1000", "1001 1001 1001 1001"));
    // The bundle's own groups, and those that were asked for.
    assert_eq!(line("Groups:"), "3 5 7");
    // A user other than root keeps only ambient capabilities.
    assert_eq!((line("CapPrm:").as_str(), line("CapBnd:").as_str()), ("0000000000000020", "00000000000000a1"));
    assert_eq!(out.lines().last(), Some("/home/user"));
    assert_eq!(told(&container.exec_with(&options, &["ls", "/secret"])).0, 1);
    container.finish();
}

#[test]
fn the_filter_refuses_a_forbidden_call_in_an_executed_program() {
    for no_new_privileges in [true, false] {
        let container = Container::with(Start::Cold, |config| {
            config["process"]["noNewPrivileges"] = no_new_privileges.into();
        });
        let (code, _, error) = told(&container.exec(&["mkdir", "/tmp/made"]));
        assert!(code == 1 && error.contains("Function not implemented"), "{code}: {error}");
        assert!(!container.root().join("tmp/made").exists());
        // Only the filter keeps it from doing so.
        assert_eq!(told(&container.exec(&["touch", "/tmp/touched"])).0, 0);
        container.finish();
    }
}
