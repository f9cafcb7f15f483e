//! A user limited to one namespace gets nothing of the host but what its rule names: each attack beside what is allowed.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::thread;

use contd_failpoint::{Failpoint, ORDER, STRUCK};
use nix::sys::signal::Signal;

use crate::harness::limited_user::{GID, LimitedUser, UID, open_node};
use crate::harness::{Flist, Netns, Node, eventually};

/// Each runtime: ours and an OCI one, which find the sources by the bundle.
const RUNTIMES: [&str; 2] = ["native", "runc"];
const BOTH: &str = "runtimes = [\"native\", \"runc\"]\n";

#[test]
fn binds_come_from_below_the_rule_and_from_nowhere_else() {
    let user = LimitedUser::new();
    let node = user.node(&format!("{BOTH}binds = [\"HOME/data\", \"HOME/shared:ro\"]"));
    let data = user.path("data");
    symlink("/etc", user.home.join("data/out")).expect("link");
    symlink("/proc/self/root", user.home.join("data/magic")).expect("link");
    fs::create_dir(user.home.join("data-of-another")).expect("make");
    for (source, what) in [
        ("/".to_owned(), "a mount of /"),
        ("/etc".to_owned(), "a mount of /etc"),
        (format!("{data}-of-another"), "a mount of"),
        (format!("{data}/out"), "must not lead out of"),
        (format!("{data}/out/passwd"), "must not lead out of"),
        (format!("{data}/magic"), "must not lead out of"),
    ] {
        let key = if what.contains("lead out") { "without a symlink" } else { "binds" };
        user.is_refused(&node, &["-v", &format!("{source}:/h")], what, key);
    }
    user.is_refused(&node, &["-v", &format!("{}:/h", user.path("shared"))], "read-only", "binds");
    for runtime in RUNTIMES {
        let (own, shared) = (format!("{data}:/d"), format!("{}:/s:ro", user.path("shared")));
        let flags = ["--runtime", runtime, "-v", &own, "-v", &shared];
        let script = "cat /s/file; echo x 2>/dev/null > /s/new || echo refused; echo $0 > /d/made; cat /d/made";
        assert_eq!(user.inside(&node, &flags, script), "shared\nrefused\n/bin/sh", "{runtime}");
        fs::remove_file(user.home.join("data/made")).expect("written on the host");
        // A single file, too.
        let file = format!("{}:/one:ro", user.path("shared/file"));
        assert_eq!(user.inside(&node, &["--runtime", runtime, "-v", &file], "cat /one"), "shared", "{runtime}");
    }
    node.finish();
}

#[test]
fn a_source_that_is_swapped_for_a_link_between_check_and_mount_changes_nothing() {
    let user = LimitedUser::new();
    let node = user.node(&format!("{BOTH}binds = [\"HOME/data\"]"));
    let daemon = node.daemon_pid().cast_signed();
    for runtime in RUNTIMES {
        let (source, moved) = (user.home.join("data/source"), user.home.join("data/moved"));
        fs::create_dir(&source).expect("make");
        fs::write(source.join("mine"), "mine\n").expect("write");
        let order = format!("{} stop", Failpoint::MakeRootPrepared.name());
        fs::write(node.root.join("run").join(ORDER), order).expect("order");
        let said = thread::scope(|scope| {
            let bind = format!("{}:/d", source.display());
            let (user, node) = (&user, &node);
            let run = scope.spawn(move || user.inside(node, &["--runtime", runtime, "-v", &bind], "ls /d"));
            eventually("the daemon to stand still", || {
                let stat = fs::read_to_string(format!("/proc/{daemon}/stat")).expect("the daemon lives");
                let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
                (state == Some('T')).then_some(())
            });
            // Checked and attached; the bundle is not written yet. Now the path means something else.
            fs::rename(&source, &moved).expect("move");
            symlink("/etc", &source).expect("link");
            node.signal(daemon, Signal::SIGCONT);
            run.join().expect("it runs")
        });
        assert_eq!(said, "mine", "{runtime}");
        fs::remove_file(node.root.join("run").join(STRUCK)).expect("it was struck");
        fs::remove_file(&source).expect("remove");
        fs::remove_dir_all(&moved).expect("remove");
    }
    node.finish();
}

