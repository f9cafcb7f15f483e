//! The verbs of flists as a person uses them: what Ctrl-C leaves, what is never replaced, and a store behind a web server.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{Node, Port, busybox_tree, eventually};

fn contd(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_contd"));
    command.args(args);
    command
}

/// Runs a command that must succeed, and returns its standard output.
#[track_caller]
fn ok(args: &[&str]) -> String {
    let output = contd(args).output().expect("contd runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// Runs a command that must fail, and returns what it tells people.
#[track_caller]
fn refused(args: &[&str]) -> String {
    let output = contd(args).output().expect("contd runs");
    assert!(!output.status.success(), "{args:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("temporary directory"));
        fs::create_dir(folder.at("tree")).expect("made");
        fs::write(folder.at("tree/file"), "content").expect("written");
        folder
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("read");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("read").file_name().display().to_string()).collect();
        names.sort();
        names
    }
}

/// Starts a command that gets stuck, waits until it has begun something whose name starts so, and ends it. The command gives up by
/// itself when the silent store's time-out is over, which may be before the signal on a busy machine: then it is repeated.
#[track_caller]
fn end(folder: &Path, begun: &str, args: &[&str], signal: Signal) -> String {
    (0..20).find_map(|_try| end_once(folder, begun, args, signal)).expect("the signal comes first, sooner or later")
}

#[track_caller]
fn end_once(folder: &Path, begun: &str, args: &[&str], signal: Signal) -> Option<String> {
    // A shell's background job, and so all that it starts, ignores SIGINT.
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(env!("CARGO_BIN_EXE_contd")).args(args);
    let child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("contd runs");
    eventually("the command has begun", || {
        let mut names = fs::read_dir(folder).expect("read").map(|entry| entry.expect("read").file_name());
        names.any(|name| name.to_string_lossy().starts_with(begun)).then_some(())
    });
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), signal).expect("signalled");
    let output = child.wait_with_output().expect("waited");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() == Some(1) && told.contains("127.0.0.1") {
        return None;
    }
    assert_eq!(output.status.code(), Some(128 + signal as i32), "{args:?}: {told}");
    Some(told)
}

#[test]
fn a_verb_that_is_told_to_end_leaves_nothing_behind() {
    let folder = Folder::new();
    let (tree, fl, store) = (folder.text("tree"), folder.text("x.fl"), format!("dir://{}", folder.text("store")));
    ok(&["flist", "pack", &tree, &fl, "--store", &store]);
    // Takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").expect("bound");
    let silent = format!("127.0.0.1:{}", silent.local_addr().expect("an address").port());
    let before = folder.names();
    fs::create_dir(folder.at("there")).expect("made");
    let hung = format!("zdb://{silent}");
    for (dir, holder) in [("new", folder.0.path().to_owned()), ("there", folder.at("there"))] {
        let args = ["flist", "unpack", &fl, &folder.text(dir), "--store", &hung];
        let told = end(&holder, ".contd-unpack-", &args, Signal::SIGTERM);
        assert!(told.contains("ended by SIGTERM") && !told.contains("left behind"), "{told}");
    }
    fs::remove_dir(folder.at("there")).expect("it is as it was: empty");
    let args = ["flist", "pack", &tree, &folder.text("y.fl"), "--store", &hung];
    let told = end(folder.0.path(), ".tmp-", &args, Signal::SIGINT);
    assert!(told.contains("ended by SIGINT"), "{told}");
    assert_eq!(folder.names(), before);
}

#[test]
fn nothing_that_is_there_is_replaced_without_being_told_to() {
    let folder = Folder::new();
    let (tree, fl, store) = (folder.text("tree"), folder.text("x.fl"), format!("dir://{}", folder.text("store")));
    fs::write(folder.at("x.fl"), "precious").expect("written");
    let pack = ["flist", "pack", &tree, &fl, "--store", &store];
    let told = refused(&pack);
    assert!(told.contains("it exists already") && told.contains("--force"), "{told}");
    assert_eq!(fs::read(folder.at("x.fl")).expect("read"), b"precious");
    ok(&[&pack[..], &["--force"]].concat());
    let told = refused(&["flist", "pack", &tree, "/dev/null", "--store", &store, "--force"]);
    assert!(told.contains("not a file"), "{told}");
}

