//! Mounts as people type them: what is meant is what is mounted, under both runtimes, and what is mistyped is refused.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::harness::{Flist, Node, busybox_tree};

const RUNTIMES: [&str; 2] = ["native", "runc"];
/// The code of an engine error on `run`.
const ENGINE: i32 = 125;

/// A node, its flist, and directories of the host.
struct Scene {
    node: Node,
    flist: String,
}

impl Scene {
    /// Packs a busybox tree that `change` has changed.
    fn with(change: impl FnOnce(&Path)) -> Self {
        let mut node = Node::start();
        node.announce("run rolled back");
        let input = node.root.join("input");
        busybox_tree(&input.join("tree"));
        change(&input.join("tree"));
        let flist = Flist::pack(&input, &input.join("tree")).arg().to_owned();
        Self { node, flist }
    }

    /// Makes a directory of the host with one file in it.
    fn dir(&self, name: &str, file: &str) -> PathBuf {
        let dir = self.node.root.join("input").join(name);
        fs::create_dir_all(&dir).expect("make a directory");
        fs::write(dir.join(file), file).expect("write");
        dir
    }

    /// Runs a script with these flags under one of the runtimes, and returns what it says.
    #[track_caller]
    fn said(&self, runtime: &str, flags: &[&str], script: &str) -> String {
        let fixed = ["run", "--rm", "--runtime", runtime];
        let command = [self.flist.as_str(), "/bin/sh", "-c", script];
        self.node.contd(fixed.iter().chain(flags).chain(&command)).ok().to_owned()
    }

    /// Demands that flags are refused with these words, and returns all that is said.
    #[track_caller]
    fn refused(&self, runtime: &str, flags: &[&str], words: &str) -> String {
        let fixed = ["run", "--rm", "--runtime", runtime];
        let output = self.node.contd(fixed.iter().chain(flags).chain(&[self.flist.as_str(), "/bin/true"]));
        output.fails_with(ENGINE, words);
        output.stderr
    }
}

#[test]
fn an_option_is_read_only_or_refused_and_never_dropped() {
    let scene = Scene::with(|_tree| {});
    let dir = scene.dir("data", "file");
    let dir = dir.display();
    for runtime in RUNTIMES {
        for flags in
            ["ro", "readonly", "RO", "ro,nosuid"].map(|word| format!("--volume={dir}:/d:{word}")).into_iter().chain(
                ["readonly", "ro", "ro=true", "rw=false", "options=ro:nodev", "bind-recursive=readonly"]
                    .map(|word| format!("--mount=type=bind,src={dir},dst=/d,{word}")),
            )
        {
            let said = scene.said(runtime, &[&flags], "cat /d/file; echo x 2>/dev/null >/d/new || echo refused");
            assert_eq!(said, "filerefused", "{runtime} {flags}");
        }
    }
    for (flag, words) in [
        (format!("-v={dir}:/d:r0"), "did you mean \"ro\""),
        (format!("--mount=src={dir},dst=/d,options=rdonly"), "did you mean \"readonly\""),
        (format!("-v={dir}:/d:z"), "SELinux"),
        (format!("-v={dir}:/d:ro,rw"), "contradict"),
        ("--mount=type=tmpfs,dst=/d,options=sise=1m".to_owned(), "did you mean \"size=\""),
    ] {
        scene.refused("native", &[&flag], words);
    }
    let twice = [format!("-v={dir}:/d"), "--mount=type=tmpfs,dst=/d/.".to_owned()];
    scene.refused("native", &[&twice[0], &twice[1]], "target of two mounts");
    assert!(!scene.node.root.join("input/data/new").exists());
    scene.node.finish();
}

/// A mount of the host's that is gone when this goes.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        crate::harness::mounted::unmount(&self.0);
    }
}

#[test]
fn read_only_reaches_what_is_mounted_below() {
    let scene = Scene::with(|_tree| {});
    let dir = scene.dir("outer", "file");
    fs::create_dir(dir.join("sub")).expect("sub");
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("sub"), &dir.join("sub"), Some("tmpfs"), flags, None::<&str>).expect("mount");
    let mounted = Mounted(dir.join("sub"));
    let script = "for d in /d /d/sub; do touch $d/x 2>/dev/null && echo $d; done; true";
    for runtime in RUNTIMES {
        for (options, writable) in [("ro", ""), ("ro,norecursive", "/d/sub"), ("rw", "/d\n/d/sub")] {
            let flag = format!("-v={}:/d:{options}", dir.display());
            assert_eq!(scene.said(runtime, &[&flag], script), writable, "{runtime} {options}");
        }
    }
    drop(mounted);
    scene.node.finish();
}

