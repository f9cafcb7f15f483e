//! On btrfs each layer is a subvolume, limited by its qgroup where quotas are on.

use std::os::fd::AsRawFd;
use std::time::Duration;

use super::*;

/// The quotas of a btrfs, as `btrfs quota enable` switches them on; that of Debian 12 has no `--simple` yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Full,
    /// Linux 6.7.
    Simple,
}

/// `struct btrfs_ioctl_quota_ctl_args` of `linux/btrfs.h`.
#[repr(C)]
struct QuotaControl {
    command: u64,
    status: u64,
}

nix::ioctl_readwrite!(quota_control, 0x94, 40, QuotaControl);

/// `false` where the kernel has no such quotas.
#[expect(unsafe_code, reason = "an ioctl of btrfs, which nix does not offer")]
fn enable(point: &Path, kind: Kind) -> bool {
    let dir = fs::File::open(point).unwrap();
    let mut control = QuotaControl { command: if kind == Kind::Full { 1 } else { 4 }, status: 0 };
    // SAFETY: the ioctl reads and writes one `btrfs_ioctl_quota_ctl_args`, which `QuotaControl` is, through a pointer to a live one
    // of ours; `dir` keeps the descriptor open for the whole call.
    match unsafe { quota_control(dir.as_raw_fd(), &raw mut control) } {
        Ok(_) => true,
        Err(Errno::EINVAL) if kind == Kind::Simple => false,
        Err(errno) => panic!("{kind:?}: {errno}"),
    }
}

/// A btrfs on the state directory; `None` where the kernel has none.
fn image(node: &Node) -> Option<Image> {
    let file = image_file(node);
    fs::File::create(&file).unwrap().set_len(320 * MIB).unwrap();
    // It looks at every mounted loop device, and fails when one of another test goes meanwhile: so it sees no mounts at all.
    let alone = "mount -t tmpfs none /proc && mkdir /proc/self && : >/proc/self/mounts && : >/proc/mounts && exec mkfs.btrfs -q \"$0\"";
    run(&["unshare", "-m", "--propagation", "private", "sh", "-c", alone], &[file.to_str().unwrap()]);
    let known = || fs::read_to_string("/proc/filesystems").unwrap().contains("\tbtrfs\n");
    if !known() {
        let _a_module = Command::new("modprobe").arg("btrfs").output();
    }
    if !known() {
        return None;
    }
    let image = mount(node);
    for dir in ["ns", ".removed"] {
        fs::create_dir(image.point.join(dir)).unwrap();
    }
    Some(image)
}

fn image_file(node: &Node) -> PathBuf {
    node.path().join("upper/image")
}

fn mount(node: &Node) -> Image {
    let (file, point) = (image_file(node), node.path().join("state"));
    run(&["mount", "-o", "loop"], &[file.to_str().unwrap(), point.to_str().unwrap()]);
    Image { point }
}

fn layer_of(node: &Node, one: &PrepareRootfs) -> PathBuf {
    node.path().join("state/ns").join(one.id.as_str()).join("disk")
}

fn is_subvolume(dir: &Path) -> bool {
    fs::metadata(dir).unwrap().ino() == 256
}

