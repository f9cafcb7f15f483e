//! Bad input gets a typed error with a hint, leaves nothing behind, and the daemon lives.

use std::fs;
use std::path::PathBuf;

use crate::harness::{Flist, Node};

/// The code of an engine error on `run`.
const ENGINE: i32 = 125;

#[test]
fn what_cannot_be_run_says_why_and_leaves_nothing() {
    let mut node = Node::start();
    node.announce("run rolled back");
    let flist = node.flist();
    let fl = flist.arg();
    let missing = node.root.join("input/none.fl").display().to_string();
    let garbage = node.root.join("input/garbage.fl");
    fs::write(&garbage, "this is not SQLite").expect("write");
    let garbage = garbage.display().to_string();
    let cases: [(i32, &str, Vec<&str>); 13] = [
        (ENGINE, "none.fl", vec![&missing, "/bin/true"]),
        (ENGINE, "garbage.fl", vec![&garbage, "/bin/true"]),
        (ENGINE, "127.0.0.1:1", vec!["http://127.0.0.1:1/x.fl", "/bin/true"]),
        (ENGINE, "ftp://", vec!["ftp://host/x.fl", "/bin/true"]),
        (ENGINE, "/no/such/dir", vec!["dir:/no/such/dir", "/bin/true"]),
        (127, "/no/such/program", vec![fl, "/no/such/program"]),
        (126, "/etc/not-a-program", vec![fl, "/etc/not-a-program"]),
        (ENGINE, "entrypoint", vec![fl]),
        (ENGINE, "no-such-netns", vec!["--net", "no-such-netns", fl, "/bin/true"]),
        (ENGINE, "/no/such/source", vec!["-v", "/no/such/source:/data", fl, "/bin/true"]),
        (ENGINE, "nobody-here", vec!["-u", "nobody-here", fl, "/bin/true"]),
        (ENGINE, "memory", vec!["-m", "1k", fl, "/bin/true"]),
        (ENGINE, "/proc", vec!["--mount", "type=tmpfs,dst=/proc/x", fl, "/bin/true"]),
    ];
    for (code, what, args) in cases {
        let output = node.contd(["run", "--name", "bad"].iter().chain(&args));
        output.fails_with(code, what);
        assert_eq!(node.contd(["ps", "-a", "-q"]).ok(), "", "after {args:?}");
    }
    assert_eq!(node.contd(["run", "--rm", "--name", "bad", fl, "/bin/echo", "good"]).ok(), "good");
    node.finish();
}

#[test]
fn names_that_climb_are_refused_everywhere() {
    let node = Node::start();
    let flist = node.flist();
    for bad in ["../x", "..", "a/b", ".hidden", "-x", ""] {
        let named = format!("--name={bad}");
        let output = node.contd(["run", &named, flist.arg(), "/bin/true"]);
        assert!(output.code != 0 && !output.stderr.is_empty(), "run --name {bad:?}: {output:?}");
        let net = format!("--net={bad}");
        let output = node.contd(["run", &net, flist.arg(), "/bin/true"]);
        assert!(output.code != 0 && !output.stderr.is_empty(), "run --net {bad:?}: {output:?}");
        for verb in ["inspect", "stop", "kill", "rm", "logs", "wait", "start"] {
            let output = node.contd([verb, "--", bad]);
            assert!(output.code != 0 && !output.stderr.is_empty(), "{verb} {bad:?}: {output:?}");
        }
        let namespace = format!("--namespace={bad}");
        assert!(node.contd([namespace.as_str(), "ps"]).code != 0, "-n {bad:?}");
    }
    node.finish();
}

#[test]
fn a_name_is_taken_until_its_container_is_removed() {
    let mut node = Node::start();
    node.announce("run rolled back");
    let flist = node.flist();
    node.contd(["run", "--name", "one", flist.arg(), "/bin/true"]).ok();
    node.contd(["run", "--name", "one", flist.arg(), "/bin/true"]).fails_with(ENGINE, "one");
    node.contd(["rm", "one"]).ok();
    node.contd(["run", "--rm", "--name", "one", flist.arg(), "/bin/true"]).ok();
    node.finish();
}

