//! Writable layers: on disk with and without limits, in memory, over a reboot, and the directories of callers. Wants root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod btrfs;

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::node::{Node, options_of, prepare, release, request};
use contd_rootfs::survey::limits_layers;
use contd_rootfs::{PrepareRootfs, RootfsError, RootfsProvider};
use contd_test_harness::mounted::{assert_overlay_matches_manifest, fixture, unmount};
use contd_types::{ErrorKind, Explain, LayerKind};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

const MIB: u64 = 1 << 20;

/// A file system in a file, on the state directory of a node.
struct Image {
    point: PathBuf,
}

impl Image {
    /// Also tells whether the kernel has project quotas for this file system (`CONFIG_QFMT_V2`, `CONFIG_XFS_QUOTA`).
    fn mount(node: &Node, make: &[&str]) -> (Self, bool) {
        let (file, point) = (node.path().join("upper/image"), node.path().join("state"));
        fs::File::create(&file).unwrap().set_len(320 * MIB).unwrap();
        run(make, &[file.to_str().unwrap()]);
        let what = [file.to_str().unwrap(), point.to_str().unwrap()];
        let mounted = Command::new("mount").args(["-o", "loop,prjquota"]).args(what).output().unwrap();
        let has_quotas = mounted.status.success();
        if !has_quotas {
            assert!(!has_project_quotas(), "{}", String::from_utf8_lossy(&mounted.stderr));
            // An ext4 with the features of quotas cannot be written to without them in the kernel.
            fs::File::create(&file).unwrap().set_len(320 * MIB).unwrap();
            run(&make[..2], &[file.to_str().unwrap()]);
            run(&["mount", "-o", "loop"], &what);
        }
        for dir in ["ns", ".removed"] {
            fs::create_dir(point.join(dir)).unwrap();
        }
        (Self { point }, has_quotas)
    }
}

/// Tells whether the kernel was built with project quotas, by its configuration file; Debian's was.
fn has_project_quotas() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let config = fs::read_to_string(format!("/boot/config-{}", release.trim())).unwrap_or_else(|_| {
        let output = Command::new("zcat").arg("/proc/config.gz").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    });
    let is_set = |name: &str| config.lines().any(|line| line.starts_with(name) && !line.ends_with("=n"));
    is_set("CONFIG_QFMT_V2=") && is_set("CONFIG_XFS_QUOTA=")
}

impl Drop for Image {
    fn drop(&mut self) {
        let _gone_after_a_failure = umount2(&self.point, MntFlags::MNT_DETACH);
    }
}

