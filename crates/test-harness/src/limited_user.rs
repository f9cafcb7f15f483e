//! A second user: a process with a uid and groups that nobody has, and directories that are its own.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::node::{Output, binary};
use crate::{Flist, Node};

/// Users and groups that no machine has.
pub const UID: u32 = 61_000;
/// Its group.
pub const GID: u32 = 61_001;
/// The group of the socket.
pub const SOCKET_GID: u32 = 61_002;

/// Lets everybody in.
pub fn open_to_all(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("set the mode");
}

/// A user with limited rights, and what it has on the host: `flists/busybox.fl` with its store, `data` that is its own, and
/// `shared`, which is root's.
#[derive(Debug)]
pub struct LimitedUser {
    /// Everything of it lies below.
    pub home: PathBuf,
    contd: PathBuf,
    uid: u32,
    groups: Vec<u32>,
    _temp: tempfile::TempDir,
}

impl LimitedUser {
    /// Makes its directories.
    pub fn new() -> Self {
        let temp = tempfile::Builder::new().prefix("contd-u-").tempdir_in("/tmp").expect("make a directory");
        let home = temp.path().canonicalize().expect("resolve");
        open_to_all(&home);
        for dir in ["flists", "data", "shared", "uppers", "roots"] {
            fs::create_dir(home.join(dir)).expect("make a directory");
            open_to_all(&home.join(dir));
        }
        for own in ["data", "uppers"] {
            chown(home.join(own), Some(UID), Some(GID)).expect("give it away");
        }
        fs::write(home.join("shared/file"), "shared\n").expect("write");
        Flist::busybox(&home.join("flists"));
        open_to_all(&home.join("flists/store"));
        let contd = reachable_contd(&home);
        Self { home, contd, uid: UID, groups: vec![SOCKET_GID], _temp: temp }
    }

    /// The same directories for another user.
    pub fn with(self, uid: u32, groups: &[u32]) -> Self {
        Self { uid, groups: groups.to_vec(), ..self }
    }

    /// Returns a path of its own as text.
    pub fn path(&self, name: &str) -> String {
        self.home.join(name).display().to_string()
    }

    /// Its flist.
    pub fn flist(&self) -> String {
        self.path("flists/busybox.fl")
    }

    /// A configuration whose socket it may open, and whose one rule has these keys besides. `HOME` in them is its own.
    pub fn config(&self, keys: &str) -> String {
        let keys = keys.replace("HOME", &self.home.display().to_string());
        format!(
            "[api]\ngroup = {SOCKET_GID}\n[[access]]\nname = \"user\"\nuid = {UID}\nnamespaces = [\"t\"]\n\
             flists = [\"{}\"]\n{keys}\n",
            self.path("flists")
        )
    }

    /// Starts a node with that configuration.
    pub fn node(&self, keys: &str) -> Node {
        open_node(&self.config(keys))
    }

    /// Runs a command of contd as this user, against a node and in namespace `t`.
    #[track_caller]
    pub fn contd<A: AsRef<OsStr>>(&self, node: &Node, args: impl IntoIterator<Item = A>) -> Output {
        let output = self.command(node).args(args).stdin(Stdio::null()).output().expect("run contd as another user");
        Output {
            code: output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal)).unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn command(&self, node: &Node) -> Command {
        let groups: Vec<String> = self.groups.iter().map(u32::to_string).collect();
        let mut command = Command::new("setpriv");
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("CONTD_NAMESPACE", "t");
        command.args(["--reuid", &self.uid.to_string(), "--regid", &GID.to_string()]);
        match groups.is_empty() {
            true => command.arg("--clear-groups"),
            false => command.args(["--groups", &groups.join(",")]),
        };
        command.arg(&self.contd).arg("--address").arg(node.socket());
        command
    }

    /// Runs a script in a container of this user; demands that it works and returns what it printed.
    #[track_caller]
    pub fn inside(&self, node: &Node, flags: &[&str], script: &str) -> String {
        let flist = self.flist();
        let command = [&*flist, "/bin/sh", "-c", script];
        self.contd(node, ["run", "--rm"].iter().chain(flags).chain(&command)).ok().to_owned()
    }

    /// Demands that a container with these flags is refused, with what and a key of the rule that would give it; and that
    /// nothing of it is left.
    #[track_caller]
    pub fn is_refused(&self, node: &Node, flags: &[&str], what: &str, key: &str) {
        let flist = self.flist();
        self.is_refused_with(node, flags, &flist, what, key);
    }

    /// The same, with another root.
    #[track_caller]
    pub fn is_refused_with(&self, node: &Node, flags: &[&str], flist: &str, what: &str, key: &str) {
        for verb in [&["run", "--rm"][..], &["create"], &["run", "--dry-run"]] {
            let command = [flist, "/bin/true"];
            let output = self.contd(node, verb.iter().chain(flags).chain(&command));
            assert_ne!(output.code, 0, "{verb:?} {flags:?} {flist} was carried out: {}", output.stdout);
            assert!(output.stderr.contains(what), "{what:?} is not in: {}", output.stderr);
            assert!(
                output.stderr.contains("hint: ") && output.stderr.contains(key),
                "no {key:?} in: {}",
                output.stderr
            );
        }
        assert_eq!(self.contd(node, ["ps", "-a", "-q"]).ok(), "");
    }
}

/// Starts a node whose socket other users can get at, and which may say of runs that it took them back.
pub fn open_node(config: &str) -> Node {
    let mut node = Node::with_config(config);
    node.announce("run rolled back");
    let_in(&node);
    node
}

/// Lets other users get at the socket of a node: its root is a private directory of the test.
pub fn let_in(node: &Node) {
    fs::set_permissions(&node.root, Permissions::from_mode(0o711)).expect("set the mode");
}

/// Our program where the user can start it: the directory that it was built in may be a private one.
fn reachable_contd(home: &Path) -> PathBuf {
    let built = binary("contd");
    let is_reachable = |path: &Path| {
        let ids = ["--reuid", "61000", "--regid", "61001", "--clear-groups", "test", "-x"];
        Command::new("setpriv").args(ids).arg(path).status().expect("run setpriv").success()
    };
    if is_reachable(&built) {
        return built;
    }
    let path = home.join("contd");
    // By another process: had this one it open for writing, a child that is just being started would keep it busy.
    let copied = Command::new("cp").arg(&built).arg(&path).status().expect("run cp").success();
    assert!(copied && is_reachable(&path), "{} cannot be started by another user", path.display());
    path
}