#[test]
fn each_start_is_checked_again_by_the_path_and_by_the_rules_of_the_day() {
    let user = LimitedUser::new();
    let mut node = user.node("binds = [\"HOME/data\"]");
    let source = user.home.join("data/source");
    fs::create_dir(&source).expect("make");
    let (bind, flist) = (format!("{}:/d", source.display()), user.flist());
    user.contd(&node, ["run", "-d", "--name", "web", "-v", &bind, &flist, "/bin/sleep", "1000"]).ok();
    // The rule goes; the container runs on, through the restart of the daemon.
    node.stop_daemon();
    let config = fs::read_to_string(node.root.join("config.toml")).expect("read");
    let without: String =
        config.lines().filter(|line| !line.starts_with("binds")).flat_map(|line| [line, "\n"]).collect();
    fs::write(node.root.join("config.toml"), without).expect("write");
    node.start_daemon();
    assert_eq!(node.inspect_in("t", "web")["status"], "running");
    let update = user.contd(&node, ["update", "--restart", "always", "web"]);
    assert!(update.code != 0 && update.stderr.contains("a mount of"), "{}", update.stderr);
    user.contd(&node, ["stop", "-t", "0", "web"]).ok();
    let start = user.contd(&node, ["start", "web"]);
    assert!(
        start.code != 0 && start.stderr.contains("a mount of") && start.stderr.contains("binds"),
        "{}",
        start.stderr
    );
    // Root starts it, and what it has is still judged by its user's rules.
    let start = node.contd(["start", "--namespace", "t", "web"]);
    assert!(start.code != 0 && start.stderr.contains("a mount of"), "{}", start.stderr);
    // The rule comes back; the path has become a link.
    node.stop_daemon();
    fs::write(node.root.join("config.toml"), config).expect("write");
    node.start_daemon();
    fs::remove_dir(&source).expect("remove");
    symlink("/etc", &source).expect("link");
    let start = user.contd(&node, ["start", "web"]);
    assert!(start.code != 0 && start.stderr.contains("must not lead out of"), "{}", start.stderr);
    fs::remove_file(&source).expect("remove");
    fs::create_dir(&source).expect("make");
    user.contd(&node, ["start", "web"]).ok();
    user.contd(&node, ["rm", "-f", "-t", "0", "web"]).ok();
    node.finish();
}

#[test]
fn roots_of_others_are_neither_run_nor_copied() {
    let user = LimitedUser::new();
    let node = user.node("");
    // Below the rule's directory, and root's alone.
    let secret = user.home.join("flists/secret.fl");
    fs::copy(user.flist(), &secret).expect("copy");
    fs::OpenOptions::new().append(true).open(&secret).expect("open").write_all(b"secret").expect("write");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("mode");
    let shown = secret.display().to_string();
    user.is_refused_with(&node, &[], &shown, "open", "your own rights");
    let cache = node.root.join("cache/fl");
    let copies = fs::read_dir(&cache).map_or(0, Iterator::count);
    assert_eq!(copies, 0, "it was copied before it was looked at");
    // Elsewhere, by a link, as a plain directory, from this machine's own services.
    fs::copy(user.flist(), user.home.join("data/own.fl")).expect("copy");
    symlink(user.home.join("data/own.fl"), user.home.join("flists/link.fl")).expect("link");
    user.is_refused_with(&node, &[], &user.path("data/own.fl"), "flist", "flists");
    user.is_refused_with(&node, &[], &user.path("flists/link.fl"), "must not lead out of", "without a symlink");
    user.is_refused_with(&node, &[], "dir:/etc", "dir:/etc", "flists");
    user.is_refused_with(&node, &[], "http://127.0.0.1:9/x.fl", "http://127.0.0.1:9/x.fl", "flists");
    // Its own, which only it can read.
    let own = user.home.join("flists/own.fl");
    fs::copy(user.flist(), &own).expect("copy");
    chown(&own, Some(UID), Some(GID)).expect("chown");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o400)).expect("mode");
    user.contd(&node, ["run", "--rm", own.to_str().expect("utf-8"), "/bin/true"]).ok();
    node.finish();
}