#[test]
fn devices_pipes_and_sockets_are_no_flists_and_are_not_opened() {
    let mut node = Node::start();
    node.announce("run rolled back");
    let at = |name: &str| node.root.join("input").join(name);
    fs::create_dir_all(node.root.join("input")).expect("made");
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    let listener = std::os::unix::net::UnixListener::bind(at("socket")).expect("bound");
    let text = |name: &str| at(name).display().to_string();
    for (odd, what) in
        [(text("fifo"), "a FIFO"), (text("socket"), "a socket"), ("/dev/zero".to_owned(), "a character device")]
    {
        for verb in [&["inspect"][..], &["ls"], &["verify"], &["route", "ls"]] {
            let told = refused(&[&["flist"], verb, &[&odd]].concat());
            assert!(told.contains(what), "{verb:?} {odd}: {told}");
        }
        assert!(refused(&["flist", "unpack", &odd, &text("out")]).contains(what));
        let told = node.contd(["run", "--rm", &odd]);
        assert!(told.stderr.contains(what), "run {odd}: {}", told.stderr);
        let told = refused(&["flist", "import", &odd, &text("x.fl"), "--store", "dir:///nowhere"]);
        assert!(told.contains("no container image"), "{told}");
    }
    drop(listener);
    node.finish();
}

#[test]
fn what_the_node_has_of_flists_is_asked_of_its_daemon_and_of_its_files_where_there_is_none() {
    let mut node = Node::start();
    let flist = node.flist();
    node.contd(["run", "-d", "--name", "uses", flist.arg(), "sleep", "1000"]).ok();
    let ask = |node: &Node, what: &str| -> Value {
        let asked = node.contd(["flist", what, "ls", "--json"]);
        assert_eq!(asked.stderr, "", "{what}");
        serde_json::from_str(asked.ok()).expect("one JSON object")
    };
    let server = ask(&node, "server");
    assert_eq!((&server["state"], &server["mounted"]), (&"serving".into(), &true.into()));
    assert!(server["containers"][0].as_str().is_some_and(|name| name.starts_with("default/")), "{server}");
    let cache = ask(&node, "cache");
    let cache_dir = node.root.join("cache").display().to_string();
    assert_eq!((&cache["cache_dir"], &cache["fetched"][0]["served"]), (&cache_dir.clone().into(), &true.into()));
    // The files of the node say the same.
    let files = ok(&[
        "flist",
        "cache",
        "ls",
        "--json",
        "--cache-dir",
        &cache_dir,
        "--run-dir",
        &node.root.join("run").display().to_string(),
    ]);
    let files: Value = serde_json::from_str(&files).expect("JSON");
    assert_eq!((&files["fetched"], &files["blocks"]), (&cache["fetched"], &cache["blocks"]));
    node.contd(["rm", "-f", "uses"]).ok();
    node.kill_daemon();
    let config = node.root.join("config.toml").display().to_string();
    for what in ["server", "cache"] {
        let looked = node.contd(["flist", what, "ls", "--config", &config]);
        assert!(looked.stderr.contains("no daemon answers at"), "{what}: {}", looked.stderr);
        assert!(looked.stdout.starts_with(if what == "server" { "SERVER" } else { "KIND" }), "{}", looked.stdout);
    }
    // A cache directory that others could look into is closed when the daemon starts.
    node.announce("cache directory was open to others");
    fs::set_permissions(&cache_dir, fs::Permissions::from_mode(0o755)).expect("opened");
    node.start_daemon();
    assert_eq!(fs::metadata(&cache_dir).expect("there").permissions().mode() & 0o7777, 0o700);
    node.finish();
}

/// nginx that serves one folder on loopback, in the foreground.
struct WebServer {
    child: Child,
    url: String,
    _taken: Port,
}