#[test]
fn a_missing_block_is_an_error_in_its_own_container_only() {
    let mut node = Node::start();
    node.announce("block");
    let (flist, victim) = flist_with_victim(&node);
    fs::remove_file(&victim).expect("remove a block");
    node.contd(["run", "-d", "--name", "bystander", flist.arg(), "/bin/sleep", "1000"]).ok();
    let output = node.contd(["run", "--rm", flist.arg(), "/bin/cat", "/data/victim"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("Input/output error"), "{output:?}");
    assert_eq!(node.inspect("bystander")["status"], "running");
    node.contd(["rm", "-f", "-t", "0", "bystander"]).ok();
    node.finish();
}

#[test]
fn an_unreachable_store_is_an_error_with_a_hint_and_leaves_nothing() {
    let mut node = Node::start();
    node.announce("run rolled back");
    node.announce("block");
    let flist = node.flist();
    let database = rusqlite::Connection::open(&flist.path).expect("open the flist");
    database.execute("UPDATE route SET url = 'http://127.0.0.1:1/'", []).expect("rewrite the route");
    drop(database);
    node.contd(["run", "--name", "far", flist.arg(), "/bin/true"]).fails_with(ENGINE, "Input/output error");
    assert_eq!(node.contd(["ps", "-a", "-q"]).ok(), "");
    node.finish();
}

#[test]
fn an_entrypoint_whose_block_is_gone_is_named() {
    let mut node = Node::start();
    node.announce("run rolled back");
    node.announce("block");
    let flist = node.flist();
    // Only busybox has blocks of this size; the passwd file stays whole.
    let blocks = blocks_of(&flist).into_iter().filter(|(_, len)| *len > 50_000);
    blocks.for_each(|(path, _)| fs::remove_file(path).expect("remove a block"));
    node.contd(["run", "--name", "gone", flist.arg(), "true"]).fails_with(ENGINE, "read the entrypoint /bin/true");
    assert_eq!(node.contd(["ps", "-a", "-q"]).ok(), "");
    node.finish();
}

#[test]
fn a_corrupt_block_is_an_error_and_never_wrong_bytes() {
    let mut node = Node::start();
    node.announce("block");
    let (flist, victim) = flist_with_victim(&node);
    let mut bytes = fs::read(&victim).expect("read the block");
    bytes[3] ^= 1;
    fs::write(&victim, bytes).expect("alter the block");
    let output = node.contd(["run", "--rm", flist.arg(), "/bin/cat", "/data/victim"]);
    assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{output:?}");
    node.finish();
}

/// Packs a busybox tree with a file `/data/victim`, and returns where the one block of that file is stored.
fn flist_with_victim(node: &Node) -> (Flist, PathBuf) {
    let tree = node.root.join("input/tree");
    crate::harness::busybox_tree(&tree);
    fs::write(tree.join("data/victim"), "content of the victim\n").expect("write");
    let flist = Flist::pack(&node.root.join("input"), &tree);
    let victim = smallest_block(&flist);
    (flist, victim)
}

/// Finds the stored block of the victim: the only one of 22 plain bytes, which sealed are 2 + 22 + 16.
fn smallest_block(flist: &Flist) -> PathBuf {
    let mut found: Vec<PathBuf> =
        blocks_of(flist).into_iter().filter(|(_, len)| *len == 2 + 22 + 16).map(|(path, _)| path).collect();
    assert_eq!(found.len(), 1, "the victim's block");
    found.remove(0)
}

/// Lists the stored blocks with their sizes.
fn blocks_of(flist: &Flist) -> Vec<(PathBuf, u64)> {
    let mut dirs = vec![flist.store.clone()];
    let mut found = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("read the store").flatten() {
            if entry.file_type().expect("type").is_dir() {
                dirs.push(entry.path());
            } else {
                found.push((entry.path(), entry.metadata().expect("metadata").len()));
            }
        }
    }
    found
}

#[test]
fn without_a_daemon_the_command_says_how_to_start_one() {
    let mut node = Node::start();
    node.stop_daemon();
    node.contd(["ps"]).fails_with(1, "contd.sock");
    node.start_daemon();
    node.finish();
}

#[test]
fn a_second_daemon_on_the_same_directory_is_refused_when_told_so() {
    let node = Node::start();
    let output = node.daemon_command().arg("--no-takeover").output().expect("run the daemon");
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("another contd daemon") && stderr.contains("hint: "), "{stderr}");
    assert_eq!(node.contd(["version"]).code, 0);
    node.finish();
}
