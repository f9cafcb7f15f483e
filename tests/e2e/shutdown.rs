//! A node that goes down: what has nothing left to guard ends at SIGTERM, containers are ended in order before, and the next
//! daemon goes on by policy.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::harness::servers::FlistServer;
use crate::harness::{Node, eventually};

fn is_dead(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.starts_with(" Z"))
}

/// Sends SIGTERM to every process of the node, as `systemd-shutdown` does.
fn terminate_all(node: &Node) {
    let root = node.root.display().to_string();
    let ours = crate::harness::census::command_lines().into_iter().filter(|(_, command)| command.contains(&root));
    for (pid, _) in ours {
        // It may have ended with the daemon meanwhile.
        let _ended = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM);
    }
}

#[test]
fn a_shim_whose_container_ended_unseen_goes_at_sigterm_and_nothing_is_lost() {
    let mut node = Node::start();
    let flist = node.flist();
    let share = format!("{}:/data", node.root.join("input").display());
    let wait = "while [ ! -e /data/go ]; do sleep 0.05; done; echo last words; exit 23";
    node.contd(["run", "-d", "--name", "gone", "-v", &share, flist.arg(), "/bin/sh", "-c", wait]).ok();
    node.contd(["run", "-d", "--name", "stays", flist.arg(), "/bin/sleep", "1000"]).ok();
    let (shim, other, bystander) =
        (node.shim_pid("gone"), node.shim_pid("stays"), node.inspect("stays")["pid"].clone());
    let (init, dir) = (node.inspect("gone")["pid"].as_i64().expect("pid"), node.shim_dir("gone"));
    node.kill_daemon();
    fs::write(node.root.join("input/go"), "").expect("let it end");
    eventually("its exit to be written down", || dir.join("exit.json").exists().then_some(()));
    assert!(!Path::new(&format!("/proc/{init}")).exists());
    for pid in [shim, other] {
        node.signal(pid, Signal::SIGTERM);
    }
    eventually("the shim with nothing to guard to go", || is_dead(shim).then_some(()));
    node.start_daemon();
    node.wait_for_status("gone", "stopped");
    assert_eq!(node.inspect("gone")["exit_code"], 23);
    assert!(node.log_file("default", "gone").ends_with(" stdout F last words\n"));
    // The other one has heard it too, and has a container to look after.
    assert_eq!((node.shim_pid("stays"), node.inspect("stays")["pid"].clone()), (other, bystander));
    node.contd(["rm", "gone"]).ok();
    node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
    node.finish();
}

#[test]
fn nothing_of_a_node_without_containers_survives_sigterm() {
    let mut node = Node::start();
    let flist = node.flist();
    // A root of a container that has ended keeps the flist's server; without it nobody does.
    node.contd(["run", "--name", "ends", flist.arg(), "/bin/true"]).ok();
    let served = FlistServer::all(&node);
    assert_eq!(served.len(), 1);
    node.kill_daemon();
    let root = crate::harness::census::mounts(&node.root).into_iter().find(|point| point.ends_with("/rootfs"));
    terminate_all(&node);
    // As the system does when it goes down; the server stays until then.
    let root = root.expect("the root is mounted");
    assert!(!is_dead(served[0].serving) && !is_dead(served[0].keeper));
    crate::harness::mounted::unmount(root.as_ref());
    let mut said = Vec::new();
    eventually("every process of the node to be gone", || {
        let root = node.root.display().to_string();
        let left: Vec<_> = crate::harness::census::command_lines();
        let left: Vec<_> = left.into_iter().filter(|(_, command)| command.contains(&root)).collect();
        if said != left {
            eprintln!("left: {left:?}");
            said.clone_from(&left);
        }
        left.is_empty().then_some(())
    });
    node.start_daemon();
    assert_eq!(node.inspect("ends")["exit_code"], 0);
    node.contd(["rm", "ends"]).ok();
    node.finish();
}

#[test]
fn a_shutdown_ends_all_in_order_and_the_next_daemon_starts_them_by_policy() {
    let mut node = Node::start();
    let flist = node.flist();
    let flist = flist.arg();
    let polite = "trap 'echo bye; exit 0' USR1; echo up; while :; do sleep 0.05; done";
    let run = |name: &str, more: &[&str], script: &str| {
        let words = [&["run", "-d", "--name", name][..], more, &[flist, "/bin/sh", "-c", script]].concat();
        node.contd(words).ok();
    };
    run("always", &["--restart", "always", "--stop-signal", "USR1", "--stop-timeout", "300"], polite);
    run("failing", &["--restart", "on-failure", "--stop-signal", "USR1"], polite);
    run("never", &["--stop-timeout", "300"], "trap '' TERM; while :; do sleep 0.05; done");
    for name in ["always", "failing"] {
        eventually("it to be up", || node.log_file("default", name).contains("up").then_some(()));
    }
    let words = node.contd(["shutdown", "-t", "2"]);
    assert!(words.ok().is_empty() && words.stderr.contains("3 containers have ended"), "{words:?}");
    for (name, code) in [("always", 0), ("failing", 0), ("never", 137)] {
        let info = node.inspect(name);
        assert_eq!((info["status"].as_str(), info["exit_code"].as_i64()), (Some("stopped"), Some(code)), "{info}");
    }
    for name in ["always", "failing"] {
        assert!(node.log_file("default", name).ends_with(" stdout F bye\n"));
    }
    // The kept container's root as well: nothing is to be unmounted by force.
    assert_eq!(crate::harness::census::mounts(&node.root), [].into());
    assert_eq!(FlistServer::all(&node).len(), 0);
    node.contd(["run", "-d", "--name", "late", flist, "/bin/true"]).fails_with(125, "the node is going down");
    node.contd(["start", "never"]).fails_with(1, "the node is going down");
    node.stop_daemon();
    node.start_daemon();
    for name in ["always", "failing"] {
        node.wait_for_status(name, "running");
    }
    assert_eq!(node.inspect("never")["status"], "stopped");
    // A daemon that is only stopped leaves them running.
    let pid = node.inspect("always")["pid"].clone();
    node.stop_daemon();
    node.start_daemon();
    node.wait_for_status("always", "running");
    assert_eq!(node.inspect("always")["pid"], pid);
    for name in ["always", "failing", "never"] {
        node.contd(["rm", "-f", "-t", "0", name]).ok();
    }
    node.finish();
}
