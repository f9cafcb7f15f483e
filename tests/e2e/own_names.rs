//! The surroundings that an image counts on in its container: its own `/run`, loopback, its names, enough descriptors, users.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use crate::harness::{Flist, Netns, Node, busybox_tree};

const RUNTIMES: [&str; 2] = ["native", "runc"];

/// Packs a busybox tree that `change` has changed.
fn packed(node: &Node, name: &str, change: impl FnOnce(&std::path::Path)) -> String {
    let input = node.root.join("input");
    busybox_tree(&input.join(name));
    change(&input.join(name));
    Flist::pack_as(name, &input, &input.join(name)).arg().to_owned()
}

#[track_caller]
fn said(node: &Node, runtime: &str, flags: &[&str], flist: &str, script: &str) -> String {
    let fixed = ["run", "--rm", "--runtime", runtime];
    node.contd(fixed.iter().chain(flags).chain(&[flist, "/bin/sh", "-c", script])).ok().to_owned()
}

#[test]
fn what_the_image_has_in_run_is_there() {
    let node = Node::start();
    let flist = packed(&node, "server", |tree| {
        let dir = tree.join("run/mysqld");
        fs::create_dir_all(&dir).expect("make a directory");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).expect("mode");
        chown(&dir, Some(999), Some(998)).expect("owner");
        fs::create_dir_all(tree.join("var")).expect("var");
        symlink("/run", tree.join("var/run")).expect("link");
    });
    for runtime in RUNTIMES {
        let script = "stat -c '%a %u %g' /run/mysqld; touch /var/run/mysqld/lock /run/pid; ls /run; grep -c ' /run ' /proc/mounts";
        assert_eq!(
            said(&node, runtime, &["-u", "999"], &flist, &format!("{script} || true")),
            "1777 999 998\nmysqld\n0",
            "{runtime}"
        );
    }
    node.finish();
}

#[test]
fn a_container_reaches_itself_by_loopback() {
    let node = Node::start();
    let flist = node.flist();
    for runtime in RUNTIMES {
        let addresses = said(&node, runtime, &[], flist.arg(), "ip -o -4 addr show lo; ip -o link show lo");
        assert!(addresses.contains("127.0.0.1/8") && addresses.contains("UP"), "{runtime}: {addresses}");
    }
    node.finish();
}

#[test]
fn a_container_knows_localhost_and_itself_and_keeps_what_the_image_says() {
    let node = Node::start();
    let none = packed(&node, "none", |_tree| {});
    let empty = packed(&node, "empty", |tree| {
        fs::write(tree.join("etc/hosts"), "").expect("hosts");
        fs::write(tree.join("etc/hostname"), "").expect("hostname");
    });
    let own = packed(&node, "own", |tree| fs::write(tree.join("etc/hosts"), "192.0.2.1 mine\n").expect("hosts"));
    let outside = node.root.join("input/outside");
    fs::write(&outside, "").expect("write");
    let linked = packed(&node, "linked", |tree| symlink(&outside, tree.join("etc/hosts")).expect("link"));
    let own_hostname = "[ \"$(cat /etc/hostname)\" = \"$(hostname)\" ] && echo known";
    let script = &format!("grep -q -w localhost /etc/hosts && grep -q -w \"$(hostname)\" /etc/hosts && {own_hostname}");
    let known = "known";
    for runtime in RUNTIMES {
        for image in [&none, &empty] {
            for flags in [&[][..], &["--read-only"], &["-u", "1000"]] {
                assert_eq!(said(&node, runtime, flags, image, script), known, "{runtime} {flags:?}");
            }
        }
        assert_eq!(
            said(&node, runtime, &[], &own, &format!("cat /etc/hosts; {own_hostname}")),
            "192.0.2.1 mine\nknown",
            "{runtime}"
        );
        assert_eq!(said(&node, runtime, &["--read-only"], &own, "cat /etc/hosts"), "192.0.2.1 mine", "{runtime}");
        said(&node, runtime, &[], &linked, "true");
        let mine = format!("-v={}:/etc/hosts", node.root.join("input/mine").display());
        fs::write(node.root.join("input/mine"), "192.0.2.2 given\n").expect("write");
        for flags in [&[&*mine][..], &[&*mine, "--read-only"]] {
            assert_eq!(said(&node, runtime, flags, &empty, "cat /etc/hosts"), "192.0.2.2 given", "{runtime}");
        }
    }
    assert_eq!(fs::read_to_string(&outside).expect("outside"), "");
    node.finish();
}

