//! Images as real buildah, podman, skopeo and umoci write them: each form is imported, and has the same tree and command.
//!
//! Offline, with images made from nothing, and with stores of their own in a temporary directory. The second layer of the
//! image replaces a link by a directory, which the overlay driver writes as an opaque one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A place for the tools, and their options.
struct Workshop {
    folder: tempfile::TempDir,
    storage: Vec<String>,
}

impl Workshop {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| folder.path().join(name).display().to_string();
        // Where no overlay can be mounted, vfs does; it writes no opaque marks.
        let drivers = ["overlay", "vfs"].map(|driver| {
            ["--root", &at("root"), "--runroot", &at("runroot"), "--storage-driver", driver].map(str::to_owned).to_vec()
        });
        let [overlay, vfs] = drivers;
        let mut workshop = Self { folder, storage: overlay };
        if !workshop.command("buildah").arg("info").output().expect("buildah is installed").status.success() {
            fs::remove_dir_all(workshop.at("root")).ok();
            workshop.storage = vfs;
        }
        workshop
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A tool with its own store, if it has one, and nothing of this machine's.
    fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        command.current_dir(self.folder.path()).env("TMPDIR", self.folder.path());
        match tool {
            "buildah" => command.args(&self.storage),
            "podman" => command.args(&self.storage).args(["--cgroup-manager", "cgroupfs", "--events-backend", "none"]),
            "skopeo" => command.arg("--insecure-policy"),
            _ => &mut command,
        };
        command
    }

    /// Runs a tool, and returns what it prints.
    #[track_caller]
    fn run(&self, tool: &str, args: &[&str]) -> String {
        let output = self.command(tool).args(args).output().unwrap_or_else(|error| panic!("{tool}: {error}"));
        assert!(output.status.success(), "{tool} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[track_caller]
    fn contd(&self, args: &[&str]) -> String {
        self.run(env!("CARGO_BIN_EXE_contd"), args)
    }

    /// Makes `localhost/img:1` and `:2`, one image of two layers.
    fn build(&self) {
        let tree = self.at("tree");
        fs::create_dir_all(tree.join("real")).expect("make");
        fs::write(tree.join("real/keep"), "kept").expect("write");
        fs::write(tree.join("gone"), "old").expect("write");
        std::os::unix::fs::symlink("real", tree.join("link")).expect("link");
        let first = self.run("buildah", &["from", "scratch"]);
        self.run("buildah", &["copy", "-q", &first, "tree", "/"]);
        self.run("buildah", &["config", "--cmd", "[\"sh\",\"-c\",\"echo hi\"]", "--env", "A=1", &first]);
        self.run("buildah", &["commit", "-q", &first, "localhost/base:1"]);
        let second = self.run("buildah", &["from", "--pull-never", "localhost/base:1"]);
        let root = PathBuf::from(self.run("buildah", &["mount", &second]));
        change(&root);
        self.run("buildah", &["umount", &second]);
        self.run("buildah", &["commit", "-q", &second, "localhost/img:1"]);
        self.run("buildah", &["tag", "localhost/img:1", "localhost/img:2"]);
        self.run("buildah", &["rm", "-a"]);
    }

    /// Imports, and checks the tree and the command.
    #[track_caller]
    fn imports(&self, source: &str, more: &[&str]) {
        self.contd(&[&["flist", "import", source, "x.fl", "--store", &self.store(), "--force"], more].concat());
        let tree = self.at("unpacked");
        self.contd(&["flist", "unpack", "x.fl", &tree.display().to_string()]);
        assert!(fs::symlink_metadata(tree.join("link")).expect("there").is_dir(), "{source}: link is no directory");
        let read = |path: &str| {
            fs::read_to_string(tree.join(path)).unwrap_or_else(|error| panic!("{source}: {path}: {error}"))
        };
        assert_eq!((read("link/new"), read("real/keep")), ("new".to_owned(), "kept".to_owned()), "{source}");
        let is_clean = !tree.join("gone").exists() && !tree.join("link/keep").exists();
        assert!(
            is_clean && fs::read_dir(tree.join("link")).expect("there").count() == 1,
            "{source}: something is left"
        );
        let seen: Value = serde_json::from_str(&self.contd(&["flist", "inspect", "--json", "x.fl"])).expect("JSON");
        assert_eq!(seen["tags"]["oci.cmd"], "[\"sh\",\"-c\",\"echo hi\"]", "{source}");
        fs::remove_dir_all(tree).expect("removed");
    }

    fn store(&self) -> String {
        format!("dir://{}", self.at("store").display())
    }
}

/// The changes of the second layer.
fn change(root: &Path) {
    fs::remove_file(root.join("link")).expect("removed");
    fs::remove_file(root.join("gone")).expect("removed");
    fs::create_dir(root.join("link")).expect("made");
    fs::write(root.join("link/new"), "new").expect("written");
}

#[test]
fn whatever_buildah_podman_and_skopeo_write_is_imported() {
    let workshop = Workshop::new();
    workshop.build();
    for form in ["oci:b-oci:img", "oci-archive:b-oci.tar:img", "docker-archive:b-docker.tar:img:1", "dir:b-dir"] {
        workshop.run("buildah", &["push", "-q", "localhost/img:1", form]);
    }
    for source in ["b-oci", "b-oci.tar", "b-docker.tar", "b-dir"] {
        workshop.imports(source, &[]);
    }
    for form in ["docker-archive", "oci-archive", "docker-dir", "oci-dir"] {
        workshop.run("podman", &["save", "-q", "--format", form, "-o", form, "localhost/img:1"]);
        workshop.imports(form, &[]);
    }
    // One image with both its tags, and two images in one archive.
    workshop.run("podman", &["save", "-q", "-o", "tags.tar", "localhost/img:1", "localhost/img:2"]);
    workshop.imports("tags.tar", &[]);
    workshop.imports("tags.tar", &["--ref", "img:2"]);
    workshop.run("podman", &["save", "-q", "-m", "-o", "multi.tar", "localhost/img:1", "localhost/base:1"]);
    workshop.imports("multi.tar", &["--ref", "localhost/img:1"]);
    for (form, source) in [
        ("oci:s-oci:img", "s-oci"),
        ("oci-archive:s-oci.tar:img", "s-oci.tar"),
        ("docker-archive:s-docker.tar:img:1", "s-docker.tar"),
        ("dir:s-dir", "s-dir"),
    ] {
        workshop.run("skopeo", &["copy", "-q", "oci:b-oci:img", form]);
        workshop.imports(source, &[]);
    }
    workshop.run("skopeo", &["copy", "-q", "--dest-compress-format", "zstd", "oci:b-oci:img", "oci:s-zstd:img"]);
    workshop.imports("s-zstd", &[]);
    workshop.run("skopeo", &["copy", "-q", "--format", "v2s2", "oci:b-oci:img", "dir:s-v2s2"]);
    workshop.imports("s-v2s2", &[]);
    // A second image in one layout.
    workshop.run("buildah", &["push", "-q", "localhost/base:1", "oci:b-oci:base"]);
    workshop.imports("b-oci", &["--ref", "img"]);
    // The store may hold mounts of its own while the tools work; afterwards there is none.
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let own = workshop.folder.path().display().to_string();
    let left: Vec<&str> =
        mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|at| at.starts_with(&own)).collect();
    for point in left {
        nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH).expect("unmounted");
    }
}

