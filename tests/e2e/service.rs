//! Under a service manager that follows a script: socket activation, the descriptor store, and the files that are shipped.

use std::fs;
use std::os::unix::net::UnixStream;

use crate::harness::manager::shipped;
use crate::harness::{Manager, Node, eventually};
use crate::takeover::Stage;

/// Returns the names under which the descriptors of a container are stored.
fn names_of(node: &Node, container: &str) -> Vec<String> {
    let id = node.inspect(container)["id"].as_str().expect("an id").to_owned();
    ["init", "stderr", "stdout"].map(|part| format!("contd-{}-{part}", &id[..16])).to_vec()
}

#[test]
fn the_manager_keeps_what_daemon_and_shim_would_lose_together() {
    let mut stage = Stage::set(Node::managed(Manager::new));
    stage.node.announce("shim dead, successor started");
    let names = names_of(&stage.node, "counts");
    eventually("the manager to keep it", || {
        let stored = stage.node.manager().stored();
        names.iter().all(|name| stored.contains(name)).then_some(())
    });
    assert!(stage.node.manager().has_heard("READY=1"));
    stage.end_unseen();
    stage.node.start_daemon();
    stage.node.wait_for_status("counts", "stopped");
    // Its last words were in a pipe that nobody else had open, and its code where only a pidfd leads.
    assert_eq!(stage.node.inspect("counts")["exit_code"], 23);
    assert!(stage.node.log_file("default", "counts").lines().last().expect("a line").contains(" last "));
    eventually("the manager to let go", || {
        let stored = stage.node.manager().stored();
        names.iter().all(|name| !stored.contains(name)).then_some(())
    });
    stage.end();
}

#[test]
fn without_what_the_manager_keeps_only_the_last_words_are_lost_and_said_to_be() {
    let mut stage = Stage::set(Node::managed(Manager::new));
    stage.node.announce("shim dead, successor started");
    stage.end_unseen();
    stage.node.manager().lose_all();
    stage.node.start_daemon();
    stage.node.wait_for_status("counts", "stopped");
    let info = stage.node.inspect("counts");
    assert_eq!((&info["exit_code"], &info["exit"]["output_complete"]), (&23.into(), &false.into()), "{info}");
    stage.node.contd(["rm", "counts"]).ok();
    stage.node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
    stage.node.finish();
}

#[test]
fn callers_wait_in_the_managers_socket_while_there_is_no_daemon() {
    for make in [Manager::with_socket, Manager::new] {
        let mut stage = Stage::set(Node::managed(make));
        eventually("readiness", || stage.node.manager().has_heard("READY=1").then_some(()));
        stage.node.stop_daemon();
        assert!(stage.node.manager().has_heard("STOPPING=1"));
        // Would be refused if anybody had closed or removed it.
        let waiting = UnixStream::connect(stage.node.socket()).expect("the socket listens");
        stage.node.start_daemon();
        drop(waiting);
        stage.runs_on();
        stage.end();
    }
}

#[test]
fn a_takeover_by_hand_tells_the_manager_and_the_successor_goes_on_with_it() {
    let mut stage = Stage::set(Node::managed(Manager::with_socket));
    let names = names_of(&stage.node, "counts");
    eventually("the manager to keep it", || {
        let stored = stage.node.manager().stored();
        names.iter().all(|name| stored.contains(name)).then_some(())
    });
    stage.node.take_over();
    assert!(stage.node.manager().has_heard(&format!("MAINPID={}", stage.node.daemon_pid())));
    assert!(!stage.node.manager().has_heard("STOPPING=1"), "the manager would end the successor");
    stage.runs_on();
    stage.let_end();
    stage.node.wait_for_status("counts", "stopped");
    eventually("the manager to let go", || {
        let stored = stage.node.manager().stored();
        names.iter().all(|name| !stored.contains(name)).then_some(())
    });
    stage.end();
}

#[test]
fn a_socket_unit_with_another_address_is_refused_with_both_named() {
    let mut node = Node::managed(Manager::with_socket);
    node.stop_daemon();
    let other = node.root.join("input/other.sock");
    let mut command = node.daemon_command();
    let args: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
    command = std::process::Command::new(command.get_program());
    command.args(args.iter().map(|arg| if *arg == *node.socket() { other.as_os_str() } else { arg }));
    let output = node.manager().dress(&command).output().expect("run contd daemon");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("ListenStream") && said.contains("other.sock"), "{said}");
    node.start_daemon();
    node.finish();
}

/// The values of a key in a unit file.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn the_shipped_units_leave_the_containers_alone() {
    let service = shipped("contd.service");
    for (key, value) in [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        // Anything else ends the shims, and with them the containers, whenever the daemon is restarted.
        ("KillMode", "process"),
        ("Requires", "contd.socket contd-containers.service"),
        ("Restart", "always"),
        ("FileDescriptorStorePreserve", "yes"),
        ("Sockets", "contd.socket"),
    ] {
        assert_eq!(values(&service, key), [value], "{key}");
    }
    let containers = shipped("contd-containers.service");
    for (key, value) in [
        // It lives without a main process, and its file in the directory of contd outlives its stop.
        ("Type", "oneshot"),
        ("RemainAfterExit", "yes"),
        ("RuntimeDirectoryPreserve", "yes"),
        ("Delegate", "yes"),
        ("OOMPolicy", "continue"),
    ] {
        assert_eq!(values(&containers, key), [value], "{key}");
    }
    let number = |key: &str| values(&service, key)[0].parse::<i64>().unwrap_or_else(|error| panic!("{key}: {error}"));
    // Three of each of a thousand containers per namespace, for some namespaces.
    assert!(number("FileDescriptorStoreMax") > 3 * 1024);
    assert!(number("LimitNOFILE") > 2 * number("FileDescriptorStoreMax"));
    assert!((-999..0).contains(&number("OOMScoreAdjust")));
    // Coming to rest may take 45 s: REST_TIMEOUT.
    assert!(number("TimeoutStopSec") > 45);
    assert!(values(&service, "ExecStart")[0].ends_with("/contd daemon"));
    let socket = shipped("contd.socket");
    assert_eq!(values(&socket, "ListenStream"), ["/run/contd/contd.sock"]);
    assert_eq!(values(&socket, "SocketMode"), ["0660"]);
    assert_eq!(values(&socket, "DirectoryMode"), ["0711"]);
    assert_eq!(values(&socket, "RemoveOnStop"), ["no"]);
    let zinit = shipped("zinit/contd.yaml");
    assert!(zinit.contains("exec: /usr/local/bin/contd daemon") && zinit.contains("test: "), "{zinit}");
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md")).expect("docs");
    assert!(docs.contains("--no-takeover"));
}