#[track_caller]
fn run(command: &[&str], more: &[&str]) {
    let output = Command::new(command[0]).args(&command[1..]).args(more).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn fill(file: &Path, bytes: u64) -> Result<(), i32> {
    let written = fs::write(file, vec![1; usize::try_from(bytes).unwrap()]);
    let synced = written.and_then(|()| fs::File::open(file)?.sync_all());
    synced.map_err(|error| error.raw_os_error().unwrap())
}

fn is_full(result: Result<(), i32>) -> bool {
    matches!(result, Err(errno) if errno == Errno::EDQUOT as i32 || errno == Errno::ENOSPC as i32)
}

/// The limits of a file system with project quotas; where the kernel has none, a size which nobody would keep is refused.
fn sizes_are_limited(make: &[&str]) {
    let node = Node::new();
    let (image, has_quotas) = Image::mount(&node, make);
    sizes_are_limited_on(&node, &image, has_quotas, 3_000..5_000);
}

/// The same; `files` are as many as go into a layer of 4 MiB, half of which is full.
fn sizes_are_limited_on(node: &Node, image: &Image, has_quotas: bool, files: Range<usize>) {
    let flist = fixture("small", node.path());
    assert_eq!(limits_layers(&image.point).unwrap(), has_quotas);
    let before = node.census();
    let provider = node.provider();
    let of = |number, size_bytes| PrepareRootfs {
        size_bytes,
        is_size_required: true,
        ..request(flist.to_str().unwrap(), number)
    };
    let (small, large) = (of(1, 4 * MIB), of(2, 64 * MIB));
    if !has_quotas {
        let refused = prepare(&provider, &small).expect_err("nobody would keep the limit");
        assert!(matches!(refused, RootfsError::NoLimit { .. }), "{refused}");
        assert_eq!(node.census(), before, "something leaked");
        return;
    }
    let [in_small, in_large] = [&small, &large].map(|one| prepare(&provider, one).unwrap().root);
    assert_overlay_matches_manifest(&in_small, "small");
    assert!(is_full(fill(&in_small.join("big"), 6 * MIB)), "no limit");
    fill(&in_large.join("big"), 16 * MIB).expect("the other one has room");
    fs::remove_file(in_small.join("big")).unwrap();
    fill(&in_small.join("fits"), 2 * MIB).expect("there is room again");
    let made = (0..10_000).take_while(|number| fs::write(in_small.join(number.to_string()), b"").is_ok()).count();
    assert!(files.contains(&made), "{made} files");
    // The limit stays with the layer: after a reboot, too, and for whoever makes the root anew.
    reboot(node, &[&small, &large]);
    let provider = node.provider();
    provider.recover().unwrap();
    let again = prepare(&provider, &small).unwrap().root;
    assert_eq!(fs::metadata(again.join("fits")).unwrap().len(), 2 * MIB);
    let layer = prepare(&provider, &small).unwrap().layer.unwrap();
    assert_eq!((layer.kind, layer.limit_bytes), (LayerKind::Disk, Some(4 * MIB)));
    assert!(is_full(fill(&again.join("big"), 6 * MIB)), "no limit after a reboot");
    for gone in [&small, &large] {
        release(&provider, gone).unwrap();
    }
    assert_eq!(node.census(), before, "something leaked");
    // The space of both is free again, so the next one has all of its own.
    let third = of(3, 8 * MIB);
    let root = prepare(&provider, &third).unwrap().root;
    fill(&root.join("big"), 6 * MIB).unwrap();
    release(&provider, &third).unwrap();
    provider.wait_for_removals();
    unmount(&image.point);
}

/// Does to the roots what a reboot does: nothing is mounted, nothing runs, the run directory is empty.
fn reboot(node: &Node, mounted: &[&PrepareRootfs]) {
    node.kill_server();
    for one in mounted {
        let dir = node.path().join("state/ns").join(one.id.as_str());
        for point in [dir.join("rootfs"), dir.join("layer")] {
            let _not_there = umount2(&point, MntFlags::MNT_DETACH);
        }
    }
    unmount(&node.server_dir().join("mnt"));
    fs::remove_dir_all(node.path().join("run")).unwrap();
    fs::create_dir_all(node.path().join("run/f")).unwrap();
}

#[test]
fn the_size_of_a_layer_on_ext4_is_limited_by_a_project_quota() {
    sizes_are_limited(&["mkfs.ext4", "-q", "-O", "quota,project"]);
}

#[test]
fn the_size_of_a_layer_on_xfs_is_limited_by_a_project_quota() {
    sizes_are_limited(&["mkfs.xfs", "-q"]);
}

#[test]
fn a_size_that_nothing_can_enforce_is_refused_when_it_was_asked_for_and_only_then() {
    let node = Node::new();
    let provider = node.provider();
    let flist = fixture("small", node.path());
    let _tmpfs = tmpfs(&node);
    let before = node.census();
    let by_default = request(flist.to_str().unwrap(), 1);
    let layer = |one| prepare(&provider, one).unwrap().layer.unwrap();
    for _made_and_there in 0..2 {
        let made = layer(&by_default);
        assert_eq!((made.kind, made.limit_bytes), (LayerKind::Disk, None), "nothing limits it");
    }
    let asked = PrepareRootfs { is_size_required: true, ..request(flist.to_str().unwrap(), 2) };
    let upper_dir = Some(node.path().join("upper"));
    for refused in [asked.clone(), PrepareRootfs { upper_dir, ..asked.clone() }] {
        let error = prepare(&provider, &refused).unwrap_err();
        assert!(matches!(error, RootfsError::NoLimit { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.hint().is_some_and(|hint| hint.contains("prjquota") && hint.contains("--layer memory")));
    }
    let in_memory = PrepareRootfs { layer: LayerKind::Memory, ..asked };
    assert_eq!(layer(&in_memory).limit_bytes, Some(4 * MIB));
    for gone in [&by_default, &in_memory] {
        release(&provider, gone).unwrap();
    }
    assert_eq!(node.census(), before, "something leaked");
}

/// A tmpfs on the state directory, as 0-OS has it: it cannot limit projects.
fn tmpfs(node: &Node) -> Image {
    let point = node.path().join("state");
    run(&["mount", "-t", "tmpfs", "contd-test"], &[point.to_str().unwrap()]);
    for dir in ["ns", ".removed"] {
        fs::create_dir(point.join(dir)).unwrap();
    }
    Image { point }
}

#[test]
fn a_layer_on_disk_survives_a_reboot_over_the_flist_it_was_made_of() {
    let node = Node::new();
    let flist = fixture("small", node.path());
    let before = node.census();
    let one = request(flist.to_str().unwrap(), 1);
    let provider = node.provider();
    let made = prepare(&provider, &one).unwrap();
    assert!(!options_of(&made.root).contains("volatile"), "a crash would cost it");
    fs::write(made.root.join("kept"), b"kept").unwrap();
    fs::remove_file(made.root.join("etc/hostname")).unwrap();
    reboot(&node, &[&one]);
    // Behind the name is another flist by now.
    let original = fs::read(&flist).unwrap();
    let other = fs::read(fixture("busybox", &node.path().join("upper"))).unwrap();
    fs::write(&flist, other).unwrap();
    let provider = node.provider();
    let found = provider.recover().unwrap();
    assert_eq!(found.iter().map(|found| &found.id).collect::<Vec<_>>(), [&one.id]);
    let again = prepare(&provider, &one).unwrap();
    assert_eq!(again.flist_hash, made.flist_hash);
    assert_eq!(fs::read(again.root.join("kept")).unwrap(), b"kept");
    assert!(!again.root.join("etc/hostname").exists() && again.root.join(".hidden").exists());
    reboot(&node, &[&one]);
    // The cache was emptied, too: then it says so instead of mixing the two.
    fs::remove_dir_all(node.path().join("cache/fl")).unwrap();
    let provider = node.provider();
    let error = prepare(&provider, &one).unwrap_err();
    assert!(matches!(error, RootfsError::FlistChanged { .. }) && error.hint().is_some(), "{error}");
    fs::write(&flist, original).unwrap();
    let again = prepare(&provider, &one).unwrap();
    assert_eq!(fs::read(again.root.join("kept")).unwrap(), b"kept", "the failure cost the layer");
    release(&provider, &one).unwrap();
    fs::remove_dir_all(node.path().join("upper")).unwrap();
    fs::create_dir(node.path().join("upper")).unwrap();
    assert_eq!(node.census(), before, "something leaked");
}

#[test]
fn the_note_of_an_earlier_version_is_heeded_unless_a_power_loss_took_its_content() {
    let node = Node::new();
    let flist = fixture("small", node.path());
    let one = request(flist.to_str().unwrap(), 1);
    let made = prepare(&node.provider(), &one).unwrap();
    let layer = made.root.with_file_name("disk");
    fs::write(made.root.join("kept"), b"kept").unwrap();
    reboot(&node, &[&one]);
    rustix::fs::removexattr(&layer, "trusted.contd.flist").expect("it is noted beside the layer");
    fs::write(layer.join("flist"), "f".repeat(64)).unwrap();
    let error = prepare(&node.provider(), &one).unwrap_err();
    assert!(matches!(error, RootfsError::FlistChanged { .. }), "{error}");
    fs::write(layer.join("flist"), "").unwrap();
    let provider = node.provider();
    let again = prepare(&provider, &one).unwrap();
    assert_eq!(again.flist_hash, made.flist_hash);
    assert_eq!(fs::read(again.root.join("kept")).unwrap(), b"kept");
    release(&provider, &one).unwrap();
}

#[test]
fn a_layer_in_memory_is_gone_with_its_run_and_the_next_one_begins_anew() {
    let node = Node::new();
    let provider = node.provider();
    let flist = fixture("small", node.path());
    let before = node.census();
    let one = PrepareRootfs { layer: LayerKind::Memory, ..request(flist.to_str().unwrap(), 1) };
    for _ in 0..3 {
        let root = prepare(&provider, &one).unwrap().root;
        assert!(options_of(&root).contains("volatile"));
        assert!(!root.join("written").exists());
        fs::write(root.join("written"), vec![1; 1 << 20]).unwrap();
        provider.free_memory(&one.namespace, &one.id).unwrap();
        provider.free_memory(&one.namespace, &one.id).expect("twice is fine");
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        // Other tests have containers of the same id.
        let dir = node.path().join("state/ns").join(one.id.as_str());
        assert!(!table.contains(dir.to_str().unwrap()), "its memory is not free");
        // The server waits for its next run.
        assert_eq!(crate::support::servers(node.path()).len(), 2);
    }
    // A layer on disk is not touched.
    let two = request(flist.to_str().unwrap(), 2);
    let root = prepare(&provider, &two).unwrap().root;
    fs::write(root.join("written"), b"kept").unwrap();
    provider.free_memory(&two.namespace, &two.id).unwrap();
    assert_eq!(fs::read(root.join("written")).unwrap(), b"kept");
    for gone in [&one, &two] {
        release(&provider, gone).unwrap();
    }
    assert_eq!(node.census(), before, "something leaked");
}

#[test]
fn a_node_that_goes_down_leaves_no_mount_and_no_server_and_keeps_the_layers_on_disk() {
    let node = Node::new();
    let provider = node.provider();
    let flist = fixture("small", node.path());
    let before = node.census();
    let disk = request(flist.to_str().unwrap(), 1);
    let memory = PrepareRootfs { layer: LayerKind::Memory, ..request(flist.to_str().unwrap(), 2) };
    for one in [&disk, &memory] {
        fs::write(prepare(&provider, one).unwrap().root.join("written"), b"kept").unwrap();
    }
    provider.take_down().unwrap();
    provider.take_down().expect("twice is fine");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(node.path().to_str().unwrap()), "something is mounted: {table}");
    assert_eq!(crate::support::servers(node.path()).len(), 0, "a server is left");
    // The next daemon finds the layer on disk.
    let provider = node.provider();
    let found: Vec<_> = provider.recover().unwrap().into_iter().map(|root| root.id).collect();
    assert_eq!(found, std::slice::from_ref(&disk.id));
    assert_eq!(fs::read(prepare(&provider, &disk).unwrap().root.join("written")).unwrap(), b"kept");
    assert!(!prepare(&provider, &memory).unwrap().root.join("written").exists());
    for one in [&disk, &memory] {
        release(&provider, one).unwrap();
    }
    assert_eq!(node.census(), before, "something leaked");
}

#[test]
fn all_files_of_a_root_lie_on_one_device_and_keep_their_numbers() {
    all_files_lie_on_one_device(&Node::new(), &[(1, LayerKind::Disk), (2, LayerKind::Memory)]);
}

fn all_files_lie_on_one_device(node: &Node, layers: &[(u8, LayerKind)]) {
    let provider = node.provider();
    let flist = fixture("small", node.path());
    for &(number, layer) in layers {
        let one = PrepareRootfs { layer, ..request(flist.to_str().unwrap(), number) };
        let root = prepare(&provider, &one).unwrap().root;
        fs::write(root.join("new"), b"new").unwrap();
        fs::create_dir(root.join("etc/new")).unwrap();
        let file = root.join("etc/hostname");
        let before = fs::metadata(&file).unwrap();
        fs::write(&file, b"copied up").unwrap();
        let after = fs::metadata(&file).unwrap();
        assert_eq!((before.dev(), before.ino()), (after.dev(), after.ino()), "{layer}");
        let mut devices = BTreeSet::new();
        let mut dirs = vec![root];
        while let Some(dir) = dirs.pop() {
            devices.insert(fs::symlink_metadata(&dir).unwrap().dev());
            for entry in fs::read_dir(&dir).unwrap() {
                let entry = entry.unwrap();
                let metadata = entry.metadata().unwrap();
                devices.insert(metadata.dev());
                if metadata.is_dir() {
                    dirs.push(entry.path());
                }
            }
        }
        assert_eq!(devices.len(), 1, "{layer}");
        release(&provider, &one).unwrap();
    }
}

#[test]
fn a_directory_that_another_container_has_is_refused_with_its_id_also_by_the_next_daemon() {
    let node = Node::new();
    let provider = node.provider();
    let upper = node.path().join("upper");
    let flist = fixture("small", node.path());
    for dir in ["a/inner", "b,c", "plain"] {
        fs::create_dir_all(upper.join(dir)).unwrap();
    }
    std::os::unix::fs::symlink("b,c", upper.join("link")).unwrap();
    let before = node.census();
    let of = |number: u8, dir: &str| PrepareRootfs {
        upper_dir: Some(upper.join(dir)),
        ..request(flist.to_str().unwrap(), number)
    };
    let plain = request(&format!("dir:{}", upper.join("plain").display()), 7);
    let live = [of(1, "a"), of(2, "b,c"), plain];
    live.iter().for_each(|one| drop(prepare(&provider, one).unwrap()));
    let next = node.provider();
    next.recover().unwrap();
    for provider in [&provider, &next] {
        for (dir, owner) in [("a", 0), ("a/inner", 0), ("b,c", 1), ("link", 1), ("plain", 2)] {
            let error = prepare(provider, &of(4, dir)).unwrap_err();
            assert!(matches!(&error, RootfsError::UpperInUse { id, .. } if *id == live[owner].id), "{dir}: {error}");
        }
        let error = prepare(provider, &request(&format!("dir:{}", upper.join("a").display()), 4)).unwrap_err();
        assert!(matches!(&error, RootfsError::UpperInUse { .. }), "{error}");
    }
    live.iter().for_each(|one| release(&next, one).unwrap());
    assert!(prepare(&next, &of(4, "a")).is_ok(), "it is free again");
    release(&next, &of(4, "a")).unwrap();
    for dir in ["a", "b,c"] {
        for made in ["upper", "work"] {
            fs::remove_dir_all(upper.join(dir).join(made)).unwrap();
        }
    }
    assert_eq!(node.census(), before, "something leaked");
}

#[test]
fn a_directory_that_an_overlay_of_somebody_else_writes_to_is_refused() {
    let node = Node::new();
    let provider = node.provider();
    let flist = fixture("small", node.path());
    let of = |name: &str| node.path().join("upper").join(name);
    for name in ["upper", "work", "lower", "point"] {
        fs::create_dir(of(name)).unwrap();
    }
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| of(name).display().to_string());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    run(&["mount", "-t", "overlay", "contd-test", "-o", &options], &[of("point").to_str().unwrap()]);
    let mounted = Image { point: of("point") };
    let one = PrepareRootfs { upper_dir: Some(of("")), ..request(flist.to_str().unwrap(), 1) };
    let error = prepare(&provider, &one).unwrap_err();
    assert!(matches!(error, RootfsError::UpperOfOthers { .. }) && error.hint().is_some(), "{error}");
    drop(mounted);
    prepare(&provider, &one).unwrap();
    release(&provider, &one).unwrap();
}

#[test]
fn a_layer_never_lies_in_its_own_root() {
    let node = Node::new();
    let provider = node.provider();
    let before = node.census();
    let all = format!("dir:{}", node.path().display());
    let upper_dir = Some(node.path().join("upper"));
    let error = prepare(&provider, &PrepareRootfs { upper_dir, ..request(&all, 1) }).unwrap_err();
    assert!(matches!(error, RootfsError::UpperIsLower { .. }) && error.hint().is_some(), "{error}");
    let error = prepare(&provider, &PrepareRootfs { is_layer_required: true, ..request(&all, 1) }).unwrap_err();
    assert!(matches!(error, RootfsError::UpperIsLower { .. }), "{error}");
    // The disk was not asked for: memory serves.
    let root = prepare(&provider, &request(&all, 1)).unwrap().root;
    fs::write(root.join("new"), b"x").unwrap();
    assert!(!node.path().join("new").exists());
    release(&provider, &request(&all, 1)).unwrap();
    assert_eq!(node.census(), before, "something leaked");
}

#[test]
fn a_state_directory_that_cannot_hold_layers_is_named_with_the_remedy() {
    let node = Node::new();
    let state = node.path().join("state");
    let layer = |name: &str| node.path().join("upper").join(name);
    for name in ["l", "u", "w"] {
        fs::create_dir(layer(name)).unwrap();
    }
    let options =
        format!("lowerdir={},upperdir={},workdir={}", layer("l").display(), layer("u").display(), layer("w").display());
    run(&["mount", "-t", "overlay", "contd-test", "-o", &options], &[state.to_str().unwrap()]);
    let mounted = Image { point: state.clone() };
    for dir in ["ns", ".removed"] {
        fs::create_dir(state.join(dir)).unwrap();
    }
    let flist = fixture("small", node.path());
    let before = node.census();
    let provider = node.provider();
    let error = prepare(&provider, &request(flist.to_str().unwrap(), 1)).unwrap_err();
    assert!(matches!(error, RootfsError::NoUpper { .. }), "{error:?}");
    assert!(error.hint().is_some_and(|hint| hint.contains("layer = \"memory\"")));
    let in_memory = PrepareRootfs { layer: LayerKind::Memory, ..request(flist.to_str().unwrap(), 1) };
    prepare(&provider, &in_memory).unwrap();
    release(&provider, &in_memory).unwrap();
    assert_eq!(node.census(), before, "something leaked");
    drop(mounted);
}

#[test]
fn what_a_dead_daemon_was_removing_is_removed_by_the_next_one() {
    let node = Node::new();
    let before = node.census();
    let aside = node.path().join("state/.removed/ns@x.0");
    fs::create_dir_all(aside.join("upper/deep/er")).unwrap();
    fs::write(aside.join("upper/deep/file"), b"x").unwrap();
    let provider = node.provider();
    assert_eq!(provider.recover().unwrap(), []);
    provider.wait_for_removals();
    assert_eq!(node.census(), before, "something leaked");
}