/// Whether there are limits of qgroups, once what was removed is freed: that is done by the kernel, behind us.
fn qgroups_are_gone(provider: &dyn RootfsProvider, point: &Path) -> bool {
    for _ in 0..600 {
        run(&["btrfs", "filesystem", "sync"], &[point.to_str().unwrap()]);
        provider.tidy().unwrap();
        let output = Command::new("btrfs").args(["qgroup", "show"]).arg(point).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let qgroups: Vec<&str> = text.lines().filter(|line| line.starts_with("0/")).collect();
        // The file system itself has one.
        if let [top] = qgroups.as_slice() {
            return top.starts_with("0/5 ");
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    false
}

fn sizes_are_limited_with(kind: Kind) {
    let node = Node::new();
    let Some(image) = image(&node) else { return };
    if enable(&image.point, kind) {
        // The space that an empty file takes of the trees is counted, inodes are not.
        sizes_are_limited_on(&node, &image, true, 500..20_000);
    }
}

#[test]
fn the_size_of_a_layer_on_btrfs_is_limited_by_its_qgroup() {
    sizes_are_limited_with(Kind::Full);
}

#[test]
fn the_size_of_a_layer_on_btrfs_is_limited_by_simple_quotas() {
    sizes_are_limited_with(Kind::Simple);
}

#[test]
fn without_quotas_a_size_is_refused_with_the_remedy_and_one_by_default_holds_once_they_are_on() {
    let node = Node::new();
    let Some(image) = image(&node) else { return };
    let flist = fixture("small", node.path());
    let provider = node.provider();
    let before = node.census();
    assert!(!limits_layers(&image.point).unwrap());
    let asked = PrepareRootfs { is_size_required: true, ..request(flist.to_str().unwrap(), 1) };
    let error = prepare(&provider, &asked).unwrap_err();
    assert!(matches!(error, RootfsError::NoLimit { .. }), "{error}");
    let remedy = format!("btrfs quota enable {}", image.point.display());
    assert!(error.hint().is_some_and(|hint| hint.contains(&remedy) && hint.contains("--layer memory")));
    assert_eq!(node.census(), before, "something leaked");
    let by_default = request(flist.to_str().unwrap(), 2);
    let made = prepare(&provider, &by_default).unwrap();
    assert_eq!(made.layer.unwrap().limit_bytes, None);
    assert!(is_subvolume(&layer_of(&node, &by_default)));
    fill(&made.root.join("big"), 6 * MIB).expect("nothing limits it");
    fs::remove_file(made.root.join("big")).unwrap();
    run(&["btrfs", "quota", "enable"], &[image.point.to_str().unwrap()]);
    run(&["btrfs", "quota", "rescan", "-w"], &[image.point.to_str().unwrap()]);
    assert!(limits_layers(&image.point).unwrap());
    reboot(&node, &[&by_default]);
    let provider = node.provider();
    provider.recover().unwrap();
    let made = prepare(&provider, &by_default).unwrap();
    assert_eq!(made.layer.unwrap().limit_bytes, Some(4 * MIB));
    assert!(is_full(fill(&made.root.join("big"), 6 * MIB)), "no limit");
    release(&provider, &by_default).unwrap();
    assert_eq!(node.census(), before, "something leaked");
}

#[test]
fn a_limit_outlives_a_reboot_and_goes_with_its_layer() {
    let node = Node::new();
    let Some(image) = image(&node) else { return };
    assert!(enable(&image.point, Kind::Full));
    let flist = fixture("small", node.path());
    let one = PrepareRootfs { is_size_required: true, ..request(flist.to_str().unwrap(), 1) };
    let root = prepare(&node.provider(), &one).unwrap().root;
    assert!(is_full(fill(&root.join("big"), 6 * MIB)), "no limit");
    reboot(&node, &[&one]);
    contd_test_harness::mounted::unmount(&image.point);
    let image = mount(&node);
    let provider = node.provider();
    let found = provider.recover().unwrap();
    assert_eq!(found.iter().map(|found| &found.id).collect::<Vec<_>>(), [&one.id]);
    let made = prepare(&provider, &one).expect("a layer that is full can be mounted");
    assert_eq!(made.layer.unwrap().limit_bytes, Some(4 * MIB));
    assert!(is_full(fill(&made.root.join("more"), 6 * MIB)), "no limit after a reboot");
    fs::remove_file(made.root.join("big")).unwrap();
    release(&provider, &one).unwrap();
    provider.wait_for_removals();
    assert!(crate::support::names(&node.path().join("state/ns")).is_empty());
    assert!(qgroups_are_gone(&provider, &image.point), "a qgroup is left");
    contd_test_harness::mounted::unmount(&image.point);
}

#[test]
fn a_layer_of_before_is_a_plain_directory_and_serves_on_without_a_limit() {
    let node = Node::new();
    let Some(image) = image(&node) else { return };
    assert!(enable(&image.point, Kind::Full));
    let flist = fixture("small", node.path());
    let provider = node.provider();
    let one = request(flist.to_str().unwrap(), 1);
    let before = node.census();
    fs::create_dir_all(layer_of(&node, &one).join("upper/deep/er")).unwrap();
    fs::write(layer_of(&node, &one).join("upper/kept"), b"kept").unwrap();
    let made = prepare(&provider, &one).unwrap();
    assert_eq!(made.layer.unwrap().limit_bytes, None);
    assert_eq!(fs::read(made.root.join("kept")).unwrap(), b"kept");
    release(&provider, &one).unwrap();
    assert_eq!(node.census(), before, "something leaked");
}

#[test]
fn subvolumes_in_a_layer_go_with_it() {
    let node = Node::new();
    let Some(_image) = image(&node) else { return };
    let flist = fixture("small", node.path());
    let provider = node.provider();
    let one = request(flist.to_str().unwrap(), 1);
    let before = node.census();
    prepare(&provider, &one).unwrap();
    let upper = layer_of(&node, &one).join("upper");
    fs::create_dir(upper.join("deep")).unwrap();
    for name in ["one", "deep/two"] {
        run(&["btrfs", "-q", "subvolume", "create"], &[upper.join(name).to_str().unwrap()]);
        fs::create_dir_all(upper.join(name).join("a/b/c")).unwrap();
    }
    release(&provider, &one).unwrap();
    assert_eq!(node.census(), before, "something leaked");
    // A directory that is mounted in a layer is not emptied.
    let other = node.path().join("upper/other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("file"), b"kept").unwrap();
    let before = node.census();
    prepare(&provider, &one).unwrap();
    fs::create_dir(upper.join("point")).unwrap();
    run(&["mount", "--bind", other.to_str().unwrap()], &[upper.join("point").to_str().unwrap()]);
    release(&provider, &one).unwrap();
    assert_eq!(node.census(), before, "something leaked");
}

#[test]
fn files_over_a_directory_of_the_same_btrfs_never_seem_to_be_one() {
    let node = Node::new();
    let Some(image) = image(&node) else { return };
    assert!(enable(&image.point, Kind::Full));
    let lower = image.point.join("lower");
    fs::create_dir(&lower).unwrap();
    let names = |what: &str| (0..100).map(|number| format!("{what}-{number}")).collect::<Vec<_>>();
    names("old").iter().for_each(|name| fs::write(lower.join(name), b"old").unwrap());
    let provider = node.provider();
    let one = request(&format!("dir:{}", lower.display()), 1);
    let before = node.census();
    let made = prepare(&provider, &one).unwrap();
    names("new").iter().for_each(|name| fs::write(made.root.join(name), b"new").unwrap());
    let metadata = |name: &String| fs::metadata(made.root.join(name)).unwrap();
    let all: Vec<_> = [names("old"), names("new")].concat().iter().map(metadata).collect();
    let distinct: BTreeSet<_> = all.iter().map(|file| (file.dev(), file.ino())).collect();
    assert_eq!(distinct.len(), 200);
    assert_eq!(made.layer.unwrap().limit_bytes, None, "only a subvolume could be limited");
    let asked = PrepareRootfs { is_size_required: true, ..request(&one.flist, 2) };
    let error = prepare(&provider, &asked).unwrap_err();
    assert!(matches!(error, RootfsError::NoLimit { .. }) && error.hint().is_some(), "{error}");
    release(&provider, &one).unwrap();
    assert_eq!(node.census(), before, "something leaked");
}

#[test]
fn all_files_of_a_root_over_a_flist_lie_on_one_device() {
    let node = Node::new();
    let Some(_image) = image(&node) else { return };
    all_files_lie_on_one_device(&node, &[(1, LayerKind::Disk)]);
}

#[test]
fn a_subvolume_that_a_dead_daemon_was_removing_is_removed_by_the_next_one_with_its_qgroup() {
    let node = Node::new();
    let Some(image) = image(&node) else { return };
    assert!(enable(&image.point, Kind::Full));
    let before = node.census();
    let aside = image.point.join(".removed/ns@x.0");
    run(&["btrfs", "-q", "subvolume", "create"], &[aside.to_str().unwrap()]);
    run(&["btrfs", "qgroup", "limit", "4M"], &[aside.to_str().unwrap()]);
    fs::create_dir_all(aside.join("upper/deep/er")).unwrap();
    let provider = node.provider();
    assert_eq!(provider.recover().unwrap(), []);
    provider.wait_for_removals();
    assert_eq!(node.census(), before, "something leaked");
    assert!(qgroups_are_gone(&provider, &image.point), "a qgroup is left");
}
