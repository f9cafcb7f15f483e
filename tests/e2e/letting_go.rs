//! A removal waits for nobody who has the root open or a copy of our mounts, and neither does the next run of the flist.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use contd_lease::{LeaseDir, LeaseState};

use crate::harness::servers::FlistServer;
use crate::harness::{Node, eventually};

/// A process of the host with a mount namespace of its own, and a private copy of all mounts in it.
struct Copy(Child);

impl Copy {
    fn take() -> Self {
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "/bin/sh", "-c", "echo there; exec sleep 1000"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("unshare is installed");
        let mut word = [0; 5];
        child.stdout.as_mut().expect("a pipe").read_exact(&mut word).expect("its word");
        Self(child)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.0.kill().expect("end it");
        self.0.wait().expect("reap it");
    }
}

/// One that waits for others ends after 25 s, with an error.
#[track_caller]
fn remove(node: &Node, name: &str) {
    node.contd(["rm", "-f", "-t", "0", name]).ok();
}

#[test]
fn a_private_copy_of_the_mount_table_delays_no_removal_and_no_run() {
    let node = Node::start();
    let flist = node.flist();
    for name in ["a", "b"] {
        node.contd(["run", "-d", "--name", name, flist.arg(), "/bin/sleep", "1000"]).ok();
    }
    let copy = Copy::take();
    remove(&node, "a");
    remove(&node, "b");
    assert!(FlistServer::all(&node).is_empty(), "the server lives on for nobody");
    assert_eq!(node.contd(["run", "--rm", flist.arg(), "/bin/echo", "hi"]).ok(), "hi");
    let table = fs::read_to_string(format!("/proc/{}/mountinfo", copy.0.id())).expect("its mount table");
    assert!(!table.contains(&node.root.display().to_string()), "{table}");
    drop(copy);
    node.finish();
}

#[test]
fn a_container_that_has_the_state_directory_mounted_keeps_no_other_from_going() {
    let node = Node::start();
    let flist = node.flist();
    node.contd(["run", "-d", "--name", "a", flist.arg(), "/bin/sleep", "1000"]).ok();
    let share = format!("{}:/s", node.root.join("state").display());
    node.contd(["run", "-d", "--name", "b", "-v", &share, flist.arg(), "/bin/sleep", "1000"]).ok();
    remove(&node, "a");
    remove(&node, "b");
    node.finish();
}

#[test]
fn a_process_of_the_host_inside_a_root_keeps_its_files_and_delays_no_removal() {
    let node = Node::start();
    let flist = node.flist();
    node.contd(["run", "-d", "--name", "busy", flist.arg(), "/bin/sh", "-c", "echo mine >/own; sleep 1000"]).ok();
    let id = node.inspect("busy")["id"].as_str().expect("an id").to_owned();
    let root = node.root.join("state/default").join(&id).join("rootfs");
    let mut held = eventually("its file", || File::open(root.join("own")).ok());
    remove(&node, "busy");
    assert_eq!(node.contd(["inspect", &id]).code, 1, "it is still listed");
    assert!(!root.exists());
    let mut text = String::new();
    held.read_to_string(&mut text).expect("read what is open");
    assert_eq!(text, "mine\n");
    drop(held);
    node.finish();
}

#[test]
fn a_stopped_container_whose_flist_server_died_refuses_no_other_run_of_the_flist() {
    let mut node = Node::start();
    node.announce("rootfs server lost");
    let flist = node.flist();
    node.contd(["run", "-d", "--name", "old", flist.arg(), "/bin/true"]).ok();
    node.wait_for_status("old", "stopped");
    let [server] = <[FlistServer; 1]>::try_from(FlistServer::all(&node)).expect("one server");
    for pid in [server.keeper, server.serving] {
        node.signal(pid, nix::sys::signal::Signal::SIGSTOP);
    }
    for pid in [server.keeper, server.serving] {
        node.kill(pid);
    }
    assert_eq!(node.contd(["run", "--rm", flist.arg(), "/bin/echo", "hi"]).ok(), "hi");
    assert_eq!(node.inspect("old")["status"], "stopped");
    node.contd(["rm", "old"]).ok();
    node.finish();
}

/// The next process that serves a flist has the lease of the one before it until it has written itself down.
#[test]
fn a_server_that_is_coming_when_the_last_container_goes_is_ended_later_and_nobody_waits_for_it() {
    let node = Node::start();
    let flist = node.flist();
    node.contd(["run", "-d", "--name", "a", flist.arg(), "/bin/sleep", "1000"]).ok();
    let [server] = <[FlistServer; 1]>::try_from(FlistServer::all(&node)).expect("one server");
    let lease = held_lease(&server);
    remove(&node, "a");
    assert!(server.dir.exists(), "what a process of ours has locked is not removed");
    assert_eq!(node.contd(["run", "--rm", flist.arg(), "/bin/echo", "hi"]).ok(), "hi");
    drop(lease);
    eventually("its end", || (!server.dir.exists()).then_some(()));
    node.finish();
}

/// Takes the open lock of a server's lease, as one that is to take its place does.
fn held_lease(server: &FlistServer) -> OwnedFd {
    let fds = fs::read_dir(format!("/proc/{}/fd", server.keeper)).expect("its descriptors");
    let number = fds.flatten().find(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == server.dir.join("lock")));
    let number = number.and_then(|fd| fd.file_name().to_str()?.parse().ok()).expect("its lock");
    let Ok(LeaseState::Held(lease)) = LeaseDir::new(&server.dir).probe() else { panic!("its lease is not held") };
    let pidfd = lease.pidfd().expect("as root").expect("it lives");
    contd_descriptors::take_from(pidfd, number).expect("as root")
}
