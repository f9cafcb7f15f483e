//! Trees made of busybox, and flists packed from them by `contd flist pack`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::node::binary;

/// The commands that tests use inside containers.
const APPLETS: [&str; 37] = [
    "sh", "ls", "cat", "echo", "sleep", "seq", "hostname", "id", "true", "false", "mount", "umount", "mkdir", "touch",
    "dd", "ip", "grep", "awk", "head", "tail", "wc", "env", "pwd", "kill", "stat", "yes", "mknod", "rm", "cp", "test",
    "df", "printf", "trap", "ps", "unshare", "md5sum", "stty",
];

/// Makes a small root file system of busybox.
pub fn busybox_tree(dir: &Path) {
    for sub in ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "data", "home/app"] {
        fs::create_dir_all(dir.join(sub)).expect("make the tree");
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let busybox = busybox.expect("busybox-static is installed (make deps)");
    fs::copy(busybox, dir.join("bin/busybox")).expect("copy busybox");
    for applet in APPLETS {
        symlink("busybox", dir.join("bin").join(applet)).expect("link an applet");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n";
    fs::write(dir.join("etc/passwd"), passwd).expect("write passwd");
    fs::write(dir.join("etc/group"), "root:x:0:\napp:x:1000:\nextra:x:2000:app\n").expect("write group");
    fs::write(dir.join("etc/not-a-program"), "just text\n").expect("write a file");
    fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("open tmp");
}

/// A packed flist with its store.
#[derive(Debug)]
pub struct Flist {
    /// The `.fl` file.
    pub path: PathBuf,
    /// The directory store with its blocks.
    pub store: PathBuf,
}

impl Flist {
    /// Packs a busybox tree below `dir`.
    pub fn busybox(dir: &Path) -> Self {
        let tree = dir.join("tree");
        busybox_tree(&tree);
        Self::pack(dir, &tree)
    }

    /// Packs a tree; the `.fl` and the store lie in `dir`.
    pub fn pack(dir: &Path, tree: &Path) -> Self {
        Self::pack_as("busybox", dir, tree)
    }

    /// Packs a busybox tree that differs from every other.
    pub fn another(dir: &Path, name: &str) -> Self {
        let tree = dir.join(name);
        busybox_tree(&tree);
        fs::write(tree.join("etc/name"), name).expect("write a file");
        Self::pack_as(name, dir, &tree)
    }

    /// Packs a tree under a name.
    pub fn pack_as(name: &str, dir: &Path, tree: &Path) -> Self {
        let flist = Self { path: dir.join(format!("{name}.fl")), store: dir.join("store") };
        let store = format!("dir://{}", flist.store.display());
        let output = Command::new(binary("contd"))
            .args(["flist", "pack"])
            .args([tree, &flist.path])
            .args(["--store", &store])
            .output()
            .expect("run contd flist pack");
        assert!(output.status.success(), "pack: {}", String::from_utf8_lossy(&output.stderr));
        flist
    }

    /// Returns the path as an argument.
    pub fn arg(&self) -> &str {
        self.path.to_str().expect("utf-8")
    }
}
