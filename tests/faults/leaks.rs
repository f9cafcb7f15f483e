//! The leak check itself: each kind of thing is left behind on purpose, and the census must name it.

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};

use crate::harness::{Node, eventually};

/// Plants a leak or a loss, demands that the census names it, and that it does not any more when it is undone.
fn plant<T>(node: &Node, kind: &str, named: &str, leak: impl FnOnce() -> T, undo: impl FnOnce(T)) {
    let before = node.rest();
    let planted = leak();
    eventually(&format!("the census to name a {kind}"), || {
        let excess = node.census().difference(&before);
        excess.lines().any(|line| line.contains(kind) && line.contains(named)).then_some(())
    });
    undo(planted);
    eventually(&format!("the census to be without the {kind}"), || {
        node.census().difference(&before).is_empty().then_some(())
    });
}

#[test]
fn each_kind_of_leak_is_named_by_the_census() {
    let node = Node::start();
    let flist = node.flist();
    // So that the node has mounts, cgroups and shims of its own beside what is planted.
    node.contd(["run", "-d", "--name", "stays", flist.arg(), "/bin/sleep", "1000"]).ok();
    let path = node.root.join("planted");
    plant(
        &node,
        "+ mount",
        "planted",
        || {
            fs::create_dir(&path).expect("make a directory");
            mount(Some("none"), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount");
        },
        |()| {
            crate::harness::mounted::unmount(&path);
            fs::remove_dir(&path).expect("remove the directory");
        },
    );
    plant(
        &node,
        "+ file",
        "planted",
        || fs::write(&path, "").expect("write"),
        |()| {
            fs::remove_file(&path).expect("remove the file");
        },
    );
    fs::write(&path, "").expect("write");
    plant(
        &node,
        "- file",
        "planted",
        || fs::remove_file(&path).expect("remove the file"),
        |()| fs::write(&path, "").expect("write"),
    );
    fs::remove_file(&path).expect("remove the file");
    plant(
        &node,
        "+ socket",
        "planted",
        || UnixListener::bind(&path).expect("bind"),
        |listener| {
            drop(listener);
            fs::remove_file(&path).expect("remove the socket");
        },
    );
    let sleep = || {
        let script = format!(": {}; sleep 1000 & wait", path.display());
        Command::new("/bin/sh").args(["-c", &script]).spawn().expect("start a process")
    };
    plant(&node, "+ process", "planted", sleep, |mut child| {
        // Its own child first, which would outlive it.
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).expect("its children");
        for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            node.signal(pid, nix::sys::signal::Signal::SIGKILL);
        }
        child.kill().expect("kill it");
        child.wait().expect("reap it");
    });
    let cgroup = first_cgroup(&node).join("planted");
    plant(
        &node,
        "+ cgroup",
        "planted",
        || fs::create_dir(&cgroup).expect("make a cgroup"),
        |()| {
            fs::remove_dir(&cgroup).expect("remove the cgroup");
        },
    );
    let connect = || UnixStream::connect(node.socket()).expect("connect");
    plant(&node, "+ descriptor of the daemon", "socket", connect, drop);
    node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
    node.finish();
}

/// Returns the parent of this node's cgroups in one of the hierarchies.
fn first_cgroup(node: &Node) -> std::path::PathBuf {
    let top = Path::new("/sys/fs/cgroup");
    let places = [top.to_path_buf(), top.join("pids"), top.join("unified")];
    let mut parents = places.into_iter().map(|place| place.join(&node.cgroup_parent));
    parents.find(|path| path.is_dir()).expect("the node has a cgroup")
}