#[test]
fn a_plain_directory_is_given_by_a_rule_and_opened_with_the_users_rights() {
    let user = LimitedUser::new();
    let tree = user.home.join("roots/tree");
    crate::harness::busybox_tree(&tree);
    let config = user.config("").replace("flists\"]", &format!("flists\", \"dir:{}\"]", user.path("roots")));
    let node = open_node(&config);
    let dir = format!("dir:{}", tree.display());
    assert_eq!(user.contd(&node, ["run", "--rm", &dir, "/bin/echo", "in"]).ok(), "in");
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o700)).expect("mode");
    user.is_refused_with(&node, &[], &dir, "open", "your own rights");
    node.finish();
}

/// A web server that gives a file at `/ok/`, and redirects to what follows `/to/`.
fn serve(flist: &Path) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let (port, body) = (listener.local_addr().expect("address").port(), fs::read(flist).expect("read"));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 2048];
            let count = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..count]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
            let head = match path.strip_prefix("/ok/to/") {
                Some(target) => format!(
                    "HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                ),
                None => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len()),
            };
            let _gone = stream.write_all(head.as_bytes());
            if !head.contains("302") {
                let _gone = stream.write_all(&body);
            }
        }
    });
    port
}

#[test]
fn urls_are_those_of_the_rule_also_after_a_redirect() {
    let user = LimitedUser::new();
    let (allowed, other) = (serve(Path::new(&user.flist())), serve(Path::new(&user.flist())));
    let config = user.config("").replace("flists\"]", &format!("flists\", \"http://127.0.0.1:{allowed}/ok\"]"));
    let node = open_node(&config);
    let base = format!("http://127.0.0.1:{allowed}/ok");
    for good in [format!("{base}/x.fl"), format!("{base}/to//ok/x.fl")] {
        assert_eq!(user.contd(&node, ["run", "--rm", &good, "/bin/echo", "in"]).ok(), "in", "{good}");
    }
    for evil in [
        format!("http://127.0.0.1:{allowed}/other/x.fl"),
        format!("http://127.0.0.1:{allowed}/okay/x.fl"),
        format!("{base}/../secret.fl"),
        format!("{base}/%2e%2e/secret.fl"),
        format!("http://127.0.0.1:{other}/ok/x.fl"),
        format!("http://localhost:{allowed}/ok/x.fl"),
        format!("http://127.0.0.1:{allowed}@127.0.0.1:{other}/ok/x.fl"),
    ] {
        user.is_refused_with(&node, &[], &evil, "may not have the flist", "flists");
    }
    for target in
        [format!("http://127.0.0.1:{other}/ok/x.fl"), "/secret.fl".to_owned(), "//127.0.0.1:1/ok/x".to_owned()]
    {
        let url = format!("{base}/to/{target}");
        user.is_refused_with(&node, &[], &url, "no rule of this user allows what it redirects to", "flists");
    }
    node.finish();
}