#[test]
fn what_a_container_writes_about_names_stays_over_its_restart() {
    let node = Node::start();
    let flist = node.flist();
    node.contd([
        "run",
        "--name",
        "web",
        flist.arg(),
        "/bin/sh",
        "-c",
        "echo 192.0.2.3 db >> /etc/hosts; grep -c db /etc/hosts",
    ])
    .ok();
    node.contd(["start", "web"]).ok();
    node.contd(["wait", "web"]).ok();
    assert_eq!(node.contd(["logs", "web"]).ok().lines().last(), Some("2"));
    node.contd(["rm", "web"]).ok();
    node.finish();
}

#[test]
fn the_callers_names_arrive_whatever_the_image_has() {
    let node = Node::start();
    let none = packed(&node, "none", |_tree| {});
    let own = packed(&node, "own", |tree| {
        fs::write(tree.join("etc/hosts"), "192.0.2.1 mine\n").expect("hosts");
        symlink("../run/systemd/resolve/stub-resolv.conf", tree.join("etc/resolv.conf")).expect("link");
    });
    let flags = [
        "--hostname",
        "front.example",
        "--add-host",
        "db:192.0.2.7",
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "example",
        "--dns-opt",
        "ndots:2",
    ];
    let script = "hostname; cat /etc/hostname; tail -n 2 /etc/hosts; cat /etc/resolv.conf";
    let expected = "front.example\nfront.example\n127.0.0.1\tfront.example\n192.0.2.7\tdb\nnameserver 192.0.2.53\nsearch example\noptions ndots:2";
    for runtime in RUNTIMES {
        for image in [&none, &own] {
            assert_eq!(said(&node, runtime, &flags, image, script), expected, "{runtime}");
        }
    }
    for (flag, bad) in
        [("--add-host", "db:host-gateway"), ("--dns", "one"), ("--dns-opt", "a b"), ("--hostname", "a_b")]
    {
        node.contd(["run", "--rm", flag, bad, &none, "/bin/true"]).fails_with(125, bad);
    }
    node.finish();
}

/// The configuration of a named network; removed with it, also when a test fails.
struct Configured(std::path::PathBuf);

impl Drop for Configured {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
        // Unless others are configured there.
        drop(fs::remove_dir("/etc/netns"));
    }
}

#[test]
fn in_a_named_network_the_resolver_is_that_networks_own() {
    let node = Node::start();
    let netns = Netns::new("resolver");
    let configured = Configured(std::path::Path::new("/etc/netns").join(&netns.name));
    fs::create_dir_all(&configured.0).expect("made");
    fs::write(configured.0.join("resolv.conf"), "nameserver 192.0.2.99\n").expect("written");
    let flist = node.flist();
    for runtime in RUNTIMES {
        let of = |flags: &[&str]| said(&node, runtime, flags, flist.arg(), "cat /etc/resolv.conf 2>/dev/null || true");
        assert_eq!(of(&["--net", &netns.name]), "nameserver 192.0.2.99", "{runtime}");
        assert_eq!(of(&["--net", &netns.name, "--dns", "192.0.2.1"]), "nameserver 192.0.2.1", "{runtime}");
        assert_eq!(of(&[]), "", "{runtime}: alone, it reaches nobody whom it could ask");
    }
    drop(configured);
    node.finish();
}

#[test]
fn open_files_are_not_held_at_1024_and_a_site_with_many_accounts_runs() {
    let node = Node::start();
    let flist = packed(&node, "site", |tree| {
        let mut passwd = fs::read_to_string(tree.join("etc/passwd")).expect("passwd");
        for n in 1..40_000 {
            passwd +=
                &format!("account{n}:x:1{n}:1{n}:A user of this site with a long name,,,:/home/account{n}:/bin/sh\n");
        }
        fs::write(tree.join("etc/passwd"), passwd).expect("passwd");
    });
    for runtime in RUNTIMES {
        for (flags, id) in
            [(&[][..], "0 /root"), (&["-u", "5:5"], "5 /"), (&["-u", "account39999"], "139999 /home/account39999")]
        {
            assert_eq!(said(&node, runtime, flags, &flist, "echo $(id -u) $HOME"), id, "{runtime} {flags:?}");
        }
        let limit: u64 = said(&node, runtime, &[], &flist, "ulimit -H -n").parse().expect("a number");
        let own = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("getrlimit").1;
        assert!(limit >= own.min(contd_bundle::NOFILE_LIMIT), "{runtime}: {limit}, the node has {own}");
    }
    node.finish();
}