#[test]
fn whatever_umoci_writes_is_imported() {
    let workshop = Workshop::new();
    fs::create_dir_all(workshop.at("tree/real")).expect("make");
    fs::write(workshop.at("tree/real/keep"), "kept").expect("write");
    fs::write(workshop.at("tree/gone"), "old").expect("write");
    std::os::unix::fs::symlink("real", workshop.at("tree/link")).expect("link");
    workshop.run("umoci", &["init", "--layout", "u"]);
    workshop.run("umoci", &["new", "--image", "u:img"]);
    workshop.run("umoci", &["insert", "--image", "u:img", "tree", "/"]);
    workshop.run("umoci", &["unpack", "--image", "u:img", "bundle"]);
    change(&workshop.at("bundle/rootfs"));
    workshop.run("umoci", &["repack", "--image", "u:img", "bundle"]);
    let cmd = ["--config.cmd", "sh", "--config.cmd", "-c", "--config.cmd", "echo hi"];
    workshop.run("umoci", &[&["config", "--image", "u:img"], &cmd[..]].concat());
    workshop.imports("u", &[]);
    // `insert` with a mark of its own.
    workshop.run("umoci", &["insert", "--image", "u:img", "--opaque", "tree/real", "/link"]);
    workshop.contd(&["flist", "import", "u", "opaque.fl", "--store", &workshop.store()]);
    workshop.contd(&["flist", "unpack", "opaque.fl", "opaque"]);
    let names = |dir: &str| {
        fs::read_dir(workshop.at(dir)).expect("there").map(|entry| entry.expect("read").file_name()).collect::<Vec<_>>()
    };
    assert_eq!((names("opaque/link"), names("opaque/real")), (vec!["keep".into()], vec!["keep".into()]));
}

#[test]
fn what_is_run_in_place_of_a_flist_is_named_with_the_commands_that_make_one() {
    let workshop = Workshop::new();
    workshop.run("umoci", &["init", "--layout", "image"]);
    let refused = |what: &str| {
        // No daemon is asked.
        let output =
            workshop.command(env!("CARGO_BIN_EXE_contd")).args(["--address", "/nowhere.sock", "run", what]).output();
        let output = output.expect("contd runs");
        assert_eq!(output.status.code(), Some(125), "{what}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    // The daemon that was meant is in it, so that it can be pasted.
    let made = "contd flist import image image.fl --store dir:///var/store && contd -n default --address /nowhere.sock run image.fl";
    assert!(refused("image").contains(made), "{}", refused("image"));
    assert!(refused("nginx").contains("skopeo copy docker://docker.io/library/nginx:latest oci:nginx-image"));
    assert!(refused("docker.io/library/nginx:1.25").contains("docker://docker.io/library/nginx:1.25"));
    assert!(refused("./bundle.fl").contains("/nowhere.sock"));
}