impl WebServer {
    fn start(folder: &Path, root: &Path) -> Self {
        let taken = Port::take();
        let port = taken.number;
        let dir = folder.join("nginx");
        fs::create_dir(&dir).expect("made");
        // As docs/flist-http.md has it, with files of its own.
        let config = format!(
            "daemon off;\nmaster_process off;\npid {0}/pid;\nerror_log {0}/error.log;\nevents {{}}\nhttp {{\n\
             access_log {0}/access.log;\nclient_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; \
             uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\n\
             server {{\n listen 127.0.0.1:{port};\n root {1};\n location / {{ try_files $uri =404; }}\n}}\n}}\n",
            dir.display(),
            root.display()
        );
        fs::write(dir.join("nginx.conf"), config).expect("written");
        let child = Command::new("nginx")
            .arg("-c")
            .arg(dir.join("nginx.conf"))
            .arg("-p")
            .arg(&dir)
            .spawn()
            .expect("nginx is installed");
        let server = Self { child, url: format!("http://127.0.0.1:{port}"), _taken: taken };
        eventually("nginx listens", || TcpStream::connect(("127.0.0.1", port)).ok().map(drop));
        server
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_flist_and_its_store_behind_a_web_server_are_read_back() {
    let node = Node::start();
    let input = node.root.join("input");
    let www = input.join("www");
    fs::create_dir_all(&www).expect("made");
    let tree = input.join("tree");
    busybox_tree(&tree);
    let text = |path: &Path| path.display().to_string();
    let server = WebServer::start(&input, &www);
    let store = format!("dir://{}", www.join("store").display());
    let (fl, route) = (www.join("x.fl"), format!("{}/store", server.url));
    let hash = ok(&["flist", "pack", &text(&tree), &text(&fl), "--store", &store, "--route", &route]);
    let routes = |fl: &str| {
        ok(&["flist", "route", "ls", "--json", fl])
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect::<Vec<Value>>()
    };
    assert_eq!(routes(&text(&fl)), [serde_json::json!({ "start": "00", "end": "ff", "url": route })]);

    // By path and by URL, through the verbs and through a container.
    let url = format!("{}/x.fl", server.url);
    for flist in [&text(&fl), &url] {
        ok(&["flist", "verify", flist]);
        assert_eq!(node.contd(["run", "--rm", flist, "/bin/busybox", "echo", "over http"]).ok(), "over http");
    }
    let unpacked = input.join("unpacked");
    ok(&["flist", "unpack", &url, &text(&unpacked)]);
    let same = Command::new("diff").args(["-r", "--no-dereference"]).args([&tree, &unpacked]).status();
    assert!(same.expect("diff runs").success(), "the tree that came back is another");

    // A store that moves: the flist is told, and its hash is another.
    fs::rename(www.join("store"), www.join("moved")).expect("renamed");
    assert!(refused(&["flist", "verify", &text(&fl)]).contains("bad"));
    let moved = format!("{}/moved", server.url);
    let new_hash = ok(&["flist", "route", "set", &text(&fl), &moved]);
    assert_ne!(hash, new_hash);
    ok(&["flist", "verify", &text(&fl)]);
    ok(&["flist", "route", "add", &text(&fl), &format!("00-7f={route}")]);
    assert_eq!(routes(&text(&fl)).len(), 2);
    let table = ok(&["flist", "route", "ls", &text(&fl)]);
    assert!(table.starts_with("BLOCKS") && table.contains(&format!("00-7f    {route}")), "{table}");
    assert!(refused(&["flist", "route", "rm", &text(&fl), &moved]).contains("no route covers"));
    ok(&["flist", "route", "rm", &text(&fl), &route]);
    assert_eq!(routes(&text(&fl)).len(), 1);
    assert!(refused(&["flist", "route", "add", &text(&fl), "host/store"]).contains("host/store"));
    ok(&["flist", "verify", &text(&fl)]);
    drop(server);
    node.finish();
}
