//! Releases that something resists, and servers that died: nobody waits for them, and the next container is served. Wants root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::node::{Node, prepare, release, request};
use contd_rootfs::{PrepareRootfs, RootfsProvider};
use contd_test_harness::mounted::{assert_overlay_matches_manifest, fixture, servers, unmount};
use contd_types::{Explain, LayerKind};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A process of the host with a mount namespace of its own, with a copy of all mounts.
struct Copy(Child);

impl Copy {
    fn take() -> Self {
        let script = "mount --make-rprivate / && echo there && exec sleep 1000";
        let mut command = Command::new("unshare");
        let child = command.args(["-m", "/bin/sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut copy = Self(child);
        let mut word = [0; 5];
        std::io::Read::read_exact(copy.0.stdout.as_mut().unwrap(), &mut word).unwrap();
        copy
    }

    fn mounts_below(&self, dir: &Path) -> Vec<String> {
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", self.0.id())).unwrap();
        let point = |line: &str| line.split(' ').nth(4).unwrap().to_owned();
        table.lines().map(point).filter(|point| Path::new(point).starts_with(dir)).collect()
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_private_copy_of_the_mount_table_keeps_nothing_and_nobody_waiting() {
    let node = Node::new();
    let provider = node.provider();
    let flist = fixture("small", node.path());
    let before = node.census();
    let [one, two] = [1, 2].map(|number| request(flist.to_str().unwrap(), number));
    let three = PrepareRootfs { layer: LayerKind::Memory, ..request(flist.to_str().unwrap(), 3) };
    prepare(&provider, &one).unwrap();
    prepare(&provider, &three).unwrap();
    let copy = Copy::take();
    // Two roots, a layer in memory, the flist.
    assert_eq!(copy.mounts_below(node.path()).len(), 4);
    release(&provider, &one).unwrap();
    release(&provider, &three).unwrap();
    assert_eq!(copy.mounts_below(node.path()), Vec::<String>::new(), "the copies keep file systems alive");
    assert_eq!(node.census(), before, "something leaked");
    let root = prepare(&provider, &two).unwrap().root;
    assert_overlay_matches_manifest(&root, "small");
    release(&provider, &two).unwrap();
    drop(copy);
    assert_eq!(node.census(), before, "something leaked");
}

#[test]
fn a_recursive_bind_over_our_directories_delays_only_the_removal_of_empty_ones() {
    let node = Node::new();
    let provider = node.provider();
    let flist = fixture("small", node.path());
    let before = node.census();
    let [one, two] = [1, 2].map(|number| request(flist.to_str().unwrap(), number));
    let root = prepare(&provider, &one).unwrap().root;
    let elsewhere = tempfile::tempdir().unwrap();
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(node.path()), elsewhere.path(), None::<&str>, flags, None::<&str>).unwrap();
    mount(None::<&str>, elsewhere.path(), None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    release(&provider, &one).unwrap();
    assert!(servers(node.path()).is_empty(), "the server lives on for nobody");
    assert!(fs::read_dir(&root).unwrap().next().is_none(), "the root is not detached");
    // The next container has another mount point, and the same container another root over the covered one.
    for again in [&two, &one] {
        let root = prepare(&provider, again).unwrap().root;
        assert_overlay_matches_manifest(&root, "small");
    }
    assert_eq!(crate::support::names(&node.path().join("run/f")).len(), 2);
    for gone in [&two, &one] {
        release(&provider, gone).unwrap();
    }
    provider.tidy().unwrap();
    assert!(root.exists(), "it is still covered");
    // A daemon that knows nothing of it finds it, too.
    assert!(!node.provider().recover().unwrap().iter().any(|found| found.rootfs.root.join("etc").exists()));
    umount2(elsewhere.path(), MntFlags::MNT_DETACH).unwrap();
    provider.tidy().unwrap();
    assert_eq!(node.census(), before, "something leaked");
}

#[test]
fn a_process_of_the_host_inside_a_root_keeps_what_it_has_open_and_delays_nobody() {
    let node = Node::new();
    let provider = node.provider();
    let flist = fixture("small", node.path());
    let before = node.census();
    let one = request(flist.to_str().unwrap(), 1);
    let root = prepare(&provider, &one).unwrap().root;
    fs::write(root.join("written"), b"by the container").unwrap();
    let held = fs::File::open(root.join("written")).unwrap();
    release(&provider, &one).unwrap();
    assert_eq!(node.census(), before, "something leaked");
    assert_eq!(std::io::read_to_string(&held).unwrap(), "by the container");
    drop(held);
    prepare(&provider, &one).unwrap();
    release(&provider, &one).unwrap();
    assert_eq!(node.census(), before, "something leaked");
}

#[test]
fn a_mount_that_nobody_serves_any_more_refuses_nobody_and_goes_with_its_last_container() {
    let node = Node::new();
    let provider = node.provider();
    let flist = fixture("small", node.path());
    let before = node.census();
    let [one, two, three] = [1, 2, 3].map(|number| request(flist.to_str().unwrap(), number));
    let root = prepare(&provider, &one).unwrap().root;
    let dir = node.server_dir();
    assert_eq!(provider.lost().unwrap(), []);
    node.kill_server();
    assert_eq!(fs::read(root.join("etc/hostname")).unwrap_err().raw_os_error(), Some(Errno::ENOTCONN as i32));
    // Others get a server of their own, beside it, and share that.
    for other in [&two, &three] {
        let root = prepare(&provider, other).unwrap().root;
        assert_overlay_matches_manifest(&root, "small");
    }
    let lost = provider.lost().unwrap();
    assert_eq!(lost.iter().map(|lost| &lost.id).collect::<Vec<_>>(), [&one.id]);
    assert!(lost[0].why.message.contains("both killed"), "{:?}", lost[0]);
    assert_eq!(crate::support::names(&node.path().join("run/f")).len(), 2);
    // The container itself may be made anew: it joins them, and the lost one is gone.
    let root = prepare(&provider, &one).unwrap().root;
    assert_overlay_matches_manifest(&root, "small");
    assert!(!dir.exists() && provider.lost().unwrap().is_empty());
    for gone in [&one, &two, &three] {
        release(&provider, gone).unwrap();
    }
    assert_eq!(node.census(), before, "something leaked");
}

#[test]
fn a_server_that_a_release_is_just_ending_is_not_lost() {
    let node = Node::new();
    let provider = node.provider();
    let flist = fixture("small", node.path());
    let before = node.census();
    let one = request(flist.to_str().unwrap(), 1);
    prepare(&provider, &one).unwrap();
    // As in the middle of the release: the word of the end is there, the server is dead, its user not yet removed.
    fs::write(node.server_dir().join(contd_protocol::flistfs::ENDING_FILE), b"").unwrap();
    node.kill_server();
    assert_eq!(provider.lost().unwrap(), []);
    release(&provider, &one).unwrap();
    assert_eq!(node.census(), before, "something leaked");
}

#[test]
fn a_server_that_died_with_its_users_is_cleared_away_by_the_next_daemon() {
    let node = Node::new();
    let flist = fixture("small", node.path());
    let before = node.census();
    let one = PrepareRootfs { layer: LayerKind::Memory, ..request(flist.to_str().unwrap(), 1) };
    let root = prepare(&node.provider(), &one).unwrap().root;
    node.kill_server();
    fs::remove_dir_all(node.server_dir().join("users")).unwrap();
    unmount(&root);
    assert_eq!(node.provider().recover().unwrap(), []);
    assert_eq!(node.census(), before, "something leaked");
}

#[test]
fn an_end_that_a_daemon_did_not_finish_is_finished_by_the_next_one_and_meanwhile_another_serves() {
    let node = Node::new();
    let flist = fixture("small", node.path());
    let before = node.census();
    let [one, two] = [1, 2].map(|number| request(flist.to_str().unwrap(), number));
    let old = node.provider();
    prepare(&old, &one).unwrap();
    // As if it had died just behind the word of the end.
    let ending: PathBuf = node.server_dir().join(contd_protocol::flistfs::ENDING_FILE);
    fs::write(&ending, b"").unwrap();
    let new = node.provider();
    let root = prepare(&new, &two).unwrap().root;
    assert_overlay_matches_manifest(&root, "small");
    assert_eq!(servers(node.path()).len(), 4, "two servers, each with its keeper");
    release(&new, &one).unwrap();
    assert!(!ending.exists());
    release(&new, &two).unwrap();
    assert_eq!(node.census(), before, "something leaked");
}

#[test]
fn a_mount_point_that_is_covered_says_what_to_do() {
    let error = contd_rootfs::RootfsError::Covered { path: PathBuf::from("/x") };
    assert!(error.to_string().contains("/x") && error.hint().unwrap().contains("mountinfo"));
}