#[test]
fn routes_of_a_users_flist_lead_to_no_folder_outside_of_its_rule() {
    let user = LimitedUser::new();
    let node = user.node("");
    // Packed by somebody else, with its blocks where the rule does not reach.
    let outside = user.home.join("data/packed");
    fs::create_dir(&outside).expect("make");
    let tree = user.home.join("roots/tree");
    crate::harness::busybox_tree(&tree);
    fs::write(tree.join("etc/name"), "other").expect("write");
    let packed = Flist::pack_as("other", &outside, &tree);
    let inside = user.home.join("flists/other.fl");
    fs::copy(&packed.path, &inside).expect("copy");
    let shown = inside.display().to_string();
    let refused = user.contd(&node, ["run", "--rm", &shown, "/bin/cat", "/etc/name"]);
    assert_ne!(refused.code, 0, "it read {}", refused.stdout);
    // Root's own container of the same flist has another server, and all its routes.
    assert_eq!(node.contd(["run", "--rm", &shown, "/bin/cat", "/etc/name"]).ok(), "other");
    node.finish();
}

#[test]
fn uppers_are_opened_below_the_rule_and_links_in_them_are_refused() {
    let user = LimitedUser::new();
    let node = user.node(&format!("{BOTH}uppers = [\"HOME/uppers\"]"));
    user.is_refused(&node, &["--upper", "/etc"], "writable layer in /etc", "uppers");
    let own = user.home.join("uppers/own");
    fs::create_dir(&own).expect("make");
    chown(&own, Some(UID), Some(GID)).expect("chown");
    let upper = own.display().to_string();
    for runtime in RUNTIMES {
        let flags = ["--runtime", runtime, "--upper", &upper];
        assert_eq!(
            user.inside(&node, &flags, "cat /data/kept 2>/dev/null; echo kept > /data/kept; echo ok").lines().last(),
            Some("ok")
        );
        assert_eq!(fs::read_to_string(own.join("upper/data/kept")).expect("kept"), "kept\n", "{runtime}");
    }
    // Two on one would corrupt it.
    let flist = user.flist();
    user.contd(&node, ["run", "-d", "--name", "first", "--upper", &upper, &flist, "/bin/sleep", "1000"]).ok();
    let second = user.contd(&node, ["run", "--rm", "--upper", &upper, &flist, "/bin/true"]);
    assert!(second.code != 0 && second.stderr.contains("first") && second.stderr.contains(&upper), "{}", second.stderr);
    user.contd(&node, ["rm", "-f", "-t", "0", "first"]).ok();
    // Planted: the layer would be the host's own directory, and its mode be changed.
    let target = user.home.join("target");
    fs::create_dir(&target).expect("make");
    fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).expect("mode");
    for name in ["upper", "work"] {
        let planted = user.home.join("uppers").join(format!("planted-{name}"));
        fs::create_dir(&planted).expect("make");
        symlink(&target, planted.join(name)).expect("link");
        let path = planted.display().to_string();
        let refused = user.contd(&node, ["run", "--rm", "--upper", &path, &flist, "/bin/true"]);
        assert_ne!(refused.code, 0, "{name} was followed");
        assert_eq!(fs::read_dir(&target).expect("list").count(), 0, "{name}");
        assert_eq!(fs::metadata(&target).expect("look").mode() & 0o777, 0o755, "{name}");
    }
    symlink("/", user.home.join("uppers/root")).expect("link");
    let out = user.path("uppers/root");
    let refused = user.contd(&node, ["run", "--rm", "--upper", &out, &flist, "/bin/true"]);
    assert!(refused.code != 0 && refused.stderr.contains("must not lead out of"), "{}", refused.stderr);
    node.finish();
}