#[test]
fn none_covers_another_in_whatever_order_they_are_named() {
    let scene = Scene::with(|_tree| {});
    let (outer, inner) = (scene.dir("outer", "o"), scene.dir("inner", "i"));
    fs::create_dir_all(outer.join("sub/deep")).expect("sub");
    let (outer, inner) = (format!("-v={}:/d", outer.display()), format!("-v={}:/d/sub", inner.display()));
    let tmpfs = "--mount=type=tmpfs,dst=/dev/shm,tmpfs-size=1m,tmpfs-mode=0700";
    for runtime in RUNTIMES {
        for flags in [[&*outer, &*inner, tmpfs], [tmpfs, &*inner, &*outer]] {
            let script = "ls /d /d/sub; df -k /dev/shm | awk 'END{print $2}'; stat -c %a /dev/shm; grep -c /dev/shm /proc/mounts";
            assert_eq!(scene.said(runtime, &flags, script), "/d:\no\nsub\n\n/d/sub:\ni\n1024\n700\n1", "{runtime}");
        }
    }
    scene.node.finish();
}

#[test]
fn any_path_can_be_mounted() {
    let scene = Scene::with(|_tree| {});
    let root = scene.node.root.join("input").display().to_string();
    for (name, target) in [
        ("sp ace", "/a b"),
        ("ünï", "/ü"),
        ("a:b", "/c:d"),
        ("a,b", "/c,d"),
        ("q\"'x", "/q\"x"),
        ("b\\s", "/b\\s"),
        ("n\nl", "/n\nl"),
    ] {
        scene.dir(name, "here");
        let quoted = |text: String| text.replace('"', "\"\"");
        let mount = format!(
            "--mount=type=bind,\"src={}\",\"dst={}\"",
            quoted(format!("{root}/{name}")),
            quoted(target.to_owned())
        );
        let volume = format!("-v={root}/./x/../{name}/:{target}/");
        for runtime in RUNTIMES {
            for flag in [&mount, &volume].into_iter().filter(|flag| !name.contains(':') || flag.starts_with("--")) {
                let said = scene.said(runtime, &[flag, &format!("--env=T={target}")], "cat \"$T/here\"");
                assert_eq!(said, "here", "{runtime} {flag:?}");
            }
        }
    }
    scene.node.finish();
}

#[test]
fn a_link_of_the_image_that_leads_to_nothing_is_a_target() {
    let scene = Scene::with(|tree| {
        symlink("../run/systemd/resolve/stub-resolv.conf", tree.join("etc/resolv.conf")).expect("link");
        symlink("/srv/real", tree.join("store")).expect("link");
    });
    let dir = scene.dir("data", "file");
    let file = format!("-v={}/file:/etc/resolv.conf:ro", dir.display());
    let bind = format!("-v={}:/store", dir.display());
    for runtime in RUNTIMES {
        let said = scene.said(runtime, &[&file, &bind], "cat /etc/resolv.conf /store/file /srv/real/file");
        assert_eq!(said, "filefilefile", "{runtime}");
        let tmpfs = ["--mount", "type=tmpfs,dst=/store"];
        assert_eq!(scene.said(runtime, &tmpfs, "touch /store/x; ls /srv/real"), "x", "{runtime}");
    }
    scene.node.finish();
}

#[test]
fn what_cannot_be_mounted_says_what_and_why() {
    let scene = Scene::with(|tree| symlink("/sys/firmware", tree.join("innocent")).expect("link"));
    let dir = scene.dir("data", "file").display().to_string();
    for runtime in RUNTIMES {
        for (flag, words) in [
            (format!("-v={dir}:/etc/passwd"), "the target is a file"),
            (format!("-v={dir}/file:/etc"), "the target is a directory"),
            ("--mount=type=tmpfs,dst=/etc/passwd".to_owned(), "the target is a file"),
            (format!("-v={dir}/no such:/d"), "mkdir -p"),
            (format!("-v={dir}:/innocent"), "/sys/firmware"),
            ("-v=/proc:/d:ro".to_owned(), "procfs"),
            ("-v=/sys/kernel:/d:ro".to_owned(), "sysfs"),
        ] {
            let said = scene.refused(runtime, &[&flag], words);
            let target = flag.rsplit([':', '=']).find(|part| part.starts_with('/')).expect("a target");
            assert!(said.contains(target), "{target}: {said}");
        }
    }
    scene.node.finish();
}