#[test]
fn what_else_makes_a_container_more_than_its_user_is_given_by_name() {
    let user = LimitedUser::new();
    let (mine, theirs) = (Netns::new("mine"), Netns::new("theirs"));
    let rule =
        format!("networks = [\"{}\"]\nmax_memory = \"64m\"\nmax_rootfs_size = \"8m\"\nmax_cpus = 0.5", mine.name);
    let node = user.node(&rule);
    let data = user.path("data");
    let travelling = format!("{data}:/d:rshared");
    for (flags, what, key) in [
        (vec!["--elevated"], "elevated", "elevated = true"),
        (vec!["--net", &theirs.name], "the network", "networks"),
        (vec!["--runtime", "runc"], "the runtime", "runtimes"),
        (vec!["--rootfs-propagation", "shared"], "travel", "root's"),
        (vec!["--rootfs-propagation", "slave"], "travel", "root's"),
        (vec!["-v", &travelling], "rshared", "root's"),
        (vec!["-m", "65m"], "memory", "max_memory"),
        (vec!["--cpus", "1"], "CPU", "max_cpus"),
        (vec!["--pids-limit", "100000"], "processes", "max_pids"),
        (vec!["--rootfs-size", "9m"], "writable layer", "max_rootfs_size"),
    ] {
        user.is_refused(&node, &flags, what, key);
    }
    let flags = ["--net", &mine.name, "-m", "64m", "--cpus", "0.5", "--layer", "memory"];
    let seen = user.inside(&node, &flags, "ip -o -4 addr show test0");
    assert!(seen.contains("10.99.0.1"), "{seen}");
    // A limit that is left out is at most what the rule gives.
    let flist = user.flist();
    user.contd(&node, ["create", "--name", "plain", "--layer", "memory", &flist, "/bin/true"]).ok();
    let shown = node.inspect_in("t", "plain");
    assert_eq!(
        (&shown["memory_bytes"], &shown["rootfs_size_bytes"]),
        (&(64 << 20).into(), &(8 << 20).into()),
        "{shown}"
    );
    user.contd(&node, ["rm", "plain"]).ok();
    node.finish();
}

#[test]
fn a_user_has_as_many_containers_as_its_rule_says_over_all_namespaces() {
    let user = LimitedUser::new();
    let config = user.config("max_containers = 2").replace("[\"t\"]", "[\"t\", \"u\"]");
    let mut node = open_node(&config);
    let flist = user.flist();
    let create = |node: &Node, namespace: &str, name: &str| {
        user.contd(node, ["create", "--namespace", namespace, "--name", name, &flist, "/bin/true"])
    };
    create(&node, "t", "one").ok();
    create(&node, "u", "two").ok();
    let refused = create(&node, "t", "three");
    assert!(
        refused.code != 0 && refused.stderr.contains("has 2 containers, the most that its rule allows"),
        "{refused:?}"
    );
    // They count for the next daemon, too; and root's do not.
    node.stop_daemon();
    node.start_daemon();
    node.contd(["create", "--namespace", "t", "--name", "roots", &flist, "/bin/true"]).ok();
    assert!(create(&node, "u", "three").stderr.contains("has 2 containers"));
    user.contd(&node, ["rm", "one"]).ok();
    create(&node, "u", "three").ok();
    for (namespace, name) in [("t", "roots"), ("u", "two"), ("u", "three")] {
        user.contd(&node, ["rm", "--namespace", namespace, name]).ok();
    }
    node.finish();
}

#[test]
fn what_root_has_made_in_its_namespace_a_user_stops_and_does_not_start() {
    let user = LimitedUser::new();
    let node = user.node("");
    let flist = user.flist();
    node.contd(["run", "-d", "--namespace", "t", "--name", "roots", "-v", "/etc:/h", &flist, "/bin/sleep", "1000"])
        .ok();
    let update = user.contd(&node, ["update", "--restart", "always", "roots"]);
    assert!(update.code != 0 && update.stderr.contains("a mount of /etc"), "{}", update.stderr);
    user.contd(&node, ["stop", "-t", "0", "roots"]).ok();
    let start = user.contd(&node, ["start", "roots"]);
    assert!(start.code != 0 && start.stderr.contains("a mount of /etc"), "{}", start.stderr);
    node.contd(["start", "--namespace", "t", "roots"]).ok();
    node.contd(["rm", "--namespace", "t", "-f", "-t", "0", "roots"]).ok();
    // The audit names the rule.
    user.inside(&node, &[], "true");
    let log = node.daemon_log();
    let audited = log.lines().any(|line| line.contains("verb=\"run\"") && line.contains("rule=\"user\""));
    assert!(audited, "{log}");
    node.finish();
}
